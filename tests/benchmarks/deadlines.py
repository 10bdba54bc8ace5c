"""How many deadlines a second one process computes, beside walking from window to window, and beside adding a duration."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from commands.holidays import HolidayChoice, holiday_set
from domain.business_time import Hours
from domain.calendar import WEEKDAYS, CalendarTerms, Window, Windows
from storage.settings import Settings
from tests.benchmarks.ground import MeasurementError, say
from tests.benchmarks.machine import figures_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEADLINES = 100_000
WALKED = 300
ROUNDS = 5
YEAR_OF_HOURS = timedelta(hours=2_000)
YEAR_OF_DAYS = 250
SHORT = timedelta(hours=4)
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


async def main(
    _: Settings, *, deadlines: int = DEADLINES, walked: int = WALKED, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Compute deadlines 2,000 opening hours, about a year, after instants spread over a year.

    `ratio` is our rate over that of walking from window to window, day by day, as is usual; `ratio_to_addition` over that
    of adding a duration to the same instants, which tells the machine's own speed. Rates are medians of rounds by turns.
    Raises MeasurementError where the two ways differ.
    """
    terms = office()
    chance = random.Random(5)  # noqa: S311 - which instants does not matter, only that they are the same
    starts = [FIRST + timedelta(microseconds=chance.randrange(365 * 86_400 * 10**6)) for _ in range(deadlines)]
    few = starts[:walked]
    first_use_seconds = await asyncio.to_thread(_first_use, terms)
    hours = Hours.of([terms])
    if any(hours.add(at, YEAR_OF_HOURS) != walk(terms, at, YEAR_OF_HOURS) for at in few[:50]):
        message = "our deadlines are not those that walking comes to"
        raise MeasurementError(message)
    sides: dict[str, Side] = {
        "deadlines": Side(starts, lambda at: hours.add(at, YEAR_OF_HOURS)),
        "short_deadlines": Side(starts, lambda at: hours.add(at, SHORT)),
        "times_between": Side(starts, lambda at: hours.between(at, at + timedelta(days=365))),
        "working_days": Side(starts, lambda at: hours.add_days(at, YEAR_OF_DAYS)),
        "additions": Side(starts, lambda at: at + YEAR_OF_HOURS),
        "walks": Side(few, lambda at: walk(terms, at, YEAR_OF_HOURS)),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        say(f"deadlines: round {number + 1} of {rounds}")
        for name, side in sides.items():
            # Away from the event loop: nothing else of this process is measured, and nothing waits for it.
            rates[name].append(await asyncio.to_thread(side.rate))
    per_second = {name: median(found) for name, found in rates.items()}
    return {
        "benchmark": "deadlines",
        "ratio": round(per_second["deadlines"] / per_second["walks"], 1),
        "ratio_to_addition": round(per_second["deadlines"] / per_second["additions"], 3),
        **{f"{name}_per_second": round(rate) for name, rate in per_second.items()},
        "deadlines_per_second_by_round": [round(rate) for rate in rates["deadlines"]],
        "first_use_milliseconds": round(first_use_seconds * 1_000, 1),
        "spans_hours": YEAR_OF_HOURS.total_seconds() / 3_600,
    }


class Side(NamedTuple):
    """A way to compute something of an instant, and the instants."""

    starts: Sequence[datetime]
    compute: Callable[[datetime], object]

    def rate(self) -> float:
        """Give how many it does a second."""
        begun = time.perf_counter()
        for at in self.starts:
            self.compute(at)
        return len(self.starts) / (time.perf_counter() - begun)


def office() -> CalendarTerms:
    """Give a calendar with a lunch break, holidays and a change of clocks twice a year."""
    windows: Windows = (Window("08:00", "12:00"), Window("13:00", "17:00"))
    holidays = holiday_set(HolidayChoice(country="DE", subdivision="BY", years=tuple(range(2025, 2030))))
    return CalendarTerms(
        time_zone="Europe/Berlin",
        hours=dict.fromkeys(WEEKDAYS[:5], windows),
        holidays=holidays,
        special_days={date(2026, 12, 24): (Window("08:00", "12:00"),)},
    )


def walk(terms: CalendarTerms, at: datetime, span: timedelta) -> datetime:
    """Add opening hours the plain way: window after window, day after day. Knows neither nights nor breaks."""
    zone, holidays = ZoneInfo(terms.time_zone), terms.holidays
    on = at.astimezone(zone).date()
    while True:
        windows = terms.special_days.get(on) or terms.hours.get(WEEKDAYS[on.weekday()], ())
        if holidays is None or on not in holidays.closed:
            for window in windows:
                opens, closes = (
                    datetime(on.year, on.month, on.day, int(wall[:2]), int(wall[3:]), tzinfo=zone).astimezone(UTC)
                    for wall in window
                )
                begin = max(opens, at)
                if begin < closes:
                    if span <= closes - begin:
                        return begin + span
                    span -= closes - begin
        on += timedelta(days=1)


def _first_use(terms: CalendarTerms) -> float:
    """Give the seconds until a calendar that nobody has asked yet has given its first deadline."""
    begun = time.perf_counter()
    Hours.of([terms]).add(FIRST, YEAR_OF_HOURS)
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
