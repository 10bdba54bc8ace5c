"""A calendar that makes no sense is refused before it is adopted, with all that is wrong with it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from domain.calendar import CalendarTerms
from domain.calendar_faults import UnusableCalendar, verify
from domain.service_levels import ServiceLevels
from tests.domain.scenario import BY_ANN, NOON

pytestmark = pytest.mark.pure

OFFICE = {"mon": [["09:00", "12:00"], ["13:00", "17:00"]], "fri": [["22:00", "06:00"]], "sun": [["00:00", "24:00"]]}


def calendar(**said: Any) -> CalendarTerms:
    return CalendarTerms.model_validate({"time_zone": "Europe/Berlin", "hours": OFFICE, **said})


def test_a_calendar_that_makes_sense_is_not_refused() -> None:
    verify(
        calendar(
            closed_days={"2026-12-24": "Christmas Eve"},
            special_days={"2026-12-31": [["09:00", "12:00"]]},
            breaks={"2026-12-31": [["10:00", "10:30"]]},
            valid_from="2026-12-01",
        )
    )


def holidays(closed: dict[str, str], working: list[str]) -> dict[str, Any]:
    return {"country": "CN", "source": "by hand", "years": [2026], "closed": closed, "working": working}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"time_zone": "Europe/Berlim"}, "'Europe/Berlim' is not a known time zone; did you mean Europe/Berlin"),
        ({"time_zone": "../../etc/passwd"}, "is not a known time zone"),
        ({"time_zone": "localtime"}, "'localtime' is not a known time zone"),
        ({"time_zone": "Factory"}, "'Factory' is not a known time zone"),
        ({"time_zone": ""}, "an IANA name like Europe/Berlin is wanted"),
        ({"hours": {}}, "hours: there are none in any week"),
        ({"hours": {"mon": []}, "special_days": {"2026-01-01": [["09:00", "10:00"]]}}, "there are none in any week"),
        (
            {"hours": {"mon": [["09:00", "12:00"], ["11:00", "13:00"]]}},
            "hours.mon: 09:00-12:00 and 11:00-13:00 overlap",
        ),
        ({"hours": {"mon": [["22:00", "06:00"], ["23:00", "24:00"]]}}, "22:00-06:00 and 23:00-24:00 overlap"),
        ({"hours": {"sun": [["22:00", "06:00"]], "mon": [["05:00", "09:00"]]}}, "runs into 05:00-09:00 of mon"),
        ({"hours": {"mon": [["09:00", "09:00"]]}}, "09:00-09:00 closes when it opens; a whole day is 00:00-24:00"),
        ({"hours": {"mon": [["24:00", "02:00"]]}}, "opens at the end of the day"),
        (
            {"hours": {"mon": [[f"{n // 60:02}:{n % 60:02}:00", f"{n // 60:02}:{n % 60:02}:30"] for n in range(289)]}},
            "289 windows",
        ),
        (
            {"closed_days": {"2026-01-02": "bridge"}, "special_days": {"2026-01-02": [["09:00", "10:00"]]}},
            "special_days.2026-01-02: the day is in closed_days too",
        ),
        ({"special_days": {"2026-01-02": []}}, "a day without hours belongs in closed_days"),
        ({"breaks": {"2026-01-02": []}}, "breaks.2026-01-02: there is no break"),
        ({"breaks": {"2026-01-02": [["09:00", "10:00"], ["09:30", "11:00"]]}}, "overlap"),
        ({"closed_days": {"1899-12-31": "long ago"}}, "1899-12-31 is not from 1900 until before 2200"),
        ({"valid_from": "2200-01-01"}, "valid_from: 2200-01-01 is not from 1900"),
        (
            {"closed_days": {date.fromordinal(700_000 + day).isoformat(): "closed" for day in range(5_001)}},
            "5001 dates, where there may be 5000",
        ),
        (
            {"holidays": holidays({"2026-01-01": "New Year"}, ["2026-01-01"])},
            "holidays.working: 2026-01-01 is in holidays.closed too",
        ),
    ],
)
def test_what_makes_no_sense_is_said_clearly(said: dict[str, Any], fault: str) -> None:
    with pytest.raises(UnusableCalendar) as refused:
        verify(calendar(**said))
    assert fault in str(refused.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UnusableCalendar) as refused:
        verify(calendar(time_zone="Mars/Olympus", hours={"mon": [["09:00", "09:00"]]}))
    assert len(refused.value.details["faults"]) == 2


@pytest.mark.parametrize(
    "time", ["25:00", "18:60", "24:01", "9:00", "09:00:60", "09.00", "٠٩:٠٠", "09:00\n", "-1:00", "noon"]
)
def test_a_time_that_no_clock_shows_is_refused_with_what_is_wanted(time: str) -> None:
    with pytest.raises(ValidationError, match=r"is no time of a day: HH:MM or HH:MM:SS, from 00:00 to 24:00"):
        calendar(hours={"mon": [["09:00", time]]})


@pytest.mark.parametrize("day", ["7", "0", "monday", "Mon"])
def test_a_day_of_the_week_has_its_short_name(day: str) -> None:
    with pytest.raises(ValidationError, match="'mon', 'tue', 'wed', 'thu', 'fri', 'sat' or 'sun'"):
        calendar(hours={day: [["09:00", "17:00"]]})


def test_a_name_of_a_day_is_one_line_of_text() -> None:
    with pytest.raises(ValidationError, match=r"U\+0000"):
        calendar(closed_days={"2026-01-01": "New\0Year"})


def test_a_calendar_that_makes_no_sense_is_not_adopted() -> None:
    levels = ServiceLevels.unwritten(NOON)
    with pytest.raises(UnusableCalendar):
        levels.adopt_calendar(name="office", terms=calendar(hours={}), act=BY_ANN)
    assert levels.book.calendars == {}
