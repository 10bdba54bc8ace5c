"""What a caller makes a request depend on: a version, a key that makes repeating it safe, a position to wait for."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from api.headers import stated
from api.problems import LOG_EPOCH_CHANGED, MALFORMED_REQUEST, Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from storage.log import Log

_VERSION_TAG = re.compile(r'"([0-9]{1,18})"\Z')
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
_POSITION = re.compile(r"([0-9]{1,18})(?:\.([A-Za-z0-9_-]{1,64}))?\Z")


class PositionToken(NamedTuple):
    """A place in the log as handed to callers; no epoch where a bare number was given."""

    position: int
    epoch: str | None

    async def checked(self, log: Log) -> int:
        """Give the position, if the log still has what its epoch had there. Raises Problem log-epoch-changed."""
        if self.epoch is not None and not await log.epochs.hold(self.position, self.epoch):
            detail = f"What was at position {self.position} in epoch {self.epoch} is not in the log any more."
            raise Problem(LOG_EPOCH_CHANGED, detail, epoch=await log.epoch())
        return self.position


def position_text(position: int, epoch: str) -> str:
    """Write a place in the log for a caller."""
    return f"{position}.{epoch}"


def parse_position(text: str) -> PositionToken:
    """Read a place in the log. Raises Problem malformed-request."""
    match = _POSITION.match(text)
    if match is None:
        raise Problem(MALFORMED_REQUEST, "A position is a number, or a number and an epoch joined by a point.")
    return PositionToken(int(match[1]), match[2])


def parse_moment(text: str) -> PositionToken | datetime | None:
    """Read a place in the log or an instant with its zone; None where it is neither."""
    if _POSITION.match(text) is not None:
        return parse_position(text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if instant.utcoffset() is None else instant


def expected_version(request: Request) -> int | None:
    """Give the version that `If-Match` asks for; None where any will do. Raises Problem malformed-request."""
    stated = _single(request, b"if-match")
    if stated is None or stated == "*":
        return None
    match = _VERSION_TAG.match(stated)
    if match is None:
        raise Problem(MALFORMED_REQUEST, 'If-Match takes one version in quotes, such as "3", or *.')
    return int(match[1])


def idempotency_key(request: Request) -> str | None:
    """Give the key that makes repeating this request safe, if any. Raises Problem malformed-request."""
    stated = _single(request, b"idempotency-key")
    if stated is not None and _KEY.match(stated) is None:
        raise Problem(MALFORMED_REQUEST, "Idempotency-Key is 1 to 255 visible ASCII characters, without spaces.")
    return stated


def stated_basis(request: Request) -> PositionToken | None:
    """Give the `Log-Position` that the request carries, if any. Raises Problem malformed-request."""
    text = _single(request, b"log-position")
    return None if text is None else parse_position(text)


async def require_basis(request: Request, log: Log) -> None:
    """Refuse a command that was decided on what the log has lost since: `Log-Position` says what the caller had read.

    Versions may be given anew after a failover that lost events, so that If-Match alone may be true by accident. Raises
    Problem malformed-request or log-epoch-changed.
    """
    basis = stated_basis(request)
    if basis is not None:
        await basis.checked(log)


def _single(request: Request, name: bytes) -> str | None:
    values = stated(request.scope, name)
    if len(values) > 1:
        raise Problem(MALFORMED_REQUEST, f"The header {name.decode()} was sent {len(values)} times.")
    return values[0].strip() if values else None
