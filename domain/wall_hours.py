"""One version of a calendar, by the clock on its wall: what its windows are as instants, and which days are worked."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from domain.calendar import WEEKDAYS, seconds_of
from domain.spans import EARLIEST_US, instant, merged, microseconds, without

if TYPE_CHECKING:
    from domain.calendar import CalendarTerms, Windows
    from domain.spans import Span

DAY: Final = timedelta(days=1)
DAY_SECONDS: Final = 86_400
SECOND_US: Final = 1_000_000
FIRST_YEAR, LAST_YEAR = 1900, 2200
"""Hours are worked out for these years (the second not included); all time before and after counts as open."""
LEEWAY_YEARS: Final = 1
"""How many years on either side of what is asked for are worked out with it."""


class WallHours:
    """One version of a calendar, by the clock on its wall."""

    __slots__ = ("begins_us", "breaks", "dates", "valid_from", "weekly", "zone")

    def __init__(self, terms: CalendarTerms) -> None:
        """Read the terms; a time zone that this machine does not know is an error of zoneinfo."""
        self.zone: Final = ZoneInfo(terms.time_zone)
        self.valid_from: Final = terms.valid_from
        self.weekly: Final = tuple(_from_midnight(terms.hours.get(day, ())) for day in WEEKDAYS)
        self.dates: Final = self._dates(terms)
        self.breaks: Final = {on: _from_midnight(windows) for on, windows in terms.breaks.items()}
        self.begins_us: Final = EARLIEST_US if self.valid_from is None else self.at_us(self.valid_from, 0)

    def _dates(self, terms: CalendarTerms) -> dict[date, tuple[tuple[int, int], ...]]:
        """Settle what counts on dates that are spoken of: what is written last here wins."""
        dates: dict[date, tuple[tuple[int, int], ...]] = {}
        if terms.holidays is not None:
            dates.update(dict.fromkeys(terms.holidays.closed, ()))
            dates.update(dict.fromkeys(terms.holidays.working, self.weekly[WEEKDAYS.index(terms.holidays.working_as)]))
        dates.update({on: _from_midnight(windows) for on, windows in terms.special_days.items()})
        dates.update(dict.fromkeys(terms.closed_days, ()))
        return dates

    def at_us(self, on: date, seconds: int, microsecond: int = 0) -> int:
        """Give the instant of a time on the wall.

        One that does not exist moves forward by the gap, of one that comes twice it is the first: this is what the
        offset of `fold=0` makes of both (PEP 495).
        """
        wall = datetime(on.year, on.month, on.day) + timedelta(seconds=seconds)  # noqa: DTZ001 # the zone follows
        return microseconds(wall.replace(tzinfo=self.zone)) + microsecond

    def opened_on(self, on: date) -> list[Span]:
        """Give when it is open by the windows that begin on a date, also those that end on the next.

        Nothing on a date that was left out: crossing the date line, places have done so.
        """
        windows = self.dates.get(on)
        if windows is None:
            windows = self.weekly[on.weekday()]
        if not windows:
            return []
        midnight, next_midnight = self.at_us(on, 0), self.at_us(on, DAY_SECONDS)
        if next_midnight <= midnight:
            return []
        if next_midnight - midnight == DAY_SECONDS * SECOND_US and all(closes <= DAY_SECONDS for _, closes in windows):
            # No clock was changed that day: none has ever been changed twice within two days, and back again.
            return [(midnight + opens * SECOND_US, midnight + closes * SECOND_US) for opens, closes in windows]
        return [(self.at_us(on, opens), self.at_us(on, closes)) for opens, closes in windows]

    def broken_on(self, on: date) -> list[Span]:
        """Give the breaks of a date."""
        return [(self.at_us(on, opens), self.at_us(on, closes)) for opens, closes in self.breaks.get(on, ())]

    def open_between(self, begin_us: int, end_us: int) -> list[Span]:
        """Give when it is open between two instants, cut off at both."""
        first = (instant(begin_us).astimezone(self.zone) - 2 * DAY).date()
        last = (instant(end_us).astimezone(self.zone) + 2 * DAY).date()
        spans = [
            span
            for ordinal in range(first.toordinal(), last.toordinal() + 1)
            for span in self.opened_on(date.fromordinal(ordinal))
        ]
        breaks = [span for on in self.breaks if first <= on <= last for span in self.broken_on(on)]
        return [
            (max(begin, begin_us), min(end, end_us))
            for begin, end in without(merged(spans), merged(breaks))
            if begin < end_us and end > begin_us
        ]

    def working_day(self, on: date) -> list[Span]:
        """Give when it is open by what begins on a date and is no break; nothing: it is no working day."""
        spans = self.opened_on(on)
        if not spans or not self.breaks:
            return merged(spans)
        breaks = [span for day in (on - DAY, on, on + DAY) for span in self.broken_on(day)]
        return without(merged(spans), merged(breaks))


def _from_midnight(windows: Windows) -> tuple[tuple[int, int], ...]:
    """Read windows as seconds after midnight; the second of a pair is more than a day where it is on the next."""
    pairs = ((seconds_of(opens), seconds_of(closes)) for opens, closes in windows)
    return tuple((opens, closes if closes > opens else closes + DAY_SECONDS) for opens, closes in pairs)
