"""Clocks run by the times at which things occurred."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from domain.agent import Agent
from domain.event import Act, Channel, Provenance, Role
from domain.priority import Priority
from domain.sla_clocks import ClockState
from domain.sla_terms import Metric
from domain.ticket import Ticket
from projections.registry import VIEWS
from projections.runner import Runner
from projections.sla_clock import VIEW, ClockFilter, clocks_of, count_clocks, list_clocks
from tests.projections.desk_days import DeskDays, as_recorded, record

if TYPE_CHECKING:
    from projections.table import Row
    from storage.database import Workspace

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
ANN = UUID(int=1)
TARGET = timedelta(hours=24)  # first reply at normal priority
SOLUTION = timedelta(days=5)  # total resolution at normal priority


class Story:
    """One ticket, told with hours since nine o'clock."""

    def __init__(self, *, by: Role = Role.CUSTOMER, **fields: Any) -> None:
        self.ticket = Ticket.open(
            ticket_id=UUID(int=9), requester_id=UUID(int=2), subject="Printer", body="Help", channel=Channel.EMAIL,
            act=self._act(0, by), **fields,
        )  # fmt: skip

    @staticmethod
    def _act(hours: float, role: Role = Role.AGENT) -> Act:
        return Act(NINE + timedelta(hours=hours), Provenance(actor_id=ANN, role=role, channel=Channel.WEB))

    def then(self, hours: float, command: str, **fields: Any) -> Story:
        getattr(self.ticket, command)(**fields, act=self._act(hours))
        return self

    def reply(self, hours: float) -> Story:
        return self.then(hours, "reply", text="Hello", agent_id=ANN)

    def message(self, hours: float) -> Story:
        return self.then(hours, "record_customer_message", text="Well?", channel=Channel.EMAIL)

    def solve(self, hours: float) -> Story:
        return self.then(hours, "solve", resolution_code="fixed")

    def clock(self, metric: Metric) -> Row:
        rows = VIEW.fold({}, as_recorded(self.ticket.pending_events))  # type: ignore[arg-type]
        return rows[self.ticket.id, metric]


def at(hours: float) -> datetime:
    return NINE + timedelta(hours=hours)


def test_a_customers_ticket_owes_a_first_reply_from_the_start() -> None:
    row = Story().clock(Metric.FIRST_REPLY)
    assert (row["started_at"], row["due_at"], row["ended_at"]) == (NINE, NINE + TARGET, None)


def test_the_first_reply_meets_it_and_later_ones_change_nothing() -> None:
    assert Story().reply(3).reply(30).clock(Metric.FIRST_REPLY)["ended_at"] == at(3)


def test_an_agents_ticket_owes_none_until_the_customer_writes() -> None:
    assert Story(by=Role.AGENT).clock(Metric.FIRST_REPLY)["due_at"] is None
    row = Story(by=Role.AGENT).message(5).clock(Metric.FIRST_REPLY)
    assert (row["started_at"], row["due_at"]) == (at(5), at(5) + TARGET)


def test_an_answer_before_the_customer_wrote_leaves_none_owed() -> None:
    assert Story(by=Role.AGENT).reply(1).message(5).clock(Metric.FIRST_REPLY)["due_at"] is None


def test_another_priority_moves_the_due_instant_by_the_difference_of_targets() -> None:
    row = Story().then(2, "change_priority", priority=Priority.URGENT).clock(Metric.FIRST_REPLY)
    assert row["due_at"] == at(1)


def test_a_kept_promise_is_not_judged_by_a_later_priority() -> None:
    row = Story().reply(3).then(4, "change_priority", priority=Priority.URGENT).clock(Metric.FIRST_REPLY)
    assert (row["due_at"], row["ended_at"], row["priority"]) == (NINE + TARGET, at(3), "urgent")


def test_solving_stops_total_resolution_and_reopening_leaves_out_the_time_between() -> None:
    assert Story().solve(10).clock(Metric.TOTAL_RESOLUTION)["ended_at"] == at(10)
    row = Story().solve(10).then(34, "reopen").clock(Metric.TOTAL_RESOLUTION)
    assert (row["ended_at"], row["due_at"]) == (None, NINE + SOLUTION + timedelta(hours=24))


def test_a_customers_message_on_a_solved_ticket_lets_it_run_on_too() -> None:
    row = Story().solve(10).message(20).clock(Metric.TOTAL_RESOLUTION)
    assert (row["ended_at"], row["due_at"]) == (None, NINE + SOLUTION + timedelta(hours=10))


def test_a_priority_changed_while_solved_counts_from_the_reopening_on() -> None:
    story = Story().solve(10).then(11, "change_priority", priority=Priority.HIGH)
    assert story.clock(Metric.TOTAL_RESOLUTION)["due_at"] == NINE + SOLUTION
    row = story.then(12, "reopen").clock(Metric.TOTAL_RESOLUTION)
    assert row["due_at"] == NINE + timedelta(days=2) + timedelta(hours=2)


def test_a_first_reply_never_given_stands_still_while_solved() -> None:
    row = Story().solve(10).clock(Metric.FIRST_REPLY)
    assert (row["paused_at"], row["ended_at"]) == (at(10), None)
    row = Story().solve(10).then(30, "reopen").clock(Metric.FIRST_REPLY)
    assert (row["paused_at"], row["due_at"]) == (None, NINE + TARGET + timedelta(hours=20))


def test_closing_a_solved_ticket_changes_nothing() -> None:
    assert Story().solve(10).then(90, "close").clock(Metric.TOTAL_RESOLUTION)["ended_at"] == at(10)


def test_team_and_agent_are_on_the_clock() -> None:
    agent = Agent.create(agent_id=ANN, name="Ann", act=Story._act(0))
    assert Story().then(1, "assign", agent=agent).clock(Metric.FIRST_REPLY)["agent_id"] == ANN
    row = Story().then(1, "assign", agent=agent).then(2, "unassign").clock(Metric.FIRST_REPLY)
    assert (row["agent_id"], row["status"]) == (None, "open")


async def test_states_in_lists_are_those_of_the_rule_and_counts_agree(alpha: Workspace, beta: Workspace) -> None:
    desk = DeskDays(3, tickets=60)
    await record(alpha, [*desk.first(), *desk.more(500)])
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    await Runner(beta.database, VIEWS).catch_up(beta)
    seen: set[ClockState] = set()
    for hours in (1, 48, 24 * 9, 24 * 200):
        now = desk.at - timedelta(hours=hours)
        counts = (await count_clocks(alpha, now=now)).counts
        for state in ClockState:
            if state is ClockState.NOT_APPLICABLE:
                continue
            found, cursor = [], None
            while True:
                # The instant is the list's: that of a later page does not matter.
                page = await list_clocks(
                    alpha, ClockFilter(states=[state]), now=now if cursor is None else desk.at, limit=9, cursor=cursor
                )
                found += page.items
                cursor = page.cursor
                if cursor is None:
                    break
            assert {one.state for one in found} <= {state}
            assert [one.due_at for one in found] == sorted(one.due_at for one in found if one.due_at)
            assert counts.get(state, 0) == len(found)
            seen |= {one.state for one in found}
    assert seen == set(ClockState) - {ClockState.NOT_APPLICABLE}
    clocks = (await clocks_of(alpha, desk.tickets[0].id, now=desk.at)).items
    assert [clock.metric for clock in clocks] == ["first_reply", "total_resolution"]
    assert (await list_clocks(beta, now=desk.at)).items == []


@pytest.mark.parametrize("state", ["met", "breached"])
async def test_due_soon_of_a_team_is_a_list(alpha: Workspace, state: str) -> None:
    desk = DeskDays(5, tickets=120)
    await record(alpha, [*desk.first(), *desk.more(1200)])
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    soon = desk.at + timedelta(days=1)
    chosen = ClockFilter(due_before=soon, teams=[desk.teams[0].id], states=[ClockState(state)])
    found = (await list_clocks(alpha, chosen, now=desk.at, limit=500)).items
    assert found
    assert all(one.team_id == desk.teams[0].id and one.due_at is not None and one.due_at < soon for one in found)
