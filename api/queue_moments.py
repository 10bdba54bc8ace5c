"""Reading the queue as it was at a moment over HTTP: which moment is meant, and the answer that names it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query
from pydantic import AwareDatetime

from api.conditions import parse_moment
from api.problems import MALFORMED_REQUEST, Problem, invalid
from api.view_pages import checked_position, known_position, wait_if_asked
from projections import queue_history
from replay.queue_as_of import MomentAsked, is_of_the_past, resolve

if TYPE_CHECKING:
    from starlette.requests import Request

    from commands.desk import Desk
    from replay.queue_as_of import Moment

AsOf = Annotated[
    str | None,
    Query(
        max_length=100,
        description="As the desk knew it then: an instant with its zone, or a position of the log. A list goes on at"
        " the same moment for ever.",
    ),
]
OccurredAsOf = Annotated[
    AwareDatetime | None,
    Query(
        description="As it was by the source's time: each ticket with its events up to the first that had not happened"
        " by then. With `as_of`, of what was known then."
    ),
]


async def moment_asked(
    request: Request,
    desk: Desk,
    as_of: str | None,
    occurred_as_of: datetime | None,
    *,
    cursor: str | None = None,
    after: str | None = None,
    at: str | None = None,
) -> tuple[bool, MomentAsked | None]:
    """Tell whether a moment of the past is asked about, and which; none where the cursor alone names it.

    Waits as `wait_if_asked` does. Raises Problem malformed-request, invalid-input or log-epoch-changed, and those of
    `wait_if_asked`; CursorInvalid.
    """
    if as_of is None and occurred_as_of is None:
        past = cursor is not None and is_of_the_past(cursor)
        if past and after is not None:
            raise Problem(MALFORMED_REQUEST, "The cursor is of an earlier moment: after has no place beside it.")
        return past, None
    if at is not None:
        raise Problem(MALFORMED_REQUEST, "Give at or a moment to look back at, not both.")
    recorded: datetime | int | None = None
    if as_of is not None:
        named = parse_moment(as_of)
        if named is None:
            detail = f"Give an instant with its zone, such as 2026-01-31T12:00:00Z, or a position, not {as_of!r}."
            raise invalid([{"parameter": "as_of", "in": "query", "detail": detail, "code": "moment_parsing"}])
        recorded = named if isinstance(named, datetime) else await checked_position(request, desk, named)
    asked = MomentAsked(recorded, occurred_as_of)
    if after is not None:
        await wait_if_asked(request, desk, queue_history.VIEW, after)
        included = await known_position(request, desk, after)
        position = (await resolve(desk.workspace, asked)).position
        if position < included:
            detail = f"As of that moment the log ends at position {position}: that does not include {included}, as after asks."
            raise Problem(MALFORMED_REQUEST, detail)
    return True, asked


def moment_told(moment: Moment) -> dict[str, Any]:
    """Say what moment an answer is of."""
    return {
        "position": moment.position,
        "recorded_at": moment.recorded_at,
        "occurred_as_of": moment.occurred_at,
        "provisional": moment.provisional,
    }
