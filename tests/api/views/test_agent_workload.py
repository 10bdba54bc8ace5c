"""The workload says of every agent and team how many tickets wait there, and since when the oldest does."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from projections.agent_workload import FINISHED, VIEW, Grouping, WorkloadFilter, workload
from projections.registry import VIEWS
from projections.runner import Runner
from projections.ticket_queue import QueueFilter, count_tickets
from tests.projections.desk_days import DeskDays, as_recorded, record
from tests.projections.test_folds import folded

if TYPE_CHECKING:
    from domain.ticket import Ticket
    from storage.database import Workspace
    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio

GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)


def key_of(ticket: Ticket, by: tuple[Grouping, ...]) -> tuple[object, ...]:
    has = {"agent": ticket.agent_id, "team": ticket.team_id, "priority": ticket.priority, "status": ticket.status}
    return tuple(has[one] for one in by)


@settings(max_examples=25, deadline=None)
@given(seed=some.integers(0, 10_000))
def test_a_row_says_of_its_ticket_what_the_ticket_says_of_itself(seed: int) -> None:
    desk = DeskDays(seed)
    rows = folded(VIEW, as_recorded([*desk.first(), *desk.more(150)]))
    names = ("status", "priority", "team_id", "agent_id", "opened_at")
    assert {key: tuple(row[name] for name in names) for key, row in rows.items()} == {
        (ticket.id,): tuple(getattr(ticket, name) for name in names) for ticket in desk.tickets
    }


async def test_open_tickets_are_counted_by_whatever_is_asked_with_the_oldest_of_each(alpha: Workspace) -> None:
    desk = DeskDays(31, tickets=60)
    head = await record(alpha, [*desk.first(), *desk.more(500)])
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    waiting = [ticket for ticket in desk.tickets if ticket.status not in FINISHED]
    assert 5 < len(waiting) < len(desk.tickets)
    for by in (by for size in (1, 2, 4) for by in combinations(GROUPINGS, size)):
        found = await workload(alpha, by=by)
        assert found.position == head
        assert {load.key: load.tickets for load in found.loads} == Counter(key_of(ticket, by) for ticket in waiting)
        for load in found.loads:
            oldest = min(ticket.opened_at for ticket in waiting if key_of(ticket, by) == load.key)
            assert load.oldest_opened_at == oldest
        assert [load.tickets for load in found.loads] == sorted((load.tickets for load in found.loads), reverse=True)


async def test_the_numbers_are_those_of_the_queue_with_the_same_filters(alpha: Workspace) -> None:
    desk = DeskDays(32, tickets=60)
    await record(alpha, [*desk.first(), *desk.more(500)])
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    waits = ["new", "open", "pending", "on_hold"]
    agent, team = desk.agents[0].id, desk.teams[0].id
    filters: tuple[dict[str, Any], ...] = (
        {},
        {"teams": [team]},
        {"agent": agent},
        {"agent": "unassigned"},
        {"priorities": ["urgent", "low"]},
        {"statuses": ["pending"]},
        {"statuses": ["open", "new"], "teams": [team, desk.teams[1].id], "priorities": ["high"]},
    )
    for same in filters:
        for by in GROUPINGS:
            queue = await count_tickets(alpha, QueueFilter(**({"statuses": waits} | same)), by=by)
            found = await workload(alpha, WorkloadFilter(**same), by=(by,))
            assert {load.key[0]: load.tickets for load in found.loads} == queue.counts, (same, by)


async def test_a_lead_reads_the_workload_with_names_and_one_sees_ones_own_writes(desk: DeskOverHttp) -> None:
    opened = [await desk.open(priority=priority) for priority in ("low", "urgent", "urgent")]
    ids = desk.ids
    await desk.done(f"/tickets/{opened[0]['id']}/assign", {"agent_id": ids["agent"], "team_id": ids["team"]})
    await desk.done(f"/tickets/{opened[1]['id']}/assign", {"agent_id": ids["agent"], "team_id": ids["team"]})
    solved = await desk.open()
    await desk.done(f"/tickets/{solved['id']}/solve", {"resolution_code": "fixed"})
    await desk.catch_up()
    told = (await desk.get("/workload", params={"after": await desk.head()})).json()
    (mine, nobody) = told["items"]
    assert (mine["agent_id"], mine["tickets"], nobody["agent_id"], nobody["tickets"]) == (ids["agent"], 2, None, 1)
    assert told["names"] == {ids["agent"]: "Ann Lee"}
    assert (told["tickets"], told["position"]) == (3, await desk.head())
    assert told["oldest_opened_at"] == mine["oldest_opened_at"] < nobody["oldest_opened_at"]
    by = {"by": ["team", "priority", "team"], "agent": "me"}
    found = (await desk.get("/workload", params=by)).json()
    assert found["by"] == ["team", "priority"]
    assert {(item["team_id"], item["priority"], item["tickets"]) for item in found["items"]} == {
        (ids["team"], "low", 1),
        (ids["team"], "urgent", 1),
    }
    assert (await desk.get("/workload", params={"agent": "unassigned", "priority": "low"})).json()["items"] == []
    for wrong in ({"by": "customer"}, {"status": "solved"}):
        assert (await desk.get("/workload", params=wrong)).status_code == 422
