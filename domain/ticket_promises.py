"""What is promised about a ticket: the terms it goes by, and due dates that somebody set by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain import ticket_events as events
from domain import ticket_refusals as refusals
from domain.event import Act, Aggregate, Channel
from domain.service_levels import Attributes, Book
from domain.status import STILL_WITH_A_CLOSED_TICKET, Status
from domain.ticket_sla_events import DueDateSet, SlaTermsChanged, TermsCause

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from domain.customer_events import Tier
    from domain.priority import Priority
    from domain.sla_terms import Metric, SlaTerms

_LOOKED_AT = (
    events.PriorityChanged,
    events.TypeChanged,
    events.RequesterChanged,
    events.Categorised,
    events.TagsEvent,
)
_WITH_TEAM = (events.Assigned, events.Transferred, events.Escalated)

EventClass = type[events.TicketEvent]


class PromisedTicket(Aggregate):
    """A ticket as far as promises about it go."""

    if TYPE_CHECKING:
        requester_id: UUID
        status: Status
        priority: Priority
        type: events.TicketType
        channel: Channel
        team_id: UUID | None
        category: str | None
        tags: tuple[str, ...]
        opened_at: datetime

    def __init__(self) -> None:
        """Start from nothing promised."""
        self.tier: Tier | None = None
        self.terms: SlaTerms | None = None
        self.due_dates: Mapping[Metric, datetime] = {}

    @property
    def attributes(self) -> Attributes:
        """What policies look at."""
        return Attributes(self.priority, self.tier, self.type, self.channel, self.team_id, self.category, self.tags)

    def matched_anew(self) -> bool:
        """Tell whether what policies look at has changed by what is pending, so that terms are to be chosen anew."""
        return any(
            isinstance(event, _LOOKED_AT) or (isinstance(event, _WITH_TEAM) and event.team_id != event.previous_team_id)
            for event in self._pending_events
        )

    def choose_terms(
        self, *, book: Book, tier: Tier | None = None, cause: TermsCause = TermsCause.TICKET_CHANGED, act: Act
    ) -> None:
        """Go by the terms that the ticket would be given now; `tier` is the requester's, None: as it was.

        The same ones again change nothing.
        """
        tier = tier or self.tier
        terms = book.choose(self.attributes._replace(tier=tier))
        if (terms, tier) != (self.terms, self.tier):
            self._record(
                SlaTermsChanged,
                act,
                terms=terms,
                previous_terms=self.terms,
                tier=tier,
                previous_tier=self.tier,
                cause=cause,
            )

    def set_due_date(self, *, metric: Metric, due_at: datetime | None, act: Act) -> None:
        """Say when a metric is due whatever its policy says; None lets the policy say again.

        Raises TicketClosed, ReasonRequired, DueBeforeOpening.
        """
        self._admit("set-due-date", act)
        if not act.reason:
            raise refusals.ReasonRequired
        if due_at is not None and due_at <= self.opened_at:
            raise refusals.DueBeforeOpening(due_at.isoformat(), self.opened_at.isoformat())
        previous = self.due_dates.get(metric)
        if due_at != previous:
            self._record(DueDateSet, act, metric=metric, due_at=due_at, previous_due_at=previous)

    def _admit(self, command: str, act: Act) -> None:
        closed = self.status is Status.CLOSED and command not in STILL_WITH_A_CLOSED_TICKET
        if closed and act.by.channel is not Channel.IMPORT:
            raise refusals.TicketClosed(self.id, command)

    def _record(self, event_class: EventClass, act: Act, **fields: Any) -> None:
        self.record(event_class, act, requester_id=self.requester_id, **fields)
