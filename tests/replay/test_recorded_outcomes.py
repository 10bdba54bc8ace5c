"""What a real desk recorded of its promises, beside what our clocks make of its imported log by a policy fitted to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from msgspec.structs import replace

from commands.imports import FORMATS, run_import
from domain.calendar import CalendarTerms
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK
from domain.sla_clocks import ClockState, clocks, state
from domain.sla_policy import PolicyTerms, Unit
from domain.sla_terms import Metric
from domain.ticket import Ticket
from domain.ticket_timeline import after
from replay.as_of import fold
from storage.codec import decode
from tests.commands.imports.files import real_log
from tests.replay.recorded_outcomes import HOURS, WAYS, Way, best_fit, fitted, incidents_of, minutes_taken, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.sla_clocks import Clock
    from domain.ticket_timeline import Timeline
    from storage.codec import Recorded
    from storage.database import Workspace
    from tests.replay.recorded_outcomes import Fit, Incident

FOLDER = Path(__file__).parents[2] / "docs/sla"
CALENDAR = CalendarTerms.model_validate_json((FOLDER / "made-sla-calendar.json").read_bytes())
POLICY = PolicyTerms.model_validate_json((FOLDER / "made-sla-policy.json").read_bytes())
TOTAL = Metric.TOTAL_RESOLUTION
PRIORITIES = {
    "1 - Critical": Priority.URGENT,
    "2 - High": Priority.HIGH,
    "3 - Moderate": Priority.NORMAL,
    "4 - Low": Priority.LOW,
}


class Outcome(NamedTuple):
    """An imported incident: what was recorded of its promise, and our clock of it."""

    number: str
    priority: Priority
    kept: bool
    clock: Clock

    @property
    def computed(self) -> bool:
        """Whether our clock says that it was kept."""
        found = state(self.clock, self.clock.ended_at or self.clock.due_at)
        assert found in (ClockState.MET, ClockState.BREACHED)
        return found is ClockState.MET


@pytest.fixture(scope="module")
def incidents() -> list[Incident]:
    return incidents_of(real_log("servicenow"))


@pytest.fixture(scope="module")
def fit(incidents: list[Incident]) -> Fit:
    return best_fit([incident for incident in incidents if incident.is_fitted])


async def outcomes_of(workspace: Workspace, policy: PolicyTerms) -> list[Outcome]:
    """Import the log, and give each ticket's flag as it was written last and its clock by a policy."""
    await run_import(workspace, FORMATS["servicenow"], real_log("servicenow"))
    rows = await workspace.log.page(0, 1_000_000)
    await workspace.keyring.load(rows)
    streams: dict[object, list[Recorded]] = {}
    for row in rows:
        if row.topic.startswith("ticket."):
            streams.setdefault(row.stream, []).append(decode(row, workspace.keyring))
    book = EMPTY_BOOK.with_calendar("weekdays", CALENDAR).with_policy("made-sla", policy)
    found = []
    for recorded in streams.values():
        ticket = fold(recorded)
        assert isinstance(ticket, Ticket)
        timeline: Timeline | None = None
        for one in recorded:
            timeline = after(timeline, one.event)
        assert timeline is not None
        named = replace(timeline, terms=("made-sla", 1, "weekdays", 1))
        (clock,) = (one for one in clocks(named, book) if one.metric is TOTAL)
        number = (ticket.foreign_id or "").removeprefix("servicenow:")
        found.append(Outcome(number, ticket.priority, ticket.custom_fields["made_sla"] == "true", clock))
    return found


class Agreement(NamedTuple):
    """Numbers of incidents by what was recorded and, after it, what is computed."""

    kept_kept: int
    broken_broken: int
    kept_broken: int
    broken_kept: int


def agreement(outcomes: Iterable[Outcome]) -> dict[Priority, Agreement]:
    """Count by priority how far computed outcomes agree with recorded ones."""
    counts = Counter((one.priority, one.kept, one.computed) for one in outcomes)
    ways = ((True, True), (False, False), (True, False), (False, True))
    return {priority: Agreement(*(counts[priority, *way] for way in ways)) for priority in PRIORITIES.values()}


def test_the_policy_is_the_one_that_explains_the_one_half_of_the_incidents_best(fit: Fit) -> None:
    assert fit.way == Way("closed", frozenset(), "weekdays 0-24")
    assert fit.wrong == 0
    assert POLICY.until_closed == (TOTAL,)
    assert POLICY.paused_in(TOTAL) == ()
    assert {target.match.priorities: target.amount for target in POLICY.targets} == {
        (PRIORITIES[priority],): minutes * 60 for priority, minutes in fit.allowed.items()
    }
    assert {target.unit for target in POLICY.targets} == {Unit.BUSINESS}
    assert CALENDAR.hours.keys() == {"mon", "tue", "wed", "thu", "fri"}


async def test_of_the_other_half_the_clocks_of_the_imported_log_agree_with_the_record_on_all_but_four(
    alpha: Workspace, incidents: list[Incident], fit: Fit
) -> None:
    outcomes = await outcomes_of(alpha, POLICY)
    fitted = {incident.number for incident in incidents if incident.is_fitted}
    assert agreement(one for one in outcomes if one.number in fitted) == {
        Priority.URGENT: (0, 14, 0, 0),
        Priority.HIGH: (0, 38, 0, 0),
        Priority.NORMAL: (378, 962, 0, 0),
        Priority.LOW: (58, 50, 0, 0),
    }
    assert agreement(one for one in outcomes if one.number not in fitted) == {
        Priority.URGENT: (1, 12, 0, 0),
        Priority.HIGH: (0, 29, 0, 0),
        Priority.NORMAL: (373, 968, 2, 0),
        Priority.LOW: (65, 48, 0, 2),
    }
    assert {one.number for one in outcomes if one.kept is not one.computed} == {
        "INC0003089",
        "INC0003175",
        "INC0003451",
        "INC0003815",
    }
    # Our clocks, from events through the timeline and the calendar, and minutes counted from the file are of one mind.
    assert {one.number: one.computed for one in outcomes} == {
        incident.number: minutes_taken(incident, fit.way) <= fit.allowed[incident.priority] for incident in incidents
    }
    elapsed, by_number = HOURS[fit.way.hours], {incident.number: incident for incident in incidents}
    for one in outcomes:
        due, incident = one.clock.due_at.replace(tzinfo=None), by_number[one.number]
        assert elapsed(due) - elapsed(incident.opened_at) == fit.allowed[incident.priority]


def test_measured_until_solved_no_policy_explains_much_more_than_the_commonest_outcome_does(
    incidents: list[Incident],
) -> None:
    ours, others = ([one for one in incidents if one.is_fitted is half] for half in (True, False))
    fits = [fitted(way, ours) for way in WAYS if way.until != "closed"]
    best = min(fits, key=lambda one: one.wrong)
    assert (best.way, best.wrong, wrong(best, others)) == (Way("last solved", frozenset(), "always"), 309, 303)
    commonest = {
        priority: Counter(one.kept for one in ours if one.priority == priority).most_common(1)[0][0]
        for priority in PRIORITIES
    }
    assert sum(one.kept is not commonest[one.priority] for one in others) == 426


def test_the_other_half_would_have_chosen_the_same_way_of_measuring(incidents: list[Incident], fit: Fit) -> None:
    other = best_fit([one for one in incidents if not one.is_fitted])
    assert (other.way, other.wrong) == (fit.way, 2)
    assert wrong(other, [one for one in incidents if one.is_fitted]) == 1
