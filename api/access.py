"""Who may do what over HTTP: credentials, and one table with a rule for every route."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from api.headers import stated
from api.problems import FORBIDDEN, UNAUTHENTICATED, Problem
from commands.catalogue import COMMANDS
from domain.event import Role
from storage import credentials
from storage.database import once_more

if TYPE_CHECKING:
    from storage.credentials import Credential
    from storage.database import Database

EVERYONE: Final = None
"""The rule of a route that needs no credential."""

Rule = frozenset[Role] | None
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_ALL: Final = frozenset(Role)
STAFF: Final = _ALL - {Role.CUSTOMER}
OVERSIGHT: Final = STAFF - {Role.AGENT}
SUPERVISION: Final = frozenset({Role.SUPERVISOR, Role.ADMINISTRATOR})

READING: Final[dict[str, Rule]] = {
    "health.live": EVERYONE,
    "health.ready": EVERYONE,
    "problems.list": EVERYONE,
    "problems.read": EVERYONE,
    "docs.page": EVERYONE,
    "docs.asset": EVERYONE,
    "docs.schema": EVERYONE,
    "ticket.read": _ALL,
    "ticket.messages": _ALL,
    "ticket.attachment": _ALL,
    "attachment.upload": _ALL - {Role.AUDITOR, Role.DEVELOPER},
    "ticket.history": STAFF,
    "ticket.sla": STAFF,
    "customer.list": STAFF,
    "customer.read": _ALL,
    "agent.list": STAFF,
    "agent.read": STAFF,
    "team.list": STAFF,
    "team.read": STAFF,
    "service_levels.read": STAFF,
    "service_levels.calendar": STAFF,
    "service_levels.hours": STAFF,
    "service_levels.policy": STAFF,
    "queue.list": STAFF,
    "queue.counts": STAFF,
    "sla.list": STAFF,
    "sla.counts": STAFF,
    "audit.list": OVERSIGHT,
    "views.list": STAFF,
    "views.rebuild": OVERSIGHT,
    "views.rebuild-events": OVERSIGHT,
    "what-if.ask": SUPERVISION,
    "what-if.list": SUPERVISION,
    "what-if.read": SUPERVISION,
    "what-if.page": SUPERVISION,
    "what-if.events": SUPERVISION,
    "what-if.cancel": SUPERVISION,
    "log.head": _ALL,
    "metrics.read": OVERSIGHT,
}
"""Operation → the roles that may call it. Commands are listed by their own registry, views by their own routers."""

_OF_VIEWS: Final[dict[str, Rule]] = {}


def rules() -> dict[str, Rule]:
    """Give the rule of every operation: from the table here, the routers of views and the registry of commands."""
    return {**READING, **_OF_VIEWS, **{f"{kind}.{name}": spec.roles for (kind, name), spec in COMMANDS.items()}}


def view_router(*operations: str, roles: Rule) -> APIRouter:
    """Make the router of a view with routes of its own; `operations` may be called by these roles.

    Raises LookupError for an operation that has a rule already.
    """
    for operation in operations:
        if operation in rules():
            message = f"there is a rule for {operation} already"
            raise LookupError(message)
        _OF_VIEWS[operation] = roles
    return APIRouter(route_class=GuardedRoute, tags=["views"])


_TOKEN = re.compile(r"desk_[a-z_]{1,32}_[A-Za-z0-9_-]{16,128}\Z")
CREDENTIAL = "desk.credential"
"""Where the credential that a route's guard accepted lies in a request's scope."""
_NOT_SENT: Final = "No credential was sent."
_SENT_TWICE: Final = "More than one credential was sent."
_NOT_OURS: Final = "The credential is not of the form `Bearer desk_…`."
_UNKNOWN: Final = "The credential is unknown, revoked or expired."
_INVALID_REQUEST: Final = ' error="invalid_request"'
_NOT_VALID: Final = ' error="invalid_token"'
_LONGEST_SAID = 512


class CredentialCheck:
    """Finds the credential a request carries; what was found is believed for a few seconds."""

    def __init__(
        self,
        database: Database,
        *,
        reading: Database | None = None,
        believed_seconds: float = 5.0,
        most_remembered: int = 10_000,
    ) -> None:
        """Look credentials up in `database`, those of reading requests first in `reading`."""
        self._database = database
        self._reading = reading
        self._believed_seconds = believed_seconds
        self._most_remembered = most_remembered
        self._remembered: dict[bytes, tuple[float, Credential]] = {}

    async def identify(self, request: Request) -> Credential:
        """Give the caller's credential. Raises Problem unauthenticated."""
        sent = stated(request.scope, b"authorization")
        if not sent:
            raise _unauthenticated(_NOT_SENT, "")
        if len(sent) > 1:
            raise _unauthenticated(_SENT_TWICE, _INVALID_REQUEST)
        scheme, _, token = sent[0].partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or len(token) > _LONGEST_SAID or _TOKEN.match(token) is None:
            raise _unauthenticated(_NOT_OURS, _INVALID_REQUEST)
        digest = hashlib.sha256(token.encode()).digest()
        now = time.monotonic()
        remembered = self._remembered.get(digest)
        if remembered is not None and remembered[0] > now:
            return remembered[1]
        credential = None
        if self._reading is not None and request.method == "GET":
            credential = await credentials.find(self._reading, token)
        if credential is None:
            credential = await credentials.find(self._database, token)
        if credential is None:
            self._remembered.pop(digest, None)
            raise _unauthenticated(_UNKNOWN, _NOT_VALID)
        self._remember(digest, now + self._believed_seconds, credential)
        return credential

    def _remember(self, digest: bytes, until: float, credential: Credential) -> None:
        self._remembered.pop(digest, None)
        while len(self._remembered) >= self._most_remembered:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = (until, credential)


def _unauthenticated(detail: str, error: str) -> Problem:
    separator = "," if error else ""
    challenge = f'Bearer realm="ledgerdesk"{separator}{error}'
    return Problem(UNAUTHENTICATED, detail, headers={"WWW-Authenticate": challenge})


class GuardedRoute(APIRoute):
    """A route that asks for its rule before anything of the request is read.

    Its operation id is its key in the table of rules; without one it cannot be made.
    """

    def unguarded(self) -> Handler:
        """Give what serves a caller that may pass."""
        return super().get_route_handler()

    def get_route_handler(self) -> Handler:
        """Check the caller, then serve."""
        return self.guarding(self.unguarded())

    def guarding(self, serve: Handler) -> Handler:
        """Give what checks the caller before `serve` does. Raises LookupError where no rule says how."""
        operation = self.operation_id
        if operation is None:
            message = f"{self.path} has no operation id, so no rule says who may call it"
            raise LookupError(message)
        known = rules()
        if operation not in known:
            message = f"no rule says who may call {operation}"
            raise LookupError(message)
        allowed = known[operation]
        if allowed is EVERYONE:
            return serve

        async def guarded(request: Request) -> Response:
            check: CredentialCheck = request.app.state.credential_check
            credential = await once_more(lambda: check.identify(request))
            if Role(credential.role) not in allowed:
                detail = f"The role {credential.role} may not do {operation}."
                raise Problem(FORBIDDEN, detail, role=credential.role, command=operation)
            request.scope[CREDENTIAL] = credential
            if request.method == "GET":
                return await once_more(lambda: serve(request))
            return await serve(request)

        return guarded


class DirectRoute(GuardedRoute):
    """A guarded route whose endpoint takes the request and gives the response, with nothing in between."""

    def unguarded(self) -> Handler:
        """Give the endpoint itself."""
        endpoint: Handler = self.endpoint
        return endpoint


async def caller_of(request: Request) -> Credential:
    """Give the credential that the route's guard accepted."""
    credential: Credential = request.scope[CREDENTIAL]
    return credential
