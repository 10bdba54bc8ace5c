"""Customers, agents and teams."""

from __future__ import annotations

import json

import pytest

from domain import agent, customer_events, team
from domain.customer import CLEAR, ContactKnown, Customer
from domain.customer_events import Tier
from domain.event import ERASED, Change
from tests.domain.scenario import ANN, BY_ANN, CAROL, DAVE, FIRST_LINE, NETWORK, a_team, an_agent, given

pytestmark = pytest.mark.pure


def carol() -> Customer:
    past = given(
        customer_events.Registered,
        originator_id=CAROL,
        name="Carol 陈",
        email="carol@example.org",
        phone=None,
        language="zh",
        tier=Tier.STANDARD,
        organisation=None,
    )
    found: Customer = past.aggregate
    return found


def test_registering_keeps_everything_personal_out_of_the_state() -> None:
    customer = Customer.register(
        customer_id=CAROL, name="Carol", email="c@example.org", phone="13800138000", foreign_id="crm:carol", act=BY_ANN
    )
    (event,) = customer.pending_events
    assert isinstance(event, customer_events.Registered)
    assert set(event.personal_values()) == {"name", "email", "phone", "foreign_id", "reason"}
    assert {event.subject_of(field) for field in ("name", "email", "phone", "foreign_id")} == {CAROL}
    assert b"arol" not in event.state_json().replace(str(CAROL).encode(), b"")


def test_only_the_details_that_are_given_change() -> None:
    customer = carol()
    customer.change_contact(phone="+49 30 1234", act=BY_ANN)
    (event,) = customer.pending_events
    assert event.changes() == (Change("phone", None, "+49 30 1234", personal=True),)  # type: ignore[attr-defined]
    assert (customer.name, customer.email, customer.phone) == ("Carol 陈", "carol@example.org", "+49 30 1234")


def test_the_changed_details_are_known_without_opening_any() -> None:
    customer = carol()
    customer.change_contact(phone="+49 30 1234", act=BY_ANN)
    (event,) = customer.pending_events
    assert isinstance(event, customer_events.ContactChanged)
    # Sealing the same value twice gives two tokens.
    tokens = {field: f"token {number}" for number, field in enumerate(event.personal_values())}
    sealed = customer_events.ContactChanged.from_state(
        stream=CAROL, version=2, state=json.loads(event.state_json()), personal=tokens
    )
    assert sealed.changes() == (Change("phone", None, tokens["phone"], personal=True),)


def test_details_of_an_erased_customer_are_not_copied() -> None:
    customer = given(
        customer_events.Registered, originator_id=CAROL, name=ERASED, email=ERASED, phone=ERASED, language="zh"
    ).aggregate
    customer.change_contact(language="en", act=BY_ANN)
    (event,) = customer.pending_events
    assert event.changed == ("language",)
    assert (event.email, event.phone, event.previous_name, event.previous_email) == (None,) * 4


def test_a_detail_can_be_cleared() -> None:
    customer = carol()
    customer.change_contact(email=CLEAR, language=CLEAR, act=BY_ANN)
    customer.change_contact(email=CLEAR, phone=CLEAR, act=BY_ANN)
    assert (customer.email, customer.language, len(customer.pending_events)) == (None, None, 1)


def test_the_same_details_again_change_nothing() -> None:
    customer = carol()
    customer.change_contact(name="Carol 陈", email="carol@example.org", act=BY_ANN)
    customer.change_contact(act=BY_ANN)
    customer.change_tier(tier=Tier.STANDARD, act=BY_ANN)
    assert customer.pending_events == []


def test_a_tier_and_an_organisation_change_once() -> None:
    customer = carol()
    for _ in range(2):
        customer.change_tier(tier=Tier.VIP, act=BY_ANN)
        customer.join_organisation(organisation="ACME", act=BY_ANN)
    assert [event.changes() for event in customer.pending_events] == [  # type: ignore[attr-defined]
        (Change("tier", "standard", "vip"),),
        (Change("organisation", None, "ACME"),),
    ]


def test_a_known_contact_names_the_customer_that_has_it() -> None:
    refusal = ContactKnown("email", DAVE)
    assert (refusal.problem, refusal.details) == ("contact-known", {"kind": "email", "customer_id": str(DAVE)})


def test_an_agent_is_created_active_in_active_teams() -> None:
    created = agent.Agent.create(
        agent_id=ANN, name="Ann", teams=[a_team(NETWORK), a_team(FIRST_LINE), a_team(NETWORK)], act=BY_ANN
    )
    assert (created.active, created.team_ids) == (True, frozenset({FIRST_LINE, NETWORK}))
    with pytest.raises(team.TeamInactive):
        agent.Agent.create(agent_id=ANN, name="Ann", teams=[a_team(NETWORK, active=False)], act=BY_ANN)


def test_an_agent_joins_and_leaves_teams_once() -> None:
    ann = an_agent(ANN)
    for _ in range(2):
        ann.join_team(team=a_team(NETWORK), act=BY_ANN)
    for _ in range(2):
        ann.leave_team(team=a_team(NETWORK, active=False), act=BY_ANN)
    assert [event.changes() for event in ann.pending_events] == [  # type: ignore[attr-defined]
        (Change("team_ids", [], [str(NETWORK)]),),
        (Change("team_ids", [str(NETWORK)], []),),
    ]


def test_an_inactive_agent_joins_no_team_and_nobody_joins_an_inactive_team() -> None:
    with pytest.raises(agent.AgentInactive):
        an_agent(ANN, active=False).join_team(team=a_team(NETWORK), act=BY_ANN)
    with pytest.raises(team.TeamInactive):
        an_agent(ANN).join_team(team=a_team(NETWORK, active=False), act=BY_ANN)


@pytest.mark.parametrize("thing", [an_agent(ANN), a_team(NETWORK)], ids=["agent", "team"])
def test_deactivating_renaming_and_reactivating_happen_once(thing: agent.Agent | team.Team) -> None:
    for _ in range(2):
        thing.deactivate(act=BY_ANN)
    for _ in range(2):
        thing.rename(name="Other", act=BY_ANN)
    for _ in range(2):
        thing.reactivate(act=BY_ANN)
    deactivated, renamed, reactivated = (event.changes() for event in thing.pending_events)  # type: ignore[attr-defined]
    assert deactivated == (Change("active", old=True, new=False),)
    assert [(change.field, change.new) for change in renamed] == [("name", "Other")]
    assert reactivated == (Change("active", old=False, new=True),)
    assert (thing.active, thing.name) == (True, "Other")
