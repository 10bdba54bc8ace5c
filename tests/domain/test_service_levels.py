"""Calendars and policies: adopted in versions, retired, and chosen by what a ticket is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from domain.calendar import CalendarTerms
from domain.customer_events import Tier
from domain.event import Channel
from domain.priority import Priority
from domain.service_levels import (
    EMPTY_BOOK,
    SERVICE_LEVELS_ID,
    Attributes,
    Book,
    ServiceLevels,
    UnknownCalendar,
    UnknownPolicy,
)
from domain.sla_policy import Match, PolicyTerms, Target, Unit, standard_policy
from domain.sla_terms import Metric, SlaTerms
from domain.status import Status
from domain.ticket_events import TicketType
from tests.domain.scenario import BY_ANN, FIRST_LINE, NETWORK, NOON

if TYPE_CHECKING:
    from domain.event import Event

pytestmark = pytest.mark.pure

TICKET = Attributes(Priority.NORMAL, Tier.STANDARD, TicketType.QUESTION, Channel.EMAIL, None, None, ())
OFFICE = CalendarTerms.model_validate({"time_zone": "Europe/Berlin", "hours": {"mon": [["09:00", "17:00"]]}})
LONGER = CalendarTerms.model_validate({"time_zone": "Europe/Berlin", "hours": {"mon": [["08:00", "18:00"]]}})


def policy(order: int = 100, *, calendar: str | None = None, seconds: int = 3600, **match: Any) -> PolicyTerms:
    target = Target(metric=Metric.FIRST_REPLY, amount=seconds)
    return PolicyTerms(order=order, match=Match(**match), calendar=calendar, targets=(target,))


def levels() -> ServiceLevels:
    return ServiceLevels.unwritten(NOON)


def events_of(made: ServiceLevels) -> list[Event]:
    return list(made.pending_events)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", ["calendar", "policy"])
def test_the_first_event_makes_the_stream_whichever_it_is(first: str) -> None:
    made = levels()
    if first == "calendar":
        made.adopt_calendar(name="office", terms=OFFICE, act=BY_ANN)
    else:
        made.adopt_policy(name="all", terms=policy(), act=BY_ANN)
    (event,) = events_of(made)
    assert (event.originator_id, event.originator_version) == (SERVICE_LEVELS_ID, 1)
    read: ServiceLevels = event.mutate(None)  # type: ignore[assignment]
    assert (read.version, read.book.policies, read.book.calendars) == (1, made.book.policies, made.book.calendars)


def test_versions_count_from_one_and_the_terms_of_each_stay() -> None:
    made = levels()
    made.adopt_calendar(name="office", terms=OFFICE, act=BY_ANN)
    made.adopt_calendar(name="office", terms=LONGER, act=BY_ANN)
    made.adopt_policy(name="all", terms=policy(calendar="office"), act=BY_ANN)
    made.adopt_policy(name="all", terms=policy(calendar="office", seconds=60), act=BY_ANN)
    assert [event.version for event in events_of(made)] == [1, 2, 1, 2]  # type: ignore[attr-defined]
    book = made.book
    assert book.calendars["office"] == (OFFICE, LONGER)
    first = SlaTerms(policy="all", policy_version=1, calendar="office", calendar_version=1)
    assert book.policy(first).targets[0].amount == 3600
    assert book.choose(TICKET) == SlaTerms(policy="all", policy_version=2, calendar="office", calendar_version=2)


def test_adopting_what_is_in_force_changes_nothing() -> None:
    made = levels()
    for _ in range(2):
        made.adopt_calendar(name="office", terms=OFFICE, act=BY_ANN)
        made.adopt_policy(name="all", terms=policy(), act=BY_ANN)
    assert len(events_of(made)) == 2
    for _ in range(2):
        made.retire_policy(name="all", act=BY_ANN)
    assert len(events_of(made)) == 3
    made.adopt_policy(name="all", terms=policy(), act=BY_ANN)
    assert made.book.choose(TICKET) == SlaTerms(policy="all", policy_version=2)


def test_a_policy_counts_by_a_calendar_that_was_adopted() -> None:
    made = levels()
    with pytest.raises(UnknownCalendar, match="none has been adopted yet"):
        made.adopt_policy(name="all", terms=policy(calendar="office"), act=BY_ANN)
    made.adopt_calendar(name="office", terms=OFFICE, act=BY_ANN)
    with pytest.raises(UnknownCalendar, match=r"'offices'.*there are: office"):
        made.adopt_policy(name="all", terms=policy(calendar="offices"), act=BY_ANN)


def test_only_a_policy_that_there_is_can_be_retired() -> None:
    made = levels()
    made.adopt_policy(name="all", terms=policy(), act=BY_ANN)
    with pytest.raises(UnknownPolicy, match="in force are: all"):
        made.retire_policy(name="none", act=BY_ANN)


def test_a_ticket_goes_by_the_first_policy_that_holds_by_order_and_then_by_name() -> None:
    book = (
        EMPTY_BOOK.with_policy("b", policy(20))
        .with_policy("a", policy(20))
        .with_policy("vip", policy(10, tiers=(Tier.VIP,)))
    )
    assert book.in_force == ("vip", "a", "b")
    assert book.choose(TICKET) == SlaTerms(policy="a", policy_version=1)
    assert book.choose(TICKET._replace(tier=Tier.VIP)) == SlaTerms(policy="vip", policy_version=1)


def test_a_book_knows_whether_tiers_matter_to_which_policy_it_is_or_to_what_that_promises() -> None:
    only_gold = Target(metric=Metric.FIRST_REPLY, amount=60, match=Match(tiers=(Tier.GOLD,)))
    plain = policy()
    assert not EMPTY_BOOK.with_policy("a", plain).asks_for_tiers
    assert EMPTY_BOOK.with_policy("a", policy(tiers=(Tier.VIP,))).asks_for_tiers
    tiered = plain.model_copy(update={"targets": (only_gold, *plain.targets)})
    assert EMPTY_BOOK.with_policy("a", tiered).asks_for_tiers


@pytest.mark.parametrize(
    ("match", "ticket"),
    [
        ({"priorities": ("urgent", "high")}, TICKET._replace(priority=Priority.HIGH)),
        ({"tiers": ("gold",)}, TICKET._replace(tier=Tier.GOLD)),
        ({"types": ("incident",)}, TICKET._replace(type=TicketType.INCIDENT)),
        ({"channels": ("phone", "chat")}, TICKET._replace(channel=Channel.PHONE)),
        ({"teams": (NETWORK,)}, TICKET._replace(team_id=NETWORK)),
        ({"categories": ("Printer",)}, TICKET._replace(category="Printer")),
        ({"tags": ("vip", "fire")}, TICKET._replace(tags=("fire", "smoke"))),
    ],
)
def test_every_condition_has_to_hold_with_any_of_its_values(match: dict[str, Any], ticket: Attributes) -> None:
    assert Match(**match).holds(ticket)
    assert not Match(**match).holds(TICKET._replace(tier=None, team_id=FIRST_LINE))
    other: dict[str, Any] = {"priorities": ("low",)} if "priorities" not in match else {"categories": ("None",)}
    assert not Match(**match, **other).holds(ticket)


def test_an_unknown_tier_is_none_of_those_asked_for() -> None:
    assert not Match(tiers=tuple(Tier)).holds(TICKET._replace(tier=None))
    assert Match().holds(TICKET._replace(tier=None))


def test_a_desk_without_policies_has_the_standard_one_and_one_whose_policies_do_not_hold_promises_nothing() -> None:
    assert EMPTY_BOOK.choose(TICKET) is None
    assert EMPTY_BOOK.policy(None) == standard_policy()
    assert EMPTY_BOOK.with_calendar("office", OFFICE).choose(TICKET) is None
    book = EMPTY_BOOK.with_policy("vip", policy(tiers=(Tier.VIP,)))
    assert book.choose(TICKET) == SlaTerms()
    assert book.policy(SlaTerms()).targets == ()
    made = levels()
    made.adopt_policy(name="all", terms=policy(), act=BY_ANN)
    made.retire_policy(name="all", act=BY_ANN)
    assert made.book.choose(TICKET) == SlaTerms()


def test_the_standard_promises_are_those_by_priority_in_calendar_time() -> None:
    urgent = TICKET._replace(priority=Priority.URGENT)
    first, total = (
        standard_policy().target(metric, urgent) for metric in (Metric.FIRST_REPLY, Metric.TOTAL_RESOLUTION)
    )
    assert first is not None
    assert total is not None
    assert (first.amount, first.unit, total.amount) == (3600, Unit.CALENDAR, 8 * 3600)
    assert standard_policy().target(Metric.NEXT_REPLY, urgent) is None


def test_each_metric_goes_by_its_first_target_that_holds() -> None:
    terms = PolicyTerms(
        targets=(
            Target(metric=Metric.FIRST_REPLY, match=Match(tiers=(Tier.GOLD,)), amount=60),
            Target(metric=Metric.FIRST_REPLY, amount=600),
            Target(metric=Metric.FIRST_REPLY, amount=6000),
        ),
        pauses={Metric.FIRST_REPLY: (Status.PENDING,)},
    )
    amounts = [terms.target(Metric.FIRST_REPLY, TICKET._replace(tier=tier)) for tier in (Tier.GOLD, Tier.VIP)]
    assert [one and one.amount for one in amounts] == [60, 600]
    assert terms.paused_in(Metric.FIRST_REPLY) == (Status.PENDING,)
    assert terms.paused_in(Metric.AGENT_WORK) == (Status.PENDING, Status.ON_HOLD)
    assert terms.paused_in(Metric.TOTAL_RESOLUTION) == ()


def test_a_book_takes_each_event_once_however_often_it_comes() -> None:
    made = levels()
    made.adopt_calendar(name="office", terms=OFFICE, act=BY_ANN)
    made.adopt_policy(name="all", terms=policy(), act=BY_ANN)
    made.retire_policy(name="all", act=BY_ANN)
    made.adopt_policy(name="all", terms=policy(seconds=60), act=BY_ANN)
    events = events_of(made)
    book = Book.of(events)
    assert book.version == 4
    for again in range(4):
        extended = book
        for event in events[again:]:
            extended = extended.extended(event)
        assert extended is book
    assert book.choose(TICKET) == SlaTerms(policy="all", policy_version=2)


def test_a_book_says_what_it_does_not_have() -> None:
    with pytest.raises(LookupError, match="no version 3 of the policy 'all'"):
        EMPTY_BOOK.policy(SlaTerms(policy="all", policy_version=3))
    with pytest.raises(LookupError, match="no version 1 of the calendar 'office'"):
        EMPTY_BOOK.hours(SlaTerms(policy="all", policy_version=1, calendar="office", calendar_version=1))
    assert EMPTY_BOOK.hours(SlaTerms(policy="all", policy_version=1)) is None
