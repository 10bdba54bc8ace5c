"""What is promised, end to end: terms chosen when tickets are opened and changed, and what happens meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from commands.request import OccurredLater, ScopeMissing, UnknownReference
from domain.customer_events import Tier
from domain.policy_faults import UnusablePolicy
from domain.service_levels import SERVICE_LEVELS_ID, UnknownCalendar
from domain.sla_terms import Metric, SlaTerms
from domain.ticket import Ticket
from domain.ticket_refusals import OccurredBeforeOpening
from domain.ticket_sla_events import SlaTermsChanged
from replay.stream import recorded
from tests.commands.sending import Sender, caller

if TYPE_CHECKING:
    from uuid import UUID

    from storage.database import Workspace

HOURS = {"mon": [["09:00", "17:00"]]}
TARGETS = [{"metric": "first_reply", "amount": 3600}]


async def adopt(sender: Sender, name: str, **terms: Any) -> None:
    await sender.send("service_levels", "adopt-policy", SERVICE_LEVELS_ID, name=name, **{"targets": TARGETS, **terms})


async def adopt_office(sender: Sender, **terms: Any) -> None:
    given = {"time_zone": "Europe/Berlin", "hours": HOURS, **terms}
    await sender.send("service_levels", "adopt-calendar", SERVICE_LEVELS_ID, name="office", **given)


async def ticket_of(sender: Sender, ticket: UUID) -> Ticket:
    return await sender.desk.load(Ticket, ticket)


async def test_a_ticket_names_the_versions_that_hold_when_it_is_opened(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    gold = await sender.customer("Gold", tier="gold")
    before = await sender.ticket(gold)
    await adopt_office(sender)
    await adopt_office(sender, hours={"tue": HOURS["mon"]})
    await adopt(sender, "all", order=9)
    await adopt(sender, "gold", order=1, calendar="office", match={"tiers": ["gold"]})
    standard, precious = await sender.ticket(), await sender.ticket(gold)
    assert (await ticket_of(sender, before)).terms is None
    assert (await ticket_of(sender, standard)).terms == SlaTerms(policy="all", policy_version=1)
    found = await ticket_of(sender, precious)
    assert (found.tier, found.terms) == (
        Tier.GOLD,
        SlaTerms(policy="gold", policy_version=1, calendar="office", calendar_version=2),
    )


async def test_a_command_that_makes_another_policy_hold_says_so_in_the_same_breath(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    network = await sender.team("Network")
    await adopt(sender, "all", order=9)
    await adopt(sender, "network", order=1, match={"teams": [str(network)]})
    await adopt(sender, "vip", order=2, match={"tiers": ["vip"]})
    ticket = await sender.ticket()
    moved = await sender.send("ticket", "transfer", ticket, team_id=network)
    assert moved.version == 3
    vip = await sender.customer("Vip", tier="vip")
    await sender.send("ticket", "change-requester", ticket, requester_id=vip)
    await sender.send("ticket", "assign", ticket, team_id=await sender.team("Systems"))
    changes = [one.event for one in await recorded(alpha, ticket) if isinstance(one.event, SlaTermsChanged)]
    assert [(change.terms and change.terms.policy, change.tier) for change in changes] == [
        ("network", Tier.STANDARD),
        ("network", Tier.VIP),
        ("vip", Tier.VIP),
    ]
    assert {change.by.command_id for change in changes[:1]} == {
        one.event.by.command_id for one in await recorded(alpha, ticket) if one.event.TOPIC == "ticket.transferred"
    }


async def test_a_follow_up_goes_by_what_holds_when_it_is_opened(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    gold = await sender.customer("Gold", tier="gold")
    ticket = await sender.ticket(gold)
    await sender.send("ticket", "solve", ticket, resolution_code="fixed")
    await sender.send("ticket", "close", ticket)
    await adopt(sender, "gold", match={"tiers": ["gold"]})
    follow_up = await sender.send("ticket", "record-customer-message", ticket, text="Again.")
    found = await ticket_of(sender, follow_up.stream)
    assert (found.terms, found.tier) == (SlaTerms(policy="gold", policy_version=1), Tier.GOLD)


async def test_no_ticket_is_opened_by_terms_that_were_replaced_before_it(alpha: Workspace) -> None:
    """Two processes, one of which adopts while the other, which shares no memory with it, opens tickets."""
    here, there = Sender.at(alpha), Sender.at(alpha)
    customer = await here.customer()
    await here.ticket(customer)
    versions = 12

    async def adopting() -> None:
        for amount in range(1, versions + 1):
            await adopt(there, "all", targets=[{"metric": "first_reply", "amount": amount}])

    async def opening() -> None:
        while len((await there.desk.book()).policies.get("all", ())) < versions:
            await here.ticket(customer)

    await asyncio.gather(adopting(), *(opening() for _ in range(4)))
    await here.ticket(customer)
    version, opened = None, 0
    for row in await alpha.log.page(0, 10_000):
        (one,) = [found for found in await recorded(alpha, row.stream) if found.position == row.position]
        if row.topic == "service_levels.policy_adopted":
            version = one.event.version
        elif row.topic == "ticket.opened":
            opened += 1
            assert (one.event.terms and one.event.terms.policy_version) == version
    assert (version, opened > 1) == (versions, True)


async def test_a_due_date_is_set_by_hand(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    due_at = datetime.now(UTC) + timedelta(days=1)
    await sender.send("ticket", "set-due-date", ticket, metric="total_resolution", due_at=due_at, reason="agreed")
    assert (await ticket_of(sender, ticket)).due_dates == {Metric.TOTAL_RESOLUTION: due_at}


async def test_a_policy_names_calendars_and_teams_that_there_are(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    with pytest.raises(UnknownCalendar):
        await adopt(sender, "all", calendar="office")
    with pytest.raises(UnknownReference, match=r"match\.teams\.0 names no team"):
        await adopt(sender, "all", match={"teams": [str(await sender.customer())]})
    step = {"offset_seconds": 0, "action": "reassign", "agent_id": str(await sender.team())}
    with pytest.raises(UnknownReference, match=r"targets\.0\.steps\.0\.agent_id names no agent"):
        await adopt(sender, "all", targets=[TARGETS[0] | {"steps": [step]}])


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"match": {"tags": []}}, "match.tags: an empty list holds for no ticket"),
        ({"targets": [TARGETS[0], TARGETS[0]]}, "targets.1: it is for the same metric and tickets as targets.0"),
        (
            {"targets": [TARGETS[0], TARGETS[0] | {"match": {"priorities": ["low"]}}]},
            "targets.1: targets.0 is for this metric of all tickets",
        ),
        ({"targets": [TARGETS[0] | {"match": {"priorities": ["low"]}}, TARGETS[0]]}, None),
        (
            {"targets": [TARGETS[0] | {"steps": [{"offset_seconds": -60, "action": "remind"}] * 2}]},
            "targets.0.steps.1: it is the same as targets.0.steps.0",
        ),
        ({"targets": [TARGETS[0] | {"end_of_day": True}]}, "targets.0.end_of_day: only a target in business_days"),
        ({"targets": [TARGETS[0] | {"unit": "business_days"}]}, None),
        ({"targets": [TARGETS[0] | {"unit": "business_days", "amount": 4_000}]}, "targets.0.amount: 4000 days"),
        ({"targets": [TARGETS[0] | {"steps": [{"offset_seconds": 0, "action": "notify"}]}]}, None),
        (
            {"targets": [TARGETS[0] | {"steps": [{"offset_seconds": 0, "action": "remind", "level": 2}]}]},
            "targets.0.steps.0.level: remind has no level",
        ),
        ({"targets": [TARGETS[0] | {"steps": [{"offset_seconds": 0, "action": "reassign"}]}]}, "reassign wants a"),
        ({"targets": [TARGETS[0] | {"steps": [{"offset_seconds": 0, "action": "raise_level"}]}]}, "wants a level"),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused_in_clear_words(
    alpha: Workspace, terms: dict[str, Any], words: str | None
) -> None:
    sender = Sender.at(alpha)
    if words is None:
        await adopt(sender, "all", **terms)
        return
    with pytest.raises(UnusablePolicy) as refused:
        await adopt(sender, "all", **terms)
    assert words in str(refused.value)
    assert words in refused.value.details["faults"][0]


async def test_only_a_credential_with_the_scope_may_say_when_something_occurred(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    clerk = sender.as_caller(replace(caller(), scopes=frozenset({"backdate"})))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with pytest.raises(ScopeMissing):
        await sender.ticket(occurred_at=yesterday)
    ticket = await clerk.ticket(await sender.customer(), occurred_at=yesterday)
    later = yesterday + timedelta(hours=1)
    await clerk.send("ticket", "reply", ticket, text="Done", occurred_at=later)
    await sender.send("ticket", "add-note", ticket, text="written now")
    told = await recorded(alpha, ticket)
    assert [one.event.timestamp for one in told[:2]] == [yesterday, later]
    assert all(one.recorded_at > yesterday + timedelta(hours=23) for one in told)
    assert told[2].event.timestamp > later
    with pytest.raises(OccurredBeforeOpening):
        await clerk.send("ticket", "reply", ticket, text="Before", occurred_at=yesterday - timedelta(microseconds=1))
    with pytest.raises(OccurredLater):
        await clerk.send("ticket", "reply", ticket, text="Not yet", occurred_at=datetime.now(UTC) + timedelta(days=1))
