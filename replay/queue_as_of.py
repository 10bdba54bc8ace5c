"""The ticket queue as it was at any moment, in recorded time or in the source's, and its counts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.sql import Identifier
from pydantic_core import to_json

from projections import queue_history
from projections.listing import Cursor
from projections.ticket_queue import COLUMN_OF, EVERY_TICKET, SORTS, opened_up
from projections.waiting import wait_for
from replay.as_of import position_of, zoned
from replay.past_listing import Asked, Instant, count_rows_at, list_rows_at

if TYPE_CHECKING:
    from datetime import datetime

    from projections.ticket_queue import Grouping, QueueEntry, QueueFilter
    from storage.database import Workspace

WAIT_SECONDS: Final = 5.0  # for the view that keeps the past to come to the moment
_SEPARATOR: Final = "@"


class MomentAsked(NamedTuple):
    """A moment as people name it.

    `recorded` is an instant or a position: what the desk knew then; None is all that it knows. `occurred_at` leaves out
    of that what had not happened at the source by then: each ticket counts with its events up to the first that had not.
    """

    recorded: datetime | int | None = None
    occurred_at: datetime | None = None

    def digest(self) -> str:
        """Give a short hash by which a cursor knows its moment again."""
        return hashlib.sha256(to_json(self)).hexdigest()[:8]


class Moment(NamedTuple):
    """A moment as the log has it. `provisional` where asking again may name a later position.

    That is so of an instant until something later is recorded, and where none was named.
    """

    position: int
    recorded_at: datetime | None
    occurred_at: datetime | None
    provisional: bool


class QueueThen(NamedTuple):
    """A page of the queue as it was; `cursor` goes on at the same moment, for ever."""

    items: list[QueueEntry]
    moment: Moment
    cursor: str | None


class CountsThen(NamedTuple):
    """Numbers of tickets by value as they were, None where there was none."""

    counts: dict[Any, int]
    moment: Moment


async def resolve(workspace: Workspace, asked: MomentAsked) -> Moment:
    """Find the position that a moment stands for. Raises as `position_of`."""
    log = workspace.log
    recorded, occurred_at = asked
    if occurred_at is not None:
        zoned(occurred_at)
    if recorded is None:
        head = await log.head()
        return Moment(head.position, head.recorded_at, occurred_at, provisional=True)
    position, provisional = await position_of(workspace, recorded)
    row = await log.row(position) if position else None
    return Moment(position, None if row is None else row.recorded_at, occurred_at, provisional)


async def list_tickets_at(
    workspace: Workspace,
    asked: MomentAsked | None,
    tickets: QueueFilter = EVERY_TICKET,
    *,
    sort: str = "updated",
    limit: int = 50,
    cursor: str | None = None,
    wait: float = WAIT_SECONDS,
) -> QueueThen:
    """List tickets as they were, with subjects opened as far as they still can be.

    A cursor carries its moment: `asked` may be left out with it, or must be the same. Raises NoSuchMoment,
    CursorInvalid, CursorExpired, NotReached, ViewsNotReady.
    """
    where, order = tickets.where(), SORTS[sort]
    digest = where.digest(sort)
    start = None
    if cursor is not None:
        theirs = _moment_of(cursor) if asked is None else asked.digest()
        digest += _SEPARATOR + theirs
        start = await Cursor.held(cursor, workspace, queue_history.VIEW, digest, order)
        moment = await resolve(workspace, MomentAsked(start.position, start.now))
    elif asked is None:
        message = "a moment or a cursor has to be given"
        raise ValueError(message)
    else:
        digest += _SEPARATOR + asked.digest()
        moment = await resolve(workspace, asked)
    epoch = await workspace.log.epoch()
    await wait_for(workspace, queue_history.VIEW, moment.position, wait)
    rows = await list_rows_at(
        workspace,
        queue_history.PAST,
        asked_of(tickets),
        Instant(*moment[:3]),
        order,
        limit=limit + 1,
        after=None if start is None else start.last,
    )
    further = None
    if len(rows) > limit:
        del rows[limit:]
        last = [rows[-1][column] for column in order.columns]
        further = Cursor(queue_history.VIEW.label, epoch, moment.position, digest, last, moment.occurred_at).text()
    return QueueThen(await opened_up(workspace, rows), moment, further)


async def count_tickets_at(
    workspace: Workspace,
    asked: MomentAsked,
    tickets: QueueFilter = EVERY_TICKET,
    *,
    by: Grouping = "status",
    wait: float = WAIT_SECONDS,
) -> CountsThen:
    """Count the tickets that `list_tickets_at` would list. Raises NoSuchMoment, NotReached, ViewsNotReady."""
    moment = await resolve(workspace, asked)
    await wait_for(workspace, queue_history.VIEW, moment.position, wait)
    counts = await count_rows_at(
        workspace, queue_history.PAST, asked_of(tickets), Instant(*moment[:3]), Identifier(COLUMN_OF[by])
    )
    return CountsThen(counts, moment)


def is_of_the_past(cursor: str) -> bool:
    """Tell whether a cursor is of the queue as it was at a moment. Raises CursorInvalid."""
    return Cursor.kind(cursor)[0].rpartition("_v")[0] == queue_history.VIEW.name


def _moment_of(cursor: str) -> str:
    return Cursor.kind(cursor)[1].rpartition(_SEPARATOR)[2]


def asked_of(tickets: QueueFilter) -> Asked:
    """Say what a filter asks of the past."""
    return Asked(tickets.where(), None if tickets.statuses is None else list(map(str, tickets.statuses)))
