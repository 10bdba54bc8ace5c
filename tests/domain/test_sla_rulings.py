"""The rulings: what this desk does where others disagree, each as a story."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from domain.calendar import CalendarTerms
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK, Book
from domain.sla_announcements import announcements
from domain.sla_clocks import ClockState, remaining, state, used
from domain.sla_policy import Match, PolicyTerms, Unit
from domain.sla_terms import Metric, SlaTerms
from domain.status import Status
from domain.ticket_breach_events import SlaBreached
from domain.ticket_events import LinkKind
from domain.ticket_sla_events import SlaTermsChanged
from tests.domain.scenario import DAVE, FIRST_LINE, NETWORK, NOON, OTHER_TICKET, a_team
from tests.domain.sla_story import BY_AGENT, Story, a_policy, minutes, promise

pytestmark = pytest.mark.pure

INSTANT = 1 / 60_000_000
HOUR, DAY = 60, 24 * 60
FIRST, NEXT, UPDATE = Metric.FIRST_REPLY, Metric.NEXT_REPLY, Metric.PERIODIC_UPDATE
TOTAL, WAIT, WORK, OWNERSHIP = Metric.TOTAL_RESOLUTION, Metric.REQUESTER_WAIT, Metric.AGENT_WORK, Metric.OWNERSHIP
MONDAY_TO_FRIDAY = ("mon", "tue", "wed", "thu", "fri")
OFFICE = CalendarTerms.model_validate(
    {"time_zone": "UTC", "hours": {day: [["09:00", "17:00"]] for day in MONDAY_TO_FRIDAY}}
)
EVENING = CalendarTerms.model_validate(
    {"time_zone": "UTC", "hours": {day: [["12:00", "20:00"]] for day in MONDAY_TO_FRIDAY}}
)
CLOSING, NEXT_OPENING = 5 * HOUR, 21 * HOUR
"""Of the Monday on which every story begins at noon."""


def desk(policy: PolicyTerms, calendar: CalendarTerms | None = OFFICE, book: Book = EMPTY_BOOK) -> Book:
    if calendar is not None:
        book = book.with_calendar("office", calendar)
        policy = policy.model_copy(update={"calendar": "office"})
    return book.with_policy("gold", policy)


def office(*metrics: Metric, allowed: float = 2 * HOUR) -> Book:
    return desk(a_policy(*[promise(metric, allowed) for metric in metrics]))


# Deadlines


def test_a_target_used_up_exactly_at_closing_is_due_at_the_closing_instant_and_breached_only_after_it() -> None:
    story = Story(book=office(FIRST, allowed=CLOSING))
    assert story.due(FIRST) == CLOSING
    assert story.state(FIRST, CLOSING) is ClockState.ACTIVE
    assert story.state(FIRST, CLOSING + INSTANT) is ClockState.BREACHED
    assert story.reply(NEXT_OPENING - 1).state(FIRST, 9 * DAY) is ClockState.BREACHED


def test_deadlines_shift_by_the_opening_hours_of_pauses() -> None:
    story = Story(book=office(WORK)).pending(HOUR).resume(2 * HOUR)
    assert story.due(WORK) == 3 * HOUR
    assert story.pending(2 * HOUR + 30).resume(CLOSING + HOUR).due(WORK) == NEXT_OPENING + 30


def test_a_pause_that_begins_as_the_target_is_used_up_moves_the_deadline_to_its_end() -> None:
    story = Story(book=office(WORK)).pending(2 * HOUR)
    assert story.state(WORK, 9 * DAY) is ClockState.PAUSED
    story.resume(3 * HOUR)
    assert story.due(WORK) == 3 * HOUR
    assert story.state(WORK, 3 * HOUR + INSTANT) is ClockState.BREACHED


def test_a_pause_as_the_target_is_used_up_moves_the_deadline_around_the_clock_as_well() -> None:
    around_the_clock = desk(a_policy(promise(WORK, 2 * HOUR, unit=Unit.CALENDAR)))
    assert Story(book=around_the_clock).pending(2 * HOUR).resume(3 * HOUR).due(WORK) == 3 * HOUR


def test_a_wait_that_begins_after_closing_does_not_move_what_was_due_at_closing() -> None:
    story = Story(book=office(WORK, allowed=CLOSING)).pending(CLOSING + 30).resume(NEXT_OPENING + 30)
    assert story.due(WORK) == CLOSING
    assert story.state(WORK, DAY) is ClockState.BREACHED


def test_seconds_are_kept_exact() -> None:
    story = Story(at=1 / 60 + INSTANT, book=office(FIRST, allowed=90 + 1 / 60))
    assert story.clock(FIRST).due_at - minutes(90 + 2 / 60) == timedelta(microseconds=1)


def test_an_answer_within_no_opening_hours_at_all_took_no_time_and_is_an_answer() -> None:
    story = Story(at=CLOSING + 10, book=office(FIRST)).reply(CLOSING + 50)
    clock = story.clock(FIRST)
    assert used(clock, story.book, minutes(9 * DAY)) == timedelta(0)
    assert story.state(FIRST, 9 * DAY) is ClockState.MET


def test_an_end_before_the_start_is_no_time() -> None:
    story = Story(at=60, book=office(FIRST))
    assert used(story.clock(FIRST), story.book, NOON) == timedelta(0)
    assert remaining(story.clock(FIRST), story.book, NOON) == timedelta(hours=2)


def test_working_days_keep_the_time_of_day_and_then_the_paused_hours_are_added() -> None:
    book = desk(a_policy(promise(WORK, 2, days=True)))
    assert Story(book=book).due(WORK) == 2 * DAY
    assert Story(book=book).pending(HOUR).resume(2 * HOUR).due(WORK) == 2 * DAY + HOUR
    assert Story(book=book).pending(CLOSING).resume(NEXT_OPENING).due(WORK) == 2 * DAY


def test_working_days_may_end_when_the_day_closes() -> None:
    book = desk(a_policy(promise(WORK, 2, days=True, end_of_day=True)))
    assert Story(book=book).due(WORK) == 2 * DAY + CLOSING


def test_calendar_time_is_counted_around_the_clock_whatever_the_policys_calendar() -> None:
    book = desk(a_policy(promise(FIRST, 8 * HOUR, unit=Unit.CALENDAR)))
    assert Story(book=book).due(FIRST) == 8 * HOUR


# When policies change


def stricter(book: Book) -> Book:
    return desk(a_policy(promise(WORK, 90)), None, book).with_policy(
        "gold", a_policy(promise(WORK, 90), calendar="office")
    )


def test_a_policy_change_restarts_nothing_keeps_all_pauses_and_applies_the_new_target() -> None:
    story = Story(book=office(WORK)).pending(30).resume(60)
    assert story.due(WORK) == 150
    story.adopt(70, stricter(story.book))
    assert story.due(WORK) == 120
    assert story.clock(WORK).started_at == NOON


def test_open_tickets_may_be_left_on_the_former_version_and_the_events_say_which_it_is() -> None:
    moved = Story(book=office(WORK)).adopt(70, stricter(office(WORK)))
    kept = Story(book=office(WORK)).adopt(70, stricter(office(WORK)), move=False)
    assert moved.due(WORK) == 90
    assert kept.due(WORK) == 120
    assert [event.terms.policy_version for event in moved.events if isinstance(event, SlaTermsChanged) and event.terms]
    assert kept.clock(WORK).terms == SlaTerms(policy="gold", policy_version=1, calendar="office", calendar_version=1)


def test_statuses_in_which_a_former_policy_let_a_clock_stand_still_stay_pauses() -> None:
    story = Story(book=office(WORK)).hold(30).resume(60)
    never = office(WORK).with_policy("gold", a_policy(promise(WORK, 120), calendar="office", pauses={WORK: ()}))
    assert story.adopt(70, never).hold(80).resume(90).due(WORK) == 150


def test_another_calendar_counts_from_when_it_is_gone_by_and_the_former_until_then() -> None:
    book = office(WORK, allowed=6 * HOUR)
    other = book.with_calendar("evening", EVENING).with_policy(
        "gold", a_policy(promise(WORK, 6 * HOUR), calendar="evening")
    )
    story = Story(book=book).adopt(3 * HOUR, other)
    assert story.due(WORK) == 6 * HOUR  # three hours by the office's, three by the evening's, which closes at 20:00
    assert story.clock(WORK).calendars == (
        (story.clock(WORK).started, SlaTerms(policy="gold", policy_version=1, calendar="office", calendar_version=1)),
        (story.clock(WORK).started + 3 * 3_600_000_000, story.clock(WORK).terms),
    )


def test_a_later_version_of_the_same_calendar_is_counted_by_as_it_says_also_for_what_has_passed() -> None:
    book = office(WORK, allowed=6 * HOUR)
    holiday = OFFICE.model_copy(update={"closed_days": {date(2026, 5, 4): "Greenery Day"}})
    corrected = book.with_calendar("office", holiday)
    story = Story(book=book).adopt(DAY, corrected)
    assert story.due(WORK) == NEXT_OPENING + 6 * HOUR


def test_what_has_ended_is_judged_by_what_held_then() -> None:
    story = Story(book=office(FIRST)).reply(100)
    shorter = desk(a_policy(promise(FIRST, 60)), None, office(FIRST))
    assert story.adopt(110, shorter).state(FIRST, 9 * DAY) is ClockState.MET
    assert story.due(FIRST) == 120


def test_where_nothing_is_promised_any_more_deadlines_go_and_what_was_achieved_stays() -> None:
    only_normal = promise(FIRST, 60, match=Match(priorities=(Priority.NORMAL,)))
    book = desk(a_policy(only_normal, promise(TOTAL, 99, match=Match(priorities=(Priority.NORMAL,)))))
    story = Story(book=book).reply(30).priority(40, Priority.LOW)
    assert story.state(FIRST, DAY) is ClockState.MET
    assert story.state(TOTAL, DAY) is ClockState.NOT_APPLICABLE
    assert story.priority(50, Priority.NORMAL).due(TOTAL) == 99


# Due dates by hand


def test_a_due_date_set_by_hand_survives_priorities_and_policies_until_it_is_cleared() -> None:
    story = Story(book=office(TOTAL)).due_date(10, TOTAL, 7 * DAY)
    assert story.clock(TOTAL).manual
    story.priority(20, Priority.URGENT).adopt(30, desk(a_policy(promise(TOTAL, 60)), None, office(TOTAL)))
    assert story.due(TOTAL) == 7 * DAY
    assert story.due_date(40, TOTAL, None).due(TOTAL) == 60


def test_a_due_date_set_by_hand_is_a_date_and_no_wait_moves_it() -> None:
    story = Story(book=office(WORK)).due_date(10, WORK, 90).pending(20)
    assert story.state(WORK, 91) is ClockState.BREACHED
    assert story.resume(100).due(WORK) == 90


def test_a_due_date_set_by_hand_holds_for_the_clock_that_runs_or_comes_next_and_no_other() -> None:
    story = Story(book=office(NEXT)).reply(5).due_date(10, NEXT, 80).message(20).reply(30).message(40)
    assert story.due(NEXT, 1) == 80
    assert story.due(NEXT, 2) == 40 + 2 * HOUR


def test_a_due_date_set_by_hand_is_owed_also_where_the_policy_promises_nothing() -> None:
    story = Story(book=office(FIRST)).due_date(10, TOTAL, 80)
    assert story.clock(TOTAL).target is None
    (breach, _) = announcements(story.timeline, story.book, minutes(DAY))
    assert breach.event_class is SlaBreached
    assert breach.fields["manual"]
    assert breach.fields["target"] is None


# Replies


def test_a_first_reply_does_not_pause_on_pending_unless_the_policy_says_so() -> None:
    assert Story(book=office(FIRST)).pending(10).resume(70).due(FIRST) == 120
    says_so = desk(a_policy(promise(FIRST, 120), pauses={FIRST: (Status.PENDING,)}))
    assert Story(book=says_so).pending(10).resume(70).due(FIRST) == 180


def test_a_ticket_opened_by_an_agent_has_no_reply_clock_until_the_customer_writes() -> None:
    story = Story(book=office(FIRST, NEXT), by=BY_AGENT)
    assert story.clocks() == {}
    assert story.message(30).due(FIRST) == 150


def test_the_next_reply_is_counted_from_the_oldest_message_that_nobody_has_answered() -> None:
    story = Story(book=office(FIRST, NEXT)).message(5)
    assert set(story.clocks()) == {(FIRST, 1)}  # until it was answered once it is the first reply that is owed
    story.reply(10).message(20).message(60)
    assert story.due(NEXT) == 140
    story.reply(70).message(80)
    assert story.state(NEXT, DAY) is ClockState.MET
    assert story.due(NEXT, 2) == 200


def test_an_agents_message_while_nobody_waits_sets_no_reply_clock() -> None:
    assert set(Story(book=office(FIRST, NEXT)).reply(10).reply(20).clocks()) == {(FIRST, 1)}


def test_a_reply_clock_stands_still_while_the_ticket_is_solved_without_an_answer() -> None:
    story = Story(book=office(NEXT)).reply(5).message(10).solve(20)
    assert story.state(NEXT, DAY) is ClockState.PAUSED
    assert story.reopen(50).due(NEXT) == 160
    assert story.message(60).due(NEXT) == 160


def test_a_message_of_somebody_in_copy_counts_as_the_customers() -> None:
    story = Story(book=office(NEXT)).do("add_cc", 1, customer_id=DAVE).reply(5).message(10, author_id=DAVE)
    assert story.due(NEXT) == 130


def test_an_internal_note_stops_nothing() -> None:
    story = Story(book=office(*Metric)).team(1, FIRST_LINE).reply(5).message(10)
    before = story.clocks()
    assert story.note(20).clocks() == before


def test_updates_are_owed_from_one_answer_to_the_next_while_the_ticket_is_worked_on() -> None:
    story = Story(book=office(UPDATE))
    assert story.clocks() == {}
    story.reply(10)
    assert story.due(UPDATE) == 130
    story.reply(100).pending(110).resume(120)
    assert story.state(UPDATE, DAY) is ClockState.MET
    assert story.due(UPDATE, 2) == 230


def test_an_update_is_not_owed_while_the_ticket_is_solved_and_owed_again_when_it_is_reopened() -> None:
    story = Story(book=office(UPDATE)).reply(10).solve(60)
    assert story.state(UPDATE, DAY) is ClockState.NOT_APPLICABLE
    assert story.reopen(90).due(UPDATE) == 160
    late = Story(book=office(UPDATE)).reply(10).solve(140)
    assert late.state(UPDATE, DAY) is ClockState.BREACHED


# Work


def test_reopening_resumes_what_solving_had_fulfilled_without_the_time_between() -> None:
    for metric in (TOTAL, WAIT, WORK):
        story = Story(book=office(metric)).solve(60)
        assert story.state(metric, DAY) is ClockState.MET
        assert story.reopen(100).due(metric) == 160
        assert story.clock(metric).ended is None


def test_the_requester_waits_for_the_desk_also_while_the_desk_waits_for_others() -> None:
    assert Story(book=office(WAIT)).hold(10).resume(40).due(WAIT) == 120
    assert Story(book=office(WAIT)).pending(10).resume(40).due(WAIT) == 150


def test_the_desk_works_on_a_ticket_while_it_waits_for_nobody() -> None:
    assert Story(book=office(WORK)).hold(10).pending(20).resume(40).due(WORK) == 150


def test_solving_while_waiting_does_not_count_the_wait() -> None:
    story = Story(book=office(WORK)).pending(10).solve(60)
    assert used(story.clock(WORK), story.book, minutes(DAY)) == timedelta(minutes=10)
    assert story.state(WORK, DAY) is ClockState.MET


def test_transferring_escalating_and_linking_as_a_duplicate_reset_nothing() -> None:
    story = Story(book=office(FIRST, TOTAL, WAIT, WORK)).team(1, FIRST_LINE)
    before = story.clocks()
    story.do("transfer", 30, team=a_team(NETWORK)).do("escalate", 40, level=2, team=a_team(FIRST_LINE))
    story.do("link", 50, other_ticket_id=OTHER_TICKET, kind=LinkKind.DUPLICATE_OF)
    assert story.clocks() == before


def test_each_stay_with_a_team_is_a_clock_of_its_own_from_entering_to_leaving() -> None:
    story = Story(book=office(OWNERSHIP)).team(10, FIRST_LINE)
    story.do("transfer", 40, team=a_team(NETWORK)).do("transfer", 60, team=a_team(FIRST_LINE))
    stays = list(story.clocks().values())
    assert [stay.team_id for stay in stays] == [FIRST_LINE, NETWORK, FIRST_LINE]
    assert [used(stay, story.book, minutes(90)) / timedelta(minutes=1) for stay in stays] == [30, 20, 30]
    assert [state(stay, minutes(90)) for stay in stays] == [ClockState.MET, ClockState.MET, ClockState.ACTIVE]


def test_a_stay_is_promised_by_the_team_whose_it_is() -> None:
    book = desk(a_policy(promise(OWNERSHIP, 60, match=Match(teams=(NETWORK,)))))
    story = Story(book=book).team(10, FIRST_LINE).do("transfer", 40, team=a_team(NETWORK))
    assert set(story.clocks()) == {(OWNERSHIP, 2)}
    story.do("transfer", 60, team=a_team(FIRST_LINE))
    assert story.state(OWNERSHIP, DAY, 2) is ClockState.MET


def test_a_stay_with_a_team_is_not_counted_while_the_ticket_is_solved() -> None:
    story = Story(book=office(OWNERSHIP)).team(10, FIRST_LINE).solve(40).reopen(100)
    assert story.due(OWNERSHIP) == 190
