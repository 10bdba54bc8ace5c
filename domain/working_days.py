"""Which dates a desk works on, counted forwards and backwards."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

from domain.wall_hours import FIRST_YEAR, LAST_YEAR, LEEWAY_YEARS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import time

    from domain.wall_hours import WallHours

FIRST, LAST = date(FIRST_YEAR, 1, 1).toordinal(), date(LAST_YEAR, 1, 1).toordinal()
EARLIEST, LATEST = date.min.toordinal() + 2, date.max.toordinal() - 2


class _Worked(NamedTuple):
    """The working days of some years, and when each closes."""

    first_year: int
    end_year: int
    ordinals: list[int]
    closings: list[int]


class WorkingDays:
    """The dates, each by the version of the calendar that counts on it, on which something opens.

    Before the years that hours are worked out for and after them every date is one, and closes at midnight.
    """

    __slots__ = ("_rules", "_worked")

    def __init__(self, rules: Sequence[WallHours]) -> None:
        """Go by these versions, each from its date until that of the next."""
        self._rules: Final = tuple(rules)
        self._worked = _Worked(0, 0, [], [])

    def after(self, on: date, days: int) -> date:
        """Give the date that is so many working days after another, or before it."""
        return date.fromordinal(min(max(self._after(on.toordinal(), days), EARLIEST), LATEST)) if days else on

    def at_us(self, on: date, clock: time) -> int:
        """Give the instant of a time on the wall."""
        seconds = clock.hour * 3600 + clock.minute * 60 + clock.second
        return self._in_force(on).at_us(on, seconds, clock.microsecond)

    def closing_us(self, on: date, after_us: int) -> int:
        """Give when the first working day from a date on closes that does so no earlier than `after_us`."""
        ordinal = on.toordinal()
        if FIRST <= ordinal < LAST:
            worked = self._covering(ordinal, ordinal)
            while True:
                for at in range(bisect_left(worked.ordinals, ordinal), len(worked.ordinals)):
                    if worked.closings[at] >= after_us:
                        return worked.closings[at]
                if worked.end_year >= LAST_YEAR:
                    ordinal = LAST
                    break
                worked = self._later(worked)
        return self._in_force(on).at_us(date.fromordinal(min(max(ordinal, EARLIEST), LATEST)), 86_400)

    def _after(self, ordinal: int, days: int) -> int:
        """Count by the numbers of dates."""
        if days > 0:
            if (before := min(max(FIRST - 1 - ordinal, 0), days)) > 0:
                return self._after(ordinal + before, days - before) if days > before else ordinal + before
            worked = self._covering(ordinal, ordinal)
            while (at := bisect_right(worked.ordinals, ordinal) + days - 1) >= len(worked.ordinals):
                if worked.end_year >= LAST_YEAR:
                    return max(LAST, ordinal + 1) + at - len(worked.ordinals)
                worked = self._later(worked)
            return worked.ordinals[at]
        if (beyond := min(max(ordinal - LAST, 0), -days)) > 0:
            return self._after(ordinal - beyond, days + beyond) if -days > beyond else ordinal - beyond
        worked = self._covering(ordinal, ordinal)
        while (at := bisect_left(worked.ordinals, ordinal) + days) < 0:
            if worked.first_year <= FIRST_YEAR:
                return min(FIRST, ordinal) + at
            worked = self._reaching(2 * worked.first_year - worked.end_year, worked.end_year)
        return worked.ordinals[at]

    def _in_force(self, on: date) -> WallHours:
        """Give the version that counts on a date."""
        found = self._rules[0]
        for rules in self._rules[1:]:
            if rules.valid_from is None or rules.valid_from <= on:
                found = rules
        return found

    def _covering(self, first: int, last: int) -> _Worked:
        """Give the working days of years that two dates are in, and of some before and after."""
        first_year, end_year = date.fromordinal(first).year, date.fromordinal(last).year + 1
        worked = self._worked
        if worked.first_year <= max(first_year, FIRST_YEAR) and min(end_year, LAST_YEAR) <= worked.end_year:
            return worked
        first_year, end_year = first_year - LEEWAY_YEARS, end_year + LEEWAY_YEARS
        if worked.end_year:
            first_year, end_year = min(first_year, worked.first_year), max(end_year, worked.end_year)
        return self._reaching(first_year, end_year)

    def _later(self, worked: _Worked) -> _Worked:
        """Look twice as far ahead."""
        return self._reaching(worked.first_year, 2 * worked.end_year - worked.first_year)

    def _reaching(self, first_year: int, end_year: int) -> _Worked:
        """Find the working days from one year until before another, but for those that are there, and remember them."""
        first_year, end_year = (
            min(max(first_year, FIRST_YEAR), LAST_YEAR - 1),
            max(min(end_year, LAST_YEAR), FIRST_YEAR + 1),
        )
        worked = self._worked
        if worked.end_year:
            before, after = self._found(first_year, worked.first_year), self._found(worked.end_year, end_year)
            days = [*before, *zip(worked.ordinals, worked.closings, strict=True), *after]
        else:
            days = self._found(first_year, end_year)
        self._worked = found = _Worked(first_year, end_year, [day for day, _ in days], [closing for _, closing in days])
        return found

    def _found(self, first_year: int, end_year: int) -> list[tuple[int, int]]:
        """Find the working days from one year until before another, each with when it closes."""
        found = []
        for ordinal in range(date(first_year, 1, 1).toordinal(), date(end_year, 1, 1).toordinal()):
            on = date.fromordinal(ordinal)
            if spans := self._in_force(on).working_day(on):
                found.append((ordinal, spans[-1][1]))
        return found
