"""What is wrong with a calendar that somebody wants to adopt; one that was adopted is never looked at again."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from zoneinfo import available_timezones

from domain.calendar import WEEKDAYS, seconds_of
from domain.event import Rejected
from domain.wall_hours import FIRST_YEAR, LAST_YEAR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import date

    from domain.calendar import CalendarTerms, Windows

DAY_SECONDS: Final = 86_400
WEEK_SECONDS: Final = 7 * DAY_SECONDS
MOST_WINDOWS: Final = 288
"""Of one day: one every five minutes. Each costs some microseconds a day of every year that is worked out."""
MOST_DATES: Final = 5_000
"""Spoken of one by one, of each kind."""


class UnusableCalendar(Rejected, ValueError):
    """A calendar makes sense before it is adopted, since an adopted version stays as it is.

    Its time zone is known, its windows open before they close and do not overlap, no date is said to be two things, and
    it opens every week. `details.faults` lists all that is wrong.
    """

    problem = "unusable-calendar"

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults), faults=faults)


def verify(terms: CalendarTerms) -> None:
    """Raise UnusableCalendar where a calendar makes no sense."""
    if faults := [*_zone(terms.time_zone), *_week(terms), *_dates(terms)]:
        raise UnusableCalendar(faults)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    # What the machine is set to is no place, and means something else on the next one.
    return frozenset(available_timezones() - {"localtime", "Factory"})


def _zone(name: str) -> Iterator[str]:
    if name not in _zones():
        close = get_close_matches(name, sorted(_zones()), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; an IANA name like Europe/Berlin is wanted"
        yield f"time_zone: {name!r} is not a known time zone{hint}"


def _week(terms: CalendarTerms) -> Iterator[str]:
    if not any(terms.hours.values()):
        yield "hours: there are none in any week, so that a deadline would never come"
        return
    sound = True
    for day, windows in terms.hours.items():
        for fault in _windows(f"hours.{day}", windows):
            sound = False
            yield fault
    if sound:
        yield from _nights(terms)


def _nights(terms: CalendarTerms) -> Iterator[str]:
    """Find windows over midnight that run into what the next day has."""
    for number, day in enumerate(WEEKDAYS):
        following = WEEKDAYS[(number + 1) % 7]
        for opens, closes in terms.hours.get(day, ()):
            if seconds_of(closes) > seconds_of(opens):
                continue
            for other in terms.hours.get(following, ()):
                if seconds_of(other.opens) < seconds_of(closes):
                    yield f"hours.{day}: {opens}-{closes} runs into {other.opens}-{other.closes} of {following}"


def _windows(place: str, windows: Windows) -> Iterator[str]:
    """Find what is wrong with the windows of one day."""
    if len(windows) > MOST_WINDOWS:
        yield f"{place}: {len(windows)} windows, where a day may have {MOST_WINDOWS}"
    for opens, closes in windows:
        if seconds_of(opens) == DAY_SECONDS:
            yield f"{place}: {opens}-{closes} opens at the end of the day; 00:00 of the next day is meant"
        elif seconds_of(opens) == seconds_of(closes):
            yield f"{place}: {opens}-{closes} closes when it opens; a whole day is 00:00-24:00"
    spans = sorted(
        (seconds_of(opens), seconds_of(closes) + (0 if seconds_of(closes) > seconds_of(opens) else DAY_SECONDS), at)
        for at, (opens, closes) in enumerate(windows)
    )
    for (_, end, one), (begin, _, other) in pairwise(spans):
        if begin < end:
            yield f"{place}: {'-'.join(windows[one])} and {'-'.join(windows[other])} overlap"


def _dates(terms: CalendarTerms) -> Iterator[str]:
    """Find what is wrong with dates that are spoken of."""
    spoken_of: dict[str, Collection[date]] = {
        "closed_days": terms.closed_days,
        "special_days": terms.special_days,
        "breaks": terms.breaks,
        "valid_from": () if terms.valid_from is None else (terms.valid_from,),
    }
    if terms.holidays is not None:
        spoken_of["holidays.closed"] = terms.holidays.closed
        spoken_of["holidays.working"] = terms.holidays.working
        for on in sorted(terms.holidays.closed.keys() & set(terms.holidays.working)):
            yield f"holidays.working: {on} is in holidays.closed too"
    for place, dates in spoken_of.items():
        if len(dates) > MOST_DATES:
            yield f"{place}: {len(dates)} dates, where there may be {MOST_DATES}"
        for on in sorted(dates):
            if not FIRST_YEAR <= on.year < LAST_YEAR:
                yield f"{place}: {on} is not from {FIRST_YEAR} until before {LAST_YEAR}, for which hours are worked out"
    for on in sorted(terms.closed_days.keys() & terms.special_days.keys()):
        yield f"special_days.{on}: the day is in closed_days too"
    yield from _windows_of_dates("special_days", terms.special_days, "a day without hours belongs in closed_days")
    yield from _windows_of_dates("breaks", terms.breaks, "there is no break")


def _windows_of_dates(place: str, days: dict[date, Windows], empty: str) -> Iterator[str]:
    for on, windows in sorted(days.items()):
        if not windows:
            yield f"{place}.{on}: {empty}"
        yield from _windows(f"{place}.{on}", windows)
