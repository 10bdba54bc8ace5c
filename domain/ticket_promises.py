"""What is promised about a ticket: the terms it goes by, and due dates that somebody set by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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

_LOOKED_AT: Final = ("priority", "type", "team_id", "category", "tags")
"""What policies look at that may change in a ticket, but for the tier, which is its requester's."""
_PREVIOUS: Final = tuple((name, f"previous_{name}") for name in _LOOKED_AT)

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

    def attributes_before(self) -> Attributes:
        """Give what policies looked at before what is pending, or when terms were last chosen among that."""
        found = self.attributes
        for event in reversed(self._pending_events):
            if isinstance(event, SlaTermsChanged):
                break
            told = vars(event)
            found = found._replace(**{name: told[old] for name, old in _PREVIOUS if old in told})
        return found

    def choose_terms(self, *, book: Book, tier: Tier | None = None, act: Act) -> None:
        """Go by other terms where what is pending makes another policy hold; `tier` is the requester's, None: as it was.

        Where the same policy holds the ticket stays with the version it goes by, which may be an earlier one.
        """
        before, tier = self.attributes_before(), tier or self.tier
        if self.tier is None:
            before = before._replace(tier=tier)  # not known until now, which is no change
        chosen, was = book.choose(self.attributes._replace(tier=tier)), book.choose(before)
        same = (chosen and chosen.policy) == (was and was.policy)
        self.go_by(self.terms if same else chosen, tier=tier, cause=TermsCause.TICKET_CHANGED, act=act)

    def go_by(self, terms: SlaTerms | None, *, tier: Tier | None, cause: TermsCause, act: Act) -> None:
        """Go by these terms, judged by this tier, from now on. Those that it goes by already change nothing."""
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
