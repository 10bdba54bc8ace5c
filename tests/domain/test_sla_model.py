"""Clocks of random tickets under random policies and calendars, against somebody who makes strokes on a list."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.business_time import Hours
from domain.calendar import CalendarTerms
from domain.event import Rejected
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK, Book
from domain.sla_announcements import announcements, next_at
from domain.sla_clocks import METRICS, clocks, used
from domain.sla_policy import SETTLED_METRICS, Match, PolicyTerms, Step, Target, Unit
from domain.sla_terms import Metric, SlaTerms
from domain.status import Status
from domain.ticket_breach_events import SlaBreached
from domain.ticket_events import CustomerMessageReceived, Opened, Replied
from domain.ticket_timeline import STATUS, after
from tests.domain.scenario import FIRST_LINE, NETWORK, NOON, a_team
from tests.domain.sla_story import BY_AGENT, BY_CUSTOMER, Story, in_minutes, minutes
from tests.domain.ticking_desk import TICK, Terms, Watcher

if TYPE_CHECKING:
    from domain.ticket_events import TicketEvent
    from domain.ticket_timeline import Timeline

pytestmark = pytest.mark.pure

TICKS_A_DAY = 24 * 60 // TICK
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIDNIGHT = NOON - timedelta(hours=12)
"""Of the Monday on which every story begins at noon."""


def clock_time(tick: int) -> str:
    return f"{tick * TICK // 60:02}:{tick * TICK % 60:02}"


@st.composite
def calendars(draw: st.DrawFn) -> tuple[CalendarTerms, frozenset[tuple[int, int]]]:
    """Windows for each weekday in ticks, and by which (day of the week, tick of the day) it is open."""
    hours, is_open = {}, set()
    for number, day in enumerate(WEEKDAYS):
        edges = sorted(draw(st.sets(st.integers(0, TICKS_A_DAY), max_size=6)))
        windows = list(zip(edges[::2], edges[1::2], strict=False))
        if number == 0 and not windows:
            windows = [(54, 102)]
        hours[day] = [[clock_time(opens), clock_time(closes)] for opens, closes in windows]
        is_open |= {(number, tick) for opens, closes in windows for tick in range(opens, closes)}
    return CalendarTerms.model_validate({"time_zone": "UTC", "hours": hours}), frozenset(is_open)


@st.composite
def targets(draw: st.DrawFn) -> tuple[Target, ...]:
    found: list[Target] = []
    for metric in draw(st.sets(st.sampled_from(list(Metric)), min_size=1)):
        for match in (Match(priorities=(Priority.URGENT,)), Match(priorities=(Priority.NORMAL, Priority.LOW))):
            if draw(st.booleans()) or not found:
                amount = draw(st.integers(1, 40)) * TICK * 60
                unit = draw(st.sampled_from([Unit.BUSINESS, Unit.CALENDAR]))
                found.append(Target(metric=metric, match=match, amount=amount, unit=unit))
    return tuple(found)


PAUSES = [Status.NEW, Status.OPEN, Status.PENDING, Status.ON_HOLD, Status.SOLVED]
statuses = st.lists(st.sampled_from(PAUSES), unique=True).map(tuple)
policies = st.builds(
    PolicyTerms,
    targets=targets(),
    pauses=st.dictionaries(st.sampled_from(list(Metric)), statuses, max_size=4),
    until_closed=st.lists(st.sampled_from(SETTLED_METRICS), unique=True).map(tuple),
    calendar=st.just("office"),
)
COMMANDS: dict[str, tuple[str, dict[str, Any]]] = {
    "reply": ("reply", {}),
    "message": ("message", {}),
    "note": ("note", {}),
    "pending": ("pending", {}),
    "hold": ("hold", {}),
    "resume": ("resume", {}),
    "solve": ("solve", {}),
    "close": ("close", {}),
    "reopen": ("reopen", {}),
    "urgent": ("priority", {"priority": Priority.URGENT}),
    "normal": ("priority", {"priority": Priority.NORMAL}),
    "high": ("priority", {"priority": Priority.HIGH}),
    "first line": ("team", {"team_id": FIRST_LINE}),
    "another policy": ("adopt", {}),
    "network": ("do", {"team": a_team(NETWORK)}),
}
happenings = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(sorted(COMMANDS))), max_size=12)
one_by_one = st.lists(st.tuples(st.integers(1, 30), st.sampled_from(sorted(COMMANDS))), max_size=12)
"""Of what occurred at one instant that which was recorded last comes last."""


def is_open(open_ticks: frozenset[tuple[int, int]], tick: int) -> bool:
    return (tick // TICKS_A_DAY % 7, tick % TICKS_A_DAY) in open_ticks


def tell(story: Story, told: list[tuple[int, str]], start: int = 0, other: Book = EMPTY_BOOK) -> int:
    """Let it happen as far as the desk allows it, and say at which tick it ended."""
    tick = start
    for gap, name in told:
        tick += gap
        method, said = COMMANDS[name]
        if method == "adopt":
            if other is not EMPTY_BOOK:
                story.adopt(tick * TICK, other)
            continue
        with suppress(Rejected):
            if method == "do":
                story.do("transfer", tick * TICK, **said)
            else:
                getattr(story, method)(tick * TICK, **said)
    return tick


def tick_of(event: TicketEvent) -> int:
    return round((event.timestamp - MIDNIGHT) / timedelta(minutes=TICK))


def whole(ticks: float | None) -> int | None:
    return None if ticks is None else round(ticks / TICK) + TICKS_A_DAY // 2


Office = tuple[CalendarTerms, frozenset[tuple[int, int]]]


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(calendars(), calendars()), st.tuples(policies, policies), happenings, st.booleans(), st.integers(0, 60)
)
def test_clocks_are_what_somebody_finds_who_looks_every_ten_minutes(
    offices: tuple[Office, Office],
    versions: tuple[PolicyTerms, PolicyTerms],
    told: list[tuple[int, str]],
    by_agent: bool,  # noqa: FBT001 - drawn
    later: int,
) -> None:
    book, books, terms_of = EMPTY_BOOK, [], {}
    for number, ((calendar, open_ticks), policy) in enumerate(zip(offices, versions, strict=True), 1):
        name = f"office {number}"
        book = book.with_calendar(name, calendar).with_policy("gold", policy.model_copy(update={"calendar": name}))
        books.append(book)
        terms_of[number] = Terms(policy, partial(is_open, open_ticks))
    story = Story(book=books[0], by=BY_AGENT if by_agent else BY_CUSTOMER)
    now = tell(story, told, other=books[1]) + later
    events = [(tick_of(event), event) for event in story.events]
    opened = story.events[0]
    assert isinstance(opened, Opened)
    watcher = Watcher(opened, lambda terms: terms_of[terms.policy_version or 0] if terms else terms_of[0])
    expected = watcher.watch(events, now + TICKS_A_DAY // 2)
    found = [
        (
            clock.metric,
            clock.serial,
            whole(in_minutes(clock.started_at)),
            whole(in_minutes(clock.due_at)),
            whole(in_minutes(clock.paused_at)),
            whole(in_minutes(clock.ended_at)),
            clock.fulfilled,
            used(clock, book, minutes(now * TICK)) // timedelta(minutes=TICK),
        )
        for clock in clocks(story.timeline, book)
    ]
    assert found == sorted(expected, key=lambda one: (METRICS.index(one.metric), one.serial))


@settings(deadline=None, max_examples=150)
@given(one_by_one, st.randoms(use_true_random=False))
def test_answers_and_messages_that_are_learnt_late_give_the_timeline_that_they_would_have_given_in_time(
    told: list[tuple[int, str]], random: Any
) -> None:
    story = Story()
    tell(story, told)
    in_time = story.timeline
    still = [
        event for event in story.events[1:] if isinstance(event, Replied | CustomerMessageReceived) and not moved(event)
    ]
    late = [event for event in still if random.random() < 0.5]
    random.shuffle(late)
    timeline: Timeline | None = None
    for event in story.events:
        if event not in late:
            timeline = after(timeline, event)
    assert timeline is not None
    for event in late:
        # Recorded late it names the status that the ticket has by then.
        timeline = after(timeline, event.model_copy(update={"status": timeline.latest(STATUS)}))
    assert sorted(timeline.facts) == sorted(in_time.facts)
    assert clocks(timeline, story.book) == clocks(in_time, story.book)


def moved(event: Replied | CustomerMessageReceived) -> bool:
    return event.status != event.previous_status


@settings(deadline=None, max_examples=150)
@given(happenings, st.integers(0, 200), st.sampled_from(["pending", "hold", "solve", "urgent", "network"]))
def test_a_move_that_is_learnt_late_ends_where_the_ticket_is(told: list[tuple[int, str]], tick: int, name: str) -> None:
    story = Story()
    tell(story, told)
    tell(story, [(0, name)], tick)
    assert story.timeline.latest(STATUS) == story.ticket.status
    assert story.timeline.latest("p") == story.ticket.priority
    assert story.timeline.latest("t") == (None if story.ticket.team_id is None else str(story.ticket.team_id))
    assert [fact[0] for fact in story.timeline.facts] == sorted(fact[0] for fact in story.timeline.facts)


@settings(deadline=None, max_examples=100)
@given(calendars(), policies, happenings)
def test_the_deadline_of_a_breach_can_be_worked_out_again_from_its_event_alone(
    office: Office, policy: PolicyTerms, told: list[tuple[int, str]]
) -> None:
    book = EMPTY_BOOK.with_calendar("office", office[0]).with_policy("gold", policy)
    story = Story(book=book)
    tell(story, told)
    announce_all(story, 99 * TICKS_A_DAY)
    hours = Hours.of([office[0]])
    for event in story.events:
        if isinstance(event, SlaBreached):
            assert event.target is not None
            assert (event.timestamp, event.manual, event.calendars) == (event.due_at, False, ())
            assert event.terms == SlaTerms(policy="gold", policy_version=1, calendar="office", calendar_version=1)
            allowed = timedelta(seconds=event.target.amount)
            used_by_then = sum(
                (
                    end - start if event.target.unit is Unit.CALENDAR else hours.between(start, end)
                    for start, end in stretches_of(event)
                ),
                timedelta(),
            )
            assert used_by_then == allowed


def stretches_of(event: SlaBreached) -> list[tuple[datetime, datetime]]:
    edges = [event.started_at]
    for pause in event.pauses:
        edges += [pause.from_at, pause.until_at]
    edges.append(event.due_at)
    return list(zip(edges[::2], edges[1::2], strict=True))


STEPS = (Step(offset_seconds=-1200, action="remind"), Step(offset_seconds=1800, action="notify", note="late"))
STEPPED = PolicyTerms(
    targets=tuple(Target(metric=metric, amount=3600, unit=Unit.CALENDAR, steps=STEPS) for metric in Metric)
)


@settings(deadline=None, max_examples=150)
@given(happenings, st.lists(st.integers(0, 400), max_size=4), st.integers(0, 100))
def test_breaches_on_record_that_stand_are_those_of_the_clocks_whenever_somebody_looked(
    told: list[tuple[int, str]], looks: list[int], late: int
) -> None:
    book = EMPTY_BOOK.with_policy("gold", STEPPED)
    watched = Story(book=book)
    end = tell(watched, told)
    for look in sorted({*looks, end}):
        if look >= end:
            announce_all(watched, look)
    with suppress(Rejected):
        watched.reply(late * TICK)
    for look in (500, 501):
        announce_all(watched, look)
    standing = {(one.metric, one.at) for one in watched.timeline.announced if one.step is None}
    assert standing == {
        (clock.metric, clock.due)
        for clock in clocks(watched.timeline, book)
        if clock.due_at < (clock.ended_at or clock.paused_at or minutes(500 * TICK))
    }
    assert announcements(watched.timeline, book, minutes(501 * TICK)) == []


@settings(deadline=None, max_examples=100)
@given(happenings)
def test_a_timer_that_is_always_there_and_one_that_was_away_put_the_same_on_record(told: list[tuple[int, str]]) -> None:
    book = EMPTY_BOOK.with_policy("gold", STEPPED)
    away = Story(book=book)
    end = tell(away, told)
    there, tick = Story(book=book), 0
    for gap, name in told:
        tick += gap
        announce_as_they_fall(there, until=tick)
        tell(there, [(0, name)], tick)
    announce_as_they_fall(there, until=end + 500)
    announce_all(away, end + 500)
    assert on_record(there, SlaBreached) == on_record(away, SlaBreached)


def on_record(story: Story, kind: type[SlaBreached]) -> set[tuple[str, int]]:
    standing = {(one.metric, one.at) for one in story.timeline.announced if one.step is None}
    dated = {(event.metric, event.timestamp) for event in story.events if isinstance(event, kind)}
    assert len(standing) <= len(dated)
    return standing


def announce_all(story: Story, tick: int) -> None:
    for one in announcements(story.timeline, story.book, minutes(tick * TICK)):
        story.announce(one)


def announce_as_they_fall(story: Story, until: int) -> None:
    while (at := next_at(story.timeline, story.book)) is not None and at <= minutes(until * TICK):
        found = announcements(story.timeline, story.book, at)
        assert found, "it was not worth looking"
        for one in found:
            story.announce(one)
