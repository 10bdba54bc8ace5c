"""How the time of a clock is counted: in opening hours, in calendar time or in working days, without its pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from domain.sla_policy import Unit
from domain.spans import instant, microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from domain.sla_policy import PolicyTerms, Target
    from domain.sla_terms import SlaTerms
    from domain.spans import Span

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND


class Hours(Protocol):
    """Opening hours as far as clocks ask, in microseconds since 1970."""

    def add_us(self, at: int, span: int, /) -> int: ...  # noqa: D102 - as in business_time
    def between_us(self, start: int, end: int, /) -> int: ...  # noqa: D102
    def add_days(self, at: datetime, days: int, *, end_of_day: bool = False) -> datetime: ...  # noqa: D102
    def windows(self, start: datetime, end: datetime) -> Iterable[tuple[datetime, datetime]]: ...  # noqa: D102


class Levels(Protocol):
    """What terms stand for: a book of service levels, or what is put in its place to see what would have been."""

    def policy(self, terms: SlaTerms | None, /) -> PolicyTerms: ...  # noqa: D102 - as in service_levels
    def hours(self, terms: SlaTerms | None, /) -> Hours | None: ...  # noqa: D102


Calendars = tuple[tuple[int, "SlaTerms | None"], ...]
"""The terms whose calendar counts, each from an instant on."""


def deadline(levels: Levels, target: Target, started: int, pauses: Sequence[Span], calendars: Calendars) -> int:
    """Give the instant at which a target is used up, in microseconds since 1970 like all that goes in.

    A target that is used up just when a pause begins is so only when it ends: a pause moves what it does not come after.
    """
    if target.unit is Unit.BUSINESS_DAYS:
        hours = levels.hours(calendars[-1][1])
        return day_deadline(hours, target.amount, started, pauses, end_of_day=target.end_of_day)
    return used_up(levels, target, target.amount * SECOND, started, pauses, calendars)


def used_up(
    levels: Levels, target: Target, span: int, started: int, pauses: Sequence[Span], calendars: Calendars
) -> int:
    """Give the instant at which so much time has been counted, as a target in hours counts it."""
    if target.unit is Unit.CALENDAR:
        return time_deadline(None, span, started, pauses)
    if len(calendars) == 1:
        return time_deadline(levels.hours(calendars[0][1]), span, started, pauses)
    left = span
    stretches = list(by_calendar(levels, started, pauses, calendars))
    for start, end, hours, into_pause in stretches[:-1]:
        ran = _between(hours, start, end)
        if ran > left or (ran == left and (not into_pause or _add(hours, start, left) < end)):
            return _add(hours, start, left)
        left -= ran
    start, _, hours, _ = stretches[-1]
    return _add(hours, start, left)


def time_deadline(hours: Hours | None, span: int, started: int, pauses: Sequence[Span]) -> int:
    """Give the instant at which a span of opening hours is used up; without hours it is always open."""
    if hours is None:
        due = started + span
        for start, end in pauses:
            if start > due:
                break
            due += end - start
        return due
    left, at = span, started
    for start, end in pauses:
        ran = hours.between_us(at, start)
        if ran > left or (ran == left and hours.add_us(at, left) < start):
            break
        left -= ran
        at = end
    return hours.add_us(at, left)


def day_deadline(
    hours: Hours | None, days: int, started: int, pauses: Sequence[Span], *, end_of_day: bool = False
) -> int:
    """Give the same time so many working days later, or when that day closes, and then the paused time added."""
    if hours is None:
        due = started + days * DAY
        due = due - due % DAY + DAY if end_of_day else due
    else:
        due = microseconds(hours.add_days(instant(started), days, end_of_day=end_of_day))
    unpaused, paused = due, 0
    for start, end in pauses:
        if start > due:
            break
        paused += _between(hours, start, end)
        # No time at all would be added by waiting for the next opening.
        due = _add(hours, unpaused, paused) if paused else unpaused
    return due


def counted(
    levels: Levels, unit: Unit, start: int, end: int, pauses: Iterable[Span], calendars: Calendars
) -> Iterator[tuple[int, int, int]]:
    """Give the stretches from start to end outside pauses, each with how much of it counts.

    Working days are counted by the hours that they are open.
    """
    if unit is Unit.CALENDAR:
        calendars = ((start, None),)
    for begins, ends, hours, _ in by_calendar(levels, start, [*pauses, (end, end)], calendars):
        if begins >= end:
            return
        yield begins, min(ends, end), _between(hours, begins, min(ends, end))


def by_calendar(
    levels: Levels, started: int, pauses: Sequence[Span], calendars: Calendars
) -> Iterator[tuple[int, int, Hours | None, bool]]:
    """Give the stretches between pauses and changes of calendar, with whether each ends in a pause; the last is endless."""
    at = started
    for start, end in [*pauses, (_ENDLESS, _ENDLESS)]:
        for place, (_, terms) in enumerate(calendars):
            until = calendars[place + 1][0] if place + 1 < len(calendars) else _ENDLESS
            if until > at and at < start:
                yield at, min(until, start), levels.hours(terms), start <= until
                at = min(until, start)
        at = max(at, end)


_ENDLESS: Final = 1 << 62


def _between(hours: Hours | None, start: int, end: int) -> int:
    return max(end - start, 0) if hours is None else hours.between_us(start, end)


def _add(hours: Hours | None, at: int, span: int) -> int:
    return at + span if hours is None else hours.add_us(at, span)
