"""How much of the time a desk is open: counting it, adding it, and finding when it opens, exact to the microsecond."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from domain.calendar import WEEKDAYS, CalendarTerms, Window
from domain.spans import EARLIEST, EARLIEST_US, FOREVER_US, LATEST, instant, merged, microseconds
from domain.wall_hours import DAY, FIRST_YEAR, LAST_YEAR, LEEWAY_YEARS, WallHours
from domain.working_days import WorkingDays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.spans import Span


def year_us(year: int) -> int:
    """Give when a year begins, in UTC."""
    return microseconds(datetime(year, 1, 1, tzinfo=UTC))


class _Table(NamedTuple):
    """All windows of some years in order, none touching another, and how much is open before and after each."""

    first_year: int
    end_year: int
    begin_us: int
    end_us: int
    spans: list[Span]
    """What was worked out; the lists below begin and end with all other time, once nothing is left to work out."""
    opens: list[int]
    closes: list[int]
    before: list[int]
    after: list[int]

    @classmethod
    def of(cls, first_year: int, end_year: int, spans: list[Span]) -> _Table:
        """Add up the windows from one year until before another."""
        begin_us, end_us = year_us(first_year), year_us(end_year)
        known = spans
        if first_year == FIRST_YEAR:
            known, begin_us = [(-FOREVER_US, begin_us), *known], -FOREVER_US
        if end_year == LAST_YEAR:
            known, end_us = [*known, (end_us, FOREVER_US)], FOREVER_US
        known = merged(known)
        after = list(accumulate(end - begin for begin, end in known))
        opens, closes = [begin for begin, _ in known], [end for _, end in known]
        return cls(first_year, end_year, begin_us, end_us, spans, opens, closes, [0, *after[:-1]], after)

    def opened_until(self, at_us: int) -> int:
        """Count the open time from the beginning of the table on."""
        at = bisect_right(self.opens, at_us) - 1
        return self.before[at] + min(at_us, self.closes[at]) - self.opens[at] if at >= 0 else 0


class Hours:
    """A calendar as of its latest version, ready to count with. It never changes, whatever it remembers."""

    __slots__ = ("_rules", "_table", "_working_days")

    def __init__(self, rules: Sequence[WallHours]) -> None:
        """Count by these versions, each from its beginning until that of the next."""
        self._rules: Final = tuple(rules)
        self._working_days: Final = WorkingDays(rules)
        # One value that is replaced as a whole: threads may count at the same time.
        self._table = _Table(0, 0, 0, 0, [], [], [], [], [])

    @classmethod
    def of(cls, versions: Sequence[CalendarTerms]) -> Self:
        """Give the hours of a calendar that was adopted in these versions, of which there is at least one.

        A version counts from midnight, by its own clock, of its `valid_from` on, whatever was adopted before it says of
        later days. The one that begins first counts before its own date as well, since there is no other.
        """
        kept: list[WallHours] = []
        for terms in versions:
            rules = WallHours(terms)
            kept = [earlier for earlier in kept if earlier.begins_us < rules.begins_us]
            kept.append(rules)
        return cls(kept)

    # Instants and spans of time

    def is_open(self, at: datetime) -> bool:
        """Say whether it is open; at the closing instant it is not."""
        return self.is_open_us(microseconds(at))

    def next_opening(self, at: datetime) -> datetime:
        """Give the first instant from `at` on when it is open, which may be `at` itself."""
        return instant(self.next_opening_us(microseconds(at)))

    def last_closing(self, at: datetime) -> datetime:
        """Give the last instant up to `at` with open time just before it, which may be `at` itself."""
        return instant(self.last_closing_us(microseconds(at)))

    def add(self, at: datetime, span: timedelta) -> datetime:
        """Give when `span` of open time has passed since `at`, or for a negative one, from when on it passes until `at`.

        What is used up exactly at closing gives the closing instant, backwards the opening one. No time at all gives the
        first open instant from `at` on.
        """
        return instant(
            self.add_us(microseconds(at), (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds)
        )

    def between(self, start: datetime, end: datetime) -> timedelta:
        """Give how much of the time is open; none where `end` comes before `start`."""
        return timedelta(microseconds=self.between_us(microseconds(start), microseconds(end)))

    def windows(self, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """Give when it is open between two instants, cut off at both; windows that touch are one."""
        begin_us, end_us = microseconds(start), microseconds(end)
        if end_us <= begin_us:
            return []
        table = self._covering(begin_us, end_us)
        first, last = bisect_right(table.closes, begin_us), bisect_left(table.opens, end_us)
        return [
            (instant(max(table.opens[at], begin_us)), instant(min(table.closes[at], end_us)))
            for at in range(first, last)
        ]

    def add_days(self, at: datetime, days: int, *, end_of_day: bool = False) -> datetime:
        """Give the same time on the clock so many working days later, or earlier, or when that day closes.

        A working day is a date on which something opens; that of `at` is not counted. Where it is closed at that time,
        the next opening counts (backwards the last closing), but a day's closing instant is still of that day. No days at
        all give the first open instant from `at` on, or with `end_of_day` the first closing of a day.
        """
        at_us = microseconds(at)
        if not (days or end_of_day):
            return instant(self.next_opening_us(at_us))
        # At either end of what a datetime can say there may be no local time.
        local = min(max(at, EARLIEST + DAY), LATEST - DAY).astimezone(self._in_force(at_us).zone)
        on = self._working_days.after(local.date(), days)
        if end_of_day:
            return instant(self._working_days.closing_us(on, at_us if days == 0 else EARLIEST_US))
        at_us = self._working_days.at_us(on, local.time())
        if self.is_open_us(at_us) or self.last_closing_us(at_us) == at_us:
            return instant(at_us)
        return instant(self.last_closing_us(at_us) if days < 0 else self.next_opening_us(at_us))

    # The same in microseconds since 1970

    def is_open_us(self, at_us: int) -> bool:
        """Say whether it is open."""
        table = self._covering(at_us, at_us)
        before = bisect_right(table.opens, at_us) - 1
        return before >= 0 and at_us < table.closes[before]

    def next_opening_us(self, at_us: int) -> int:
        """Give the first open instant from `at_us` on."""
        table = self._covering(at_us, at_us)
        while (following := bisect_right(table.closes, at_us)) == len(table.closes):
            table = self._later(table)
        return max(table.opens[following], at_us)

    def last_closing_us(self, at_us: int) -> int:
        """Give the last instant up to `at_us` with open time just before it."""
        table = self._covering(at_us - 1, at_us)
        while (before := bisect_left(table.opens, at_us) - 1) < 0:
            table = self._earlier(table)
        return min(table.closes[before], at_us)

    def add_us(self, at_us: int, span_us: int) -> int:
        """Add open time, as `add` does."""
        table = self._table
        if not table.begin_us < at_us < table.end_us:
            table = self._covering(at_us - 1, at_us)
        if span_us > 0:
            at = bisect_right(table.closes, at_us)
            while True:
                if at < len(table.closes):
                    opens = table.opens[at]
                    goal = table.before[at] + span_us + (at_us - opens if at_us > opens else 0)
                    if goal <= table.after[-1]:
                        at = bisect_left(table.after, goal, at)
                        return table.closes[at] - table.after[at] + goal
                table = self._later(table)
                at = bisect_right(table.closes, at_us)
        return self.next_opening_us(at_us) if span_us == 0 else self._take_us(table, at_us, -span_us)

    def between_us(self, start_us: int, end_us: int) -> int:
        """Count open time, as `between` does."""
        if end_us <= start_us:
            return 0
        table = self._table
        if start_us < table.begin_us or end_us > table.end_us:
            table = self._covering(start_us, end_us)
        return table.opened_until(end_us) - table.opened_until(start_us)

    def _take_us(self, table: _Table, at_us: int, span_us: int) -> int:
        """Go back by open time, more than none."""
        while (goal := table.opened_until(at_us) - span_us) < 0:
            table = self._earlier(table)
        at = bisect_right(table.before, goal) - 1
        return table.opens[at] + goal - table.before[at]

    # What is remembered

    def _in_force(self, at_us: int) -> WallHours:
        """Give the version that counts at an instant."""
        found = self._rules[0]
        for rules in self._rules[1:]:
            if rules.begins_us <= at_us:
                found = rules
        return found

    def _covering(self, begin_us: int, end_us: int) -> _Table:
        """Give the windows of years that two instants are in, and of some before and after."""
        table = self._table
        if table.begin_us <= begin_us and end_us < table.end_us:
            return table
        first, end = instant(begin_us).year - LEEWAY_YEARS, instant(end_us).year + 1 + LEEWAY_YEARS
        if table.end_year:
            first, end = min(first, table.first_year), max(end, table.end_year)
        return self._reaching(first, end)

    def _later(self, table: _Table) -> _Table:
        """Look twice as far ahead."""
        return self._reaching(table.first_year, 2 * table.end_year - table.first_year)

    def _earlier(self, table: _Table) -> _Table:
        """Look twice as far back."""
        return self._reaching(2 * table.first_year - table.end_year, table.end_year)

    def _reaching(self, first: int, end: int) -> _Table:
        """Work out the windows from one year until before another, but for those that are there, and remember them."""
        first, end = min(max(first, FIRST_YEAR), LAST_YEAR - 1), max(min(end, LAST_YEAR), FIRST_YEAR + 1)
        table = self._table
        if table.end_year:
            spans = self._worked_out(first, table.first_year) + table.spans + self._worked_out(table.end_year, end)
        else:
            spans = self._worked_out(first, end)
        self._table = found = _Table.of(first, end, merged(spans))
        return found

    def _worked_out(self, first: int, end: int) -> list[Span]:
        """Work out the windows from one year until before another, each version's where that counts."""
        spans: list[Span] = []
        begin_us, end_us = year_us(first), year_us(end)
        ends = [*(rules.begins_us for rules in self._rules[1:]), FOREVER_US]
        for at, (rules, until_us) in enumerate(zip(self._rules, ends, strict=True)):
            from_us = max(rules.begins_us, begin_us) if at else begin_us
            until_us = min(until_us, end_us)  # noqa: PLW2901 # no later than what is asked for
            if from_us < until_us:
                spans += rules.open_between(from_us, until_us)
        return spans


class _AlwaysOpen(Hours):
    """Time by the calendar: it never closes, and days begin at midnight UTC."""

    def add_us(self, at_us: int, span_us: int) -> int:
        """Add time."""
        return at_us + span_us

    def between_us(self, start_us: int, end_us: int) -> int:
        """Count time."""
        return max(end_us - start_us, 0)


def _always_open() -> Hours:
    whole = (Window("00:00", "24:00"),)
    terms = CalendarTerms(time_zone="Etc/UTC", hours=dict.fromkeys(WEEKDAYS, whole))
    return _AlwaysOpen([WallHours(terms)])


ALWAYS_OPEN: Final = _always_open()
