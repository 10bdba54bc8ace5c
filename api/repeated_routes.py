"""Lists that screens ask for again and again: what a query string was found to mean is remembered."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from api.access import CREDENTIAL, GuardedRoute

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from api.access import Handler

QUERIES_HELD: Final = 2_000
LONGEST_HELD: Final = 500  # bytes of a query string: those with a cursor are asked once


class RepeatedRoute(GuardedRoute):
    """A guarded route whose endpoint takes `request`, `credential`, and what follows from the query string alone.

    The framework reads and checks a query string the first time; asked again, it goes to the endpoint at once, with the
    same values. So nothing is checked in two ways.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Make the route as the framework does."""
        self._held: dict[bytes, dict[str, Any]] = {}

        @wraps(endpoint)
        async def noting(*, request: Request, credential: Any, **values: Any) -> Response:
            self._note(request.scope["query_string"], values)
            response: Response = await endpoint(request=request, credential=credential, **values)
            return response

        self._direct = endpoint
        super().__init__(path, noting, **options)

    def knows(self, query: bytes) -> bool:
        """Tell whether `direct_handler` can serve a query string."""
        return query in self._held

    def direct_handler(self) -> Handler:
        """Give what checks the caller and serves a known query string with nothing in between."""

        async def serve(request: Request) -> Response:
            values = self._held[request.scope["query_string"]]
            response: Response = await self._direct(request=request, credential=request.scope[CREDENTIAL], **values)
            return response

        return self.guarding(serve)

    def _note(self, query: bytes, values: dict[str, Any]) -> None:
        if len(query) <= LONGEST_HELD:
            while len(self._held) >= QUERIES_HELD:
                del self._held[next(iter(self._held))]
            self._held[query] = values
