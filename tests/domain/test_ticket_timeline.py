"""What a timeline keeps of a ticket, and where a late fact falls."""

from __future__ import annotations

import pytest

from domain.priority import Priority
from domain.sla_terms import Metric
from domain.ticket_timeline import after, decode, encode
from tests.domain.scenario import FIRST_LINE
from tests.domain.sla_story import BY_IMPORT, Story

pytestmark = pytest.mark.pure


def a_busy_story() -> Story:
    return (
        Story(tags=("b", "a"))
        .team(5, FIRST_LINE)
        .reply(30)
        .pending(31)
        .message(90)
        .priority(95, Priority.HIGH)
        .do("tag", 96, tags=("vip",))
        .do("categorise", 97, category="printers")
        .reply(120)
        .solve(150)
    )


def test_what_is_encoded_is_decoded_to_the_same() -> None:
    timeline = a_busy_story().timeline
    assert decode(encode(timeline)) == timeline


def test_a_timeline_of_a_dozen_facts_takes_some_forty_bytes_a_fact() -> None:
    timeline = a_busy_story().timeline
    assert len(encode(timeline)) < 45 * (len(timeline.facts) + 3)


def test_what_says_nothing_gives_the_same_timeline_back() -> None:
    story = Story()
    before = story.timeline
    assert story.note(5).timeline is before
    assert story.do("change_priority", 6, priority=Priority.NORMAL).timeline is before


def test_a_late_reply_falls_into_its_place() -> None:
    late = Story(priority=Priority.URGENT).priority(40, Priority.HIGH).reply(20)
    in_order = Story(priority=Priority.URGENT).reply(20).priority(40, Priority.HIGH)
    assert late.timeline == in_order.timeline
    assert late.due(Metric.FIRST_REPLY) == 60


def test_of_what_occurred_at_one_instant_that_which_was_recorded_last_comes_last() -> None:
    story = Story().message(20).priority(40, Priority.HIGH).reply(20)
    assert [fact[1] for fact in story.timeline.facts] == ["m", "s", "r", "p"]


def test_a_late_move_is_believed_from_its_instant_on_like_the_ticket_does() -> None:
    story = Story().pending(60).resume(90).solve(30)
    assert story.ticket.status == "solved"
    assert [fact[1:] for fact in story.timeline.facts] == [("s", "solved")]


def test_what_a_foreign_history_dates_before_the_opening_counts_as_of_the_opening() -> None:
    story = Story(at=10, by=BY_IMPORT, priority=Priority.URGENT).reply(5, by=BY_IMPORT)
    clock = story.clock(Metric.FIRST_REPLY)
    assert clock.ended == clock.started
    assert story.reply(3, by=BY_IMPORT).clock(Metric.FIRST_REPLY) == clock


def test_a_ticket_that_was_never_opened_has_no_timeline() -> None:
    event = Story().reply(5).events[-1]
    with pytest.raises(ValueError, match="never opened"):
        after(None, event)
