"""The arithmetic of a clock as it is shown adds up."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.calendar import Window
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK
from domain.sla_clocks import used
from domain.sla_explanation import Line, LineKind, explain
from tests.domain.scenario import NOON
from tests.domain.sla_story import Story, a_policy, minutes, promise
from tests.domain.test_sla_model import Office, calendars, happenings, policies, tell
from tests.domain.test_sla_rulings import DAY, FIRST, HOUR, NEXT, NEXT_OPENING, OFFICE, WORK, desk, office
from tests.domain.ticking_desk import TICK

if TYPE_CHECKING:
    from domain.sla_policy import PolicyTerms

pytestmark = pytest.mark.pure


def said(lines: list[Line], *kinds: LineKind) -> list[str]:
    return [line.text for line in lines if line.kind in kinds]


def test_each_window_each_pause_and_the_sum_are_lines_of_their_own() -> None:
    story = Story(book=office(WORK, allowed=7 * HOUR)).pending(HOUR).resume(2 * HOUR)
    lines = explain(story.clock(WORK), story.book, minutes(3 * HOUR))
    assert [line.text for line in lines] == [
        "policy gold, version 1",
        "calendar office, version 1",
        "7:00:00 of opening hours",
        "from Mon 2026-05-04 12:00:00 UTC",
        "counted Mon 2026-05-04 12:00:00 UTC to Mon 2026-05-04 13:00:00 UTC: 1:00:00",
        "stood still Mon 2026-05-04 13:00:00 UTC to Mon 2026-05-04 14:00:00 UTC: 1:00:00",
        "counted Mon 2026-05-04 14:00:00 UTC to Mon 2026-05-04 15:00:00 UTC: 1:00:00",
        "has run until Mon 2026-05-04 15:00:00 UTC, after 2:00:00",
        "to come Mon 2026-05-04 15:00:00 UTC to Mon 2026-05-04 17:00:00 UTC: 2:00:00",
        "to come Tue 2026-05-05 09:00:00 UTC to Tue 2026-05-05 12:00:00 UTC: 3:00:00",
        "due Tue 2026-05-05 12:00:00 UTC, after 7:00:00",
        "active at Mon 2026-05-04 15:00:00 UTC",
    ]


def test_a_pause_is_told_with_the_opening_hours_that_it_held() -> None:
    story = Story(book=office(WORK)).pending(4 * HOUR).resume(NEXT_OPENING + HOUR)
    assert said(explain(story.clock(WORK), story.book, minutes(DAY)), LineKind.STOOD_STILL) == [
        "stood still Mon 2026-05-04 16:00:00 UTC to Tue 2026-05-05 10:00:00 UTC: 2:00:00"
    ]


def test_how_a_clock_ended_is_said_where_it_did_also_after_the_deadline() -> None:
    story = Story(priority=Priority.URGENT).reply(90)
    lines = explain(story.clock(FIRST), story.book, minutes(DAY))
    assert [line.kind for line in lines][-5:] == [
        LineKind.COUNTED,
        LineKind.DUE,
        LineKind.COUNTED,
        LineKind.UNTIL,
        LineKind.STATE,
    ]
    assert said(lines, LineKind.UNTIL) == ["fulfilled Mon 2026-05-04 13:30:00 UTC, after 1:30:00"]
    assert said(lines, LineKind.STATE) == ["breached at Tue 2026-05-05 12:00:00 UTC"]


def test_what_was_left_when_a_clock_ended_is_said_not_to_have_been_needed() -> None:
    story = Story(priority=Priority.URGENT).reply(45)
    assert said(explain(story.clock(FIRST), story.book, minutes(DAY)), LineKind.AHEAD) == [
        "not needed Mon 2026-05-04 12:45:00 UTC to Mon 2026-05-04 13:00:00 UTC: 0:15:00"
    ]


def test_working_days_are_said_before_the_paused_hours_that_are_added_to_them() -> None:
    story = Story(book=desk(a_policy(promise(WORK, 2, days=True)))).pending(HOUR).resume(2 * HOUR)
    lines = explain(story.clock(WORK), story.book, minutes(DAY))
    assert said(lines, LineKind.WORKING_DAYS) == [
        "2 working days to the same time of day from Mon 2026-05-04 12:00:00 UTC: Wed 2026-05-06 12:00:00 UTC"
    ]
    assert said(lines, LineKind.STOOD_STILL) == [
        "stood still Mon 2026-05-04 13:00:00 UTC to Mon 2026-05-04 14:00:00 UTC: 1:00:00"
    ]
    assert said(lines, LineKind.DUE)[0].startswith("due Wed 2026-05-06 13:00:00 UTC")


def test_each_calendar_is_named_with_the_instant_from_which_it_counts() -> None:
    book = office(WORK, allowed=6 * HOUR)
    other = book.with_calendar("other", OFFICE).with_policy("gold", a_policy(promise(WORK, 360), calendar="other"))
    story = Story(book=book).adopt(3 * HOUR, other)
    assert said(explain(story.clock(WORK), story.book, NOON), LineKind.TERMS) == [
        "policy gold, version 2",
        "calendar office, version 1 from Mon 2026-05-04 12:00:00 UTC",
        "calendar other, version 1 from Mon 2026-05-04 15:00:00 UTC",
    ]


def test_a_calendar_that_counted_no_more_when_the_clock_began_is_not_named() -> None:
    book = office(WORK, FIRST, allowed=6 * HOUR)
    other = book.with_calendar("other", OFFICE).with_policy("gold", a_policy(promise(NEXT, 360), calendar="other"))
    story = Story(book=book).reply(HOUR).adopt(3 * HOUR, other).message(4 * HOUR)
    assert said(explain(story.clock(NEXT), story.book, NOON), LineKind.TERMS) == [
        "policy gold, version 2",
        "calendar other, version 1",
    ]


def test_what_a_pause_held_is_counted_by_the_calendar_of_that_time() -> None:
    book = office(WORK, allowed=6 * HOUR)
    never = OFFICE.model_copy(update={"hours": {"sun": (Window("09:00", "10:00"),)}})
    later = book.with_calendar("never", never).with_policy("gold", a_policy(promise(WORK, 360), calendar="never"))
    story = Story(book=book).pending(HOUR).resume(2 * HOUR).adopt(3 * HOUR, later)
    assert said(explain(story.clock(WORK), story.book, minutes(DAY)), LineKind.STOOD_STILL) == [
        "stood still Mon 2026-05-04 13:00:00 UTC to Mon 2026-05-04 14:00:00 UTC: 1:00:00"
    ]


def test_a_due_date_set_by_hand_is_said_to_be_so() -> None:
    story = Story(book=office(WORK)).due_date(10, WORK, NEXT_OPENING)
    lines = explain(story.clock(WORK), story.book, minutes(20))
    assert said(lines, LineKind.ALLOWED) == ["the due date was set by hand"]
    assert said(lines, LineKind.DUE) == ["due Tue 2026-05-05 09:00:00 UTC, as set by hand, after 5:00:00"]


def test_an_answer_that_took_no_opening_hours_is_explained_by_none() -> None:
    story = Story(at=5 * HOUR + 10, book=office(FIRST)).reply(5 * HOUR + 50)
    lines = explain(story.clock(FIRST), story.book, minutes(DAY))
    assert said(lines, LineKind.COUNTED) == []
    assert said(lines, LineKind.UNTIL) == ["fulfilled Mon 2026-05-04 17:50:00 UTC, after 0:00:00"]


@settings(deadline=None, max_examples=150)
@given(calendars(), policies, happenings, st.integers(0, 60))
def test_the_lines_add_up_to_the_target_and_to_the_time_used(
    office_of: Office, policy: PolicyTerms, told: list[tuple[int, str]], later: int
) -> None:
    book = EMPTY_BOOK.with_calendar("office", office_of[0]).with_policy("gold", policy)
    story = Story(book=book)
    now = minutes((tell(story, told) + later) * TICK)
    for clock in story.clocks().values():
        lines = explain(clock, book, now)
        counted = [line for line in lines if line.kind in (LineKind.COUNTED, LineKind.AHEAD)]
        (due,) = [place for place, line in enumerate(lines) if line.kind is LineKind.DUE]
        assert clock.target is not None
        assert lines[due].total == timedelta(seconds=clock.target.amount)
        before = sum((line.counted or timedelta() for line in counted if line in lines[:due]), timedelta())
        assert before == timedelta(seconds=clock.target.amount)
        ran = [line.counted or timedelta() for line in counted if line.kind is LineKind.COUNTED]
        assert sum(ran, timedelta()) == used(clock, book, now)
        assert all((line.counted or timedelta()) > timedelta(0) for line in counted)
        times = [line.from_at for line in lines if line.from_at and line.kind not in (LineKind.TERMS, LineKind.STATE)]
        assert times == sorted(times)
