"""How the promises about a ticket run: every clock follows from the ticket's timeline and the terms that it names."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from domain.sla_counting import counted, deadline
from domain.sla_course import Course, promises_of
from domain.sla_policy import Unit
from domain.sla_rules import FINISHED, METRICS
from domain.spans import instant, microseconds
from domain.ticket_timeline import TERMS, sla_terms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.sla_counting import Calendars, Levels
    from domain.sla_course import Circumstances, Run
    from domain.sla_policy import Target
    from domain.sla_terms import Metric, SlaTerms
    from domain.spans import Span
    from domain.ticket_timeline import Timeline

__all__ = [
    "FINISHED",
    "METRICS",
    "Clock",
    "ClockState",
    "clocks",
    "clocks_of_both",
    "falls_due",
    "percent",
    "ran_until",
    "remaining",
    "state",
    "used",
]


class ClockState(StrEnum):
    """How a promise stands at an instant."""

    ACTIVE = "active"
    PAUSED = "paused"
    MET = "met"
    BREACHED = "breached"
    NOT_APPLICABLE = "not_applicable"


class Clock(NamedTuple):
    """One promise about one ticket; instants are microseconds since 1970, and properties give them as such.

    `serial` counts the clocks of this metric on this ticket from 1. `ended` is when nothing was owed any more, because it
    was `fulfilled` or because it lapsed; while it has not, `paused` is since when it stands still. Where `manual`, `due`
    was set by hand. `calendars` are the terms whose calendars its time is counted by, each from an instant on.
    """

    metric: Metric
    serial: int
    team_id: UUID | None
    terms: SlaTerms | None
    target: Target | None
    started: int
    due: int
    manual: bool
    paused: int | None
    pauses: tuple[Span, ...]
    ended: int | None
    fulfilled: bool
    calendars: Calendars

    @property
    def started_at(self) -> datetime:
        """When it began to run, or would have but for a pause."""
        return instant(self.started)

    @property
    def due_at(self) -> datetime:
        """The deadline, if it stands still no longer than it has so far."""
        return instant(self.due)

    @property
    def paused_at(self) -> datetime | None:
        """Since when it stands still."""
        return None if self.paused is None else instant(self.paused)

    @property
    def ended_at(self) -> datetime | None:
        """When it was fulfilled, or lapsed."""
        return None if self.ended is None else instant(self.ended)

    @property
    def runs(self) -> bool:
        """Whether its time goes by."""
        return self.ended is None and self.paused is None


def _clock(run: Run, by: Circumstances, levels: Levels) -> Clock | None:
    target = by.promises.targets(by.attributes).get(run.metric)
    if run.manual is not None:
        due = run.manual
    elif target is not None:
        due = deadline(levels, target, run.started, run.pauses, by.calendars)
    else:
        return None
    return Clock(
        run.metric,
        run.serial,
        None if run.team is None else _team(run.team),
        sla_terms(by.terms),
        target,
        run.started,
        due,
        run.manual is not None,
        run.paused,
        tuple(run.pauses),
        run.ended,
        run.fulfilled,
        by.calendars,
    )


_team: Final = lru_cache(maxsize=4096)(UUID)


def _clocks_of(course: Course) -> tuple[Clock, ...]:
    now, levels = course.circumstances(), course.levels
    found = [_clock(run, run.judged or now, levels) for run in course.runs()]
    return tuple([clock for clock in found if clock is not None])


def clocks(timeline: Timeline, levels: Levels) -> tuple[Clock, ...]:
    """Give the clocks of a ticket as of its last fact: what is promised about it, and how each promise has run.

    Ordered by metric, then as they began; a metric of which nothing is promised has none. Raises LookupError where
    `levels` lack terms that the ticket names.
    """
    course = Course(timeline, levels, promises_of(levels.policy(sla_terms(timeline.terms))))
    course.run(timeline)
    return _clocks_of(course)


def clocks_of_both(
    one: Timeline, levels: Levels, other: Timeline, other_levels: Levels
) -> tuple[tuple[Clock, ...], tuple[Clock, ...]]:
    """Give the clocks of a ticket by two timelines, which are its own but for the terms in them.

    As `clocks` gives them, in less time: where the policies differ in their targets and hours alone, what happened to
    the ticket is gone through once.
    """
    if one.facts is other.facts and one.attributes == other.attributes and not _changes_terms(one):
        promises = promises_of(levels.policy(sla_terms(one.terms)))
        others = promises_of(other_levels.policy(sla_terms(other.terms)))
        if promises.statuses == others.statuses:
            course = Course(one, levels, promises, others.metrics)
            course.run(one)
            found = _clocks_of(course)
            course.judge_by(other.terms, others, other_levels)
            return found, _clocks_of(course)
    return clocks(one, levels), clocks(other, other_levels)


def _changes_terms(timeline: Timeline) -> bool:
    return any([fact[1] == TERMS for fact in timeline.facts])  # noqa: C419 - a generator takes thrice as long


def falls_due(running: Iterable[Clock]) -> int | None:
    """Give when the first of the clocks that run falls due, or did, in microseconds since 1970; None where none runs."""
    return min([clock.due for clock in running if clock.ended is None and clock.paused is None], default=None)


def state(clock: Clock | None, now: datetime) -> ClockState:
    """Say how a promise stands at `now`. Fulfilled at the due instant itself is met; breached is only after it."""
    if clock is None:
        return ClockState.NOT_APPLICABLE
    if ran_until(clock, microseconds(now)) > clock.due:
        return ClockState.BREACHED
    if clock.ended is not None:
        return ClockState.MET if clock.fulfilled else ClockState.NOT_APPLICABLE
    return ClockState.PAUSED if clock.paused is not None else ClockState.ACTIVE


def used(clock: Clock, levels: Levels, now: datetime) -> timedelta:
    """Give the time that has been counted by `now`, as the target counts it; nothing counted is 0, not missing."""
    return timedelta(microseconds=_counted(clock, levels, clock.started, ran_until(clock, microseconds(now))))


def remaining(clock: Clock, levels: Levels, now: datetime) -> timedelta:
    """Give the time that is left at `now`, as the target counts it; negative by how much it is overdue."""
    return timedelta(microseconds=_left(clock, levels, ran_until(clock, microseconds(now))))


def percent(clock: Clock, levels: Levels, now: datetime) -> float:
    """Give how much of the time allowed is used at `now`, in hundredths; over 100 where it is overdue."""
    until = ran_until(clock, microseconds(now))
    ran = _counted(clock, levels, clock.started, until)
    allowed = ran + _left(clock, levels, until)
    return 100 * ran / allowed if allowed > 0 else 100.0


def ran_until(clock: Clock, moment: int) -> int:
    """Give until when a clock has run at a moment, both in microseconds since 1970: one that stands still, no longer."""
    if clock.ended is not None:
        return clock.ended
    return max(moment, clock.started) if clock.paused is None else clock.paused


def _left(clock: Clock, levels: Levels, until: int) -> int:
    if until <= clock.due:
        return _counted(clock, levels, until, clock.due)
    return -_counted(clock, levels, clock.due, until)


def _counted(clock: Clock, levels: Levels, start: int, end: int) -> int:
    unit = Unit.CALENDAR if clock.target is None else clock.target.unit
    return sum(ran for _, _, ran in counted(levels, unit, start, end, clock.pauses, clock.calendars))
