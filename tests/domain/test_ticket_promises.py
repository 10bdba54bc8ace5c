"""What is promised about a ticket: the terms it is opened with and goes by, and due dates set by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from domain import ticket_events as events
from domain.customer_events import Tier
from domain.event import Channel
from domain.event_history import load, read
from domain.priority import Grade, Priority
from domain.service_levels import EMPTY_BOOK, Book
from domain.sla_policy import Match, PolicyTerms, Target
from domain.sla_terms import Metric, SlaTerms
from domain.ticket import Ticket
from domain.ticket_refusals import DueBeforeOpening, ReasonRequired, TicketClosed
from domain.ticket_sla_events import DueDateSet, SlaTermsChanged, TermsCause
from tests.domain.scenario import (
    ANN,
    BOB,
    BY_ANN,
    CAROL,
    NETWORK,
    NOON,
    TICKET,
    WITHOUT_REASON,
    a_team,
    an_agent,
    given,
    later,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.pure


def policy(order: int, **match: Any) -> PolicyTerms:
    return PolicyTerms(
        order=order, match=Match(**match), targets=(Target(metric=Metric.FIRST_REPLY, amount=order * 60),)
    )


ALL = SlaTerms(policy="all", policy_version=1)
BOOK = (
    EMPTY_BOOK.with_policy("urgent", policy(1, priorities=("urgent",)))
    .with_policy("gold", policy(2, tiers=("gold",)))
    .with_policy("incidents", policy(3, types=("incident",)))
    .with_policy("network", policy(4, teams=(NETWORK,)))
    .with_policy("printers", policy(5, categories=("Printer",)))
    .with_policy("tagged", policy(6, tags=("fire",)))
    .with_policy("all", policy(9))
)


def opened(book: Book = BOOK, **fields: Any) -> Ticket:
    return Ticket.open(
        ticket_id=TICKET,
        requester_id=CAROL,
        subject="Printer on fire",
        body="It smokes.",
        channel=Channel.EMAIL,
        book=book,
        act=BY_ANN,
        **{"tier": Tier.STANDARD, **fields},
    )


def goes_by(name: str) -> SlaTerms:
    return SlaTerms(policy=name, policy_version=1)


def changes_of(ticket: Ticket) -> list[SlaTermsChanged]:
    return [event for event in ticket.pending_events if isinstance(event, SlaTermsChanged)]


def test_a_ticket_is_opened_with_the_terms_of_the_first_policy_that_holds() -> None:
    assert opened().terms == ALL
    assert opened(impact=Grade.HIGH, urgency=Grade.HIGH).terms == goes_by("urgent")
    assert opened(tier=Tier.GOLD).terms == goes_by("gold")
    assert opened(tags=("fire",)).terms == goes_by("tagged")
    assert opened(EMPTY_BOOK).terms is None
    assert opened(EMPTY_BOOK.with_policy("gold", policy(2, tiers=("gold",)))).terms == SlaTerms()


def test_an_opening_of_the_earlier_shape_reads_as_one_of_a_desk_without_policies() -> None:
    event = read(load()["ticket.opened.v1.json"], events.Opened)
    assert isinstance(event, events.Opened)
    assert (event.tier, event.terms) == (None, None)
    assert events.Opened.ONLY_GAINED_FIELDS


CHANGES: dict[str, Callable[[Ticket], None]] = {
    "urgent": lambda t: t.change_priority(priority=Priority.URGENT, act=BY_ANN),
    "incidents": lambda t: t.change_type(type=events.TicketType.INCIDENT, act=BY_ANN),
    "network": lambda t: t.transfer(team=a_team(NETWORK), act=BY_ANN),
    "printers": lambda t: t.categorise(category="Printer", act=BY_ANN),
    "tagged": lambda t: t.tag(tags=("fire",), act=BY_ANN),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_makes_another_policy_hold_changes_the_terms(name: str) -> None:
    ticket = opened()
    ticket.collect_events()
    CHANGES[name](ticket)
    ticket.choose_terms(book=BOOK, act=BY_ANN)
    (event,) = changes_of(ticket)
    assert (event.terms, event.previous_terms, event.cause) == (goes_by(name), ALL, TermsCause.TICKET_CHANGED)
    assert ticket.terms == goes_by(name)


def test_a_change_after_which_the_same_policy_holds_changes_no_terms() -> None:
    ticket = opened()
    ticket.change_priority(priority=Priority.HIGH, act=BY_ANN)
    ticket.choose_terms(book=BOOK, act=BY_ANN)
    assert changes_of(ticket) == []


def test_another_requester_brings_another_tier_even_where_the_policy_is_the_same() -> None:
    ticket = opened()
    ticket.choose_terms(book=BOOK, tier=Tier.VIP, act=BY_ANN)
    (event,) = changes_of(ticket)
    assert (event.terms, event.tier, event.previous_tier) == (ALL, Tier.VIP, Tier.STANDARD)
    assert ticket.attributes.tier is Tier.VIP


def test_a_ticket_stays_with_an_earlier_version_while_the_same_policy_holds() -> None:
    ticket = opened()
    ticket.collect_events()
    ticket.tag(tags=("smoke",), act=BY_ANN)
    ticket.choose_terms(book=BOOK.with_policy("all", policy(9)), act=BY_ANN)
    assert (changes_of(ticket), ticket.terms) == ([], ALL)
    ticket.tag(tags=("fire",), act=BY_ANN)
    ticket.choose_terms(book=BOOK.with_policy("all", policy(9)), act=BY_ANN)
    assert ticket.terms == goes_by("tagged")


def test_a_ticket_from_before_there_were_policies_stays_with_none_until_another_one_would_hold() -> None:
    ticket = opened(EMPTY_BOOK, tier=None)
    ticket.collect_events()
    ticket.tag(tags=("smoke",), act=BY_ANN)
    ticket.choose_terms(book=BOOK, tier=Tier.GOLD, act=BY_ANN)
    (event,) = changes_of(ticket)
    assert (event.terms, event.tier, event.previous_tier) == (None, Tier.GOLD, None)
    ticket.change_priority(priority=Priority.URGENT, act=BY_ANN)
    ticket.choose_terms(book=BOOK, act=BY_ANN)
    assert ticket.terms == goes_by("urgent")


def test_terms_that_changed_within_a_command_change_back_when_what_they_were_for_is_taken_back() -> None:
    ticket = opened()
    ticket.collect_events()
    for change in (ticket.tag, ticket.untag):
        change(tags=("fire",), act=BY_ANN)
        ticket.choose_terms(book=BOOK, act=BY_ANN)
    assert [event.terms for event in changes_of(ticket)] == [goes_by("tagged"), ALL]


def test_only_what_policies_look_at_is_a_reason_to_choose_terms_anew() -> None:
    ticket = given(events.Opened).aggregate
    ticket.assign(agent=an_agent(BOB), act=BY_ANN)
    ticket.reply(text="Coming.", agent_id=ANN, act=BY_ANN)
    ticket.set_pending(act=BY_ANN)
    ticket.set_due_date(metric=Metric.FIRST_REPLY, due_at=later(hours=1).at, act=BY_ANN)
    assert ticket.attributes_before() == ticket.attributes
    ticket.assign(team=a_team(NETWORK), act=BY_ANN)
    ticket.tag(tags=("fire",), act=BY_ANN)
    assert ticket.attributes_before() == ticket.attributes._replace(team_id=None, tags=())


def test_a_ticket_is_told_to_go_by_other_terms_once() -> None:
    ticket = opened()
    again = SlaTerms(policy="all", policy_version=2)
    for _ in range(2):
        ticket.go_by(again, tier=Tier.STANDARD, cause=TermsCause.POLICY_ADOPTED, act=BY_ANN)
    (event,) = changes_of(ticket)
    assert (event.terms, event.previous_terms, event.cause) == (again, ALL, TermsCause.POLICY_ADOPTED)


def test_a_due_date_is_set_with_a_reason_and_cleared_again() -> None:
    past = given(events.Opened, timestamp=NOON)
    due_at = NOON + timedelta(hours=3)
    ticket = past.aggregate
    ticket.set_due_date(metric=Metric.FIRST_REPLY, due_at=due_at, act=BY_ANN)
    ticket.set_due_date(metric=Metric.FIRST_REPLY, due_at=due_at, act=BY_ANN)
    (event,) = ticket.pending_events
    assert isinstance(event, DueDateSet)
    assert [(change.field, change.old, change.new) for change in event.changes()] == [
        ("due_at.first_reply", None, due_at.isoformat())
    ]
    ticket.set_due_date(metric=Metric.FIRST_REPLY, due_at=None, act=BY_ANN)
    ticket.set_due_date(metric=Metric.TOTAL_RESOLUTION, due_at=None, act=BY_ANN)
    assert (len(ticket.pending_events), ticket.due_dates) == (2, {})


def test_a_due_date_survives_changes_of_priority_and_of_terms() -> None:
    ticket = given(events.Opened, timestamp=NOON).aggregate
    ticket.set_due_date(metric=Metric.FIRST_REPLY, due_at=NOON + timedelta(hours=3), act=BY_ANN)
    ticket.change_priority(priority=Priority.URGENT, act=BY_ANN)
    ticket.choose_terms(book=BOOK, act=BY_ANN)
    assert ticket.due_dates == {Metric.FIRST_REPLY: NOON + timedelta(hours=3)}


def test_a_due_date_needs_a_reason_and_lies_after_the_opening() -> None:
    given(events.Opened, timestamp=NOON).when(
        lambda t: t.set_due_date(metric=Metric.FIRST_REPLY, due_at=NOON, act=BY_ANN)
    ).then_rejected(DueBeforeOpening)
    given(events.Opened, timestamp=NOON).when(
        lambda t: t.set_due_date(metric=Metric.FIRST_REPLY, due_at=later(hours=1).at, act=WITHOUT_REASON)
    ).then_rejected(ReasonRequired)
    given(events.Opened).given(events.Solved).given(events.Closed).when(
        lambda t: t.set_due_date(metric=Metric.FIRST_REPLY, due_at=None, act=BY_ANN)
    ).then_rejected(TicketClosed)
