"""When a desk is open: weekly hours, holidays and days of its own, as adopted in versions that stay as they are."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from domain.text import printable_line

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK_TIME = re.compile(r"(([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?|24:00(:00)?)", re.ASCII)


def _clock_time(text: str) -> str:
    if not _CLOCK_TIME.fullmatch(text):
        message = f"{text!r} is no time of a day: HH:MM or HH:MM:SS, from 00:00 to 24:00"
        raise ValueError(message)
    return text


ClockTime = Annotated[str, AfterValidator(_clock_time)]
"""A local time as it stands on the wall, `HH:MM` or `HH:MM:SS`; `24:00` ends a day."""


class Window(NamedTuple):
    """Local times between which it is open, half-open; one that closes no later than it opens ends on the next day."""

    opens: ClockTime
    closes: ClockTime


Windows = tuple[Window, ...]
DayName = Annotated[str, StringConstraints(max_length=300), AfterValidator(printable_line)]


def seconds_of(time: ClockTime) -> int:
    """Give a local time as seconds after midnight."""
    hours, minutes, *seconds = map(int, time.split(":"))
    return hours * 3600 + minutes * 60 + sum(seconds)


class HolidaySet(BaseModel):
    """The public holidays of a country or region as they were known when the calendar was adopted.

    The dates themselves are kept, so that a newer edition of the source changes nothing until it is adopted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    country: DayName
    subdivision: DayName | None = None
    """A region of it, such as `BY`."""
    source: DayName
    """The package and its version, as `holidays 0.109`."""
    years: tuple[int, ...]
    """Those that were looked up; of others nothing is said."""
    closed: dict[date, DayName]
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

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    time_zone: str
    """An IANA name, as `Europe/Berlin`."""
    hours: dict[Weekday, Windows]
    """Weekday → windows such as `["09:00", "17:00"]`; one that closes no later than it opens ends on the next day."""
    holidays: HolidaySet | None = None
    closed_days: dict[date, DayName] = Field(default_factory=dict)
    """Date → why it is closed."""
    special_days: dict[date, Windows] = Field(default_factory=dict)
    """Date → its hours in place of those of its weekday: an extra open day, or a half day."""
    breaks: dict[date, Windows] = Field(default_factory=dict)
    """Date → windows that are cut out of whatever it is open."""
    valid_from: date | None = None
    """The local date from which on this version counts; null: always."""
