"""What happens to the promises about a ticket. Stored for good, as all events of tickets."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from pydantic import AwareDatetime

from domain.customer_events import Tier
from domain.sla_terms import Metric, SlaTerms
from domain.ticket_events import TicketEvent

if TYPE_CHECKING:
    from domain.event import Change
    from domain.ticket import Ticket


class TermsCause(StrEnum):
    """Why a ticket goes by other terms."""

    TICKET_CHANGED = "ticket_changed"
    POLICY_ADOPTED = "policy_adopted"
    CALENDAR_ADOPTED = "calendar_adopted"
    POLICY_RETIRED = "policy_retired"


class SlaTermsChanged(TicketEvent):
    """The ticket goes by other terms from now on, or is judged by another tier; clocks run on from their own start."""

    TOPIC: ClassVar[str] = "ticket.sla_terms_changed"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = TicketEvent.CIRCUMSTANCES | {"cause"}

    terms: SlaTerms | None
    previous_terms: SlaTerms | None
    tier: Tier | None
    previous_tier: Tier | None
    cause: TermsCause

    def apply(self, ticket: Ticket) -> None:
        """Take terms and tier."""
        ticket.terms = self.terms
        ticket.tier = self.tier


class DueDateSet(TicketEvent):
    """Somebody said when a metric is due, whatever its policy says; the reason says why. None: the policy says again."""

    TOPIC: ClassVar[str] = "ticket.due_date_set"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = TicketEvent.CIRCUMSTANCES | {"metric"}

    metric: Metric
    due_at: AwareDatetime | None
    previous_due_at: AwareDatetime | None

    def changes(self) -> tuple[Change, ...]:
        """Name the metric's due date."""
        return tuple(change._replace(field=f"{change.field}.{self.metric}") for change in super().changes())

    def apply(self, ticket: Ticket) -> None:
        """Take the due date."""
        others = {metric: due_at for metric, due_at in ticket.due_dates.items() if metric is not self.metric}
        ticket.due_dates = others if self.due_at is None else {**others, self.metric: self.due_at}
