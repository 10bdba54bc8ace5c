"""Clocks of the standard promises, by what happens to a ticket."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain.customer_events import Tier
from domain.event import Role
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK
from domain.sla_clocks import ClockState, falls_due, percent, remaining, used
from domain.sla_terms import Metric
from domain.spans import instant
from domain.ticket_timeline import TIER
from tests.domain.scenario import NOON
from tests.domain.sla_story import BY_AGENT, BY_IMPORT, Story, in_minutes, minutes

pytestmark = pytest.mark.pure

HOUR, DAY = 60, 24 * 60
FIRST, TOTAL = Metric.FIRST_REPLY, Metric.TOTAL_RESOLUTION


def test_a_desk_without_policies_promises_a_first_reply_and_a_resolution_by_priority() -> None:
    assert Story().due(FIRST) == DAY
    assert Story().due(TOTAL) == 5 * DAY
    assert Story(priority=Priority.URGENT).due(FIRST) == HOUR
    assert set(Story().clocks()) == {(FIRST, 1), (TOTAL, 1)}


def test_answered_at_the_due_instant_is_met_and_breached_only_after_it() -> None:
    assert Story(priority=Priority.URGENT).reply(HOUR).state(FIRST, 99 * DAY) is ClockState.MET
    just_after = HOUR + 1 / 60_000_000
    assert Story(priority=Priority.URGENT).reply(just_after).state(FIRST, 99 * DAY) is ClockState.BREACHED


def test_a_running_clock_is_active_up_to_the_due_instant() -> None:
    story = Story(priority=Priority.URGENT)
    assert story.state(FIRST, HOUR) is ClockState.ACTIVE
    assert story.state(FIRST, HOUR + 1 / 60_000_000) is ClockState.BREACHED


def test_what_is_not_promised_does_not_apply() -> None:
    assert Story().state(Metric.OWNERSHIP, 0) is ClockState.NOT_APPLICABLE


def test_another_tier_changes_nothing_where_a_desk_has_no_policies() -> None:
    story = Story().do("choose_terms", 30, book=EMPTY_BOOK, tier=Tier.GOLD)
    assert story.timeline.latest(TIER) == "gold"
    assert [clock.due for clock in story.clocks().values()] == [clock.due for clock in Story().clocks().values()]


def test_a_ticket_that_an_agent_opened_has_no_reply_clock_until_the_customer_writes() -> None:
    story = Story(by=BY_AGENT)
    assert (FIRST, 1) not in story.clocks()
    assert story.message(90).due(FIRST) == 90 + DAY


def test_an_answer_before_anybody_asked_settles_the_first_reply_for_good() -> None:
    story = Story(by=BY_AGENT).reply(10).message(90)
    assert (FIRST, 1) not in story.clocks()


def test_a_first_reply_stands_still_while_the_ticket_is_solved_without_one() -> None:
    story = Story(priority=Priority.URGENT).solve(30)
    assert story.state(FIRST, 99 * DAY) is ClockState.PAUSED
    assert story.reopen(130).due(FIRST) == HOUR + 100


def test_solving_fulfils_the_resolution_and_reopening_lets_it_run_on() -> None:
    story = Story(priority=Priority.URGENT).reply(10).solve(HOUR)
    assert story.state(TOTAL, 99 * DAY) is ClockState.MET
    assert story.message(3 * HOUR).due(TOTAL) == 10 * HOUR


def test_a_closed_ticket_stays_fulfilled() -> None:
    story = Story(priority=Priority.URGENT).reply(10).solve(HOUR).do("close", 2 * HOUR)
    assert story.state(TOTAL, 99 * DAY) is ClockState.MET
    assert in_minutes(story.clock(TOTAL).ended_at) == HOUR


def test_pausing_after_the_breach_does_not_undo_it() -> None:
    story = Story(priority=Priority.URGENT).solve(90).reopen(95)
    assert story.due(FIRST) == HOUR
    assert story.state(FIRST, 95) is ClockState.BREACHED


def test_another_priority_moves_what_is_due_as_if_it_had_been_so_from_the_start() -> None:
    story = Story().solve(10).reopen(40).priority(50, Priority.HIGH)
    assert story.due(FIRST) == 4 * HOUR + 30


def test_another_priority_leaves_a_fulfilled_clock_alone() -> None:
    story = Story().reply(2 * HOUR).priority(3 * HOUR, Priority.URGENT)
    assert story.due(FIRST) == DAY
    assert story.state(FIRST, 99 * DAY) is ClockState.MET


def test_an_internal_note_stops_nothing() -> None:
    assert Story().note(5).clocks() == Story().clocks()


def test_a_message_of_somebody_in_copy_counts_as_the_customers() -> None:
    story = Story(by=BY_AGENT).message(30, author_id=BY_IMPORT.actor_id)
    assert story.due(FIRST) == 30 + DAY


def test_used_and_remaining_add_up_to_the_target_and_nothing_used_is_zero() -> None:
    clock = Story(priority=Priority.URGENT).clock(FIRST)
    assert used(clock, EMPTY_BOOK, NOON) == timedelta(0)
    assert used(clock, EMPTY_BOOK, minutes(15)) == timedelta(minutes=15)
    assert remaining(clock, EMPTY_BOOK, minutes(15)) == timedelta(minutes=45)
    assert percent(clock, EMPTY_BOOK, minutes(15)) == 25
    assert remaining(clock, EMPTY_BOOK, minutes(90)) == timedelta(minutes=-30)
    assert percent(clock, EMPTY_BOOK, minutes(90)) == 150


def test_the_next_deadline_is_that_of_the_clocks_that_run() -> None:
    story = Story(priority=Priority.URGENT)
    assert falls_due(story.clocks().values()) == story.clock(FIRST).due
    story.reply(30)
    due = falls_due(story.clocks().values())
    assert due is not None
    assert instant(due) == minutes(8 * HOUR)
    assert falls_due(story.solve(60).clocks().values()) is None


def test_whoever_imports_a_ticket_is_no_agent_who_opens_it() -> None:
    assert BY_IMPORT.role is Role.SYSTEM
    assert Story(by=BY_IMPORT).due(FIRST) == DAY
