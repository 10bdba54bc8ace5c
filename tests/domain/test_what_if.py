"""What tickets would have gone by under other policies and calendars, and what they went by."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as supposing
from hypothesis import strategies as st

from domain.calendar import CalendarTerms, Window
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK, UnknownCalendar
from domain.sla_clocks import clocks, clocks_of_both
from domain.sla_policy import Match, PolicyTerms, Target, Unit
from domain.sla_terms import Metric
from domain.spans import instant, microseconds
from domain.status import Status
from domain.ticket_timeline import DUE_DATE, PRIORITY, PUBLIC_REPLY, STATUS, TERMS, Timeline
from domain.what_if import Adopted, Axis, Given, NothingToCompare, sides

if TYPE_CHECKING:
    from domain.service_levels import Book
    from domain.ticket_timeline import Fact, Terms
    from domain.what_if import Side

pytestmark = pytest.mark.pure

HOUR = 3_600_000_000
THURSDAY = datetime(2026, 4, 30, 15, tzinfo=UTC)
LONG_AGO = datetime(2012, 1, 2, 9, tzinfo=UTC)
AS_KNOWN, AS_CORRECTED = Axis.AS_KNOWN, Axis.AS_CORRECTED


def calendar(
    *, holidays: tuple[date, ...] = (), closes: str = "17:00", valid_from: date | None = None
) -> CalendarTerms:
    """Open from nine on Mondays to Fridays."""
    windows = (Window("09:00", closes),)
    return CalendarTerms(
        time_zone="UTC",
        hours=dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), windows),
        closed_days=dict.fromkeys(holidays, "holiday"),
        valid_from=valid_from,
    )


def policy(hours: int = 4, *, order: int = 100, calendar: str | None = "office", **match: Any) -> PolicyTerms:
    """Promise a first reply in so many hours of business time."""
    target = Target(metric=Metric.FIRST_REPLY, amount=hours * 3600, unit=Unit.BUSINESS)
    return PolicyTerms(order=order, match=Match(**match), calendar=calendar, targets=(target,))


def opened(at: datetime, terms: Terms | None, *facts: Fact, priority: Priority = Priority.NORMAL) -> Timeline:
    """Have a customer open a ticket."""
    attributes = (str(priority), None, "incident", "email", None, None, ())
    at_us = microseconds(at)
    return Timeline(
        opened=at_us,
        by_agent=False,
        status="new",
        attributes=attributes,
        terms=terms,
        announces_from=at_us - 1,
        facts=facts,
    )


def due(side: Side, timeline: Timeline) -> datetime:
    """Give when the first reply falls due on a side."""
    (clock,) = clocks(side.of(timeline), side.levels)
    return clock.due_at


def given(office: CalendarTerms | None = None, *, no_others: bool = False, **policies: PolicyTerms) -> Given:
    return Given(policies, no_others, {} if office is None else {"office": office})


def adopted(*books: tuple[datetime, Book]) -> list[Adopted]:
    return [Adopted(microseconds(at), book) for at, book in books]


MAY_DAY = date(2026, 5, 1)
BEFORE = EMPTY_BOOK.with_calendar("office", calendar()).with_policy("all", policy())
AFTER = BEFORE.with_calendar("office", calendar(holidays=(MAY_DAY,)))
LATE = adopted((THURSDAY - timedelta(days=90), BEFORE), (THURSDAY + timedelta(days=4), AFTER))
"""A desk that enters the first of May on the fourth."""
FRIDAY_11, MONDAY_11, MONDAY_10 = (
    datetime(2026, 5, day, hour, tzinfo=UTC) for day, hour in ((1, 11), (4, 11), (4, 10))
)


def test_a_holiday_entered_late_is_unknown_on_one_axis_and_counts_on_the_other() -> None:
    ticket = opened(THURSDAY, ("all", 1, "office", 1))
    then, would = sides(AS_KNOWN, LATE, given(all=policy(3)))
    assert (due(then, ticket), due(would, ticket)) == (FRIDAY_11, FRIDAY_11 - timedelta(hours=1))
    then, would = sides(AS_CORRECTED, LATE, given(all=policy(3)))
    assert (due(then, ticket), due(would, ticket)) == (MONDAY_11, MONDAY_10)


def test_a_calendar_that_is_given_holds_on_both_axes_for_the_policies_that_tickets_have() -> None:
    ticket = opened(THURSDAY, ("all", 1, "office", 1))
    given_calendar = given(calendar(closes="18:00"))
    then, would = sides(AS_KNOWN, LATE, given_calendar)
    assert (due(then, ticket), due(would, ticket)) == (FRIDAY_11, FRIDAY_11 - timedelta(hours=1))
    then, would = sides(AS_CORRECTED, LATE, given_calendar)
    # It says of itself all there is to be said, and nothing of a holiday.
    assert (due(then, ticket), due(would, ticket)) == (MONDAY_11, FRIDAY_11 - timedelta(hours=1))


def test_a_given_calendar_with_a_date_leaves_what_was_before_it_to_the_versions_known() -> None:
    late = given(calendar(closes="18:00", valid_from=date(2026, 5, 4)))
    ticket = opened(THURSDAY - timedelta(hours=5), ("all", 1, "office", 1), priority=Priority.LOW)
    _, would = sides(AS_KNOWN, LATE, late)
    assert due(would, ticket) == datetime(2026, 4, 30, 14, tzinfo=UTC)
    friday_16 = opened(datetime(2026, 5, 1, 16, tzinfo=UTC), ("all", 1, "office", 1))
    assert due(would, friday_16) == datetime(2026, 5, 4, 12, tzinfo=UTC)
    _, would = sides(AS_CORRECTED, LATE, late)
    assert due(would, friday_16) == datetime(2026, 5, 4, 13, tzinfo=UTC)


def test_a_ticket_that_was_moved_to_a_new_calendar_is_moved_on_the_side_of_what_is_given_too() -> None:
    moved: Fact = (microseconds(THURSDAY + timedelta(days=4)), TERMS, ("all", 1, "office", 2))
    ticket = opened(THURSDAY, ("all", 1, "office", 1), moved)
    then, would = sides(AS_KNOWN, LATE, given(all=policy(3)))
    assert (due(then, ticket), due(would, ticket)) == (MONDAY_11, MONDAY_10)


def test_policies_alone_are_all_there_are() -> None:
    urgent = opened(THURSDAY, ("all", 1, "office", 1), priority=Priority.URGENT)
    low = opened(THURSDAY, ("all", 1, "office", 1), priority=Priority.LOW)
    for axis in Axis:
        _, would = sides(axis, LATE, given(no_others=True, quick=policy(1, priorities=(Priority.URGENT,))))
        assert due(would, urgent) == THURSDAY + timedelta(hours=1)
        assert clocks(would.of(low), would.levels) == ()


def test_a_policy_by_itself_stands_beside_those_of_the_desk_in_their_order() -> None:
    urgent = opened(THURSDAY, ("all", 1, "office", 1), priority=Priority.URGENT)
    low = opened(THURSDAY, ("all", 1, "office", 1), priority=Priority.LOW)
    for axis in Axis:
        then, would = sides(axis, LATE, given(quick=policy(1, order=1, priorities=(Priority.URGENT,))))
        assert due(would, urgent) == THURSDAY + timedelta(hours=1)
        assert due(would, low) == due(then, low)
        _, would = sides(axis, LATE, given(quick=policy(1, order=101)))
        assert due(would, urgent) == due(then, urgent)


def test_a_policy_stands_in_place_of_the_one_of_its_name_also_where_it_matches_fewer_tickets() -> None:
    base = EMPTY_BOOK.with_calendar("office", calendar())
    books = adopted((LONG_AGO, base.with_policy("a", policy(2)).with_policy("b", policy(3))))
    ticket = opened(THURSDAY, ("a", 1, "office", 1), priority=Priority.LOW)
    for axis in Axis:
        _, would = sides(axis, books, given(a=policy(1, priorities=(Priority.URGENT,))))
        assert due(would, ticket) == datetime(2026, 5, 1, 10, tzinfo=UTC)


def test_a_change_of_the_ticket_chooses_anew_on_the_side_of_what_is_given() -> None:
    raised: Fact = (microseconds(THURSDAY) + HOUR // 2, PRIORITY, "urgent")
    ticket = opened(THURSDAY, ("all", 1, "office", 1), raised, priority=Priority.LOW)
    for axis in Axis:
        _, would = sides(axis, LATE, given(quick=policy(1, order=1, priorities=(Priority.URGENT,))))
        assert due(would, ticket) == THURSDAY + timedelta(hours=1)


def test_a_change_that_chooses_the_same_policy_leaves_the_calendar_as_it_was_known_when_that_was_chosen() -> None:
    lowered: Fact = (microseconds(THURSDAY + timedelta(days=5)), PRIORITY, "low")
    ticket = opened(THURSDAY, ("all", 1, None, None), lowered)
    policies = given(no_others=True, all=policy(4), quick=policy(1, order=1, priorities=(Priority.URGENT,)))
    _, would = sides(AS_KNOWN, LATE, policies)
    assert would.of(ticket).terms == ("all", 0, "office", 1)
    assert would.of(ticket).facts == (lowered,)
    raised: Fact = (lowered[0], PRIORITY, "urgent")
    assert would.of(opened(THURSDAY, None, raised)).facts == (raised, (raised[0], TERMS, ("quick", 0, "office", 2)))


def test_a_promise_that_was_kept_is_judged_by_what_applied_when_it_was() -> None:
    replied: Fact = (microseconds(THURSDAY) + HOUR, PUBLIC_REPLY, None)
    raised: Fact = (microseconds(THURSDAY) + 2 * HOUR, PRIORITY, "urgent")
    ticket = opened(THURSDAY, ("all", 1, "office", 1), replied, raised)
    _, would = sides(AS_CORRECTED, LATE, given(quick=policy(1, order=1, priorities=(Priority.URGENT,))))
    assert due(would, ticket) == MONDAY_11


def test_a_date_set_by_hand_stays_on_both_sides() -> None:
    by_hand: Fact = (microseconds(THURSDAY), DUE_DATE, ("first_reply", microseconds(THURSDAY) + 9 * HOUR))
    ticket = opened(THURSDAY, ("all", 1, "office", 1), by_hand)
    for axis in Axis:
        for side in sides(axis, LATE, given(all=policy(1))):
            assert due(side, ticket) == THURSDAY + timedelta(hours=9)


def test_tickets_older_than_the_desk_go_by_the_first_version_that_was_known() -> None:
    ticket = opened(LONG_AGO, None)
    then, would = sides(AS_KNOWN, LATE, given(all=policy(1)))
    assert {clock.target.unit for clock in clocks(then.of(ticket), then.levels) if clock.target} == {Unit.CALENDAR}
    assert would.of(ticket).terms == ("all", 0, "office", 1)
    assert due(would, ticket) == LONG_AGO + timedelta(hours=1)


def test_a_policy_given_to_a_desk_without_any_leaves_no_standard_promises() -> None:
    ticket = opened(THURSDAY, None)
    for axis in Axis:
        then, would = sides(axis, [], given(quick=policy(1, calendar=None, priorities=(Priority.URGENT,))))
        assert len(clocks(then.of(ticket), then.levels)) == 2
        assert clocks(would.of(ticket), would.levels) == ()


def test_what_would_make_no_difference_is_refused() -> None:
    with pytest.raises(NothingToCompare, match="neither"):
        sides(AS_KNOWN, LATE, given())
    with pytest.raises(NothingToCompare, match="office"):
        sides(AS_KNOWN, LATE, given(calendar(), no_others=True, all=policy(calendar=None)))
    with pytest.raises(UnknownCalendar):
        sides(AS_KNOWN, LATE, given(all=policy(calendar="factory")))


def test_what_is_given_is_called_so() -> None:
    _, would = sides(AS_KNOWN, LATE, given(calendar(), all=policy(1)))
    ((_, clock),) = enumerate(clocks(would.of(opened(THURSDAY, ("all", 1, "office", 1))), would.levels))
    assert would.levels.names(clock.terms) == ("all (given)", "office (given)")
    then, _ = sides(AS_KNOWN, LATE, given(all=policy(1)))
    (clock,) = clocks(opened(THURSDAY, ("all", 1, "office", 1)), then.levels)
    assert then.levels.names(clock.terms) == ("all 1", "office 1")
    assert then.levels.names(None) == ("the standard promises", None)


FACTS = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.sampled_from(
            [(STATUS, "pending"), (STATUS, "open"), (STATUS, "solved"), (PUBLIC_REPLY, None)]
            + [(PRIORITY, str(priority)) for priority in Priority]
        ),
    ),
    max_size=8,
)
DESK = (
    EMPTY_BOOK.with_calendar("office", calendar())
    .with_policy("quick", policy(1, order=1, priorities=(Priority.URGENT, Priority.HIGH)))
    .with_policy("rest", policy(8))
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@supposing(FACTS, st.sampled_from(Priority), st.integers(0, 400))
def test_the_policies_that_there_are_change_nothing(told: list[Any], priority: Priority, hours: int) -> None:
    at = microseconds(THURSDAY) + hours * HOUR

    def terms(of: str) -> Terms:
        return ("quick" if of in {"urgent", "high"} else "rest", 1, "office", 1)

    facts: list[Fact] = []
    now = terms(priority)
    for after, (kind, value) in sorted(told, key=lambda one: one[0]):
        facts.append((at + after * HOUR // 7, kind, value))
        if kind == PRIORITY and terms(value) != now:
            now = terms(value)
            facts.append((at + after * HOUR // 7, TERMS, now))
    ticket = opened(instant(at), terms(priority), *facts, priority=priority)
    books = adopted((LONG_AGO, DESK))
    policies = {name: versions[-1] for name, versions in DESK.policies.items()}
    as_it_was = [clock[4:] for clock in clocks(ticket, DESK)]
    for axis in Axis:
        for what in (
            Given(policies, no_others=True, calendars={}),
            Given(policies, no_others=False, calendars={}),
            Given({"rest": policies["rest"]}, no_others=False, calendars={}),
            Given({}, no_others=False, calendars={"office": calendar()}),
            Given(policies, no_others=True, calendars={"office": calendar()}),
        ):
            for side in sides(axis, books, what):
                found = [clock[4:-1] for clock in clocks(side.of(ticket), side.levels)]
                assert found == [one[:-1] for one in as_it_was]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@supposing(
    told=FACTS,
    priority=st.sampled_from(Priority),
    hours=st.integers(0, 400),
    pauses=st.booleans(),
    by_hand=st.booleans(),
)
def test_going_through_a_ticket_once_for_both_sides_makes_no_difference(
    *, told: list[Any], priority: Priority, hours: int, pauses: bool, by_hand: bool
) -> None:
    at = microseconds(THURSDAY) + hours * HOUR
    facts: list[Fact] = [
        (at + after * HOUR // 7, kind, value) for after, (kind, value) in sorted(told, key=lambda one: one[0])
    ]
    if by_hand:
        facts.append((at + 30 * HOUR, DUE_DATE, ("total_resolution", at + 90 * HOUR)))
    ticket = opened(instant(at), None, *facts, priority=priority)
    targets = [
        Target(metric=Metric.NEXT_REPLY, match=match, amount=7 * 3600)
        for match in (Match(priorities=(Priority.URGENT,)), Match())
    ]
    still: dict[Metric, tuple[Status, ...]] = {Metric.FIRST_REPLY: (Status.PENDING,)} if pauses else {}
    other = PolicyTerms(calendar="office", targets=(*targets, *policy(2).targets), pauses=still)
    for one in sides(AS_CORRECTED, adopted((LONG_AGO, DESK)), given(rest=other)):
        for another in sides(AS_CORRECTED, adopted((LONG_AGO, DESK)), given(no_others=True, all=other)):
            first, second = one.of(ticket), another.of(ticket)
            both = clocks_of_both(first, one.levels, second, another.levels)
            assert both == (clocks(first, one.levels), clocks(second, another.levels))
