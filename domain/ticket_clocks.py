"""How the promises about a ticket run: which clock starts, stands still, runs on or is fulfilled by what happens to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from domain import sla
from domain import ticket_events as happened
from domain.sla import Clock, Metric
from domain.status import Status

if TYPE_CHECKING:
    from datetime import datetime

    from domain.priority import Priority
    from domain.sla import Policy

FINISHED: Final = frozenset({Status.SOLVED, Status.CLOSED})
METRICS: Final = tuple(Metric)

_TOUCHED_BY: Final[dict[type[happened.TicketEvent], tuple[Metric, ...]]] = {
    happened.Replied: (Metric.FIRST_REPLY,),
    happened.CustomerMessageReceived: (Metric.FIRST_REPLY,),
    happened.PriorityChanged: METRICS,
}
RUN_BY: Final = frozenset(_TOUCHED_BY)
"""Events that may touch clocks also where they leave the status as it is."""
READS: Final = frozenset({"timestamp", "opened_by_agent", "status", "priority"})
"""The fields of events that clocks run by."""


class Promise(NamedTuple):
    """How one promise about one ticket stands after an event.

    Without `due_at` nothing is owed, or nothing any more, as when somebody answered before anybody had asked. A
    fulfilled promise keeps the `priority` that it was judged by, others follow the ticket's.
    """

    due_at: datetime | None
    met_at: datetime | None
    paused_at: datetime | None
    priority: Priority

    @property
    def clock(self) -> Clock | None:
        """The clock, where one was started."""
        return None if self.due_at is None else Clock(self.due_at, self.met_at, self.paused_at)

    @property
    def falls_due_at(self) -> datetime | None:
        """When it will be, or was, broken if all stays as it is; None where its clock does not run."""
        return self.due_at if self.met_at is None and self.paused_at is None else None


def opened(policy: Policy, metric: Metric, event: happened.Opened) -> Promise:
    """Give a promise about a new ticket. One that an agent opened owes no first reply until the customer writes."""
    owed = metric is Metric.TOTAL_RESOLUTION or not event.opened_by_agent
    clock = sla.start(policy, metric, event.priority, event.timestamp) if owed else None
    return _promise(clock, event.priority)


def touched(event: happened.TicketEvent, status: str) -> tuple[Metric, ...]:
    """Name the promises that an event may touch; `status` is the ticket's before it."""
    becomes = event.__dict__.get("status", status)
    if (becomes in FINISHED) != (status in FINISHED):
        return METRICS
    return _TOUCHED_BY.get(type(event), ())


def after(
    policy: Policy, metric: Metric, promise: Promise, event: happened.TicketEvent, *, status: str, priority: Priority
) -> Promise:
    """Give a promise as it is after an event that may touch it; `status` and `priority` are the ticket's before it.

    While a ticket is solved its total resolution counts as fulfilled and an unanswered first reply stands still;
    reopening lets both run on.
    """
    if metric is Metric.FIRST_REPLY and promise.met_at is not None:
        return promise  # given once and for all
    at = event.timestamp
    clock, due_priority = promise.clock, promise.priority
    if metric is Metric.FIRST_REPLY:
        if isinstance(event, happened.Replied):
            if clock is None:
                # An answer before anybody asked settles the matter: fulfilled without ever having run.
                return promise._replace(met_at=at)
            clock = sla.fulfil(clock, at)
        elif isinstance(event, happened.CustomerMessageReceived) and clock is None:
            due_priority = priority
            clock = sla.start(policy, metric, due_priority, at)
    if clock is None:
        return promise
    becomes = event.__dict__.get("status", status)
    if becomes in FINISHED and status not in FINISHED:
        clock = sla.pause(clock, at) if metric is Metric.FIRST_REPLY else sla.fulfil(clock, at)
    elif becomes not in FINISHED and status in FINISHED:
        clock = sla.resume(clock, at) if metric is Metric.FIRST_REPLY else sla.resume_fulfilled(clock, at)
    now = event.priority if isinstance(event, happened.PriorityChanged) else priority
    if clock.met_at is None and now != due_priority:
        return _promise(sla.shift(policy, metric, clock, due_priority, now), now)
    return Promise(clock.due_at, clock.met_at, clock.paused_at, due_priority)


def _promise(clock: Clock | None, priority: Priority) -> Promise:
    if clock is None:
        return Promise(None, None, None, priority)
    return Promise(clock.due_at, clock.met_at, clock.paused_at, priority)
