"""What all lists of a view have in common over HTTP: waiting for a position, pages, and the position they are true of."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Query
from pydantic import AfterValidator
from pydantic_core import to_json
from starlette.responses import Response

from api.conditions import parse_position, position_text
from api.problems import POSITION_NOT_IN_LOG, Problem
from projections.bookkeeping import ViewsNotReady
from projections.waiting import NotReached, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from commands.desk import Desk
    from projections.listing import Listing
    from projections.view import View

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


async def wait_if_asked(request: Request, desk: Desk, view: View, after: str | None) -> None:
    """Wait until a view includes the position asked for, where one is.

    Raises Problem malformed-request, log-epoch-changed or position-not-in-log, NotReached, ViewsNotReady.
    """
    if after is None:
        return
    log = desk.workspace.log
    position = await parse_position(after).checked(log)
    deadline = time.monotonic() + request.app.state.longest_wait
    while True:
        try:
            await wait_for(desk.workspace, view, position, max(deadline - time.monotonic(), 0.0))
        except NotReached as behind:
            head = await log.head()
            if position > head.position:
                detail = f"The log ends at position {head.position}; {position} is beyond it."
                raise Problem(POSITION_NOT_IN_LOG, detail, wanted=position, head=head.position) from behind
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
