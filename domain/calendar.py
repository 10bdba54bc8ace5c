"""When a desk is open: weekly hours, holidays and days of its own, as adopted in versions that stay as they are."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ClockTime = Annotated[str, StringConstraints(pattern=r"^(([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?|24:00(:00)?)$")]
"""A local time as it stands on the wall, `HH:MM` or `HH:MM:SS`; `24:00` ends a day."""


class Window(NamedTuple):
    """Local times between which it is open, half-open; one that closes no later than it opens ends on the next day."""

    opens: ClockTime
    closes: ClockTime


Windows = tuple[Window, ...]


def seconds_of(time: ClockTime) -> int:
    """Give a local time as seconds after midnight."""
    hours, minutes, *seconds = map(int, time.split(":"))
    return hours * 3600 + minutes * 60 + sum(seconds)


class HolidaySet(BaseModel):
    """The public holidays of a country or region as they were known when the calendar was adopted.

    The dates themselves are kept, so that a newer edition of the source changes nothing until it is adopted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    country: str
    subdivision: str | None = None
    source: str
    """The package and its version, as `holidays 0.109`."""
    years: tuple[int, ...]
    closed: dict[date, str]
    """Date → name of the holiday."""
    working: tuple[date, ...] = ()
    """Days of a weekend that are worked instead, as in China."""
    working_as: Weekday = "mon"
    """The weekday whose hours such a day has."""


class CalendarTerms(BaseModel):
    """One version of a calendar. Of what is said of one date, what stands first here counts.

    `breaks` are cut out of whatever else the date has; then `closed_days`, `special_days` (an extra open day, or a half
    day: these hours and no others), the working days of `holidays`, its closed ones, and the weekly `hours`. `valid_from`
    is the local date from which on this version counts, before it those that were adopted earlier; None: always.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_zone: str
    hours: dict[Weekday, Windows]
    holidays: HolidaySet | None = None
    closed_days: dict[date, str] = Field(default_factory=dict)
    special_days: dict[date, Windows] = Field(default_factory=dict)
    breaks: dict[date, Windows] = Field(default_factory=dict)
    valid_from: date | None = None
