"""Traps of ServiceNow exports, each on a few rows of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from commands.identity import stream_id_for
from domain.event import SYSTEM_ACTOR, Channel, Role
from domain.priority import Grade, Priority
from domain.status import Status
from tests.commands.imports.files import event, events, rows_of, story_of, told, topics, write

if TYPE_CHECKING:
    from pathlib import Path

    from commands.imports.story import Story


def incident(path: Path, *changes: dict[str, str]) -> Story:
    """Tell one incident; a change is a row, numbered by the update counter unless it says otherwise."""
    return story_of("servicenow", path, *({"sys_mod_count": str(n)} | change for n, change in enumerate(changes)))


def test_the_first_row_opens_the_ticket_as_the_source_knew_it(tmp_path: Path) -> None:
    opened = event(incident(tmp_path, {"impact": "1 - High", "urgency": "3 - Low", "priority": "2 - High"}), "opened")
    assert opened.timestamp == datetime(2020, 2, 3, 8, 0, tzinfo=UTC)
    assert opened.requester_id == stream_id_for("customer", "servicenow-caller:Caller 7")
    assert opened.by.actor_id == stream_id_for("agent", "servicenow-user:Opener 1")
    assert (opened.by.role, opened.by.channel) == (Role.AGENT, Channel.IMPORT)
    assert opened.channel is Channel.PHONE
    assert opened.foreign_id == "servicenow:INC1"
    assert opened.subject == "Network / Wi-Fi / Slow"
    assert (opened.priority, opened.impact, opened.urgency) == (Priority.HIGH, Grade.HIGH, Grade.LOW)
    assert opened.custom_fields["made_sla"] == "true"
    assert opened.originator_id == stream_id_for("ticket", "servicenow:INC1")


def test_what_differs_from_the_row_before_is_what_happened(tmp_path: Path) -> None:
    story = incident(
        tmp_path,
        {},
        {"assignment_group": "Group 1", "assigned_to": "Resolver 2", "incident_state": "Active"},
        {
            "assignment_group": "Group 1",
            "assigned_to": "Resolver 2",
            "incident_state": "Active",
            "priority": "1 - Critical",
            "category": "Server",
            "location": "Hall 5",
        },
    )
    assert topics(story) == ["opened", "assigned", "categorised", "custom_field_set", "priority_changed"]
    assigned = event(story, "assigned")
    assert assigned.agent_id == stream_id_for("agent", "servicenow-user:Resolver 2")
    assert assigned.team_id == stream_id_for("team", "servicenow-group:Group 1")
    assert (assigned.status, assigned.by.actor_id) == (Status.OPEN, stream_id_for("agent", "servicenow-user:Updater 1"))
    assert event(story, "priority_changed").priority is Priority.URGENT


def test_a_row_that_differs_in_its_counter_and_stamp_alone_changes_nothing(tmp_path: Path) -> None:
    story = incident(tmp_path, {}, {"sys_updated_at": "3/2/2020 09:00", "sys_updated_by": "Updater 2"})
    assert topics(story) == ["opened"]
    assert [row.last - row.before for row in story.told] == [1, 0]


def test_rows_go_by_the_update_counter_where_stamps_are_equal(tmp_path: Path) -> None:
    rows = [
        {"sys_mod_count": "2", "incident_state": "Closed"},
        {"sys_mod_count": "0"},
        {"sys_mod_count": "1", "incident_state": "Resolved"},
        {"sys_mod_count": "10", "incident_state": "Closed", "made_sla": "false"},
    ]
    story = story_of("servicenow", tmp_path, *rows)
    assert topics(story) == ["opened", "solved", "closed", "custom_field_set"]
    assert [row.line for row in story.told] == [3, 4, 2, 5]


def test_a_first_row_with_a_later_counter_still_comes_first(tmp_path: Path) -> None:
    rows = [
        {"sys_mod_count": "3", "sys_updated_at": "3/2/2020 07:00", "assignment_group": "Group 1"},
        {"sys_mod_count": "1", "sys_updated_at": "3/2/2020 09:00", "assignment_group": "Group 2"},
        {"sys_mod_count": "2", "sys_updated_at": "3/2/2020 09:00", "assignment_group": "Group 3"},
    ]
    story = story_of("servicenow", tmp_path, *rows)
    assert [row.line for row in story.told] == [2, 3, 4]
    assert story.ticket.team_id == stream_id_for("team", "servicenow-group:Group 3")


def test_a_question_mark_is_nobody_and_nothing(tmp_path: Path) -> None:
    unknown = {"caller_id": "?", "opened_by": "?", "sys_created_by": "?", "sys_updated_by": "?", "category": "?"}
    story = incident(tmp_path, unknown | {"subcategory": "?", "u_symptom": "?", "opened_at": "?", "impact": "?"})
    opened = event(story, "opened")
    assert opened.by.actor_id == SYSTEM_ACTOR
    assert opened.by.role is Role.SYSTEM
    assert opened.requester_id == stream_id_for("customer", "servicenow-caller:unknown caller")
    assert (opened.category, opened.impact, opened.subject) == (None, None, "INC1")
    assert opened.timestamp == datetime(2020, 2, 3, 8, 2, tzinfo=UTC)
    assert "cmdb_ci" not in opened.custom_fields


def test_a_group_and_an_agent_can_be_taken_off(tmp_path: Path) -> None:
    held = {"assignment_group": "Group 1", "assigned_to": "Resolver 2", "incident_state": "Active"}
    story = incident(tmp_path, held, held | {"assigned_to": "?"}, held | {"assigned_to": "?", "assignment_group": "?"})
    assert topics(story) == ["opened", "assigned", "unassigned", "assigned"]
    assert (story.ticket.agent_id, story.ticket.team_id, story.ticket.status) == (None, None, Status.OPEN)


def test_the_junk_state_is_recorded_in_its_own_words_and_moves_nothing(tmp_path: Path) -> None:
    story = incident(tmp_path, {}, {"incident_state": "-100"}, {"incident_state": "Resolved"})
    assert topics(story) == ["opened", "source_status_recorded", "solved"]
    junk = event(story, "source_status_recorded")
    assert (junk.source_status, junk.status, junk.previous_status) == ("-100", Status.NEW, Status.NEW)


def test_an_incident_given_to_somebody_and_still_new_stays_new(tmp_path: Path) -> None:
    story = incident(tmp_path, {"assignment_group": "Group 1"}, {"assignment_group": "Group 1", "assigned_to": "R 1"})
    assert topics(story) == ["opened", "transferred", "assigned"]
    assert story.ticket.status is Status.NEW


def test_a_move_that_our_rules_forbid_is_recorded_as_what_happened(tmp_path: Path) -> None:
    story = incident(
        tmp_path,
        {},
        {"incident_state": "Active"},
        {"incident_state": "New"},
        {"incident_state": "Closed"},
        {"incident_state": "Active", "reopen_count": "1"},
        {"incident_state": "Active", "reopen_count": "1", "assigned_to": "Resolver 1"},
    )
    moves = [(e.previous_status, e.status, e.source_status) for e in events(story, "source_status_recorded")]
    assert moves == [
        (Status.NEW, Status.OPEN, "Active"),
        (Status.OPEN, Status.NEW, "New"),
        (Status.NEW, Status.CLOSED, "Closed"),
        (Status.CLOSED, Status.OPEN, "Active"),
    ]
    assert topics(story)[-1] == "assigned"


def test_a_reopening_is_an_event_also_when_it_was_solved_again_within_one_update(tmp_path: Path) -> None:
    story = incident(
        tmp_path,
        {"incident_state": "Resolved"},
        {"incident_state": "Active", "reopen_count": "1"},
        {"incident_state": "Resolved", "reopen_count": "1"},
        {"incident_state": "Resolved", "reopen_count": "2"},
    )
    assert topics(story) == ["opened", "solved", "reopened", "solved", "reopened", "solved"]


def test_waits_tell_the_requester_from_third_parties(tmp_path: Path) -> None:
    story = incident(
        tmp_path,
        {},
        {"incident_state": "Awaiting User Info"},
        {"incident_state": "Awaiting Vendor"},
        {"incident_state": "Awaiting Problem"},
        {"incident_state": "Active"},
    )
    assert topics(story) == ["opened", "set_pending", "put_on_hold", "put_on_hold", "resumed"]
    assert [e.third_party for e in events(story, "put_on_hold")] == ["vendor", "problem management"]


def test_the_future_does_not_leak_into_the_past(tmp_path: Path) -> None:
    story = incident(
        tmp_path,
        {},
        {"incident_state": "Active", "assignment_group": "Group 1"},
        {"incident_state": "Resolved", "assignment_group": "Group 1", "sys_updated_at": "5/2/2020 10:00"},
    )
    before = b"".join(e.state_json() + str(e.personal_values()).encode() for e in story.events[:-1])
    for later in (b"code 9", b"Solver 3", b"2020-02-09", b"2020-02-14"):
        assert later not in before
    solved = event(story, "solved")
    assert solved.timestamp == datetime(2020, 2, 5, 10, 0, tzinfo=UTC)
    assert solved.resolution_code == "code 9"
    assert solved.by.on_behalf_of == stream_id_for("agent", "servicenow-user:Solver 3")


def test_a_missed_promise_of_the_source_shows_when_its_flag_falls(tmp_path: Path) -> None:
    story = incident(tmp_path, {}, {"made_sla": "false"})
    field = event(story, "custom_field_set")
    assert (field.name, field.value, field.previous_value) == ("made_sla", "false", "true")


def test_times_without_a_zone_are_read_in_the_zone_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of("servicenow", {"opened_at": "1/7/2020 08:00"}))
    (story,), _ = told("servicenow", path, "America/Sao_Paulo")
    assert story.events[0].timestamp == datetime(2020, 7, 1, 11, 0, tzinfo=UTC)


def test_iso_times_are_read_as_well_and_keep_their_own_zone(tmp_path: Path) -> None:
    story = incident(tmp_path, {"opened_at": "2020-07-01T08:00:00+02:00"})
    assert story.events[0].timestamp == datetime(2020, 7, 1, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sys_updated_at": "31/2/2020 10:00"}, "the time '31/2/2020 10:00' is none that this format knows"),
        ({"sys_updated_at": "?"}, "has no time"),
        ({"sys_mod_count": "many"}, "the count 'many' is no number"),
        ({"sys_mod_count": "?"}, "has no sys_mod_count"),
        ({"priority": "9 - Cosmic", "assigned_to": "Resolver 9"}, "the priority '9' is not known"),
        ({"incident_state": "?"}, "has no incident_state"),
        ({"reopen_count": "x"}, "the count 'x' is no number"),
    ],
)
def test_a_row_that_cannot_be_told_is_refused_whole_and_the_case_goes_on(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    bad = {"sys_mod_count": "1", "category": "Wrong"} | change
    rows = rows_of("servicenow", {}, bad, {"sys_mod_count": "2", "category": "Server"})
    (story,), refusals = told("servicenow", write(tmp_path / "a.csv", rows))
    assert [(refusal.line, refusal.reason) for refusal in refusals] == [(3, reason)]
    assert topics(story) == ["opened", "categorised"]
    assert story.ticket.category == "Server"
    assert not any("Resolver 9" in label for _, label in story.source.agents)
