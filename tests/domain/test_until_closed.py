"""A policy may hold that a promise is kept only once the ticket is closed; the clock then runs on while it is solved."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from domain.service_levels import EMPTY_BOOK
from domain.sla_announcements import announcements, next_at
from domain.sla_clocks import ClockState, used
from domain.sla_policy import PolicyTerms, Unit
from domain.sla_terms import Metric, SlaTerms
from domain.spans import microseconds
from domain.status import Status
from domain.ticket_breach_events import SlaBreached
from domain.ticket_timeline import STATUS, TERMS, Timeline
from tests.domain.sla_story import Story, a_book, in_minutes, minutes, promise

pytestmark = pytest.mark.pure

TOTAL = Metric.TOTAL_RESOLUTION
TARGET = promise(TOTAL, 100, unit=Unit.CALENDAR)
POLICY = PolicyTerms(targets=(TARGET, promise(Metric.FIRST_REPLY, 60)), until_closed=(TOTAL,))


def a_story(policy: PolicyTerms = POLICY) -> Story:
    book, terms = a_book(policy)
    return Story(book=book, terms=terms)


def said_later(timeline: Timeline, at: float, kind: str, what: Any) -> Timeline:
    return replace(timeline, facts=(*timeline.facts, (microseconds(minutes(at)), kind, what)))


def test_while_solved_it_runs_on_and_closing_fulfils_it() -> None:
    story = a_story().solve(40)
    assert story.state(TOTAL, 90) is ClockState.ACTIVE
    assert story.state(TOTAL, 101) is ClockState.BREACHED
    assert story.clock(TOTAL).pauses == ()
    in_time, late = story.close(100), a_story().solve(40).close(101)
    assert in_time.state(TOTAL, 999) is ClockState.MET
    assert in_minutes(in_time.clock(TOTAL).ended_at) == 100
    assert late.state(TOTAL, 999) is ClockState.BREACHED
    assert used(late.clock(TOTAL), late.book, minutes(999)).total_seconds() == 101 * 60


def test_a_breach_while_it_is_solved_is_announced_as_any_other_is() -> None:
    story = a_story().solve(40)
    found = announcements(story.timeline, story.book, minutes(999))
    assert [(one.event_class, in_minutes(one.at)) for one in found] == [(SlaBreached, 100)]
    assert next_at(story.timeline, story.book) == minutes(100) + timedelta(microseconds=1)
    closed = story.close(50)
    assert (announcements(closed.timeline, closed.book, minutes(999)), next_at(closed.timeline, closed.book)) == (
        [],
        None,
    )


def test_other_metrics_of_the_policy_are_settled_when_it_is_solved() -> None:
    assert a_story().solve(40).state(Metric.FIRST_REPLY, 99) is ClockState.PAUSED


def test_reopened_after_it_was_solved_nothing_was_lost_and_after_it_was_closed_the_time_between_is_not_counted() -> (
    None
):
    assert a_story().solve(40).reopen(70).due(TOTAL) == 100
    opened_anew = a_story().solve(40).close(50)
    # As a foreign desk may do; here a closed ticket stays closed.
    closed = opened_anew.timeline
    for status in ("open", "solved"):
        opened_anew.timeline = said_later(closed, 80, STATUS, status)
        assert opened_anew.due(TOTAL) == 130


def test_it_stands_still_while_solved_where_the_policy_says_that_too() -> None:
    waits = PolicyTerms(targets=(TARGET,), until_closed=(TOTAL,), pauses={TOTAL: (Status.SOLVED,)})
    story = a_story(waits).solve(40)
    assert story.state(TOTAL, 999) is ClockState.PAUSED
    assert story.close(500).state(TOTAL, 999) is ClockState.MET
    assert story.due(TOTAL) == 560


def test_terms_that_wait_for_closing_no_more_take_a_solved_ticket_for_done_and_others_restart_nothing() -> None:
    until_solved = PolicyTerms(targets=(TARGET,))
    book = EMPTY_BOOK.with_policy("closed", POLICY).with_policy("solved", until_solved)
    for first, then, ended in (("closed", "solved", 60), ("solved", "closed", 40)):
        story = Story(book=book, terms=SlaTerms(policy=first, policy_version=1)).solve(40)
        story.timeline = said_later(story.timeline, 60, TERMS, (then, 1, None, None))
        assert in_minutes(story.clock(TOTAL).ended_at) == ended


def test_what_is_not_settled_by_solving_cannot_wait_for_closing() -> None:
    for metric in (Metric.FIRST_REPLY, Metric.NEXT_REPLY, Metric.PERIODIC_UPDATE):
        with pytest.raises(ValidationError, match=f"{metric} is not fulfilled by solving"):
            PolicyTerms.model_validate({"targets": [], "until_closed": [metric]})
