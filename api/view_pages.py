"""What all lists of a view have in common over HTTP: waiting for a position, pages, and the position they are true of."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Query
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import to_json
from starlette.responses import Response

from api.conditions import parse_position, position_text, stated_basis
from api.problems import POSITION_NOT_IN_LOG, SOON, VIEW_BEHIND, Problem
from projections.bookkeeping import ViewsNotReady
from projections.waiting import LOOK_SECONDS, NotReached, wait_for
from storage.database import UnknownWorkspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from api.conditions import PositionToken
    from commands.desk import Desk
    from projections.listing import Listing
    from projections.view import View
    from storage.credentials import Credential

MOST_ITEMS: Final = 200
NOT_READY_PAUSE: Final = 0.05  # seconds between two looks for a view that has no table yet
LONGEST_WAIT: Final = 5.0  # seconds; a client that has to wait longer asks again


def _one_line(text: str) -> str:
    if not text.isprintable():
        message = "contains characters that are not printable"
        raise ValueError(message)
    return text


LineText = Annotated[str, Query(max_length=200), AfterValidator(_one_line)]
Line = LineText | None
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Items a page.")]
CursorText = Annotated[
    str | None,
    Query(max_length=2000, description="`next_cursor` of the page before; it pins the list to its first page."),
]
After = Annotated[
    str | None,
    Query(
        max_length=100, description="A `Log-Position`: waits until the view includes it, so you read your own write."
    ),
]


def _span(text: Any) -> Any:
    """Read `30m`, `4h`, `2d` or `90s`; anything else is for ISO 8601 to understand. Raises ValueError."""
    found = _SPAN.fullmatch(text) if isinstance(text, str) else None
    if found is None and isinstance(text, str) and not text.startswith("P"):
        message = "a span like 30m, 4h, 2d or PT30M is wanted"
        raise ValueError(message)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else text


_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DueWithin = Annotated[
    Annotated[timedelta, BeforeValidator(_span), Field(ge=timedelta(0), le=timedelta(days=3660))] | None,
    Query(
        description="Due by so long from now, or overdue: `30m`, `4h`, `2d`, or ISO 8601 as `PT30M`. A list's further pages"
        " keep the now of its first."
    ),
]


async def reading_desk(request: Request, credential: Credential) -> Desk:
    """Give the desk that reads are answered from; where that is a standby's, it may be a little behind.

    A request that carries a `Log-Position` is kept waiting until the desk's log has it. Raises Problem
    malformed-request, log-epoch-changed, position-not-in-log or view-behind.
    """
    try:
        desk: Desk = await request.app.state.reading.of(credential.workspace)
    except UnknownWorkspace:
        desk = await request.app.state.desks.of(credential.workspace)  # made a moment ago
    basis = stated_basis(request)
    if basis is not None:
        position = await checked_position(request, desk, basis)
        deadline = time.monotonic() + request.app.state.longest_wait
        while (reached := (await desk.workspace.log.head()).position) < position:
            if time.monotonic() >= deadline:
                await _require_in_log(request, desk, position)
                detail = f"The server that reads are answered from has reached position {reached}, not {position}."
                raise Problem(VIEW_BEHIND, detail, headers=SOON, wanted=position, reached=reached)
            await asyncio.sleep(LOOK_SECONDS)
    return desk


async def known_position(request: Request, desk: Desk, text: str) -> int:
    """Give a position asked for. Raises Problem malformed-request or log-epoch-changed."""
    return await checked_position(request, desk, parse_position(text))


async def checked_position(request: Request, desk: Desk, token: PositionToken) -> int:
    """Give a position asked for, if the log still has it. Raises Problem log-epoch-changed."""
    # The log that is written to knows every epoch; a standby may not have the newest yet.
    writing: Desk = await request.app.state.desks.of(desk.workspace.name)
    return await token.checked(writing.workspace.log)


async def _require_in_log(request: Request, desk: Desk, position: int) -> None:
    writing: Desk = await request.app.state.desks.of(desk.workspace.name)
    head = (await writing.workspace.log.head()).position
    if position > head:
        detail = f"The log ends at position {head}; {position} is beyond it."
        raise Problem(POSITION_NOT_IN_LOG, detail, wanted=position, head=head)


async def wait_if_asked(request: Request, desk: Desk, view: View, after: str | None) -> None:
    """Wait until a view includes the position asked for, where one is.

    It is asked where it is read from, by looking again and again: a standby passes no notifications on. Raises Problem
    malformed-request, log-epoch-changed or position-not-in-log, NotReached, ViewsNotReady.
    """
    if after is None:
        return
    position = await known_position(request, desk, after)
    deadline = time.monotonic() + request.app.state.longest_wait
    while True:
        try:
            await wait_for(desk.workspace, view, position, max(deadline - time.monotonic(), 0.0))
        except NotReached:
            await _require_in_log(request, desk, position)
            raise
        except ViewsNotReady:
            # Whoever keeps the views up is about to make its tables.
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(NOT_READY_PAUSE)
        else:
            return


async def listed(desk: Desk, page: Listing[Any], told: Callable[[Any], dict[str, Any]]) -> Response:
    """Write a page of a list."""
    content = {
        "items": [told(item) for item in page.items],
        "position": page.position,
        "next_cursor": page.cursor,
    }
    return await true_of(desk, page.position, content)


async def true_of(desk: Desk, position: int, content: dict[str, Any]) -> Response:
    """Write an answer that is true of a position of the log."""
    headers = {"Log-Position": position_text(position, await desk.workspace.log.epoch())}
    return Response(to_json(content), headers=headers, media_type="application/json")
