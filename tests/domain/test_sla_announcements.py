"""What is put on record about clocks, when, and what is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from domain.priority import Priority
from domain.sla_announcements import announcements, next_at
from domain.sla_policy import Step, Unit
from domain.sla_terms import Metric
from domain.ticket_breach_events import SlaBreached, SlaBreachWithdrawn, SlaEscalated, SlaWarned
from tests.domain.scenario import FIRST_LINE
from tests.domain.sla_story import BY_IMPORT, BY_SYSTEM, Story, a_book, a_policy, in_minutes, minutes, promise

pytestmark = pytest.mark.pure

INSTANT = 1 / 60_000_000
HOUR = 60
FIRST = Metric.FIRST_REPLY


def urgent(**said: Any) -> Story:
    return Story(priority=Priority.URGENT, **said)


def announce(story: Story, at: float) -> list[tuple[type, float | None]]:
    """Put on record what there is to announce at a minute, and say what it was."""
    found = announcements(story.timeline, story.book, minutes(at))
    for one in found:
        story.announce(one)
    return [(one.event_class, in_minutes(one.at)) for one in found]


def with_steps(*steps: Step, unit: Unit = Unit.CALENDAR, **said: Any) -> Story:
    book, terms = a_book(a_policy(promise(FIRST, 60, unit=unit, steps=steps)))
    return Story(book=book, terms=terms, **said)


def test_a_breach_is_dated_at_its_deadline_whenever_it_is_noticed() -> None:
    assert announce(urgent(), HOUR + INSTANT) == [(SlaBreached, HOUR)]
    assert announce(urgent(), 7 * HOUR) == [(SlaBreached, HOUR)]


def test_at_the_deadline_itself_nothing_is_late_yet() -> None:
    assert announce(urgent(), HOUR) == []


def test_what_is_on_record_is_not_put_there_again() -> None:
    story = urgent()
    announce(story, 2 * HOUR)
    assert announce(story, 3 * HOUR) == []


def test_a_reply_in_the_same_second_as_the_deadline_is_judged_by_the_instants() -> None:
    half_a_second = 0.5 / 60
    assert announce(urgent().reply(HOUR), 2 * HOUR) == []
    assert announce(urgent().reply(HOUR + half_a_second), 2 * HOUR) == [(SlaBreached, HOUR)]
    assert announce(urgent().reply(HOUR - half_a_second), 2 * HOUR) == []


def test_a_breach_names_all_that_its_deadline_follows_from() -> None:
    story = urgent(at=5).solve(10).reopen(40)
    (one,) = announcements(story.timeline, story.book, minutes(3 * HOUR))
    said = one.fields
    assert said["metric"] is FIRST
    assert said["serial"] == 1
    assert said["started_at"] == minutes(5)
    assert said["due_at"] == minutes(95)
    assert [(pause.from_at, pause.until_at) for pause in said["pauses"]] == [(minutes(10), minutes(40))]
    assert (said["target"].amount, said["target"].unit) == (3600, Unit.CALENDAR)
    assert said["terms"] is None
    assert not said["manual"]


def test_a_pause_after_the_deadline_is_no_part_of_the_breach() -> None:
    story = urgent().solve(90).reopen(95)
    (one,) = announcements(story.timeline, story.book, minutes(3 * HOUR))
    assert one.fields["pauses"] == ()


def test_a_late_reply_withdraws_the_breach() -> None:
    story = urgent()
    announce(story, 2 * HOUR)
    story.reply(HOUR)
    assert announce(story, 3 * HOUR) == [(SlaBreachWithdrawn, 3 * HOUR)]
    assert announce(story, 9 * HOUR) == [(SlaBreached, 8 * HOUR)]  # of the resolution


def test_a_reply_that_came_after_the_deadline_leaves_the_breach_as_it_is() -> None:
    story = urgent()
    announce(story, 2 * HOUR)
    story.reply(HOUR + INSTANT)
    assert announce(story, 3 * HOUR) == []


def test_what_was_withdrawn_can_be_breached_again() -> None:
    story = urgent()
    announce(story, 2 * HOUR)
    story.priority(150, Priority.LOW)
    assert announce(story, 3 * HOUR) == [(SlaBreachWithdrawn, 3 * HOUR)]
    story.priority(190, Priority.URGENT)
    assert announce(story, 4 * HOUR) == [(SlaBreached, HOUR)]


def test_a_deadline_that_moves_is_another_breach_and_the_former_is_withdrawn() -> None:
    story = Story(priority=Priority.HIGH)
    assert announce(story, 5 * HOUR) == [(SlaBreached, 4 * HOUR)]
    story.priority(5 * HOUR, Priority.URGENT)
    assert announce(story, 6 * HOUR) == [(SlaBreached, HOUR), (SlaBreachWithdrawn, 6 * HOUR)]


def test_a_closed_ticket_takes_a_late_notice() -> None:
    story = urgent().reply(90).solve(100).do("close", 110)
    assert announce(story, 2 * HOUR) == [(SlaBreached, HOUR)]


def test_a_clock_that_stands_still_breaches_nothing_by_waiting() -> None:
    assert announce(urgent().solve(30), 99 * HOUR) == []


def test_reminders_come_before_the_deadline_and_steps_after_it_in_the_order_of_their_instants() -> None:
    story = with_steps(
        Step(offset_seconds=600, action="raise_level", level=2, team_id=FIRST_LINE),
        Step(offset_seconds=-600, action="remind"),
    )
    assert announce(story, 50) == []
    assert announce(story, 55) == [(SlaWarned, 50)]
    assert announce(story, 99) == [(SlaBreached, 60), (SlaEscalated, 70)]
    assert announce(story, 999) == []


def test_an_answer_stops_the_steps_to_come() -> None:
    story = with_steps(Step(offset_seconds=-600, action="remind"), Step(offset_seconds=600, action="notify", note="!"))
    assert announce(story.reply(65), 999) == [(SlaWarned, 50), (SlaBreached, 60)]


def test_two_steps_at_one_instant_are_two() -> None:
    story = with_steps(*(Step(offset_seconds=0, action="notify", note=note) for note in "ab"))
    assert announce(story, 61) == [(SlaBreached, 60), (SlaEscalated, 60), (SlaEscalated, 60)]
    assert announce(story, 62) == []


def test_a_step_is_known_again_by_all_that_it_says() -> None:
    one, other = (Step(offset_seconds=0, action="notify", note=note) for note in "ab")
    story = with_steps(one)
    assert announce(story, 61) == [(SlaBreached, 60), (SlaEscalated, 60)]
    book = story.book.with_policy("gold", a_policy(promise(FIRST, 60, unit=Unit.CALENDAR, steps=(one, other))))
    assert announce(story.adopt(62, book), 63) == [(SlaEscalated, 60)]


def test_a_step_that_was_taken_is_not_taken_again_when_a_later_pause_moves_the_deadline() -> None:
    story = with_steps(Step(offset_seconds=-600, action="remind"))
    assert announce(story, 52) == [(SlaWarned, 50)]
    story.solve(55).reopen(85)
    assert announce(story, 999) == [(SlaBreached, 90)]


def test_a_pause_before_a_step_moves_it() -> None:
    story = with_steps(Step(offset_seconds=-600, action="remind")).solve(40).reopen(70)
    assert announce(story, 999) == [(SlaWarned, 80), (SlaBreached, 90)]


def test_a_reminder_longer_before_the_deadline_than_there_is_time_comes_at_the_start() -> None:
    story = with_steps(Step(offset_seconds=-2 * 3600, action="remind"), at=7)
    assert announce(story, 9) == [(SlaWarned, 7)]


def test_an_imported_ticket_is_silent_until_somebody_deals_with_it_and_then_only_what_comes_after_is_said() -> None:
    story = urgent(by=BY_IMPORT)
    assert announce(story, 2 * HOUR) == []
    assert next_at(story.timeline, story.book) is None
    story.note(3 * HOUR)
    assert announce(story, 4 * HOUR) == []
    assert announce(story, 9 * HOUR) == [(SlaBreached, 8 * HOUR)]  # of the resolution


def test_an_import_itself_and_the_desk_itself_do_not_end_the_silence() -> None:
    story = urgent(by=BY_IMPORT).do("add_note", 5, text="as it was", by=BY_IMPORT)
    story.do("add_note", 6, text="by rule", by=BY_SYSTEM)
    assert announce(story, 99 * HOUR) == []


def test_an_import_that_is_asked_to_announces_all() -> None:
    story = urgent(by=BY_IMPORT).do("ask_for_announcements", 3 * HOUR, by=BY_IMPORT)
    assert announce(story, 4 * HOUR) == [(SlaBreached, HOUR)]


def test_it_is_worth_looking_just_after_the_next_instant_that_is_not_on_record() -> None:
    story = with_steps(Step(offset_seconds=-600, action="remind"))
    assert next_at(story.timeline, story.book) == minutes(50 + INSTANT)
    announce(story, 51)
    assert next_at(story.timeline, story.book) == minutes(60 + INSTANT)
    announce(story, 61)
    assert next_at(story.timeline, story.book) is None
    story.reply(55)
    overdue = next_at(story.timeline, story.book)
    assert overdue is not None
    assert overdue <= minutes(61)  # a breach to be withdrawn


def test_looking_at_the_next_instant_always_finds_something_and_before_it_nothing() -> None:
    story = (
        with_steps(Step(offset_seconds=-600, action="remind"), Step(offset_seconds=90, action="notify", note="late"))
        .solve(20)
        .reopen(40)
    )
    said = []
    while (at := next_at(story.timeline, story.book)) is not None:
        minute = in_minutes(at) or 0
        assert announcements(story.timeline, story.book, minutes(minute - INSTANT)) == []
        said += announce(story, minute)
    assert said == [(SlaWarned, 70), (SlaBreached, 80), (SlaEscalated, 81.5)]
