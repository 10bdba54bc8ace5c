"""Business time is what a clock on the wall shows, watched second by second."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from importlib.resources import files
from itertools import accumulate
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from domain.business_time import ALWAYS_OPEN, Hours
from domain.calendar import WEEKDAYS, CalendarTerms, HolidaySet, Window
from tests.domain.clock_watcher import nth_open, open_runs, open_seconds, shown, windows_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from domain.calendar import Weekday, Windows

pytestmark = pytest.mark.pure

DAYS = 7
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
MICROSECOND = timedelta(microseconds=1)
# Zones and the dates around which their clocks did something: forward, backward, at midnight, by half an hour, by less, by a
# whole day, or by a decision for one year.
PLACES = [
    ("Europe/Berlin", date(2026, 3, 25)),
    ("Europe/Berlin", date(2026, 10, 21)),
    ("America/New_York", date(2026, 3, 4)),
    ("America/New_York", date(2026, 10, 28)),
    ("Australia/Lord_Howe", date(2026, 9, 30)),
    ("Australia/Lord_Howe", date(2026, 4, 1)),
    ("Pacific/Apia", date(2011, 12, 26)),
    ("America/Sao_Paulo", date(2015, 10, 14)),
    ("America/Sao_Paulo", date(2015, 2, 18)),
    ("Asia/Tehran", date(2015, 3, 18)),
    ("Asia/Tehran", date(2015, 9, 18)),
    ("Africa/Casablanca", date(2026, 2, 12)),
    ("Asia/Kathmandu", date(2026, 5, 5)),
    ("Asia/Pyongyang", date(2015, 8, 11)),
    ("Asia/Shanghai", date(2026, 9, 29)),
    ("Etc/UTC", date(2024, 2, 25)),
]


def clock_times(*, end: bool) -> st.SearchStrategy[str]:
    whole = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from((0, 0, 0, 15, 30, 59)))
    exact = st.builds("{:02}:{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
    return st.one_of(whole, whole, exact, st.just("24:00") if end else st.just("00:00"))


def windows(largest: int = 3) -> st.SearchStrategy[tuple[Window, ...]]:
    window = st.builds(Window, clock_times(end=False), clock_times(end=True))
    return st.lists(window, max_size=largest).map(tuple)


@st.composite
def calendars(draw: st.DrawFn) -> tuple[CalendarTerms, date]:
    zone, begin = draw(st.sampled_from(PLACES))
    dates = st.integers(0, DAYS - 1).map(lambda days: begin + timedelta(days=days))
    holidays = HolidaySet(
        country="XX",
        source="drawn",
        years=(begin.year,),
        closed=draw(st.dictionaries(dates, st.just("holiday"), max_size=2)),
        working=tuple(draw(st.sets(dates, max_size=1))),
        working_as=draw(st.sampled_from(WEEKDAYS)),
    )
    terms = CalendarTerms(
        time_zone=zone,
        hours=draw(st.dictionaries(st.sampled_from(WEEKDAYS), windows(), min_size=3)),
        holidays=draw(st.sampled_from((None, holidays))),
        closed_days=draw(st.dictionaries(dates, st.just("closed"), max_size=2)),
        special_days=draw(st.dictionaries(dates, windows(2), max_size=2)),
        breaks=draw(st.dictionaries(dates, windows(2), max_size=3)),
    )
    return terms, begin


def midnight(on: date) -> datetime:
    return datetime(on.year, on.month, on.day, tzinfo=UTC)


@settings(UNHURRIED, max_examples=50)
@given(calendars(), st.data())
def test_business_time_is_what_a_clock_on_the_wall_shows_second_by_second(
    drawn: tuple[CalendarTerms, date], data: st.DataObject
) -> None:
    terms, begin = drawn
    hours, watched = Hours.of([terms]), open_seconds(terms, begin, DAYS)
    # The oracle does not know what borders on the days that it watched.
    low, high = 2 * 86_400, (DAYS - 2) * 86_400
    zero = midnight(begin)

    def at(second: int) -> datetime:
        return zero + timedelta(seconds=second)

    for window in hours.windows(at(low), at(high)):
        first, last = (round((instant - zero).total_seconds()) for instant in window)
        assert watched[first:last] == b"\1" * (last - first)
        watched_apart = [second for second in (first - 1, last) if low <= second < high]
        assert not any(watched[second] for second in watched_apart)
    assert hours.between(at(low), at(high)) == timedelta(seconds=watched[low:high].count(1))
    for _ in range(5):
        start, end = sorted((data.draw(st.integers(low, high)), data.draw(st.integers(low, high))))
        used = watched[start:end].count(1)
        assert hours.between(at(start), at(end)) == timedelta(seconds=used)
        assert hours.is_open(at(start)) is bool(watched[start])
        following = watched.find(1, start, high)
        if following >= 0:
            assert hours.next_opening(at(start)) == at(following)
        if used:
            runs = open_runs(watched, start, end)
            at_closings = set(accumulate(last - first for first, last in runs))
            amount = data.draw(st.one_of(st.integers(1, used), st.sampled_from(sorted(at_closings))))
            # It is used up when the last second that counts is over; backwards, when the first one begins.
            assert hours.add(at(start), timedelta(seconds=amount)) == at(nth_open(runs, amount) + 1)
            assert hours.add(at(end), timedelta(seconds=-amount)) == at(nth_open(runs, used - amount + 1))


INSTANTS = st.builds(
    lambda day, rest: datetime(2025, 6, 1, tzinfo=UTC) + timedelta(days=day, microseconds=rest),
    st.integers(0, 700),
    st.one_of(st.integers(0, 86_400 * 10**6 - 1), st.integers(0, 95).map(lambda quarter: quarter * 900 * 10**6)),
)
SPANS = st.one_of(
    st.integers(1, 400 * 3600 * 10**6),
    st.integers(1, 800).map(lambda quarter: quarter * 900 * 10**6),
).map(lambda span: timedelta(microseconds=span))
CALENDARS = calendars().map(lambda drawn: drawn[0]).filter(lambda terms: any(terms.hours.values()))


@settings(UNHURRIED, max_examples=60)
@given(CALENDARS, INSTANTS, SPANS)
def test_adding_and_counting_undo_each_other(terms: CalendarTerms, at: datetime, span: timedelta) -> None:
    hours = Hours.of([terms])
    assume(hours.between(at, at + timedelta(days=30)))
    due = hours.add(at, span)
    assert due > at
    assert hours.between(at, due) == span
    assert hours.between(at, due - MICROSECOND) == span - MICROSECOND
    begun = hours.add(at, -span)
    assert begun < at
    assert hours.between(begun, at) == span
    assert hours.between(begun + MICROSECOND, at) == span - MICROSECOND
    assert hours.add(begun, span) == hours.last_closing(at)
    assert hours.add(due, -span) == hours.next_opening(at)
    if hours.is_open(at):
        assert hours.add(due, -span) == at


@settings(UNHURRIED, max_examples=60)
@given(CALENDARS, INSTANTS, SPANS, SPANS)
def test_time_may_be_added_in_parts(terms: CalendarTerms, at: datetime, one: timedelta, other: timedelta) -> None:
    hours = Hours.of([terms])
    assert hours.add(hours.add(at, one), other) == hours.add(at, one + other)
    assert hours.add(hours.add(at, -one), -other) == hours.add(at, -one - other)
    assert hours.add(hours.add(at, timedelta()), one) == hours.add(at, one)


@settings(UNHURRIED, max_examples=60)
@given(CALENDARS, INSTANTS, INSTANTS, INSTANTS, SPANS)
def test_who_starts_later_or_has_more_time_is_never_due_sooner(
    terms: CalendarTerms, first: datetime, second: datetime, third: datetime, span: timedelta
) -> None:
    hours = Hours.of([terms])
    first, second, third = sorted((first, second, third))
    assert hours.add(first, span) <= hours.add(second, span)
    assert hours.add(first, span) < hours.add(first, span + MICROSECOND)
    assert hours.add(first, -span) <= hours.add(second, -span)
    assert hours.between(first, second) + hours.between(second, third) == hours.between(first, third)
    assert hours.between(third, first) == timedelta()


def weekly(*open_: Window, days: Iterable[Weekday] = WEEKDAYS) -> dict[Weekday, Windows]:
    return dict.fromkeys(days, open_)


def office(zone: str = "Europe/Berlin", *, valid_from: date | None = None, **more: object) -> CalendarTerms:
    hours = weekly(Window("09:00", "17:00"), days=WEEKDAYS[:5])
    return CalendarTerms.model_validate({"time_zone": zone, "hours": hours, "valid_from": valid_from, **more})


def whole_day(zone: str, valid_from: date | None = None) -> CalendarTerms:
    return CalendarTerms(time_zone=zone, hours=weekly(Window("00:00", "24:00")), valid_from=valid_from)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@settings(UNHURRIED, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.dates(date(2026, 3, 1), date(2026, 5, 1))),
            st.sampled_from(("Europe/Berlin", "America/New_York", "Pacific/Auckland")),
            windows(2),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 120 * 86_400).map(lambda seconds: utc("2026-02-01") + timedelta(seconds=seconds)),
)
def test_at_any_instant_the_version_adopted_last_of_those_that_have_begun_counts(
    versions: list[tuple[date | None, str, tuple[Window, ...]]], at: datetime
) -> None:
    terms = [CalendarTerms(time_zone=zone, hours=weekly(*open_), valid_from=begins) for begins, zone, open_ in versions]
    begun = [
        each
        for each in terms
        if each.valid_from is None or at.astimezone(ZoneInfo(each.time_zone)).date() >= each.valid_from
    ]
    # Before all of them, the one that begins first.
    begins = [datetime.combine(each.valid_from or date.min, time(), ZoneInfo(each.time_zone)) for each in terms]
    first = min(range(len(terms)), key=lambda version: (begins[version], -version))
    counts = begun[-1] if begun else terms[first]
    alone = counts.model_copy(update={"valid_from": None})
    assert Hours.of(terms).is_open(at) is Hours.of([alone]).is_open(at)


def test_a_version_counts_from_its_date_on_and_deadlines_run_across() -> None:
    longer = office(valid_from=date(2026, 4, 1)).model_copy(
        update={"hours": weekly(Window("08:00", "20:00"), days=WEEKDAYS[:5])}
    )
    hours = Hours.of([office(), longer])
    assert hours.between(utc("2026-03-31T00:00"), utc("2026-04-01T00:00")) == timedelta(hours=8)
    assert hours.between(utc("2026-04-01T00:00"), utc("2026-04-02T00:00")) == timedelta(hours=12)
    assert hours.add(utc("2026-03-31T14:00"), timedelta(hours=2)) == utc("2026-04-01T07:00")


@pytest.mark.parametrize(("old", "new"), [("America/New_York", "Asia/Tokyo"), ("Asia/Tokyo", "America/New_York")])
def test_a_desk_that_never_closes_does_not_close_when_it_moves_to_another_zone(old: str, new: str) -> None:
    hours = Hours.of([whole_day(old), whole_day(new, date(2026, 4, 1))])
    assert hours.windows(utc("2026-03-28"), utc("2026-04-05")) == [(utc("2026-03-28"), utc("2026-04-05"))]


def test_the_first_version_counts_before_its_own_date_too() -> None:
    assert Hours.of([office(valid_from=date(2026, 4, 1))]).is_open(utc("2026-03-02T10:00"))


def test_a_later_version_without_a_date_replaces_all_before_it() -> None:
    hours = Hours.of([office(), office(valid_from=date(2026, 4, 1)), whole_day("Etc/UTC")])
    assert hours.windows(utc("2026-03-28"), utc("2026-04-05")) == [(utc("2026-03-28"), utc("2026-04-05"))]


@pytest.mark.parametrize(
    ("zone", "on", "opens", "at"),
    [
        ("America/Los_Angeles", date(2014, 3, 9), "02:30", "2014-03-09T10:30"),
        ("America/Los_Angeles", date(2014, 11, 2), "01:30", "2014-11-02T08:30"),
        ("America/Sao_Paulo", date(2015, 10, 18), "00:00", "2015-10-18T03:00"),
        ("Australia/Lord_Howe", date(2026, 10, 4), "02:15", "2026-10-03T15:45"),
        ("Australia/Sydney", date(2021, 10, 3), "02:34:06", "2021-10-02T16:34:06"),
    ],
)
def test_a_time_that_does_not_exist_comes_by_the_gap_later_and_of_two_the_first_counts(
    zone: str, on: date, opens: str, at: str
) -> None:
    terms = CalendarTerms(time_zone=zone, hours={}, special_days={on: (Window(opens, "12:00"),)})
    assert Hours.of([terms]).next_opening(utc(at) - timedelta(hours=20)) == utc(at)


def test_windows_follow_the_zone_database_that_the_process_finds(tmp_path: Path) -> None:
    # As if Berlin had moved to where New York's clocks are.
    place = tmp_path / "Europe" / "Berlin"
    place.parent.mkdir()
    place.write_bytes((files("tzdata") / "zoneinfo" / "America" / "New_York").read_bytes())
    script = (
        "import sys; from datetime import *; from domain.business_time import Hours; from domain.calendar import *;"
        "terms = CalendarTerms.model_validate_json(sys.argv[1]);"
        "print(Hours.of([terms]).next_opening(datetime(2026, 7, 1, tzinfo=UTC)))"
    )
    command = [sys.executable, "-c", script, office().model_dump_json()]
    for tzpath, opening in (("", "2026-07-01 07:00:00+00:00"), (str(tmp_path), "2026-07-01 13:00:00+00:00")):
        environment = os.environ | {"PYTHONTZPATH": tzpath}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == opening


def test_a_day_that_a_place_left_out_has_no_hours_and_is_no_working_day() -> None:
    hours = Hours.of([office("Pacific/Apia")])
    # There was no Friday, 30 December 2011.
    assert hours.windows(utc("2011-12-30T03:00"), utc("2012-01-01T10:00")) == []
    assert hours.add_days(utc("2011-12-29T20:00"), 1) == utc("2012-01-01T20:00")


def test_a_break_also_cuts_a_window_that_began_the_day_before() -> None:
    night = CalendarTerms(
        time_zone="Etc/UTC",
        hours={"mon": (Window("22:00", "06:00"),)},
        breaks={date(2026, 1, 6): (Window("02:00", "03:00"),)},
    )
    hours = Hours.of([night])
    assert hours.windows(utc("2026-01-05"), utc("2026-01-07")) == [
        (utc("2026-01-05T22:00"), utc("2026-01-06T02:00")),
        (utc("2026-01-06T03:00"), utc("2026-01-06T06:00")),
    ]


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    nights = weekly(Window("22:00", "06:00"))
    terms = CalendarTerms(time_zone="Etc/UTC", hours=nights, closed_days={date(2026, 1, 6): "inventory"})
    assert Hours.of([terms]).windows(utc("2026-01-06"), utc("2026-01-08")) == [
        (utc("2026-01-06"), utc("2026-01-06T06:00")),
        (utc("2026-01-07T22:00"), utc("2026-01-08")),
    ]


def test_a_target_used_up_exactly_at_closing_is_due_then_and_no_time_at_all_waits_for_the_opening() -> None:
    hours = Hours.of([office("Etc/UTC")])
    friday, monday = utc("2026-01-09T17:00"), utc("2026-01-12T09:00")
    assert hours.add(utc("2026-01-09T15:00"), timedelta(hours=2)) == friday
    assert hours.add(utc("2026-01-09T15:00"), timedelta(hours=2, microseconds=1)) == monday + MICROSECOND
    assert hours.add(friday, timedelta()) == monday
    assert hours.add(utc("2026-01-12T11:00"), timedelta(hours=-2)) == monday
    assert not hours.is_open(friday)
    assert hours.last_closing(utc("2026-01-10T12:00")) == friday


def test_working_days_keep_the_time_on_the_clock_over_a_change_of_summer_time() -> None:
    hours = Hours.of([office(closed_days={date(2026, 3, 30): "moving house"})])
    assert hours.add_days(utc("2026-03-27T09:30"), 1) == utc("2026-03-31T08:30")
    assert hours.add_days(utc("2026-03-31T08:30"), -1) == utc("2026-03-27T09:30")
    assert hours.add_days(utc("2026-03-27T09:30"), 1, end_of_day=True) == utc("2026-03-31T15:00")
    assert hours.add_days(utc("2026-03-27T09:30"), 0, end_of_day=True) == utc("2026-03-27T16:00")
    assert hours.add_days(utc("2026-03-27T18:30"), 0, end_of_day=True) == utc("2026-03-31T15:00")
    assert hours.add_days(utc("2026-03-27T18:30"), 0) == utc("2026-03-31T07:00")
    # At a time when it is closed: the next opening; at the closing instant: that.
    assert hours.add_days(utc("2026-03-26T18:30"), 1) == utc("2026-03-31T07:00")
    assert hours.add_days(utc("2026-03-26T16:00"), 1) == utc("2026-03-27T16:00")


def works(terms: CalendarTerms, on: date) -> bool:
    """Say whether something opens on a date, for as long as it takes to notice."""
    zone = ZoneInfo(terms.time_zone)
    midnight = datetime.combine(on, time(), zone)
    if midnight.astimezone(UTC).astimezone(zone).date() != on:
        return False
    for window in windows_of(terms, on):
        opens, closes = (shown(on, clock) for clock in window)
        if closes <= opens:
            closes += timedelta(days=1)
        if closes.replace(tzinfo=zone).astimezone(UTC) > opens.replace(tzinfo=zone).astimezone(UTC):
            return True
    return False


@settings(UNHURRIED, max_examples=60)
@given(CALENDARS, INSTANTS, st.integers(1, 40), st.sampled_from((1, -1)))
def test_working_days_are_counted_one_by_one(terms: CalendarTerms, at: datetime, days: int, step: int) -> None:
    terms = terms.model_copy(update={"breaks": {}})
    hours, zone = Hours.of([terms]), ZoneInfo(terms.time_zone)
    on, left = at.astimezone(zone).date(), days
    while left:
        on += timedelta(days=step)
        left -= works(terms, on)
    same_time = datetime.combine(on, at.astimezone(zone).time(), zone).astimezone(UTC)
    due = hours.add_days(at, step * days)
    if hours.is_open(same_time) or hours.last_closing(same_time) == same_time:
        assert due == same_time
    else:
        assert due == (hours.next_opening(same_time) if step > 0 else hours.last_closing(same_time))
    closing = hours.add_days(at, step * days, end_of_day=True)
    assert hours.last_closing(closing) == closing or any(opens >= closes for opens, closes in windows_of(terms, on))
    assert closing.astimezone(zone).date() - on in {timedelta(), timedelta(days=1)}


@pytest.mark.parametrize("year", [1, 1899, 1900, 2199, 2200, 9998])
def test_all_time_outside_the_years_that_are_worked_out_counts_as_open(year: int) -> None:
    hours = Hours.of([office("Etc/UTC")])
    at = datetime(year, 6, 6, 12, tzinfo=UTC)
    year_later = hours.between(at, at + timedelta(days=365))
    assert year_later == timedelta(days=365) if not 1899 <= year <= 2199 else year_later < timedelta(days=365)
    for span in (timedelta(hours=8), timedelta(hours=-8)):
        start, end = sorted((at, hours.add(at, span)))
        assert hours.between(start, end) == abs(span)
    assert hours.add(at, timedelta(days=999_999_999)) == datetime.max.replace(tzinfo=UTC)
    assert hours.add(at, timedelta(days=-999_999_999)) == datetime.min.replace(tzinfo=UTC)
    assert abs(hours.add_days(at, 5) - at) < timedelta(days=9)


@pytest.mark.parametrize("zone", ["Pacific/Apia", "America/New_York"])
@pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_there_is_an_answer_also_at_the_ends_of_time(zone: str, at: datetime) -> None:
    hours = Hours.of([office(zone)])
    for days in (-(10**12), -3, 0, 3, 10**12):
        for end_of_day in (False, True):
            assert hours.add_days(at, days, end_of_day=end_of_day).tzinfo is UTC
    assert hours.is_open(at)
    assert hours.between(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)) > timedelta(days=3_000_000)
    assert hours.last_closing(at) <= at <= hours.next_opening(at)


def test_always_open_is_time_by_the_calendar() -> None:
    at = utc("2026-03-28T23:30:00.000001")
    assert ALWAYS_OPEN.add(at, timedelta(hours=5)) == at + timedelta(hours=5)
    assert ALWAYS_OPEN.add(at, timedelta(hours=-5)) == at - timedelta(hours=5)
    assert ALWAYS_OPEN.between(at, at + timedelta(days=400)) == timedelta(days=400)
    assert ALWAYS_OPEN.between(at, at - timedelta(days=1)) == timedelta()
    assert ALWAYS_OPEN.is_open(at)
    assert ALWAYS_OPEN.next_opening(at) == at
    assert ALWAYS_OPEN.add_days(at, 3) == at + timedelta(days=3)
    assert ALWAYS_OPEN.add_days(at, 3, end_of_day=True) == utc("2026-04-01")
    assert ALWAYS_OPEN.windows(at, at + timedelta(days=9)) == [(at, at + timedelta(days=9))]
