"""The clocks of one ticket as its own stream has them: all there ever were, each with its arithmetic line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from domain.sla_clocks import METRICS, clocks
from domain.sla_explanation import explain
from domain.ticket import Ticket
from domain.ticket_breach_events import ClockEvent
from domain.ticket_timeline import after
from projections.promises import BY_BOOK
from projections.reference import told
from projections.sla_clock import columns_of, entry, nothing_promised
from replay.stream import NoSuchStream
from storage.codec import UnfitEvent, decode, in_order

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from domain.service_levels import Book
    from domain.sla_clocks import Clock
    from domain.sla_explanation import Line
    from domain.ticket_timeline import Timeline
    from projections.sla_clock import ClockEntry
    from storage.codec import Recorded
    from storage.database import Workspace


class OnRecord(NamedTuple):
    """What the ticket's history says of a clock: when it fell due, and when that was put down."""

    topic: str
    version: int
    position: int
    occurred_at: datetime
    recorded_at: datetime


class ExplainedClock(NamedTuple):
    """A clock as it stands, how that comes about, and what is on record of it."""

    clock: ClockEntry
    lines: tuple[Line, ...]
    on_record: tuple[OnRecord, ...]


class ExplainedTicket(NamedTuple):
    """The clocks of a ticket, true of a position: by metric, and those of a metric as they began."""

    ticket_id: UUID
    number: int
    position: int
    clocks: tuple[ExplainedClock, ...]


async def explained(workspace: Workspace, ticket_id: UUID, *, now: datetime) -> ExplainedTicket:
    """Tell how every promise about a ticket stands at an instant, and why.

    A metric that the ticket's policy promises and of which there is no clock is told as not applicable. Raises
    NoSuchStream, UnreadableEvent.
    """
    head = (await workspace.log.head()).position
    rows = [row for row in await workspace.log.stream(ticket_id) if row.position <= head]
    in_order(rows)
    recorded = [decode(row) for row in rows]
    ticket: Ticket | None = None
    timeline: Timeline | None = None
    for row, (event, _, _) in zip(rows, recorded, strict=True):
        try:
            ticket = event.mutate(ticket)
            timeline = after(timeline, event)
        except Exception as error:
            raise UnfitEvent(row, error) from error
    if not isinstance(ticket, Ticket) or timeline is None:
        raise NoSuchStream(Ticket.TOPIC, ticket_id)
    book: Book = (await told(workspace, BY_BOOK, head)).value
    known: dict[str, Any] = {
        "ticket_id": ticket_id,
        "number": rows[0].position,
        **{name: getattr(ticket, name) for name in _OF_THE_TICKET},
    }
    found = [_explained(clock, book, now, known, recorded) for clock in clocks(timeline, book)]
    promised = {target.metric for target in book.policy(ticket.terms).targets} - {one.clock.metric for one in found}
    found += [ExplainedClock(nothing_promised(known | {"metric": metric}), (), ()) for metric in promised]
    return ExplainedTicket(ticket_id, rows[0].position, head, tuple(sorted(found, key=_in_order)))


_OF_THE_TICKET: Final = ("status", "priority", "team_id", "agent_id")
_PLACES: Final = {metric: place for place, metric in enumerate(METRICS)}


def _in_order(one: ExplainedClock) -> tuple[int, int]:
    return _PLACES[one.clock.metric], one.clock.serial or 0  # type: ignore[index]


def _explained(
    clock: Clock, book: Book, now: datetime, known: dict[str, Any], recorded: list[Recorded]
) -> ExplainedClock:
    on_record = tuple(
        OnRecord(event.TOPIC, event.originator_version, position, event.timestamp, recorded_at)
        for event, position, recorded_at in recorded
        if isinstance(event, ClockEvent) and (event.metric, event.serial) == (clock.metric, clock.serial)
    )
    told_of = entry(known | {"metric": clock.metric} | columns_of(clock, book), book, now)
    return ExplainedClock(told_of, tuple(explain(clock, book, now)), on_record)
