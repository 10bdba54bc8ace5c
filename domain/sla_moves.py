"""Which tickets an adoption moves: those that go by what it replaces, or would be chosen for it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from domain.service_levels import CalendarAdopted, PolicyAdopted, PolicyRetired
from domain.ticket_sla_events import SlaTermsChanged, TermsCause

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from domain.event import Act, Event
    from domain.service_levels import Book
    from domain.sla_policy import Attributes
    from domain.sla_terms import SlaTerms
    from domain.ticket import Ticket

_CAUSES: Final = {
    CalendarAdopted: TermsCause.CALENDAR_ADOPTED,
    PolicyAdopted: TermsCause.POLICY_ADOPTED,
    PolicyRetired: TermsCause.POLICY_RETIRED,
}


class Move(NamedTuple):
    """An adoption, or a retirement, that says to move the tickets that are open.

    `version` is its own in the stream of service levels, `position` its place in the log, `command_id` that of whoever
    adopted it, `book` what was adopted by then.
    """

    version: int
    position: int
    at: datetime
    command_id: UUID | None
    cause: TermsCause
    name: str
    book: Book


def move_of(event: Event, position: int, book: Book) -> Move | None:
    """Give the move that an event of the service levels asks for, None where it leaves open tickets alone.

    `book` is that with the event.
    """
    match event:
        case CalendarAdopted() | PolicyAdopted() | PolicyRetired() if event.open_tickets == "move":
            cause = _CAUSES[type(event)]
            command_id = event.by.command_id
            return Move(event.originator_version, position, event.timestamp, command_id, cause, event.name, book)
        case _:
            return None


def moved(terms: SlaTerms | None, ticket: Attributes, move: Move) -> SlaTerms | None:
    """Give the terms that a ticket goes by after a move; those it had where the move does not concern it.

    A calendar's new version is for tickets that count by that calendar, whatever version of their policy they were kept
    on. A policy's is for tickets that went by it, or that it is chosen for now; a ticket kept on an older version of
    another policy stays there. A desk's first policies are for every ticket.
    """
    if move.cause is TermsCause.CALENDAR_ADOPTED:
        if terms is None or terms.calendar != move.name:
            return terms
        return terms.model_copy(update={"calendar_version": len(move.book.calendars[move.name])})
    if move.cause is TermsCause.POLICY_RETIRED and (terms is None or terms.policy != move.name):
        return terms
    chosen = move.book.choose(ticket)
    if terms is None or terms.policy == move.name or (chosen is not None and chosen.policy == move.name):
        return chosen
    return terms


def pending(moves: Iterable[Move], *, decided_at: int) -> list[Move]:
    """Give the moves that a ticket has yet to make, in order.

    `decided_at` is the position of the event that last said which terms it goes by: whoever decided that knew all that
    was adopted before.
    """
    return [move for move in moves if move.position > decided_at]


def move_on(ticket: Ticket, move: Move, act: Act) -> bool:
    """Let a ticket go by what a move brings it; tells whether that is anything new."""
    terms = moved(ticket.terms, ticket.attributes, move)
    if terms == ticket.terms:
        return False
    ticket.record(
        SlaTermsChanged,
        act,
        requester_id=ticket.requester_id,
        terms=terms,
        previous_terms=ticket.terms,
        tier=ticket.tier,
        previous_tier=ticket.tier,
        cause=move.cause,
    )
    return True
