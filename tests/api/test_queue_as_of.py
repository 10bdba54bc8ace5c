"""Looking back at the queue over HTTP and on the command line."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio


async def some_days(desk: DeskOverHttp) -> tuple[list[dict[str, Any]], int, datetime]:
    """Open three tickets and move on from there; gives the tickets, and the position and an instant in between."""
    tickets = [await desk.open(subject=f"Ticket {number}") for number in range(3)]
    position = await desk.head()
    row = await (await desk.database.workspace(desk.workspace)).log.row(position)
    assert row is not None
    # The database has a clock of its own: between what it says of this event and of the next.
    between = row.recorded_at + timedelta(microseconds=1)
    await asyncio.sleep(0.002)
    await desk.done(f"/tickets/{tickets[0]['id']}/solve", {"resolution_code": "fixed"})
    await desk.done(f"/tickets/{tickets[1]['id']}/assign", {"agent_id": desk.ids["agent"]})
    await desk.open(subject="Ticket 3")
    await desk.catch_up()
    return tickets, position, between


async def test_the_queue_and_its_counts_are_told_as_of_an_instant_and_a_position(desk: DeskOverHttp) -> None:
    tickets, position, between = await some_days(desk)
    for moment in (between.isoformat(), str(position), between.isoformat().replace("+00:00", "Z")):
        page = (await desk.get("/queue", params={"as_of": moment, "sort": "number"})).json()
        assert [one["ticket_id"] for one in page["items"]] == [one["id"] for one in tickets]
        assert {one["status"] for one in page["items"]} == {"new"}
        assert [one["subject"] for one in page["items"]] == ["Ticket 0", "Ticket 1", "Ticket 2"]
        assert page["position"] == position
        assert datetime.fromisoformat(page["recorded_at"]) <= between
        assert page["provisional"] is False
        counts = (await desk.get("/queue/counts", params={"as_of": moment})).json()
        assert (counts["counts"], counts["total"], counts["position"]) == ({"new": 3}, 3, position)
    now = (await desk.get("/queue", params={"as_of": "2300-01-01T00:00:00Z"})).json()
    assert (len(now["items"]), now["provisional"]) == (4, True)
    assert (await desk.get("/queue")).json()["items"] == now["items"]


async def test_the_queue_is_told_by_the_sources_time(desk: DeskOverHttp) -> None:
    tickets, _, _ = await some_days(desk)
    entries = (await desk.get(f"/tickets/{tickets[2]['id']}/history")).json()["entries"]
    between = datetime.fromisoformat(entries[0]["occurred_at"])
    page = (await desk.get("/queue", params={"occurred_as_of": between.isoformat()})).json()
    assert len(page["items"]) == 3
    assert page["position"] == await desk.head()
    assert (datetime.fromisoformat(page["occurred_as_of"]), page["provisional"]) == (between, True)
    both = {"occurred_as_of": between.isoformat(), "as_of": page["position"]}
    again = (await desk.get("/queue", params=both)).json()
    assert (again["items"], again["provisional"]) == (page["items"], False)
    assert (await desk.get("/queue/counts", params=both)).json()["total"] == 3


async def test_a_list_goes_on_at_its_moment_whether_that_is_said_again_or_not(desk: DeskOverHttp) -> None:
    tickets, position, _ = await some_days(desk)
    asked = {"as_of": str(position), "sort": "number", "limit": 1}
    page = (await desk.get("/queue", params=asked)).json()
    found = page["items"]
    while page["next_cursor"] is not None:
        await desk.open()
        await desk.catch_up()
        more = {"sort": "number", "limit": 1, "cursor": page["next_cursor"]}
        page = (await desk.get("/queue", params=more if len(found) == 1 else asked | more)).json()
        assert page["position"] == position
        found += page["items"]
    assert [one["ticket_id"] for one in found] == [one["id"] for one in tickets]


async def test_moments_that_there_are_not_or_that_contradict_are_refused(desk: DeskOverHttp) -> None:
    _, position, between = await some_days(desk)
    head = await desk.head()
    cursor = (await desk.get("/queue", params={"as_of": position, "limit": 1})).json()["next_cursor"]
    live = (await desk.get("/queue", params={"limit": 1})).json()["next_cursor"]
    for query, status, problem in (
        ({"as_of": "yesterday"}, 422, "invalid-input"),
        ({"as_of": "2026-01-01T00:00:00"}, 422, "invalid-input"),
        ({"as_of": ""}, 422, "invalid-input"),
        ({"occurred_as_of": "2026-01-01T00:00:00"}, 422, "invalid-input"),
        ({"as_of": head + 1}, 404, "no-such-moment"),
        ({"as_of": position, "after": head}, 400, "malformed-request"),
        ({"as_of": between.isoformat(), "after": head}, 400, "malformed-request"),
        ({"as_of": position, "after": head + 1}, 409, "position-not-in-log"),
        ({"cursor": cursor, "after": head}, 400, "malformed-request"),
        ({"cursor": cursor, "as_of": position - 1}, 422, "invalid-input"),
        ({"cursor": live, "as_of": position}, 422, "invalid-input"),
        ({"as_of": f"{position}.elsewhere"}, 409, "log-epoch-changed"),
    ):
        answer = await desk.get("/queue", params=query)
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{problem}"), query
    both = await desk.get("/queue/counts", params={"as_of": position, "at": position})
    assert (both.status_code, both.json()["type"]) == (400, "/problems/malformed-request")
    assert (await desk.get("/queue", params={"as_of": position, "after": position})).status_code == 200
    assert (await desk.get("/queue", params={"occurred_as_of": between.isoformat(), "after": head})).status_code == 200


async def test_before_the_first_event_the_queue_was_empty(desk: DeskOverHttp) -> None:
    await some_days(desk)
    long_ago = (datetime.now(UTC) - timedelta(days=9000)).isoformat()
    page = (await desk.get("/queue", params={"as_of": long_ago})).json()
    assert (page["items"], page["position"], page["recorded_at"], page["provisional"]) == ([], 0, None, False)
    assert (await desk.get("/queue/counts", params={"as_of": "0"})).json()["total"] == 0


async def test_a_moment_that_the_view_has_not_come_to_is_asked_for_again_later(desk: DeskOverHttp) -> None:
    await some_days(desk)
    await desk.open()
    answer = await desk.get("/queue", params={"as_of": await desk.head()})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/view-behind")
    assert answer.json()["view"] == "queue_history"
    await desk.catch_up()
    assert len((await desk.get("/queue", params={"as_of": await desk.head()})).json()["items"]) == 5
