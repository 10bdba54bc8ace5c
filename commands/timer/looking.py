"""A ticket as its stream tells it: what it is, what happened to it as far as clocks ask, and when it chose its terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from domain.ticket_timeline import after
from storage.codec import UnfitEvent, decode, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.ticket import Ticket
    from domain.ticket_timeline import Timeline
    from storage.log_reader import StoredRow

TERMS: Final = frozenset({"ticket.opened", "ticket.sla_terms_changed"})
"""Events that say which terms a ticket goes by."""


class Look(NamedTuple):
    """A ticket, its timeline, and the position of the event that last said which terms it goes by."""

    ticket: Ticket
    timeline: Timeline
    decided_at: int


def look(rows: Sequence[StoredRow]) -> Look:
    """Fold a stream. Raises UnreadableEvent, and NotATicket's refusals never: only tickets are in the queue."""
    in_order(rows)
    ticket: Ticket | None = None
    timeline: Timeline | None = None
    decided_at = 0
    for row in rows:
        event = decode(row).event
        try:
            ticket = event.mutate(ticket)
            timeline = after(timeline, event)
        except Exception as error:  # whatever it is, it is this stream's alone
            raise UnfitEvent(row, error) from error
        if row.topic in TERMS:
            decided_at = row.position
    return Look(cast("Ticket", ticket), cast("Timeline", timeline), decided_at)
