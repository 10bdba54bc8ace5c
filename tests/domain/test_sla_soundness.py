"""Whatever happens to a ticket, in whatever order it is learnt, its clocks make sense and can be explained."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.customer_events import Tier
from domain.event import Rejected
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK
from domain.sla_announcements import announcements, next_at
from domain.sla_clocks import METRICS, Clock, clocks, percent, remaining, used
from domain.sla_explanation import LineKind, explain
from domain.sla_policy import Match, PolicyTerms, Step, Target, Unit
from domain.sla_terms import Metric
from tests.domain.scenario import FIRST_LINE, NETWORK, a_team
from tests.domain.sla_story import BY_AGENT, BY_CUSTOMER, BY_IMPORT, Story, minutes
from tests.domain.test_sla_rulings import EVENING, OFFICE

if TYPE_CHECKING:
    from domain.service_levels import Book
    from domain.ticket_timeline import Timeline

pytestmark = pytest.mark.pure

STEPS = (Step(offset_seconds=-1800, action="remind"), Step(offset_seconds=900, action="notify", note="late"))


def a_policy(unit: Unit, amount: int, calendar: str | None, **match: Any) -> PolicyTerms:
    targets = tuple(
        Target(metric=metric, amount=amount, unit=unit, steps=STEPS, match=Match(priorities=priorities))
        for metric in Metric
        for priorities in ((Priority.URGENT, Priority.NORMAL), (Priority.LOW,))
        if (metric, priorities[0]) != (Metric.TOTAL_RESOLUTION, Priority.LOW)
    )
    return PolicyTerms(order=len(match), match=Match(**match), targets=targets, calendar=calendar)


OFFICES = EMPTY_BOOK.with_calendar("office", OFFICE).with_calendar("evening", EVENING)
POLICIES = (
    ("gold", a_policy(Unit.BUSINESS, 7200, "office")),
    ("gold", a_policy(Unit.BUSINESS_DAYS, 2, "evening")),
    ("gold", a_policy(Unit.CALENDAR, 5400, "office")),
    ("vip", a_policy(Unit.BUSINESS, 1800, "evening", tiers=(Tier.VIP,))),
    ("team", a_policy(Unit.BUSINESS, 900, None, teams=(NETWORK,))),
)
BOOKS = [OFFICES, *[OFFICES.with_policy(name, policy) for name, policy in POLICIES]]
CORRECTED = OFFICE.model_copy(update={"closed_days": {date(2026, 5, 5): "Closed"}})


DOINGS: list[tuple[str, dict[str, Any]]] = [
    ("reply", {}),
    ("message", {}),
    ("pending", {}),
    ("hold", {}),
    ("resume", {}),
    ("solve", {}),
    ("reopen", {}),
    ("close", {}),
    *[("priority", {"priority": priority}) for priority in (Priority.LOW, Priority.NORMAL, Priority.URGENT)],
    *[("team", {"team_id": team}) for team in (FIRST_LINE, NETWORK)],
    ("do", {"command": "transfer", "team": a_team(NETWORK)}),
    ("do", {"command": "categorise", "category": "printers"}),
    ("do", {"command": "tag", "tags": ("vip",)}),
    ("do", {"command": "ask_for_announcements"}),
    *[("due_date", {"metric": metric, "due": due}) for metric in Metric for due in (500, None)],
    *[("tier", {"tier": tier}) for tier in (Tier.VIP, Tier.STANDARD)],
    *[("adopt", {"name": name, "terms": policy}) for name, policy in POLICIES],
    ("correct", {}),
    ("announce", {}),
]
doings = st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(range(len(DOINGS)))), max_size=14)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(BOOKS), st.sampled_from([BY_AGENT, BY_CUSTOMER, BY_IMPORT]), doings, st.integers(0, 9000))
def test_clocks_make_sense_whatever_happens_and_whenever_it_is_learnt(
    book: Book, by: Any, done: list[tuple[int, int]], at: int
) -> None:
    story = Story(book=book, by=by)
    for minute, number in done:
        doing, said = DOINGS[number]
        with suppress(Rejected):
            do(story, minute, doing, said)
    now = minutes(at)
    found = clocks(story.timeline, story.book)
    serials = [(METRICS.index(clock.metric), clock.serial) for clock in found]
    assert serials == sorted(set(serials))
    for clock in found:
        assert_sound(clock)
        ran, left = used(clock, story.book, now), remaining(clock, story.book, now)
        assert ran >= timedelta(0)
        if ran + left > timedelta(0):
            assert percent(clock, story.book, now) == pytest.approx(100 * (ran / (ran + left)))
        lines = explain(clock, story.book, now)
        counted = (line.counted or timedelta() for line in lines if line.kind is LineKind.COUNTED)
        assert sum(counted, timedelta()) == ran
        assert [line.kind for line in lines].count(LineKind.DUE) == 1
    assert_announced(story, story.timeline)


def do(story: Story, minute: int, doing: str, said: dict[str, Any]) -> None:
    match doing:
        case "announce":
            for one in announcements(story.timeline, story.book, minutes(minute)):
                story.announce(one)
        case "adopt":
            story.adopt(minute, story.book.with_policy(**said))
        case "correct":
            story.adopt(minute, story.book.with_calendar("office", CORRECTED))
        case "tier":
            story.do("choose_terms", minute, book=story.book, **said)
        case "do":
            story.do(said["command"], minute, **{name: value for name, value in said.items() if name != "command"})
        case _:
            getattr(story, doing)(minute, **said)


def assert_sound(clock: Clock) -> None:
    assert clock.target is not None or clock.manual
    end = clock.ended if clock.ended is not None else clock.paused
    assert end is None or end >= clock.started
    assert clock.ended is None or clock.paused is None
    assert clock.fulfilled <= (clock.ended is not None)
    edges = [clock.started, *(edge for pause in clock.pauses for edge in pause), *([] if end is None else [end])]
    assert edges == sorted(edges), "pauses lie one behind the other between start and end"
    assert all(start < until for start, until in clock.pauses)
    assert clock.manual or clock.due >= clock.started
    since = [start for start, _ in clock.calendars]
    assert since == sorted(since)


def assert_announced(story: Story, timeline: Timeline) -> None:
    looked = 0
    while (at := next_at(timeline, story.book)) is not None:
        found = announcements(story.timeline, story.book, max(at, minutes(9000)))
        assert found, "it was not worth looking"
        for one in found:
            story.announce(one)
        timeline = story.timeline
        looked += 1
        assert looked < 3, "what was announced is announced again"
