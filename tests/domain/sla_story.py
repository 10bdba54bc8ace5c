"""A ticket's story for clocks: commands at minutes after noon, the timeline that comes of them, and its clocks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, cast

from msgspec.structs import replace

from domain.event import Act, Channel, Provenance, Role
from domain.service_levels import EMPTY_BOOK, Book
from domain.sla_clocks import Clock, ClockState, clocks, state
from domain.sla_policy import PolicyTerms, Target, Unit
from domain.sla_terms import Metric, SlaTerms
from domain.ticket import Ticket
from domain.ticket_sla_events import TermsCause
from domain.ticket_timeline import Timeline, after, decode, encode
from tests.domain.scenario import ANN, CAROL, NOON, TICKET, a_team

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from domain.calendar import CalendarTerms
    from domain.priority import Priority
    from domain.sla_announcements import Announcement
    from domain.status import Status
    from domain.ticket_events import TicketEvent

BY_AGENT = Provenance(actor_id=ANN, role=Role.AGENT, channel=Channel.API)
BY_CUSTOMER = Provenance(actor_id=CAROL, role=Role.CUSTOMER, channel=Channel.EMAIL)
BY_IMPORT = Provenance(actor_id=ANN, role=Role.SYSTEM, channel=Channel.IMPORT)
BY_SYSTEM = Provenance(actor_id=ANN, role=Role.SYSTEM, channel=Channel.SYSTEM)


def minutes(count: float) -> datetime:
    """Give the instant so many minutes after noon."""
    return NOON + timedelta(minutes=count)


def in_minutes(at: datetime | None) -> float | None:
    """Give an instant as minutes after noon."""
    return None if at is None else (at - NOON) / timedelta(minutes=1)


class Story:
    """A ticket to which things happen; each method takes the minute after noon at which it does."""

    def __init__(
        self,
        *,
        at: float = 0,
        book: Book = EMPTY_BOOK,
        terms: SlaTerms | None = None,
        by: Provenance = BY_CUSTOMER,
        **fields: Any,
    ) -> None:
        self.book = book
        opening = {"subject": "Printer on fire", "body": "Help", "channel": Channel.EMAIL, **fields}
        self.ticket = Ticket.open(ticket_id=TICKET, requester_id=CAROL, act=Act(minutes(at), by), book=book, **opening)
        self.events: list[TicketEvent] = cast("list[TicketEvent]", self.ticket.collect_events())
        self.timeline: Timeline = after(None, self.events[0])
        if terms is not None:
            self.timeline = replace(self.timeline, terms=tuple(terms.__dict__.values()))

    def _take_note(self) -> None:
        for event in cast("list[TicketEvent]", self.ticket.collect_events()):
            self.events.append(event)
            self.timeline = after(self.timeline, event)
            assert decode(encode(self.timeline)) == self.timeline

    def do(
        self, command: str, at: float, *, by: Provenance = BY_AGENT, reason: str | None = "because", **said: Any
    ) -> Self:
        """Carry a command out, and choose terms anew where it changed what policies look at."""
        act = Act(minutes(at), by, reason=reason)
        getattr(self.ticket, command)(**said, act=act)
        self.ticket.choose_terms(book=self.book, act=act)
        self._take_note()
        return self

    def announce(self, announcement: Announcement) -> None:
        """Put something on record."""
        self.ticket.announce(announcement, act=Act(announcement.at, BY_SYSTEM))
        self._take_note()

    def adopt(self, at: float, book: Book, *, move: bool = True) -> Self:
        """Let the desk have another book, by which the ticket goes if it is moved."""
        self.book = book
        if move:
            act = Act(minutes(at), BY_SYSTEM)
            terms = book.choose(self.ticket.attributes)
            self.ticket.go_by(terms, tier=self.ticket.tier, cause=TermsCause.POLICY_ADOPTED, act=act)
            self._take_note()
        return self

    def reply(self, at: float, **said: Any) -> Self:
        """An agent answers."""
        return self.do("reply", at, text="Done", agent_id=ANN, **said)

    def message(self, at: float, **said: Any) -> Self:
        """The customer writes."""
        return self.do("record_customer_message", at, text="Well?", channel=Channel.EMAIL, by=BY_CUSTOMER, **said)

    def due_date(self, at: float, metric: Metric, due: float | None) -> Self:
        """Somebody says when a metric is due."""
        return self.do("set_due_date", at, metric=metric, due_at=None if due is None else minutes(due))

    def note(self, at: float) -> Self:
        """An agent writes what the customer does not see."""
        return self.do("add_note", at, text="Hm")

    def pending(self, at: float, **said: Any) -> Self:
        """The desk waits for the customer."""
        return self.do("set_pending", at, **said)

    def hold(self, at: float) -> Self:
        """The desk waits for somebody else."""
        return self.do("put_on_hold", at, third_party="ACME")

    def resume(self, at: float) -> Self:
        """The wait is over."""
        return self.do("resume", at)

    def solve(self, at: float) -> Self:
        """The ticket is held for solved."""
        return self.do("solve", at, resolution_code="fixed")

    def close(self, at: float) -> Self:
        """It is over."""
        return self.do("close", at)

    def reopen(self, at: float) -> Self:
        """It was not."""
        return self.do("reopen", at)

    def priority(self, at: float, priority: Priority) -> Self:
        """The priority changes."""
        return self.do("change_priority", at, priority=priority)

    def team(self, at: float, team_id: UUID) -> Self:
        """A team gets the ticket."""
        return self.do("assign", at, team=a_team(team_id))

    def clocks(self) -> dict[tuple[Metric, int], Clock]:
        """Give the clocks by metric and serial."""
        return {(clock.metric, clock.serial): clock for clock in clocks(self.timeline, self.book)}

    def clock(self, metric: Metric, serial: int = 1) -> Clock:
        """Give a clock that there is."""
        return self.clocks()[metric, serial]

    def due(self, metric: Metric, serial: int = 1) -> float | None:
        """Give when a clock falls due, in minutes after noon."""
        return in_minutes(self.clock(metric, serial).due_at)

    def state(self, metric: Metric, at: float, serial: int = 1) -> ClockState:
        """Give how a promise stands."""
        return state(self.clocks().get((metric, serial)), minutes(at))


def promise(metric: Metric, allowed: float, *, unit: Unit = Unit.BUSINESS, days: bool = False, **said: Any) -> Target:
    """Give a target of so many minutes, or days."""
    if days:
        return Target(metric=metric, amount=int(allowed), unit=Unit.BUSINESS_DAYS, **said)
    return Target(metric=metric, amount=int(allowed * 60), unit=unit, **said)


def a_policy(
    *targets: Target, calendar: str | None = None, pauses: dict[Metric, Sequence[Status]] | None = None
) -> PolicyTerms:
    """Give a policy for all tickets."""
    return PolicyTerms(targets=targets, calendar=calendar, pauses={m: tuple(s) for m, s in (pauses or {}).items()})


def a_book(policy: PolicyTerms, calendar: CalendarTerms | None = None) -> tuple[Book, SlaTerms]:
    """Give a book with the policy, and perhaps a calendar for it, and the terms that name them."""
    book = EMPTY_BOOK
    if calendar is not None:
        book = book.with_calendar("office", calendar)
        policy = policy.model_copy(update={"calendar": "office"})
    book = book.with_policy("gold", policy)
    on = calendar is not None
    return book, SlaTerms(
        policy="gold", policy_version=1, calendar="office" if on else None, calendar_version=1 if on else None
    )
