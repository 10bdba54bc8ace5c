"""From a credential and an HTTP request to who acts, through what, when, and under which ids."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from api.conditions import expected_version, idempotency_key
from api.framing import REQUEST_ID
from api.headers import stated
from commands.request import Caller, Request
from domain.event import Channel, Role

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest

    from storage.credentials import Credential

LONGEST_CLIENT_NAME: Final = 200


def caller(request: HttpRequest, credential: Credential) -> Caller:
    """Describe who calls."""
    name = (stated(request.scope, b"user-agent") or [""])[0]
    return _caller(credential, name, request.client.host if request.client is not None else None)


@lru_cache(maxsize=10_000)
def _caller(credential: Credential, name: str, address: str | None) -> Caller:
    name = name[:LONGEST_CLIENT_NAME]
    return Caller(
        credential_id=credential.id,
        role=Role(credential.role),
        actor_id=credential.actor_id,
        team_ids=credential.team_ids,
        channel=Channel.API,
        client="".join(character for character in name if character.isprintable()) or None,
        source_address=address,
        scopes=credential.scopes,
    )


def circumstances(request: HttpRequest, credential: Credential, size: int) -> Request:
    """Describe the circumstances of a command of `size` bytes. Raises Problem malformed-request."""
    return Request(
        caller=caller(request, credential),
        at=datetime.now(UTC),
        command_id=uuid4(),
        correlation_id=request.scope[REQUEST_ID],
        expected_version=expected_version(request),
        key=idempotency_key(request),
        size=size,
    )
