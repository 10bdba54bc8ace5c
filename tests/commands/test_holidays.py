"""Public holidays are those that governments announced, make-up workdays of China among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from commands.holidays import HolidayChoice, Holidays, holiday_set
from domain.business_time import Hours
from domain.calendar import WEEKDAYS, CalendarTerms, Window, Windows

pytestmark = pytest.mark.pure

SHARED = Path(os.environ.get("LEDGERDESK_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
COUNTRIES = [
    "US",
    "US-CA",
    "US-NY",
    "US-TX",
    "GB-ENG",
    "GB-SCT",
    "GB-NIR",
    "GB-WLS",
    "DE",
    "DE-BY",
    "DE-BE",
    "DE-NW",
    "DE-SN",
    "CN",
    "FR",
    "IN",
    "JP",
    "BR",
    "SG",
    "HK",
]


def announced(name: str) -> Any:
    path = SHARED / "calendars" / name
    if not path.exists():
        pytest.skip(f"{path} is not here; LEDGERDESK_SHARED_DATA says where the shared data lies")
    return json.loads(path.read_text())


def office(choice: HolidayChoice, zone: str) -> Hours:
    windows: Windows = (Window("09:00", "12:00"), Window("13:30", "18:00"))
    hours = dict.fromkeys(WEEKDAYS[:5], windows)
    return Hours.of([CalendarTerms(time_zone=zone, hours=hours, holidays=holiday_set(choice))])


@pytest.mark.parametrize("year", range(2020, 2025))
def test_an_office_in_china_works_on_the_days_that_the_state_council_says(year: int) -> None:
    days = {date.fromisoformat(day["date"]): day["isOffDay"] for day in announced(f"cn_{year}.json")["days"]}
    shanghai = ZoneInfo("Asia/Shanghai")
    hours = office(HolidayChoice(country="CN", years=(year,)), "Asia/Shanghai")
    for number in range(366):
        on = date(year, 1, 1) + timedelta(days=number)
        off = days.get(on, on.weekday() >= 5)
        start = datetime.combine(on, time(), shanghai).astimezone(UTC)
        worked = timedelta() if off or on.year > year else timedelta(hours=7, minutes=30)
        if on.year == year:
            assert hours.between(start, start + timedelta(days=1)) == worked, on


@pytest.mark.parametrize("place", COUNTRIES)
def test_holidays_are_those_of_the_country_and_its_region(place: str) -> None:
    expected = announced("holidays_pypi_2020_2027.json")["calendars"][place]
    country, _, subdivision = place.partition("-")
    choice = HolidayChoice(country=country, subdivision=subdivision or None, years=tuple(range(2020, 2028)))
    found = {on.isoformat(): name for on, name in holiday_set(choice).closed.items()}
    assert found.keys() == expected.keys()


def test_what_was_found_says_whose_it_is_and_where_it_is_from() -> None:
    found = holiday_set(HolidayChoice(country="DE", subdivision="BY", years=(2027, 2026, 2026)))
    assert (found.country, found.subdivision, found.years) == ("DE", "BY", (2026, 2027))
    assert found.source.startswith("holidays ")
    assert found.closed[date(2026, 1, 6)] == "Heilige Drei Könige"
    assert found.working == ()
    again = CalendarTerms.model_validate_json(
        CalendarTerms(time_zone="Europe/Berlin", hours={}, holidays=found).model_dump_json()
    )
    assert again.holidays == found


def test_a_day_worked_in_december_for_a_holiday_of_january_is_of_its_own_year() -> None:
    found = holiday_set(HolidayChoice(country="CN", years=(2011,)))
    assert date(2011, 12, 31) in found.working


def test_names_are_in_the_language_of_the_country_whatever_the_machines_is() -> None:
    script = (
        "from commands.holidays import *; "
        "print(list(holiday_set(HolidayChoice(country='CN', years=(2024,))).closed.values())[1].encode())"
    )
    for language in ("en_US", "th", ""):
        environment = os.environ | {"LANGUAGE": language, "LANG": f"{language}.UTF-8"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == repr("春节".encode())


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"country": "XX"}, "no holidays are known of country 'XX'; a code by ISO 3166-1 like DE is wanted"),
        ({"country": "de"}, "no holidays are known of country 'de'; did you mean DE"),
        ({"country": "DE", "subdivision": "XX"}, "no holidays are known of 'XX' in DE; of its subdivisions: BB, BE"),
        ({"country": "DE", "language": "xx"}, "names are not known in 'xx' but in de"),
    ],
)
def test_what_is_not_known_is_said_with_what_is(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        holiday_set(HolidayChoice(years=(2026,), **choice))


@pytest.mark.parametrize("years", [[], [1899], [2200], [2026.5], list(range(1950, 2001))])
def test_years_are_a_few_and_such_as_hours_are_worked_out_for(years: list[Any]) -> None:
    with pytest.raises(ValidationError):
        HolidayChoice.model_validate({"country": "DE", "years": years})


class Calendar(CalendarTerms):
    holidays: Holidays = None


def test_a_calendar_may_name_the_country_or_bring_the_dates_of_its_holidays() -> None:
    chosen = Calendar.model_validate({"time_zone": "UTC", "hours": {}, "holidays": {"country": "DE", "years": [2026]}})
    assert chosen.holidays is not None
    assert date(2026, 10, 3) in chosen.holidays.closed
    brought = Calendar.model_validate_json(chosen.model_dump_json())
    assert brought == chosen
    assert Calendar.model_validate({"time_zone": "UTC", "hours": {}}).holidays is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"country": "DE"}, "years: Field required"),
        ({"country": "XX", "years": [2026]}, "no holidays are known of country 'XX'"),
        ({"country": "DE", "years": [2026], "county": "BY"}, "county: Extra inputs are not permitted"),
        ("DE", "Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_with_a_choice_is_said_in_its_own_words(said: Any, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Calendar.model_validate({"time_zone": "UTC", "hours": {}, "holidays": said})
    (error,) = refused.value.errors()
    assert error["loc"] == ("holidays",)
    assert message in error["msg"]
