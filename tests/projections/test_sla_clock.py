"""Clocks run by the times at which things occurred."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from domain.agent import Agent
from domain.event import Act, Channel, Provenance, Role
from domain.priority import Priority
from domain.sla_clocks import ClockState, clocks, percent, remaining, state, used
from domain.sla_terms import Metric
from domain.ticket import Ticket
from projections.registry import VIEWS
from projections.runner import Runner
from projections.sla_clock import VIEW, ClockFilter, clocks_of, count_clocks, list_clocks
from projections.ticket_queue import QueueFilter, count_tickets, list_tickets
from storage.database import Database
from tests.projections.desk_days import DeskDays, as_recorded, record

if TYPE_CHECKING:
    from projections.table import Row
    from storage.database import Workspace
    from storage.settings import Settings

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
        for wanted in ClockState:
            if wanted is ClockState.NOT_APPLICABLE:
                continue
            found, cursor = [], None
            while True:
                # The instant is the list's: that of a later page does not matter.
                page = await list_clocks(
                    alpha, ClockFilter(states=[wanted]), now=now if cursor is None else desk.at, limit=9, cursor=cursor
                )
                found += page.items
                cursor = page.cursor
                if cursor is None:
                    break
            assert {one.state for one in found} <= {wanted}
            assert [one.due_at for one in found] == sorted(one.due_at for one in found if one.due_at)
            assert counts.get(wanted, 0) == len(found)
            seen |= {one.state for one in found}
    assert seen == set(ClockState) - {ClockState.NOT_APPLICABLE}
    clocks = (await clocks_of(alpha, desk.tickets[0].id, now=desk.at)).items
    assert [clock.metric for clock in clocks] == ["first_reply", "total_resolution"]
    assert (await list_clocks(beta, now=desk.at)).items == []


@pytest.mark.parametrize("wanted", ["met", "breached"])
async def test_due_soon_of_a_team_is_a_list(alpha: Workspace, wanted: str) -> None:
    desk = DeskDays(5, tickets=120)
    await record(alpha, [*desk.first(), *desk.more(1200)])
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    soon = desk.at + timedelta(days=1)
    chosen = ClockFilter(due_before=soon, teams=[desk.teams[0].id], states=[ClockState(wanted)])
    found = (await list_clocks(alpha, chosen, now=desk.at, limit=500)).items
    assert found
    assert all(one.team_id == desk.teams[0].id and one.due_at is not None and one.due_at < soon for one in found)


async def test_of_every_metric_the_latest_clock_is_listed_with_how_much_of_its_time_is_used(alpha: Workspace) -> None:
    desk = DeskDays(8, tickets=60)
    await record(alpha, [*desk.first(), *desk.more(700)])
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    seen: set[str] = set()
    for now in (desk.at - timedelta(days=20), desk.at, desk.at + timedelta(days=30)):
        for ticket in desk.tickets:
            timeline = desk.timeline(ticket)
            assert timeline is not None
            found = {one.metric: one for one in (await clocks_of(alpha, ticket.id, now=now)).items}
            latest = {str(clock.metric): clock for clock in clocks(timeline, desk.book)}
            assert latest.keys() <= found.keys()
            for metric, one in found.items():
                clock = latest.get(metric)
                assert one.state == state(clock, now)
                assert (one.agent_id, one.team_id, one.status) == (ticket.agent_id, ticket.team_id, ticket.status)
                if clock is None or one.due_at is None:
                    assert (one.state, one.used, one.percent_used) == (ClockState.NOT_APPLICABLE, None, None)
                    continue
                terms = clock.terms if clock.terms is not None and clock.terms.policy is not None else None
                assert (one.due_at, one.serial, one.terms) == (clock.due_at, clock.serial, terms)
                assert (one.used, one.remaining) == (used(clock, desk.book, now), remaining(clock, desk.book, now))
                assert one.percent_used == pytest.approx(percent(clock, desk.book, now))
                assert one.breached_at == (clock.due_at if one.state is ClockState.BREACHED else None)
                seen.add(f"{one.state} {'by hand' if one.manual else one.target and one.target.unit}")
    assert len(seen) > 9  # states and units, in most of their combinations


async def test_due_within_is_by_the_end_of_a_span_that_a_list_keeps(alpha: Workspace) -> None:
    desk = DeskDays(9, tickets=60)
    await record(alpha, [*desk.first(), *desk.more(500)])
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    now, span = desk.at - timedelta(days=15), timedelta(days=5)
    everything = (await list_clocks(alpha, now=now, limit=500)).items
    wanted = [one for one in everything if one.due_at is not None and one.due_at <= now + span]
    assert 0 < len(wanted) < len(everything)
    chosen = ClockFilter(due_within=span)
    found, cursor, then = [], None, now
    while True:
        page = await list_clocks(alpha, chosen, now=then, limit=7, cursor=cursor)
        found += page.items
        cursor, then = page.cursor, desk.at  # the instant is the list's
        if cursor is None:
            break
    assert found == wanted
    assert sum((await count_clocks(alpha, chosen, now=now)).counts.values()) == len(wanted)
    tickets = (await list_tickets(alpha, limit=500)).items
    soon = sorted((one.due_at, one.number) for one in tickets if one.due_at is not None and one.due_at <= now + span)
    assert len(soon) > 0
    within = QueueFilter(due_within=span)
    first = await list_tickets(alpha, within, sort="due", limit=1, now=now)
    rest = await list_tickets(alpha, within, sort="due", limit=500, cursor=first.cursor, now=desk.at)
    assert [(one.due_at, one.number) for one in (*first.items, *rest.items)] == soon
    assert sum((await count_tickets(alpha, within, now=now)).counts.values()) == len(soon)
    before = QueueFilter(due_before=now + span)
    assert len((await list_tickets(alpha, before, limit=500)).items) == sum(due < now + span for due, _ in soon)
    with pytest.raises(ValueError, match="depends on when"):
        await list_tickets(alpha, within)


async def test_calendars_adopted_since_are_known_to_a_process_that_only_reads(
    settings: Settings, alpha: Workspace
) -> None:
    desk = DeskDays(1, tickets=60)
    events = desk.first()
    follower = Runner(alpha.database, VIEWS)
    async with await Database.open(settings) as other:
        reading = await other.workspace("alpha")
        for _ in range(6):
            events = [*events, *desk.more(120)]
            await record(alpha, events)
            events = []
            await follower.catch_up(alpha)
            expected = (await list_clocks(alpha, now=desk.at, limit=500)).items
            assert (await list_clocks(reading, now=desk.at, limit=500)).items == expected
    assert any(one.terms is not None and one.terms.calendar is not None for one in expected)
