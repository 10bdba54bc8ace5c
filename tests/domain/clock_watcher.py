"""An oracle of business time: it watches the clock on the wall second by second, and knows nothing of offsets."""

from __future__ import annotations

from array import array
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.calendar import CalendarTerms, Window

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
UNIX = datetime(1970, 1, 1)  # noqa: DTZ001 - by whatever clock


class Watch(NamedTuple):
    """What the clock showed in each second of a time, as seconds since its own 1970; the first is midnight UTC."""

    shown: array[int]
    gaps: list[tuple[int, int]]
    """Times that were left out: from one until just before the other, which was shown instead of it."""

    def second(self, local: int) -> int:
        """Give in which second a time came first; one that was left out comes by as much later as was left out."""
        for left_out, shown_instead in self.gaps:
            if left_out <= local < shown_instead:
                local += shown_instead - left_out
                break
        return self.shown.index(local, max(0, local - self.shown[0] - 26 * 3600))


@lru_cache(maxsize=16)
def watched(zone: str, begin: date, days: int) -> Watch:
    """Watch a clock for some days."""
    midnight = datetime(begin.year, begin.month, begin.day, tzinfo=UTC)
    place, unix = ZoneInfo(zone), UNIX.toordinal()
    shown = array("q")
    gaps = []
    for second in range(days * 86_400):
        wall = (midnight + timedelta(seconds=second)).astimezone(place)
        local = (wall.toordinal() - unix) * 86_400 + wall.hour * 3600 + wall.minute * 60 + wall.second
        if shown and local > shown[-1] + 1:
            gaps.append((shown[-1] + 1, local))
        shown.append(local)
    return Watch(shown, gaps)


def open_seconds(terms: CalendarTerms, begin: date, days: int) -> bytearray:
    """Say for each second of some days from midnight UTC on whether it is open, but for the first two and the last two."""
    watch = watched(terms.time_zone, begin, days)
    seconds = bytearray(days * 86_400)
    dates = [(UNIX + timedelta(days=day)).date() for day in sorted({local // 86_400 for local in watch.shown[::600]})][
        1:-2
    ]
    for on in dates:
        _mark(watch, seconds, on, windows_of(terms, on), b"\1")
    for on in dates:
        _mark(watch, seconds, on, terms.breaks.get(on, ()), b"\0")
    return seconds


def open_runs(seconds: bytearray, start: int, end: int) -> list[tuple[int, int]]:
    """Give the open seconds from one until before another, as stretches."""
    runs = []
    while (first := seconds.find(1, start, end)) >= 0:
        closed = seconds.find(0, first, end)
        start = closed if closed >= 0 else end
        runs.append((first, start))
    return runs


def nth_open(runs: list[tuple[int, int]], number: int) -> int:
    """Give the open second of that number, from 1."""
    for first, last in runs:
        if number <= last - first:
            return first + number - 1
        number -= last - first
    message = "not so many"
    raise AssertionError(message)


def windows_of(terms: CalendarTerms, on: date) -> Iterable[Window]:
    """Say which windows begin on a date: what is said of it first counts."""
    if on in terms.closed_days:
        return ()
    if on in terms.special_days:
        return terms.special_days[on]
    if terms.holidays is not None and on in terms.holidays.working:
        return terms.hours.get(terms.holidays.working_as, ())
    if terms.holidays is not None and on in terms.holidays.closed:
        return ()
    return next((hours for day, hours in terms.hours.items() if day == WEEKDAYS[on.weekday()]), ())


def _mark(watch: Watch, seconds: bytearray, on: date, windows: Iterable[Window], value: bytes) -> None:
    for opens, closes in windows:
        begin, end = _wall(on, opens), _wall(on, closes)
        first, last = watch.second(begin), watch.second(end if end > begin else end + 86_400)
        if first < last:
            seconds[first:last] = value * (last - first)


def shown(on: date, clock: str) -> datetime:
    """Give what the wall shows on a date at a time; 24:00 is the next day's midnight."""
    hours, minutes, *rest = (int(part) for part in clock.split(":"))
    return datetime.combine(on, time()) + timedelta(hours=hours, minutes=minutes, seconds=sum(rest))


def _wall(on: date, clock: str) -> int:
    return round((shown(on, clock) - UNIX).total_seconds())
