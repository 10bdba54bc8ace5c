"""What a request states in its headers, found at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

_HEADERS = "desk.headers"


def stated(scope: Scope, name: bytes) -> list[str]:
    """Give every value that a request states for a header; `name` is in lower case.

    The headers are sorted out once a request: the framework's own look-up goes through all of them every time.
    """
    headers: dict[bytes, list[bytes]] | None = scope.get(_HEADERS)
    if headers is None:
        headers = scope[_HEADERS] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key, []).append(value)
    found = headers.get(name)
    return [] if found is None else [value.decode("latin-1") for value in found]
