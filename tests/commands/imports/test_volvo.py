"""Traps of the Volvo logs, each on a few rows of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from commands.identity import stream_id_for
from domain.event import SYSTEM_ACTOR, Role
from domain.priority import Priority
from domain.status import Status
from tests.commands.imports.files import event, events, rows_of, story_of, told, topics, write

if TYPE_CHECKING:
    from pathlib import Path

    from commands.imports.story import Story


def case(path: Path, *steps: str | dict[str, str]) -> Story:
    """Tell one case, a step "Status/Sub-status" or a change of the usual row, a minute apart."""
    changes = []
    for minute, step in enumerate(steps):
        change = step
        if isinstance(change, str):
            status, sub = change.split("/")
            change = {"concept:name": status, "lifecycle:transition": sub}
        changes.append({"time:timestamp": f"2020-03-01 10:{minute:02}:00+00:00"} | change)
    return story_of("volvo", path, *changes)


def test_a_queued_case_is_new_with_its_team_and_open_once_accepted(tmp_path: Path) -> None:
    story = case(tmp_path, "Queued/Awaiting Assignment", "Accepted/In Progress", "Queued/Awaiting Assignment")
    assert topics(story) == ["opened", "transferred", "assigned", "unassigned"]
    assert story.ticket.status is Status.OPEN
    assert story.ticket.team_id == stream_id_for("team", "volvo-group:Line A")


def test_nested_waits_say_for_whom(tmp_path: Path) -> None:
    story = case(
        tmp_path,
        "Accepted/Wait - User",
        "Accepted/Wait - Vendor",
        "Accepted/Wait - Customer",
        "Accepted/Wait",
        "Accepted/In Progress",
    )
    assert topics(story)[2:] == ["set_pending", "put_on_hold", "put_on_hold", "put_on_hold", "resumed"]
    parties = [e.third_party for e in events(story, "put_on_hold")]
    assert parties == ["Vendor", "Customer", "not named by the source"]


def test_a_completed_case_that_is_accepted_again_is_recorded_as_what_happened(tmp_path: Path) -> None:
    story = case(tmp_path, "Accepted/In Progress", "Completed/Closed", "Accepted/Wait", "Completed/Cancelled")
    assert topics(story)[2:] == ["solved", "closed", "source_status_recorded", "solved", "closed"]
    back = event(story, "source_status_recorded")
    assert (back.previous_status, back.status, back.source_status) == (Status.CLOSED, Status.ON_HOLD, "Accepted/Wait")
    assert story.ticket.resolution_code == "Cancelled"


def test_a_resolved_case_can_be_reopened_by_our_own_rules(tmp_path: Path) -> None:
    story = case(tmp_path, "Accepted/In Progress", "Completed/Resolved", "Accepted/In Progress", "Completed/In Call")
    assert topics(story)[2:] == ["solved", "reopened", "solved"]


def test_a_system_user_acts_as_the_system_and_is_given_nothing(tmp_path: Path) -> None:
    story = case(tmp_path, {"org:resource": "Siebel"}, {"org:resource": "-"})
    assert {e.by.role for e in story.events} == {Role.SYSTEM}
    assert {e.by.actor_id for e in story.events} == {SYSTEM_ACTOR}
    assert story.ticket.agent_id is None
    assert not story.source.agents


@pytest.mark.parametrize("state", ["Unmatched/Unmatched", "Frozen/Solid", "Accepted/Daydreaming"])
def test_a_state_that_means_nothing_here_is_recorded_in_its_own_words(tmp_path: Path, state: str) -> None:
    story = case(tmp_path, "Accepted/In Progress", state)
    recorded = event(story, "source_status_recorded")
    assert (recorded.source_status, recorded.status) == (state, Status.OPEN)


def test_a_sub_status_that_we_do_not_tell_apart_is_kept_in_its_own_words(tmp_path: Path) -> None:
    story = case(tmp_path, "Accepted/In Progress", "Accepted/Assigned", "Accepted/Assigned")
    assert topics(story) == ["opened", "assigned", "source_status_recorded"]


def test_impact_gives_the_priority(tmp_path: Path) -> None:
    story = case(tmp_path, {"impact": "Major"}, {"impact": "Low"})
    assert event(story, "opened").priority is Priority.URGENT
    assert event(story, "priority_changed").priority is Priority.LOW


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"impact": "Cosmic"}, "the impact 'cosmic' is not known"),
        ({"time:timestamp": "yesterday"}, "the time 'yesterday' is none that this format knows"),
        ({"concept:name": ""}, "has no status"),
    ],
)
def test_a_step_that_cannot_be_told_is_refused(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    _, refusals = told("volvo", write(tmp_path / "a.csv", rows_of("volvo", {}, change)))
    assert [(refusal.line, refusal.case, refusal.reason) for refusal in refusals] == [(3, "1-1", reason)]
