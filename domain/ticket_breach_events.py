"""What the desk puts on record about a ticket's clocks. Stored for good, as all events of tickets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from domain.sla_policy import Step, Unit
from domain.sla_terms import Metric, SlaTerms
from domain.ticket_events import TicketEvent

if TYPE_CHECKING:
    from domain.ticket import Ticket


class Pause(BaseModel):
    """A stretch in which a clock stood still; the end is no longer in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_at: AwareDatetime
    until_at: AwareDatetime


class Allowed(BaseModel):
    """How much time a target gave: seconds, or days where the unit is business days."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: int
    unit: Unit
    end_of_day: bool


class CalendarSince(BaseModel):
    """By which version of which calendar time was counted from an instant on; none: always open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_at: AwareDatetime
    calendar: str | None = None
    calendar_version: int | None = None


class ClockEvent(TicketEvent):
    """Base of what is said about one clock: the `serial`th of its metric on this ticket.

    `owning_team_id` is whose stay is measured, where it is one. The ticket itself does not change.
    """

    CIRCUMSTANCES: ClassVar[frozenset[str]] = TicketEvent.CIRCUMSTANCES | {"serial", "owning_team_id", "terms"}

    metric: Metric
    serial: int
    owning_team_id: UUID | None
    terms: SlaTerms | None
    due_at: AwareDatetime

    def apply(self, ticket: Ticket) -> None:
        """Change nothing: clocks follow from the ticket's timeline."""


class SlaWarned(ClockEvent):
    """A reminder around a deadline fell due."""

    TOPIC: ClassVar[str] = "ticket.sla_warned"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = ClockEvent.CIRCUMSTANCES | {"step"}

    step: Step


class SlaEscalated(ClockEvent):
    """A step around a deadline fell due; the command that it asks for has this event as its cause."""

    TOPIC: ClassVar[str] = "ticket.sla_escalated"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = ClockEvent.CIRCUMSTANCES | {"step"}

    step: Step


class SlaBreached(ClockEvent):
    """A deadline passed at this event's time, and nobody had done by then what was promised.

    Start, pauses and target are those that the deadline follows from, counted in the hours of the calendar in `terms`;
    where a ticket came to go by another calendar, `calendars` says from when on each counted. `manual`: somebody had set
    the deadline by hand.
    """

    TOPIC: ClassVar[str] = "ticket.sla_breached"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = ClockEvent.CIRCUMSTANCES | {
        "started_at",
        "pauses",
        "target",
        "manual",
        "calendars",
    }

    started_at: AwareDatetime
    pauses: tuple[Pause, ...]
    target: Allowed | None
    manual: bool
    calendars: tuple[CalendarSince, ...]


class SlaBreachWithdrawn(ClockEvent):
    """A breach on the record did not happen by what is known now: a fact was learnt late, or another promise holds.

    `due_at` is the deadline that the breach named; `present_due_at` the clock's now, where it still has one.
    """

    TOPIC: ClassVar[str] = "ticket.sla_breach_withdrawn"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = ClockEvent.CIRCUMSTANCES | {"present_due_at"}

    present_due_at: AwareDatetime | None


class SlaAnnouncementsAsked(TicketEvent):
    """The clocks of an imported ticket are to be announced as any other's, also what has passed."""

    TOPIC: ClassVar[str] = "ticket.sla_announcements_asked"

    def apply(self, ticket: Ticket) -> None:
        """Change nothing: the ticket's timeline takes note."""
