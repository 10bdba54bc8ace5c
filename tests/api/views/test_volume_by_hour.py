"""What was opened, solved, reopened and closed is counted when it occurred, in the hours that a zone's clocks show."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from domain.status import Status
from projections.registry import VIEWS
from projections.runner import Runner
from projections.volume_by_hour import VIEW, Grouping, VolumeFilter, spans, volume
from tests.projections.desk_days import DeskDays, as_recorded, record
from tests.projections.test_folds import folded

if TYPE_CHECKING:
    from uuid import UUID

    from domain.event import Event
    from storage.database import Workspace
    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio

ZONES = (
    "UTC", "Asia/Shanghai", "Asia/Kolkata", "Asia/Kathmandu", "Europe/Berlin", "America/Sao_Paulo",
    "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo", "America/St_Johns",
)  # fmt: skip
FINISHED = {Status.SOLVED, Status.CLOSED}


def moves(events: list[Event]) -> list[tuple[UUID, str, datetime]]:
    """Tell what the events are to count as, by following each ticket's status."""
    found = []
    stands: dict[UUID, Status] = {}
    for event in events:
        status = getattr(event, "status", None)
        if status is None:
            continue
        before = stands.get(event.originator_id)
        stands[event.originator_id] = status
        if before is None:
            found.append((event.originator_id, "opened", event.timestamp))
        elif status is Status.SOLVED and before is not Status.SOLVED:
            found.append((event.originator_id, "solved", event.timestamp))
        elif status is Status.CLOSED and before is not Status.CLOSED:
            found.append((event.originator_id, "closed", event.timestamp))
        elif before in FINISHED and status not in FINISHED:
            found.append((event.originator_id, "reopened", event.timestamp))
    return found


@settings(max_examples=25, deadline=None)
@given(seed=some.integers(0, 10_000))
def test_every_move_that_counts_has_a_row_and_nothing_else_has(seed: int) -> None:
    desk = DeskDays(seed)
    events = [*desk.first(), *desk.more(150)]
    rows = folded(VIEW, as_recorded(events)).values()
    counted = Counter((row["ticket_id"], row["what"], row["occurred_at"]) for row in rows)
    assert counted == Counter(moves(events))
    channels = {ticket.id: ticket.channel for ticket in desk.tickets}
    assert all(row["channel"] == channels[row["ticket_id"]] for row in rows)


def test_an_opening_counts_for_the_first_team_and_a_move_for_the_team_of_the_moment() -> None:
    desk = DeskDays(1)
    first, second, third = desk.teams
    ticket = desk.open(category=None)
    ticket.assign(team=first, act=desk.act())
    ticket.categorise(category="network", act=desk.act())
    ticket.transfer(team=second, act=desk.act())
    ticket.solve(resolution_code="fixed", act=desk.act())
    ticket.reopen(act=desk.act())
    ticket.categorise(category="hardware", act=desk.act())
    ticket.transfer(team=third, act=desk.act())
    ticket.solve(resolution_code="really fixed", act=desk.act())
    rows = folded(VIEW, as_recorded(ticket.collect_events()))  # type: ignore[arg-type]
    assert [(row["what"], row["team_id"], row["category"]) for row in rows.values()] == [
        ("opened", first.id, "network"),
        ("solved", second.id, "network"),
        ("reopened", second.id, "network"),
        ("solved", third.id, "hardware"),
    ]


def clock(instant: datetime, zone: str, unit: str) -> Any:
    """Give what tells the hour or day of an instant from all others, by the zone's clocks."""
    local = instant.astimezone(ZoneInfo(zone))
    return local.date() if unit == "day" else (local.date(), local.hour, local.utcoffset())


@settings(max_examples=200, deadline=None)
@given(
    zone=some.sampled_from(ZONES),
    unit=some.sampled_from(("hour", "day")),
    begin=some.datetimes(datetime(1995, 1, 1), datetime(2035, 1, 1), timezones=some.just(UTC)),  # noqa: DTZ001 - as hypothesis wants them
    hours=some.integers(1, 24 * 400),
)
@example("America/St_Johns", "hour", datetime(2006, 10, 29, tzinfo=UTC), 12)  # set back at one minute past midnight
@example("Australia/Lord_Howe", "hour", datetime(2026, 4, 4, tzinfo=UTC), 36)  # by half an hour
@example("Pacific/Apia", "day", datetime(2011, 12, 20, tzinfo=UTC), 24 * 20)  # a day was left out
@example("Africa/Cairo", "day", datetime(2026, 4, 20, tzinfo=UTC), 24 * 20)  # a midnight is
def test_each_hour_and_day_of_a_period_is_one_span(zone: str, unit: Any, begin: datetime, hours: int) -> None:
    hours = min(hours, 900) if unit == "hour" else hours
    end = begin + timedelta(hours=hours)
    found = spans(begin, end, unit, ZoneInfo(zone))
    assert (found[0].begin, found[-1].end) == (begin, end)
    assert all(one.end == following.begin for one, following in pairwise(found))
    shown = [clock(span.begin, zone, unit) for span in found]
    assert len(set(shown)) == len(shown), "two spans are one and the same hour or day"
    for span, of in zip(found, shown, strict=True):
        assert span.begin < span.end
        assert clock(span.end - timedelta(microseconds=1), zone, unit) == of, (
            "a span goes over into another hour or day"
        )


def test_an_hour_comes_twice_when_clocks_are_set_back_and_not_at_all_when_they_are_put_forward() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    def local(*day: int) -> list[str]:
        begin = datetime(*day, tzinfo=berlin)  # type: ignore[misc,arg-type]
        end = (begin + timedelta(hours=5)).astimezone(UTC)
        return [f"{span.begin.astimezone(berlin):%H:%M%z}" for span in spans(begin, end, "hour", berlin)]

    assert local(2026, 10, 25) == ["00:00+0200", "01:00+0200", "02:00+0200", "02:00+0100", "03:00+0100", "04:00+0100"]
    assert local(2026, 3, 29) == ["00:00+0100", "01:00+0100", "03:00+0200", "04:00+0200"]
    days = spans(datetime(2026, 10, 24, tzinfo=berlin), datetime(2026, 10, 27, tzinfo=berlin), "day", berlin)
    assert [span.end - span.begin for span in days] == [timedelta(hours=hours) for hours in (24, 25, 24)]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
@pytest.mark.parametrize("unit", ["hour", "day", "period"])
async def test_what_occurred_is_counted_in_its_span(alpha: Workspace, zone: str, unit: Any) -> None:
    desk = DeskDays(33, tickets=40)
    events = [*desk.first(), *desk.more(400)]
    head = await record(alpha, events)
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    times = sorted(at for _, _, at in moves(events))
    begin, end = times[len(times) // 5], times[-len(times) // 5]  # what occurs at the end is outside
    period = spans(begin, end, unit, ZoneInfo(zone))
    expected = Counter(
        (next(span for span in period if span.begin <= at < span.end), what)
        for _, what, at in moves(events)
        if begin <= at < end
    )
    found = await volume(alpha, period)
    assert found.position == head
    assert {(line.span, what): n for line in found.lines for what, n in line.counts.items() if n} == expected
    rows = folded(VIEW, as_recorded(events)).values()
    within = [row for row in rows if begin <= row["occurred_at"] < end]
    groupings: tuple[tuple[Grouping, ...], ...] = (("team",), ("channel", "category"))
    columns = {"team": "team_id", "channel": "channel", "category": "category"}
    for by in groupings:
        grouped = Counter((*(row[columns[one]] for one in by), row["what"]) for row in within)
        lines = (await volume(alpha, period, by=by)).lines
        told: Counter[Any] = Counter()
        for line in lines:
            told.update({(*line.key, what): number for what, number in line.counts.items()})
        assert told == grouped
    team = desk.teams[0].id
    lines = (await volume(alpha, period, VolumeFilter(teams=[team], channels=["email"], category="network"))).lines
    assert sum((line.counts for line in lines), Counter()) == Counter(
        row["what"] for row in within if (row["team_id"], row["channel"], row["category"]) == (team, "email", "network")
    )


async def test_a_supervisor_reads_the_volume_in_ones_own_time(desk: DeskOverHttp) -> None:
    opened = await desk.open(channel="phone")
    await desk.done(f"/tickets/{opened['id']}/assign", {"team_id": desk.ids["team"]})
    await desk.done(f"/tickets/{opened['id']}/solve", {"resolution_code": "fixed"})
    await desk.done(f"/tickets/{opened['id']}/record-customer-message", {"text": "No."})
    await desk.open(channel="email")
    await desk.catch_up()
    params = {"zone": "Asia/Shanghai", "unit": "day", "after": await desk.head()}
    told = (await desk.get("/volume", params=params)).json()
    assert told["totals"] == {"opened": 2, "solved": 1, "reopened": 1, "closed": 0}
    assert told["since"].endswith("+08:00")
    assert [item["since"] for item in told["items"]][1:] == [item["until"] for item in told["items"]][:-1]
    assert {item["since"][11:] for item in told["items"][1:]} == {"00:00:00+08:00"}
    assert sum(item["opened"] for item in told["items"]) == 2
    assert 8 <= len(told["items"]) <= 9
    autumn = {"zone": "Europe/Berlin", "since": "2026-10-25T00:00:00Z", "until": "2026-10-25T02:00:00Z"}
    twice = (await desk.get("/volume", params=autumn)).json()
    assert [item["since"] for item in twice["items"]] == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]
    by_team = (await desk.get("/volume", params={"by": ["team", "channel"], "unit": "period"})).json()
    assert {(item["team_id"], item["channel"], item["opened"], item["solved"]) for item in by_team["items"]} == {
        (desk.ids["team"], "phone", 1, 1),
        (None, "email", 1, 0),
    }
    assert by_team["names"] == {desk.ids["team"]: "First line"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"zone": "Europe/Atlantis"}, "Atlantis"),
        ({"zone": "America"}, "America"),
        ({"zone": "../etc/passwd"}, "passwd"),
        ({"unit": "week"}, "not valid"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "before"),
        ({"since": "2020-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "1,000"),
        ({"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z", "unit": "period"}, "1900"),
        ({"since": "2026-01-01T00:00:00"}, "not valid"),
    ],
)
async def test_a_period_or_zone_that_is_none_is_refused(desk: DeskOverHttp, wrong: dict[str, str], said: str) -> None:
    answer = await desk.get("/volume", params=wrong)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-input")
    assert said in answer.json()["detail"]
