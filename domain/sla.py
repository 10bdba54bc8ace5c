"""What a customer is promised by priority, in calendar time, and whether the promise was kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping


class Metric(StrEnum):
    """What is promised."""

    FIRST_REPLY = "first_reply"
    """From the first customer contact to the first public agent reply."""
    TOTAL_RESOLUTION = "total_resolution"
    """From opening to solved, without the time that the ticket was held for solved."""


class ClockState(StrEnum):
    """How a promise stands at an instant."""

    ACTIVE = "active"
    PAUSED = "paused"
    MET = "met"
    BREACHED = "breached"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Policy:
    """The time allowed for each metric by priority; a missing entry promises nothing."""

    first_reply: Mapping[Priority, timedelta]
    total_resolution: Mapping[Priority, timedelta]

    def target(self, metric: Metric, priority: Priority) -> timedelta | None:
        """Give the time allowed."""
        targets = self.first_reply if metric is Metric.FIRST_REPLY else self.total_resolution
        return targets.get(priority)


STANDARD: Final = Policy(
    first_reply=MappingProxyType(
        {
            Priority.URGENT: timedelta(hours=1),
            Priority.HIGH: timedelta(hours=4),
            Priority.NORMAL: timedelta(hours=24),
            Priority.LOW: timedelta(hours=48),
        }
    ),
    total_resolution=MappingProxyType(
        {
            Priority.URGENT: timedelta(hours=8),
            Priority.HIGH: timedelta(days=2),
            Priority.NORMAL: timedelta(days=5),
            Priority.LOW: timedelta(days=10),
        }
    ),
)
"""The promise of a desk that has made no other."""


class Clock(NamedTuple):
    """One promise about one ticket. `met_at` is when it was fulfilled, `paused_at` since when it stands still."""

    due_at: datetime
    met_at: datetime | None = None
    paused_at: datetime | None = None


def start(policy: Policy, metric: Metric, priority: Priority, at: datetime) -> Clock | None:
    """Start a clock; None where the policy promises nothing."""
    target = policy.target(metric, priority)
    return None if target is None else Clock(at + target)


def fulfil(clock: Clock, at: datetime) -> Clock:
    """Keep the promise, in time or not; a clock that was fulfilled before stays as it is."""
    return clock if clock.met_at is not None else resume(clock, at)._replace(met_at=at)


def resume_fulfilled(clock: Clock, at: datetime) -> Clock:
    """Let a fulfilled clock run on, as when a solved ticket opens again; the time between is not counted."""
    if clock.met_at is None:
        return clock
    return clock._replace(met_at=None, due_at=clock.due_at + (at - clock.met_at))


def pause(clock: Clock, at: datetime) -> Clock:
    """Let a running clock stand still."""
    return clock if clock.met_at is not None or clock.paused_at is not None else clock._replace(paused_at=at)


def resume(clock: Clock, at: datetime) -> Clock:
    """Let a clock that stands still run on; the time between is not counted."""
    if clock.paused_at is None:
        return clock
    return clock._replace(paused_at=None, due_at=clock.due_at + (at - clock.paused_at))


def shift(policy: Policy, metric: Metric, clock: Clock, old: Priority, new: Priority) -> Clock | None:
    """Apply the target of another priority to an unfulfilled clock; None where the new one promises nothing."""
    if clock.met_at is not None:
        return clock
    before, after = policy.target(metric, old), policy.target(metric, new)
    if before is None or after is None:
        return None
    return clock._replace(due_at=clock.due_at + (after - before))


def state(clock: Clock | None, now: datetime) -> ClockState:
    """Say how a promise stands at `now`. Fulfilled at the due instant itself is met; breached is only after it."""
    if clock is None:
        return ClockState.NOT_APPLICABLE
    until = clock.met_at or clock.paused_at or now
    if until > clock.due_at:
        return ClockState.BREACHED
    if clock.met_at is not None:
        return ClockState.MET
    return ClockState.PAUSED if clock.paused_at is not None else ClockState.ACTIVE
