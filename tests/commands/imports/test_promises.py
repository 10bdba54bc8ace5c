"""Which promises imported tickets go by, and that importing again does not mind what was promised since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commands.desk import Desk
from commands.identity import stream_id_for
from commands.imports import FORMATS, Summary, run_import
from domain.customer_events import Tier
from domain.service_levels import SERVICE_LEVELS_ID
from domain.sla_terms import SlaTerms
from domain.ticket_breach_events import SlaAnnouncementsAsked
from domain.ticket_events import Opened, TicketEvent
from domain.ticket_sla_events import SlaTermsChanged
from domain.ticket_timeline import after
from replay.stream import recorded
from tests.commands.imports.files import rows_of, write
from tests.commands.sending import Sender

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from domain.event import Event
    from domain.service_levels import Book
    from domain.ticket_timeline import Timeline
    from storage.database import Workspace

TICKET = stream_id_for("ticket", "servicenow:INC1")
STATES = ("New", "Active", "Active", "Resolved", "Closed")
PRIORITIES = ("3 - Moderate", "1 - Critical", "1 - Critical", "3 - Moderate", "3 - Moderate")


def incident(number: int = 1, *, states: int = len(STATES)) -> list[dict[str, str]]:
    """Make an incident that is critical for a while."""
    return rows_of(
        "servicenow",
        *(
            {"number": f"INC{number}", "sys_mod_count": str(n), "incident_state": state, "priority": priority}
            for n, (state, priority) in enumerate(zip(STATES[:states], PRIORITIES, strict=False))
        ),
    )


async def adopt(workspace: Workspace, name: str, order: int = 9, seconds: int = 60, **match: Any) -> None:
    await Sender.at(workspace).send(
        "service_levels",
        "adopt-policy",
        SERVICE_LEVELS_ID,
        name=name,
        order=order,
        match=match,
        targets=[{"metric": "first_reply", "amount": seconds}],
    )


async def brought_in(workspace: Workspace, path: Path) -> Summary:
    summary = await run_import(workspace, FORMATS["servicenow"], path)
    assert summary.rows_accounted == summary.rows_read
    return summary


async def told(workspace: Workspace) -> list[Event]:
    return [one.event for one in await recorded(workspace, TICKET)]


def policies_of(events: list[Event]) -> list[str | None]:
    terms = [event.terms for event in events if isinstance(event, (Opened, SlaTermsChanged))]
    return [None if one is None else one.policy for one in terms]


async def test_a_story_goes_by_the_policies_that_hold_as_it_goes_on(alpha: Workspace, tmp_path: Path) -> None:
    await adopt(alpha, "all")
    await adopt(alpha, "urgent", 1, priorities=["urgent"])
    summary = await brought_in(alpha, write(tmp_path / "a.csv", incident()))
    events = await told(alpha)
    assert policies_of(events) == ["all", "urgent", "all"]
    first, second = [event for event in events if isinstance(event, SlaTermsChanged)]
    assert first.previous_terms == second.terms == SlaTerms(policy="all", policy_version=1)
    before = events[first.originator_version - 2]
    assert (first.timestamp, first.by) == (before.timestamp, before.by), "at the source's time, with what it is for"
    assert summary.events["ticket.sla_terms_changed"] == 2
    assert summary.events.total() + 2 == (await alpha.log.head()).position, "two policies were adopted"


async def test_importing_again_adds_nothing_whatever_was_adopted_since(alpha: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", incident())
    await brought_in(alpha, path)
    await adopt(alpha, "all")
    for _ in range(2):
        before = (await alpha.log.head()).position
        again = await brought_in(alpha, path)
        assert (again.rows_refused, again.tickets.known, again.events.total()) == (0, 1, 0)
        assert (await alpha.log.head()).position == before
    assert policies_of(await told(alpha)) == [None]


async def test_an_imported_ticket_is_silent_unless_its_announcements_are_asked_for(
    alpha: Workspace, beta: Workspace, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", incident())
    for workspace, announce in ((alpha, False), (beta, True)):
        for _ in range(2):
            await run_import(workspace, FORMATS["servicenow"], path, announce=announce)
        timeline: Timeline | None = None
        for event in await told(workspace):
            assert isinstance(event, TicketEvent)
            timeline = after(timeline, event)
        assert timeline is not None
        assert (timeline.announces_from is not None) is announce
        asked = [event for event in await told(workspace) if isinstance(event, SlaAnnouncementsAsked)]
        assert len(asked) == announce


async def test_a_case_that_has_grown_goes_on_behind_what_was_promised_about_it(
    alpha: Workspace, tmp_path: Path
) -> None:
    await adopt(alpha, "all")
    await adopt(alpha, "urgent", 1, priorities=["urgent"])
    await brought_in(alpha, write(tmp_path / "a.csv", incident(states=2)))
    await adopt(alpha, "urgent", 1, seconds=30, priorities=["urgent"])
    grown = write(tmp_path / "b.csv", incident())
    summary = await brought_in(alpha, grown)
    assert (summary.rows_refused, summary.tickets_continued) == (0, 1)
    events = await told(alpha)
    assert [event.originator_version for event in events] == list(range(1, len(events) + 1))
    assert policies_of(events) == ["all", "urgent", "all"]
    assert (await brought_in(alpha, grown)).events.total() == 0


async def test_a_customer_whom_the_desk_knows_is_of_the_tier_that_the_desk_says(
    alpha: Workspace, tmp_path: Path
) -> None:
    sender = Sender.at(alpha)
    customer = await sender.customer("Caller 7", foreign_id="servicenow-caller:Caller 7")
    await sender.send("customer", "change-tier", customer, tier="gold")
    await adopt(alpha, "gold", tiers=["gold"])
    await brought_in(alpha, write(tmp_path / "a.csv", incident()))
    opened = (await told(alpha))[0]
    assert isinstance(opened, Opened)
    assert (opened.requester_id, opened.tier) == (customer, Tier.GOLD)
    assert opened.terms == SlaTerms(policy="gold", policy_version=1)


async def test_what_is_adopted_while_an_import_runs_holds_for_all_that_is_recorded_after_it(
    alpha: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.csv", [row for number in range(100) for row in incident(number, states=1)])
    look_up = Desk.book
    looks = 0

    async def and_then_something_is_adopted(desk: Desk, *, fresh: bool = False) -> Book:
        nonlocal looks
        looks += 1
        found = await look_up(desk, fresh=fresh)
        if looks == 2:  # the second group of cases is decided on what has been replaced
            with monkeypatch.context() as undone:
                undone.setattr(Desk, "book", look_up)
                await adopt(alpha, "all")
        return found

    monkeypatch.setattr(Desk, "book", and_then_something_is_adopted)
    await brought_in(alpha, path)
    adopted, seen = False, []
    for row in await alpha.log.page(0, 10_000):
        if row.topic == "service_levels.policy_adopted":
            adopted = True
        elif row.topic == "ticket.opened":
            assert (b'"policy":"all"' in row.state) is adopted
            seen.append(adopted)
    assert (len(seen), set(seen)) == (100, {False, True})
