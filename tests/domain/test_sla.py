"""Promises by priority, in calendar time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import sla
from domain.priority import Priority
from domain.sla import Clock, ClockState, Metric, Policy
from tests.domain.scenario import NOON

pytestmark = pytest.mark.pure

HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)
FIVE_HOURS = Policy(first_reply={Priority.NORMAL: 5 * HOUR, Priority.HIGH: 2 * HOUR}, total_resolution={})


def started() -> Clock:
    clock = sla.start(FIVE_HOURS, Metric.FIRST_REPLY, Priority.NORMAL, NOON)
    assert clock is not None
    return clock


def test_the_standard_policy_promises_more_for_higher_priorities() -> None:
    for metric in Metric:
        targets = [sla.STANDARD.target(metric, priority) for priority in Priority]
        assert None not in targets
        assert targets == sorted(targets, reverse=True)  # type: ignore[type-var]


def test_a_clock_is_due_after_the_time_allowed() -> None:
    assert started().due_at == NOON + 5 * HOUR


def test_where_nothing_is_promised_there_is_no_clock() -> None:
    assert sla.start(FIVE_HOURS, Metric.TOTAL_RESOLUTION, Priority.NORMAL, NOON) is None
    assert sla.state(None, NOON) is ClockState.NOT_APPLICABLE


def test_fulfilled_at_the_due_instant_is_met_and_breached_only_after_it() -> None:
    due = started().due_at
    assert sla.state(sla.fulfil(started(), due), NOON + 99 * HOUR) is ClockState.MET
    assert sla.state(sla.fulfil(started(), due + INSTANT), NOON + 99 * HOUR) is ClockState.BREACHED


def test_a_running_clock_is_active_up_to_the_due_instant() -> None:
    due = started().due_at
    assert sla.state(started(), due) is ClockState.ACTIVE
    assert sla.state(started(), due + INSTANT) is ClockState.BREACHED


def test_a_clock_that_stands_still_is_not_breached_by_waiting() -> None:
    clock = sla.pause(started(), NOON + HOUR)
    assert sla.state(clock, NOON + 99 * HOUR) is ClockState.PAUSED
    assert sla.resume(clock, NOON + 3 * HOUR).due_at == NOON + 7 * HOUR


def test_pausing_after_the_breach_does_not_undo_it() -> None:
    assert sla.state(sla.pause(started(), NOON + 6 * HOUR), NOON + 7 * HOUR) is ClockState.BREACHED


def test_the_time_that_a_ticket_was_held_for_solved_is_not_counted() -> None:
    clock = sla.resume_fulfilled(sla.fulfil(started(), NOON + 4 * HOUR), NOON + 50 * HOUR)
    assert (clock.met_at, clock.due_at) == (None, NOON + 51 * HOUR)


def test_fulfilling_counts_once() -> None:
    clock = sla.fulfil(started(), NOON + HOUR)
    assert sla.fulfil(clock, NOON + 9 * HOUR) == clock


def test_another_priority_shifts_what_is_due_by_the_difference_of_the_targets() -> None:
    paused_once = sla.resume(sla.pause(started(), NOON), NOON + HOUR)
    shifted = sla.shift(FIVE_HOURS, Metric.FIRST_REPLY, paused_once, Priority.NORMAL, Priority.HIGH)
    assert shifted == Clock(due_at=NOON + 3 * HOUR)


def test_another_priority_leaves_a_fulfilled_clock_alone() -> None:
    clock = sla.fulfil(started(), NOON + 4 * HOUR)
    assert sla.shift(FIVE_HOURS, Metric.FIRST_REPLY, clock, Priority.NORMAL, Priority.HIGH) == clock


def test_a_priority_that_promises_nothing_ends_the_clock() -> None:
    assert sla.shift(FIVE_HOURS, Metric.FIRST_REPLY, started(), Priority.NORMAL, Priority.LOW) is None


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["run", "pause"]), st.integers(0, 300)), max_size=12), st.integers(0, 900))
def test_a_clock_breaches_when_the_time_it_ran_exceeds_the_target(stretches: list[tuple[str, int]], at: int) -> None:
    # The oracle walks minute by minute and counts those in which the clock ran.
    minutes = [kind for kind, length in stretches for _ in range(length)]
    minutes = [*minutes, *["run"] * 2000][:at]
    ran = sum(kind == "run" for kind in minutes)

    clock, now = started(), NOON
    for kind, length in stretches:
        if now + timedelta(minutes=length) > NOON + timedelta(minutes=at):
            clock = sla.pause(clock, now) if kind == "pause" else sla.resume(clock, now)
            break
        if length:
            clock = sla.pause(clock, now) if kind == "pause" else sla.resume(clock, now)
            now += timedelta(minutes=length)
    else:
        clock = sla.resume(clock, now)
    breached = sla.state(clock, NOON + timedelta(minutes=at)) is ClockState.BREACHED
    assert breached is (ran > 300)
