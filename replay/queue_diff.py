"""What became of the ticket queue between two moments: which tickets entered it, which left, and which changed in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from projections import queue_history
from projections.ticket_queue import EVERY_TICKET, SORTS, QueueEntry, opened_up
from projections.waiting import wait_for
from replay.as_of import NoSuchMoment
from replay.past_listing import Asked, Instant, list_rows_at
from replay.queue_as_of import WAIT_SECONDS, Moment, MomentAsked, asked_of, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from projections.ticket_queue import QueueFilter
    from storage.database import Workspace

TICKETS_AT_ONCE: Final = 500
_OWN: Final = ("ticket_id", "number")


class Change(NamedTuple):
    """One column of a ticket at the first moment and at the second."""

    column: str
    old: Any
    new: Any


class Difference(NamedTuple):
    """A ticket that is listed otherwise than before, as it was at either moment; None where it did not exist."""

    before: QueueEntry | None
    after: QueueEntry | None

    @property
    def entry(self) -> QueueEntry:
        """The ticket as it was last."""
        found = self.after or self.before
        if found is None:
            message = "a difference is of a ticket"
            raise ValueError(message)
        return found

    def changes(self) -> list[Change]:
        """List the columns that differ."""
        names = [name for name in QueueEntry._fields if name not in _OWN]
        pairs = [(name, getattr(self.before, name, None), getattr(self.after, name, None)) for name in names]
        return [Change(*pair) for pair in pairs if pair[1] != pair[2]]


class QueueDifference(NamedTuple):
    """What differs between two moments, each part by number.

    What was the same ticket in between is not told: an event that was undone again leaves its traces in `version` and
    `updated_at` alone.
    """

    start: Moment
    end: Moment
    entered: list[Difference]
    left: list[Difference]
    changed: list[Difference]


async def queue_difference(
    workspace: Workspace,
    start: datetime | int,
    end: datetime | int,
    tickets: QueueFilter = EVERY_TICKET,
    *,
    wait: float = WAIT_SECONDS,
) -> QueueDifference:
    """Compare the queue at two moments of recorded time, instants or positions.

    Only tickets that something happened to in between are looked at. Raises NoSuchMoment, also where the second is
    before the first, NotReached, ViewsNotReady.
    """
    first, second = await resolve(workspace, MomentAsked(start)), await resolve(workspace, MomentAsked(end))
    if second.position < first.position:
        message = (
            f"the moments are given from later to earlier: position {first.position} comes after {second.position}"
        )
        raise NoSuchMoment(message)
    await wait_for(workspace, queue_history.VIEW, second.position, wait)
    found = QueueDifference(first, second, [], [], [])
    streams = await workspace.log.streams_between(first.position, second.position, _topics())
    for place in range(0, len(streams), TICKETS_AT_ONCE):
        some = streams[place : place + TICKETS_AT_ONCE]
        listed_before, before = await _as_of(workspace, first, tickets, some)
        listed_after, after = await _as_of(workspace, second, tickets, some)
        for ticket in listed_before | listed_after:
            difference = Difference(before.get(ticket), after.get(ticket))
            if ticket not in listed_before:
                found.entered.append(difference)
            elif ticket not in listed_after:
                found.left.append(difference)
            elif difference.changes():
                found.changed.append(difference)
    for part in (found.entered, found.left, found.changed):
        part.sort(key=lambda one: one.entry.number)
    return found


async def _as_of(
    workspace: Workspace, moment: Moment, tickets: QueueFilter, some: Sequence[UUID]
) -> tuple[set[UUID], dict[UUID, QueueEntry]]:
    """Tell which of some tickets were listed at a moment, and how all of them stood."""
    at = Instant(*moment[:3])

    async def rows(asked: Asked) -> list[dict[str, Any]]:
        asked.where.add("ticket_id = ANY(%(some)s)", some=list(some))
        return await list_rows_at(workspace, queue_history.PAST, asked, at, SORTS["number"], limit=len(some))

    everything = await opened_up(workspace, await rows(asked_of(EVERY_TICKET)))
    listed = {row["ticket_id"] for row in await rows(asked_of(tickets))}
    return listed, {one.ticket_id: one for one in everything}


def _topics() -> Iterable[str]:
    return sorted(queue_history.VIEW.topics or ())
