"""What peers say in words about clocks and calendars, as scenarios of ours, by the ids of `peer_cases.json`.

A scenario ends quietly where we agree, gives the name of the ruling in `docs/sla.md` where we differ on purpose, having
shown what we do instead, and fails where neither is so.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from domain.business_time import Hours
from domain.calendar import CalendarTerms
from domain.calendar_faults import UnusableCalendar, verify
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK, Book
from domain.sla_announcements import announcements
from domain.sla_clocks import ClockState, used
from domain.sla_counting import time_deadline
from domain.sla_policy import Match, Target, Unit
from domain.sla_terms import Metric
from domain.spans import microseconds
from domain.status import Status
from domain.ticket_breach_events import SlaBreached
from tests.domain.scenario import NOON
from tests.domain.sla_story import Story, a_policy, minutes, promise

Scenario = Callable[[], str | None]

DAY = 24 * 60
FIRST, NEXT, TOTAL = Metric.FIRST_REPLY, Metric.NEXT_REPLY, Metric.TOTAL_RESOLUTION


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def calendar(time_zone: str = "UTC", **said: Any) -> CalendarTerms:
    return CalendarTerms.model_validate({"time_zone": time_zone, **said})


def hours(time_zone: str, day: str, opens: str, closes: str) -> Hours:
    return Hours.of([calendar(time_zone, hours={day: [[opens, closes]]})])


def book(*targets: Target, pauses: dict[Metric, Any] | None = None, terms: CalendarTerms | None = None) -> Book:
    policy = a_policy(*targets, calendar=None if terms is None else "office", pauses=pauses)
    return (EMPTY_BOOK if terms is None else EMPTY_BOOK.with_calendar("office", terms)).with_policy("gold", policy)


def an_agents_message_sets_no_reply_deadline() -> None:
    story = Story(book=book(promise(FIRST, 60), promise(NEXT, 60))).reply(10).reply(20)
    assert not any(metric is NEXT for metric, _ in story.clocks())


def deadlines_go_where_nothing_matches_any_more() -> None:
    normal = Match(priorities=(Priority.NORMAL,))
    story = Story(book=book(promise(FIRST, 60, match=normal), promise(TOTAL, 90, match=normal)))
    story.reply(10).priority(20, Priority.LOW)
    assert story.state(TOTAL, DAY) is ClockState.NOT_APPLICABLE
    assert story.state(FIRST, DAY) is ClockState.MET


def a_pause_over_midnight_counts_as_its_parts_by_days() -> None:
    open_hours = hours("Europe/Berlin", "mon", "00:00", "24:00")
    midnight = microseconds(at("2024-03-04T00:00:00+01:00"))
    minute, day = 60_000_000, DAY * 60_000_000
    start = midnight - 7 * day
    for end in (45 * minute, 15 * day + 45 * minute):
        whole = [(midnight - 15 * minute, midnight + end)]
        cuts = [whole[0][0], *range(midnight, midnight + end, day), whole[0][1]]
        parts = list(pairwise(cuts))
        for span in (hour * 60 * minute for hour in (1, 24, 25, 48)):
            assert time_deadline(open_hours, span, start, whole) == time_deadline(open_hours, span, start, parts)
            assert time_deadline(None, span, start, whole) == time_deadline(None, span, start, parts)


def a_calendar_that_never_opens_is_refused() -> None:
    never_open: tuple[dict[str, list[str]], ...] = ({}, {"mon": []})
    for never in never_open:
        with pytest.raises(UnusableCalendar):
            verify(calendar(hours=never))


def a_calendar_that_never_opens_does_not_fall_back_to_the_wall_clock() -> str:
    a_calendar_that_never_opens_is_refused()
    return "never-open"


def each_metric_has_a_state_of_its_own_and_is_breached_once() -> str:
    story = Story(book=book(promise(FIRST, 60), promise(TOTAL, 120))).reply(10)
    assert story.state(FIRST, 20) is ClockState.MET
    assert story.state(TOTAL, 20) is ClockState.ACTIVE
    found = announcements(story.timeline, story.book, minutes(DAY))
    assert [one.event_class for one in found] == [SlaBreached]
    story.announce(found[0])
    assert announcements(story.timeline, story.book, minutes(2 * DAY)) == []
    return "state-by-metric"


def a_target_of_nothing_or_less_is_refused() -> None:
    for amount in (0, -60):
        with pytest.raises(ValidationError):
            Target(metric=FIRST, amount=amount)


def times_that_no_clock_shows_are_refused() -> None:
    for window in (["25:00", "26:00"], ["09:00", "18:60"]):
        with pytest.raises(ValidationError):
            calendar(hours={"mon": [window]})


def words_for_states_follow_the_ticket() -> None:
    story = Story(book=book(promise(FIRST, 60), promise(TOTAL, 120), pauses={TOTAL: (Status.PENDING,)}))
    assert story.state(FIRST, 5) is ClockState.ACTIVE
    story.reply(10).pending(10)
    assert story.state(FIRST, 15) is ClockState.MET
    assert story.state(TOTAL, 15) is ClockState.PAUSED
    story.message(20)
    assert story.state(TOTAL, 25) is ClockState.ACTIVE
    assert story.solve(30).state(TOTAL, DAY) is ClockState.MET


def nothing_is_counted_before_the_first_opening() -> None:
    terms = calendar(hours={"mon": [["09:00", "17:00"]], "tue": [["09:00", "17:00"]]})
    created, opens = at("2007-01-06T13:15:00+00:00"), at("2007-01-08T09:00:00+00:00")
    assert Hours.of([terms]).next_opening(created) == opens
    story = Story(at=(created - NOON) / timedelta(minutes=1), book=book(promise(FIRST, 60), terms=terms))
    clock = story.clock(FIRST)
    assert used(clock, story.book, opens) == timedelta(0)
    assert used(clock, story.book, opens + timedelta(seconds=1)) == timedelta(seconds=1)


def another_level_moves_the_deadline_by_the_difference() -> None:
    story = Story(book=book(promise(TOTAL, 120)))
    before = story.clock(TOTAL).due_at
    story.adopt(30, story.book.with_policy("gold", a_policy(promise(TOTAL, 240))))
    assert story.clock(TOTAL).due_at - before == timedelta(hours=2)


def a_reply_clears_the_deadline_and_the_customers_next_message_sets_it() -> None:
    story = Story(book=book(promise(FIRST, 60), promise(NEXT, 60))).reply(10)
    assert all(clock.ended is not None for clock in story.clocks().values())
    due = story.message(20).due(NEXT)
    assert due == 80
    assert story.message(30).due(NEXT) == due


def time_in_ignored_statuses_moves_the_deadline() -> None:
    story = Story(book=book(promise(TOTAL, 120), pauses={TOTAL: (Status.ON_HOLD,)})).hold(30)
    assert not story.clock(TOTAL).runs
    assert story.resume(75).due(TOTAL) == 165


def days_have_names_and_no_numbers() -> None:
    with pytest.raises(ValidationError):
        calendar(hours={"7": [["09:00", "17:00"]]})


def no_time_after_a_closed_instant_is_the_next_opening() -> None:
    assert hours("UTC", "tue", "10:00", "16:00").add(at("2006-01-03T00:00:00Z"), timedelta(0)) == at(
        "2006-01-03T10:00:00Z"
    )


def a_time_that_does_not_exist_moves_forward_by_the_gap() -> None:
    los_angeles = hours("America/Los_Angeles", "sun", "02:30", "12:00")
    assert los_angeles.next_opening(at("2014-03-09T00:00:00-08:00")) == at("2014-03-09T10:30:00Z")


def a_midnight_that_does_not_exist_moves_forward_by_the_gap() -> None:
    sao_paulo = hours("America/Sao_Paulo", "sat", "12:00", "24:00")
    ((_, closes),) = sao_paulo.windows(at("2015-10-17T00:00:00Z"), at("2015-10-19T00:00:00Z"))
    assert closes == at("2015-10-18T03:00:00Z")


def an_ambiguous_time_is_the_first() -> None:
    los_angeles = hours("America/Los_Angeles", "sun", "01:30", "12:00")
    assert los_angeles.next_opening(at("2014-11-02T00:00:00-07:00")) == at("2014-11-02T08:30:00Z")


def breaks_are_cut_out_of_the_hours() -> None:
    def windows(*breaks: list[str]) -> list[tuple[str, str]]:
        terms = calendar(hours={"mon": [["09:00", "17:00"]]}, breaks={date(2006, 1, 2): list(breaks)})
        found = Hours.of([terms]).windows(at("2006-01-02T00:00:00Z"), at("2006-01-03T00:00:00Z"))
        return [(f"{opens:%H:%M}", f"{closes:%H:%M}") for opens, closes in found]

    assert windows(["10:00", "11:30"], ["13:00", "14:00"]) == [
        ("09:00", "10:00"),
        ("11:30", "13:00"),
        ("14:00", "17:00"),
    ]
    assert windows(["09:00", "17:00"]) == []


def a_gap_in_sydney() -> None:
    sydney = hours("Australia/Sydney", "sun", "02:34:06", "12:00")
    assert sydney.next_opening(at("2021-10-03T00:00:00+10:00")) == at("2021-10-03T03:34:06+11:00")


def a_gap_in_new_york() -> None:
    new_york = hours("America/New_York", "sun", "02:53:34", "12:00")
    assert new_york.next_opening(at("2021-03-14T00:00:00-05:00")) == at("2021-03-14T03:53:34-04:00")


def what_has_ended_keeps_the_priority_that_it_was_judged_by() -> None:
    by_priority = [
        promise(NEXT, allowed, unit=Unit.CALENDAR, match=Match(priorities=(priority,)))
        for priority, allowed in ((Priority.NORMAL, 60), (Priority.URGENT, 15))
    ]
    story = Story(book=book(*by_priority)).reply(1).message(10).reply(30).priority(40, Priority.URGENT).message(50)
    assert story.due(NEXT, 1) == 70
    assert story.due(NEXT, 2) == 65


SCENARIOS: dict[str, Scenario] = {
    "zammad-rule-agent-followup": an_agents_message_sets_no_reply_deadline,
    "zammad-rule-sla-no-longer-matches": deadlines_go_where_nothing_matches_any_more,
    "zammad-rule-midnight-pause": a_pause_over_midnight_counts_as_its_parts_by_days,
    "chatwoot-all-days-closed": a_calendar_that_never_opens_does_not_fall_back_to_the_wall_clock,
    "chatwoot-status-lifecycle": each_metric_has_a_state_of_its_own_and_is_breached_once,
    "libredesk-no-hours": a_calendar_that_never_opens_is_refused,
    "libredesk-bad-target": a_target_of_nothing_or_less_is_refused,
    "libredesk-bad-time": times_that_no_clock_shows_are_refused,
    "frappe-status-words": words_for_states_follow_the_ticket,
    "rt-starts-weekend": nothing_is_counted_before_the_first_opening,
    "rt-switch-level": another_level_moves_the_deadline_by_the_difference,
    "rt-reply-clears": a_reply_clears_the_deadline_and_the_customers_next_message_sets_it,
    "rt-exclude-time": time_in_ignored_statuses_moves_the_deadline,
    "rt-sunday-is-0": days_have_names_and_no_numbers,
    "biz-zero-target": no_time_after_a_closed_instant_is_the_next_opening,
    "biz-dst-gap": a_time_that_does_not_exist_moves_forward_by_the_gap,
    "biz-dst-gap-midnight": a_midnight_that_does_not_exist_moves_forward_by_the_gap,
    "biz-dst-ambiguous": an_ambiguous_time_is_the_first,
    "biz-breaks": breaks_are_cut_out_of_the_hours,
    "znuny-gap-sydney": a_gap_in_sydney,
    "znuny-gap-newyork": a_gap_in_new_york,
    "dbt-zendesk-priority-at-event": what_has_ended_keeps_the_priority_that_it_was_judged_by,
}
