"""Where peers go by another rule: which inputs it matters for, and what it makes of them.

Each belongs to one ruling in `docs/sla.md`. A case that we answer otherwise is excepted only where the ruling is about its
inputs and the peer's answer is what the peer's rule makes of them; what a case is called never matters.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from domain.business_time import Hours
from domain.sla_counting import day_deadline, time_deadline
from domain.spans import instant, microseconds
from domain.wall_hours import WallHours
from tests.domain.peer_answers import Deadline, Elapsed
from tests.domain.peer_files import MINUTE, SECOND, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.calendar import CalendarTerms

Answers = set["int | None"]
DAY: Final = timedelta(days=1)


class PeerRule(NamedTuple):
    """Another rule than ours: `answers` gives what it makes of inputs that it matters for, and nothing for others."""

    ruling: str
    deadline: Callable[[Deadline], Answers] | None = None
    elapsed: Callable[[Elapsed], Answers] | None = None


def _after_closing(case: Deadline) -> Answers:
    """Roll a deadline at the closing instant on to the next opening; backwards, one at the opening to the closing before."""
    due, hours = case.answer(), case.schedule.hours
    if due is None:
        return set()
    if case.backwards:
        return {hours.last_closing_us(due)} if hours.last_closing_us(due) < due else set()
    opening = hours.next_opening_us(due)
    if opening == due:
        return set()
    return {opening, *(end for begin, end in case.pauses if begin <= opening < end)}


def _whole_minutes(case: Deadline) -> Answers:
    """Leave seconds out, of the start or of the deadline."""
    due = case.answer()
    if due is None or not (due % MINUTE or case.start % MINUTE):
        return set()
    return {*_rounded(due), *(case._replace(start=start).answer() for start in _rounded(case.start))} - {due}


def _whole_minutes_elapsed(case: Elapsed) -> Answers:
    """Leave seconds out, of the instants or of what has passed."""
    used = case.answer()
    if used is None or not (used % MINUTE or case.start % MINUTE or case.end % MINUTE):
        return set()
    starts, ends = _rounded(case.start), _rounded(case.end)
    found = {case._replace(start=start, end=end).answer() for start, end in zip(starts, ends, strict=True)}
    return {*_rounded(used), *found} - {used}


def _rounded(value: int) -> list[int]:
    down = value - value % MINUTE
    return [down, down + MINUTE if value % MINUTE else down, down + (MINUTE if value % MINUTE >= MINUTE // 2 else 0)]


def _nothing_is_missing(case: Elapsed) -> Answers:
    """Say of no time that there was none to measure, or a second in its place."""
    return {None, SECOND} if case.answer() == 0 else set()


def _less_than_nothing(case: Elapsed) -> Answers:
    """Count backwards, or refuse to, where the end comes first."""
    if case.end >= case.start:
        return set()
    hours = case.schedules[-1][1].hours
    return {-hours.between_us(case.end, case.start), hours.between_us(case.end, case.start), None}


def _wall_clock(case: Deadline) -> Answers:
    """Go by the wall clock where it never opens."""
    if not case.schedule.never_opens or case.span is None:
        return set()
    return {time_deadline(None, case.span, case.start, case.pauses), case.start}


def _pauses_by_the_wall(case: Deadline) -> Answers:
    """Move the deadline by all the time that a pause took, whether it was open or not."""
    if not case.pauses or case.backwards:
        return set()
    hours, unpaused = case.schedule.hours, case._replace(pauses=[]).answer()
    if unpaused is None:
        return set()
    paused = 0
    for begin, end in case.pauses:
        if begin < unpaused + paused:
            paused += end - begin
    due = unpaused + paused
    # Only what falls into closed time is moved out of it; the closing instant is another ruling's.
    moved = due if hours.last_closing_us(due) == due else hours.next_opening_us(due)
    return {due, moved, time_deadline(hours, paused, unpaused, [])}


def _pauses_end_with_the_target(case: Deadline) -> Answers:
    """Leave a deadline where it is if the pause begins just then, or let a pause of before count for the days that follow."""
    due = case.answer()
    if case.span is None or case.backwards or not case.pauses:
        return set()
    found: Answers = set()
    for number, (begin, _) in enumerate(case.pauses):
        if time_deadline(case.schedule.hours, case.span, case.start, case.pauses[:number]) == begin:
            found.add(begin)
    return found - {due}


def _first_reply_never_pauses(case: Deadline) -> Answers:
    """Count a first reply through pauses that its policy has."""
    if not case.pauses or not any(word in case.metric for word in ("first", "own", "response")):
        return set()
    return {case._replace(pauses=[]).answer()}


def _days_begin_with_the_opening(case: Deadline) -> Answers:
    """Count working days from the opening that follows the start, and stay within the day that they end on."""
    hours = case.schedule.hours
    if case.days is None or case.backwards or case.schedule.never_opens or hours.is_open_us(case.start):
        return set()
    opening = hours.next_opening_us(case.start)
    found = {day_deadline(hours, case.days, opening, case.pauses, end_of_day=case.end_of_day)}
    if not case.end_of_day and (terms := case.schedule.terms) is not None:
        clock = instant(case.start).astimezone(ZoneInfo(terms.time_zone))
        closing = hours.add_days(instant(case.start), case.days, end_of_day=True)
        kept = datetime.combine(closing.astimezone(clock.tzinfo).date(), clock.time(), clock.tzinfo)
        found |= {microseconds(kept), min(microseconds(kept), microseconds(closing))}
    return {*found, *(_moved(case, due) for due in found)}


def _days_by_the_week(case: Deadline) -> Answers:
    """Count as working days those of the week that are no holidays, whatever shifts and breaks say of a date."""
    terms = case.schedule.terms
    if case.days is None or terms is None or not (terms.special_days or terms.breaks):
        return set()
    weekly = terms.model_copy(update={"special_days": {}, "breaks": {}})
    days = Hours.of([weekly])
    closing = days.add_days(instant(case.start), -case.days if case.backwards else case.days, end_of_day=True)
    zone = ZoneInfo(terms.time_zone)
    clock = instant(case.start).astimezone(zone)
    landed = microseconds(datetime.combine(closing.astimezone(zone).date(), clock.time(), zone))
    hours = case.schedule.hours
    due = hours.last_closing_us(landed) if case.backwards else hours.next_opening_us(landed)
    return {landed, due, _moved(case, due)}


def _moved(case: Deadline, due: int) -> int:
    """Add the open time of pauses to a deadline in days."""
    paused = sum(case.schedule.hours.between_us(begin, end) for begin, end in case.pauses if begin < due)
    return case.schedule.hours.add_us(due, paused) if paused else due


def _nights_end_at_holidays(case: Deadline) -> Answers:
    """Close at midnight, where a holiday begins, what was opened the evening before."""
    return {case._replace(schedule=other).answer() for other in _with_holidays_by_the_clock(case.schedule)}


def _nights_end_at_holidays_elapsed(case: Elapsed) -> Answers:
    ((_, only),) = case.schedules if len(case.schedules) == 1 else ((0, Schedule.of(None)),)
    return {
        case._replace(schedules=[(case.schedules[0][0], other)]).answer() for other in _with_holidays_by_the_clock(only)
    }


def _with_holidays_by_the_clock(schedule: Schedule) -> list[Schedule]:
    terms = schedule.terms
    if terms is None or not terms.closed_days or not _has_nights(terms):
        return []
    whole = dict.fromkeys(terms.closed_days, (("00:00", "24:00"),))
    cut = terms.model_copy(update={"breaks": {**terms.breaks, **whole}})
    return [Schedule.of(cut), Schedule.of(cut.model_copy(update={"closed_days": {}}))]


def _has_nights(terms: CalendarTerms) -> bool:
    windows = [window for each in (*terms.hours.values(), *terms.special_days.values()) for window in each]
    return any(closes <= opens for opens, closes in windows)


class _OtherClock(WallHours):
    """A wall clock whose times that come twice are the second."""

    def at_us(self, on: date, seconds: int, microsecond: int = 0) -> int:
        wall = datetime.combine(on, time()) + timedelta(seconds=seconds)
        other = microseconds(wall.replace(tzinfo=self.zone, fold=1)) + microsecond
        return max(other, super().at_us(on, seconds, microsecond))


class _GapClock(WallHours):
    """A wall clock whose times that do not exist are all the end of the gap."""

    def at_us(self, on: date, seconds: int, microsecond: int = 0) -> int:
        at_us = super().at_us(on, seconds, microsecond)
        wall = datetime.combine(on, time()) + timedelta(seconds=seconds)
        shown = instant(at_us).astimezone(self.zone).replace(tzinfo=None)
        while shown > wall and instant(at_us - SECOND).astimezone(self.zone).replace(tzinfo=None) >= wall:
            at_us -= SECOND
        return at_us


def _other_clocks(case: Deadline) -> Answers:
    """Take the second of two equal times, or the end of the gap for one that does not exist."""
    return {case._replace(schedule=other).answer() for other in _with_other_clocks(case.schedule)}


def _other_clocks_elapsed(case: Elapsed) -> Answers:
    if len(case.schedules) != 1:
        return set()
    ((begin, only),) = case.schedules
    return {case._replace(schedules=[(begin, other)]).answer() for other in _with_other_clocks(only)}


def _with_other_clocks(schedule: Schedule) -> list[Schedule]:
    terms = schedule.terms
    if terms is None:
        return []
    return [Schedule(terms, Hours([kind(terms)])) for kind in (_OtherClock, _GapClock)]


PEER_RULES: Final = (
    PeerRule("closing-instant", deadline=_after_closing),
    PeerRule("exact-seconds", deadline=_whole_minutes, elapsed=_whole_minutes_elapsed),
    PeerRule("zero-is-a-figure", elapsed=_nothing_is_missing),
    PeerRule("end-before-start", elapsed=_less_than_nothing),
    PeerRule("never-open", deadline=_wall_clock),
    PeerRule("pauses-shift", deadline=_pauses_by_the_wall),
    PeerRule("pauses-shift", deadline=_pauses_end_with_the_target),
    PeerRule("first-reply-pauses", deadline=_first_reply_never_pauses),
    PeerRule("working-days", deadline=_days_by_the_week),
    PeerRule("days-keep-the-clock", deadline=_days_begin_with_the_opening),
    PeerRule("nights", deadline=_nights_end_at_holidays, elapsed=_nights_end_at_holidays_elapsed),
    PeerRule("gaps-and-repeats", deadline=_other_clocks, elapsed=_other_clocks_elapsed),
)


def ruling_for(case: Deadline | Elapsed, expected: int | None) -> str | None:
    """Name the ruling by which a peer's answer differs from ours; None where no rule of a peer explains it."""
    for rule in PEER_RULES:
        if isinstance(case, Deadline):
            answers = rule.deadline(case) if rule.deadline is not None else set()
        else:
            answers = rule.elapsed(case) if rule.elapsed is not None else set()
        if expected in answers:
            return rule.ruling
    return None
