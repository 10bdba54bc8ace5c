"""The arithmetic of a clock, line by line, so that anybody can do it again by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.sla_clocks import ran_until, state
from domain.sla_counting import SECOND, by_calendar, counted, day_deadline
from domain.sla_policy import Unit
from domain.spans import instant, microseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.sla_clocks import Clock
    from domain.sla_counting import Hours, Levels
    from domain.sla_policy import Target
    from domain.sla_terms import SlaTerms


class LineKind(StrEnum):
    """What a line says."""

    TERMS = "terms"
    """Which version of which policy and calendar."""
    ALLOWED = "allowed"
    STARTED = "started"
    COUNTED = "counted"
    """A stretch of opening hours, or of time around the clock, that has gone by and counts."""
    AHEAD = "ahead"
    """A stretch that will count before the deadline if the clock runs on from now, or would have if it had not ended."""
    STOOD_STILL = "stood_still"
    """A pause; `counted` is how much time it held that would have counted."""
    WORKING_DAYS = "working_days"
    """The deadline by working days, before paused time is added to it."""
    DUE = "due"
    UNTIL = "until"
    """How far the clock has come, until it was fulfilled or lapsed, stood still, or until now."""
    STATE = "state"


class Line(NamedTuple):
    """One line. `total` is what has been counted from the start up to and with it."""

    kind: LineKind
    text: str
    from_at: datetime | None = None
    until_at: datetime | None = None
    counted: timedelta | None = None
    total: timedelta | None = None


def explain(clock: Clock, levels: Levels, now: datetime) -> list[Line]:
    """Tell how a clock's deadline and its used time come about, as of `now`.

    The lines `counted` and `ahead` up to the line `due` add up to a target in hours; the lines `counted` to the time used.
    """
    until = ran_until(clock, microseconds(now))
    return [
        *[Line(LineKind.TERMS, text, from_at=at) for at, text in _terms(clock)],
        Line(LineKind.ALLOWED, _allowed(clock), counted=_amount(clock.target)),
        Line(LineKind.STARTED, f"from {_told(clock.started)}", from_at=clock.started_at),
        *_walk(clock, levels, until),
        Line(LineKind.STATE, f"{state(clock, now)} at {_told(microseconds(now))}", from_at=now),
    ]


def _terms(clock: Clock) -> Iterator[tuple[datetime, str]]:
    if clock.terms is None:
        yield clock.started_at, "the promises of a desk that has made no others, around the clock"
        return
    yield clock.started_at, f"policy {clock.terms.policy}, version {clock.terms.policy_version}"
    counting = [
        (max(since, clock.started), terms)
        for (since, terms), (until, _) in zip(clock.calendars, [*clock.calendars[1:], (_EVER, None)], strict=True)
        if until > clock.started
    ]
    for at, terms in counting:
        yield instant(at), _calendar(terms) + (f" from {_told(at)}" if len(counting) > 1 else "")


_EVER: Final = 1 << 62


def _calendar(terms: SlaTerms | None) -> str:
    if terms is None or terms.calendar is None:
        return "no calendar: always open"
    return f"calendar {terms.calendar}, version {terms.calendar_version}"


def _allowed(clock: Clock) -> str:
    if clock.manual:
        return "the due date was set by hand"
    target = clock.target
    if target is None:
        return "nothing is promised"
    if target.unit is Unit.BUSINESS_DAYS:
        days = "1 working day" if target.amount == 1 else f"{target.amount} working days"
        return f"{days}, to the closing of the last" if target.end_of_day else f"{days} to the same time of day"
    return f"{_span(target.amount * SECOND)} {_by_unit(target)}"


def _by_unit(target: Target) -> str:
    return "around the clock" if target.unit is Unit.CALENDAR else "of opening hours"


def _amount(target: Target | None) -> timedelta | None:
    return None if target is None or target.unit is Unit.BUSINESS_DAYS else timedelta(seconds=target.amount)


def _walk(clock: Clock, levels: Levels, until: int) -> Iterator[Line]:
    """Go from the start to the deadline, or to where the clock has come to where that is later."""
    yield from _days(clock, levels)
    total, last = 0, max(until, clock.due)
    marks = sorted([(until, 0), (clock.due, 1)])
    for start, end, counts in _stretches(clock, levels, last):
        while marks and marks[0][0] <= start:
            yield _mark(clock, marks.pop(0), total)
        cuts = [at for at, _ in marks if start < at < end] if counts else []
        for begins, ends in zip([start, *cuts], [*cuts, end], strict=True):
            while marks and marks[0][0] <= begins:
                yield _mark(clock, marks.pop(0), total)
            if not counts:
                yield _stood_still(clock, levels, begins, ends, total)
                continue
            total += ends - begins
            kind = LineKind.COUNTED if ends <= until else LineKind.AHEAD
            yield _line(kind, _WHAT[kind, clock.ended is None], begins, ends, ends - begins, total)
    for mark in marks:
        yield _mark(clock, mark, total)


_WHAT: Final = {
    (LineKind.COUNTED, True): "counted",
    (LineKind.COUNTED, False): "counted",
    (LineKind.AHEAD, True): "to come",
    (LineKind.AHEAD, False): "not needed",
}


def _stretches(clock: Clock, levels: Levels, last: int) -> Iterator[tuple[int, int, bool]]:
    """Give the stretches that count, and those in which the clock stood still, in order."""
    around_the_clock = clock.target is None or clock.target.unit is Unit.CALENDAR
    calendars = ((clock.started, None),) if around_the_clock else clock.calendars
    pauses = [pause for pause in clock.pauses if pause[0] < last]
    found = [(start, end, False) for start, end in pauses]
    for start, end, hours, _ in by_calendar(levels, clock.started, pauses, calendars):
        found += [(begins, ends, True) for begins, ends in _windows(hours, start, min(end, last))]
    yield from sorted(found)


def _windows(hours: Hours | None, start: int, end: int) -> list[tuple[int, int]]:
    if start >= end:
        return []
    if hours is None:
        return [(start, end)]
    return [
        (microseconds(opens), microseconds(closes)) for opens, closes in hours.windows(instant(start), instant(end))
    ]


def _days(clock: Clock, levels: Levels) -> Iterator[Line]:
    target = clock.target
    if target is None or clock.manual or target.unit is not Unit.BUSINESS_DAYS:
        return
    hours = levels.hours(clock.calendars[-1][1])
    due = day_deadline(hours, target.amount, clock.started, (), end_of_day=target.end_of_day)
    text = f"{_allowed(clock)} from {_told(clock.started)}: {_told(due)}"
    yield Line(LineKind.WORKING_DAYS, text, from_at=clock.started_at, until_at=instant(due))


def _stood_still(clock: Clock, levels: Levels, start: int, end: int, total: int) -> Line:
    unit = Unit.CALENDAR if clock.target is None else clock.target.unit
    # Working days are those of the calendar that holds last, and so is what a pause adds to them.
    calendars = clock.calendars[-1:] if unit is Unit.BUSINESS_DAYS else clock.calendars
    held = sum(used for _, _, used in counted(levels, unit, start, end, (), calendars))
    return _line(LineKind.STOOD_STILL, "stood still", start, end, held, total)


def _line(kind: LineKind, what: str, start: int, end: int, counted: int, total: int) -> Line:
    text = f"{what} {_told(start)} to {_told(end)}: {_span(counted)}"
    return Line(
        kind, text, instant(start), instant(end), timedelta(microseconds=counted), timedelta(microseconds=total)
    )


def _mark(clock: Clock, mark: tuple[int, int], total: int) -> Line:
    at, is_due = mark
    so_far = timedelta(microseconds=total)
    if is_due:
        by_hand = ", as set by hand" if clock.manual else ""
        return Line(
            LineKind.DUE, f"due {_told(at)}{by_hand}, after {_span(total)}", at_ := instant(at), at_, None, so_far
        )
    if clock.ended is not None:
        what = "fulfilled" if clock.fulfilled else "no longer owed from"
    else:
        what = "has run until" if clock.paused is None else "stands still since"
    return Line(LineKind.UNTIL, f"{what} {_told(at)}, after {_span(total)}", at_ := instant(at), at_, None, so_far)


def _told(at: int) -> str:
    """Say an instant as exactly as it is."""
    moment = instant(at)
    return (
        moment.strftime("%a %Y-%m-%d %H:%M:%S") + (f".{moment.microsecond:06}" if moment.microsecond else "") + " UTC"
    )


def _span(us: int) -> str:
    """Say a span in hours, however many, minutes and seconds: a day would be one of 24 hours, or of those it is open."""
    seconds, fraction = divmod(us, SECOND)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}" + (f".{fraction:06}" if fraction else "")
