"""What a real desk recorded of its promises, beside what our clocks make of its imported log by a policy fitted to it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from pydantic_core import from_json

from commands.imports import FORMATS, run_import
from domain.priority import Priority
from domain.service_levels import SERVICE_LEVELS_ID
from domain.sla_clocks import ClockState, clocks, state
from domain.sla_policy import Target
from domain.sla_terms import Metric
from domain.ticket import Ticket
from domain.ticket_timeline import after
from projections import directory, ticket_queue
from projections.runner import Runner
from replay.as_of import fold
from replay.what_if import what_if
from replay.what_if_asked import Asked, GivenPolicy
from storage.codec import decode
from tests.commands.imports.files import real_log
from tests.commands.sending import Sender
from tests.replay.recorded_outcomes import HOURS, WAYS, Way, best_of, fitted, incidents_of, minutes_taken, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from domain.service_levels import Book
    from domain.sla_clocks import Clock
    from domain.ticket_timeline import Timeline
    from storage.codec import Recorded
    from storage.database import Workspace
    from tests.replay.recorded_outcomes import Fit, Incident

FOLDER = Path(__file__).parents[2] / "docs/sla"


CALENDAR = from_json((FOLDER / "made-sla-calendar.json").read_bytes())
POLICY = from_json((FOLDER / "made-sla-policy.json").read_bytes())
MEASURED = Way("closed", frozenset(), "weekdays 0-24")
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
def halves(incidents: list[Incident]) -> tuple[list[Incident], list[Incident]]:
    """Give the half that a policy is fitted to, and the other."""
    ours, others = ([one for one in incidents if one.is_fitted is ours] for ours in (True, False))
    return ours, others


@pytest.fixture(scope="module")
def fits(halves: tuple[list[Incident], list[Incident]]) -> list[Fit]:
    return [fitted(way, halves[0]) for way in WAYS]


async def imported(workspace: Workspace) -> Book:
    """Adopt calendar and policy, and import the log."""
    desk = Sender.at(workspace)
    await desk.send("service_levels", "adopt-calendar", SERVICE_LEVELS_ID, **CALENDAR)
    await desk.send("service_levels", "adopt-policy", SERVICE_LEVELS_ID, **POLICY)
    await run_import(workspace, FORMATS["servicenow"], real_log("servicenow"))
    return await desk.desk.book(fresh=True)


async def outcomes_of(workspace: Workspace, book: Book) -> list[Outcome]:
    """Give each ticket's flag as it was written last and its clock."""
    rows = await workspace.log.page(0, 1_000_000)
    await workspace.keyring.load(rows)
    streams: dict[UUID, list[Recorded]] = {}
    for row in rows:
        if row.topic.startswith("ticket."):
            streams.setdefault(row.stream, []).append(decode(row, workspace.keyring))
    found = []
    for recorded in streams.values():
        ticket = fold(recorded)
        assert isinstance(ticket, Ticket)
        timeline: Timeline | None = None
        for one in recorded:
            timeline = after(timeline, one.event)
        assert timeline is not None
        (clock,) = clocks(timeline, book)
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


def test_the_policy_is_the_one_that_explains_the_one_half_of_the_incidents_best(fits: list[Fit]) -> None:
    fit = best_of(fits)
    assert fit.way == MEASURED
    assert fit.wrong == 0
    promise = {"metric": TOTAL, "unit": "business"}
    assert {
        "name": "made-sla",
        "calendar": "weekdays",
        "targets": [
            {**promise, "match": {"priorities": [PRIORITIES[priority]]}, "amount": minutes * 60}
            for priority, minutes in fit.allowed.items()
        ],
        "until_closed": [TOTAL],
    } == POLICY
    weekdays = ("mon", "tue", "wed", "thu", "fri")
    round_the_clock = {day: [["00:00", "24:00"]] for day in weekdays}
    assert {"name": "weekdays", "time_zone": "UTC", "hours": round_the_clock} == CALENDAR


def test_others_that_explain_that_half_as_well_are_of_its_kind_and_no_better_on_the_other(
    halves: tuple[list[Incident], list[Incident]], fits: list[Fit]
) -> None:
    as_well = {fit.way: wrong(fit, halves[1]) for fit in fits if not fit.wrong}
    assert {way._replace(hours="") for way in as_well} == {Way("closed", frozenset(), "")}
    assert {way.hours: count for way, count in as_well.items()} == {
        "always": 4,
        "weekdays 0-24": 4,
        "weekdays 7-20": 6,
        "weekdays 8-20": 6,
        "weekdays 8-18": 7,
    }


async def test_of_the_other_half_the_clocks_of_the_imported_log_agree_with_the_record_on_all_but_four(
    alpha: Workspace, incidents: list[Incident], fits: list[Fit]
) -> None:
    fit = best_of(fits)
    outcomes = await outcomes_of(alpha, await imported(alpha))
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
    # So is what `desk sla what-if` takes for what was.
    runner = Runner(alpha.database, [ticket_queue.VIEW, directory.VIEW])
    await runner.catch_up(alpha)
    await runner.release()
    other = GivenPolicy(order=1, targets=(Target(metric=TOTAL, amount=60),))
    report = await what_if(alpha, Asked(policy=other, flips=0), now=datetime.now(UTC))
    assert {
        (line.group, line.then.met, line.then.breached) for line in report.by["priority"] if line.metric is TOTAL
    } == {
        ("urgent", 1, 26),
        ("high", 0, 67),
        ("normal", 751, 1_932),
        ("low", 125, 98),
    }


def test_measured_until_solved_no_policy_explains_much_more_than_the_commonest_outcome_does(
    halves: tuple[list[Incident], list[Incident]], fits: list[Fit]
) -> None:
    ours, others = halves
    best = best_of(fit for fit in fits if fit.way.until != "closed")
    assert (best.way, best.wrong, wrong(best, others)) == (Way("last solved", frozenset(), "always"), 309, 303)
    commonest = {
        priority: Counter(one.kept for one in ours if one.priority == priority).most_common(1)[0][0]
        for priority in PRIORITIES
    }
    assert sum(one.kept is not commonest[one.priority] for one in others) == 426


def test_the_other_half_would_have_chosen_the_same_way_of_measuring(
    halves: tuple[list[Incident], list[Incident]],
) -> None:
    ours, others = halves
    other = best_of(fitted(way, others) for way in WAYS)
    assert (other.way, other.wrong, wrong(other, ours)) == (MEASURED, 2, 1)


def test_most_that_were_recorded_as_broken_had_been_solved_in_time_and_were_closed_late(
    incidents: list[Incident], fits: list[Fit]
) -> None:
    until_solved = best_of(fits)._replace(way=MEASURED._replace(until="last solved"))
    broken = [one for one in incidents if not one.kept]
    assert (len(broken), wrong(until_solved, broken)) == (2_123, 1_208)
    closings = Counter(one.reached("Closed").date() for one in incidents)
    assert closings.most_common(1) == [(date(2016, 3, 24), 1_473)]
    at_once = [
        one
        for one in incidents
        if (datetime(2016, 3, 24, 18) <= one.reached("Closed") < datetime(2016, 3, 24, 19))  # noqa: DTZ001
        and one.priority == "3 - Moderate"
    ]
    assert (len(at_once), [one.number for one in at_once if one.kept]) == (1_342, ["INC0003451", "INC0003815"])
