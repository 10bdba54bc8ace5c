"""Traps of the Italian help desk's log, each on a few rows of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from commands.identity import stream_id_for
from commands.imports.formats.italian_helpdesk import MOVES, NOTED
from domain.status import Status
from tests.commands.imports.files import event, rows_of, story_of, told, topics, write

if TYPE_CHECKING:
    from pathlib import Path

    from commands.imports.story import Story


def life(path: Path, *activities: str | dict[str, str]) -> Story:
    """Tell one ticket's activities, a minute apart."""
    changes = [activity if isinstance(activity, dict) else {"Activity": activity} for activity in activities]
    times = [{"Complete Timestamp": f"2020/07/01 09:{minute:02}:00.250"} for minute in range(len(changes))]
    return story_of("italian-helpdesk", path, *(time | change for time, change in zip(times, changes, strict=True)))


def test_local_time_with_milliseconds_is_romes(tmp_path: Path) -> None:
    story = life(tmp_path, "Insert ticket")
    assert story.events[0].timestamp == datetime(2020, 7, 1, 7, 0, 0, 250_000, tzinfo=UTC)


def test_an_hour_that_comes_twice_is_the_first_and_one_that_is_skipped_is_read_all_the_same(tmp_path: Path) -> None:
    twice = {"Case ID": "Case 1", "Complete Timestamp": "2020/10/25 02:30:00.000"}
    skipped = {"Case ID": "Case 2", "Complete Timestamp": "2020/03/29 02:30:00.000"}
    stories, refusals = told("italian-helpdesk", write(tmp_path / "a.csv", rows_of("italian-helpdesk", twice, skipped)))
    assert refusals == []
    assert [story.events[0].timestamp for story in stories] == [
        datetime(2020, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2020, 3, 29, 1, 30, tzinfo=UTC),
    ]


def test_the_usual_life_goes_through_our_own_commands(tmp_path: Path) -> None:
    story = life(tmp_path, "Assign seriousness", "Take in charge ticket", "Wait", "Resolve ticket", "Closed")
    assert topics(story) == ["opened", "assigned", "put_on_hold", "solved", "closed"]
    assert event(story, "assigned").agent_id == stream_id_for("agent", "italian-helpdesk-resource:Resource Value 1")
    assert event(story, "assigned").team_id == stream_id_for("team", "italian-helpdesk-workgroup:Workgroup Value 1")


def test_an_exact_duplicate_is_counted_and_not_told(tmp_path: Path) -> None:
    row = {"Activity": "Wait"}
    story = life(tmp_path, "Insert ticket", row | {"Complete Timestamp": "2020/07/01 09:01:00.250"}, row)
    assert topics(story) == ["opened", "put_on_hold", "source_status_recorded"]
    again = life(tmp_path, "Insert ticket", *[row | {"Complete Timestamp": "2020/07/01 09:01:00.250"}] * 3)
    assert topics(again) == ["opened", "put_on_hold"]


def test_a_closed_ticket_taken_in_charge_again_is_recorded_as_what_happened(tmp_path: Path) -> None:
    story = life(tmp_path, "Insert ticket", "Resolve ticket", "Closed", {"Activity": "Take in charge ticket"})
    assert topics(story) == ["opened", "solved", "closed", "source_status_recorded", "assigned"]
    assert event(story, "source_status_recorded").status is Status.OPEN


def test_a_ticket_closed_without_being_resolved_is_recorded_as_what_happened(tmp_path: Path) -> None:
    story = life(tmp_path, "Insert ticket", "Wait", "Closed")
    closed = event(story, "source_status_recorded")
    assert (closed.previous_status, closed.status) == (Status.ON_HOLD, Status.CLOSED)


@pytest.mark.parametrize(
    "activity", [*sorted(MOVES), *sorted(NOTED), "VERIFIED", "RESOLVED", "INVALID", "DUPLICATE", "Never heard of"]
)
def test_every_activity_leaves_its_trace_at_every_point_of_a_life(tmp_path: Path, activity: str) -> None:
    for earlier in ([], ["Take in charge ticket"], ["Wait"], ["Resolve ticket"], ["Resolve ticket", "Closed"]):
        story = life(tmp_path, "Insert ticket", *earlier, activity)
        assert story.told[-1].last > story.told[-1].before


def test_changed_attributes_are_told(tmp_path: Path) -> None:
    changed = {"Activity": "Wait", "customer": "Value 9", "product": "Value 8", "seriousness_2": "Value 4"}
    story = life(tmp_path, "Insert ticket", "Take in charge ticket", changed | {"workgroup": "Value 2"})
    assert topics(story)[2:] == ["requester_changed", "categorised", "custom_field_set", "transferred", "put_on_hold"]
    assert story.ticket.requester_id == stream_id_for("customer", "italian-helpdesk-customer:Customer Value 9")


def test_the_variant_which_knows_the_whole_course_is_not_told(tmp_path: Path) -> None:
    story = life(tmp_path, "Insert ticket")
    assert "Variant" not in str(story.events[0].personal_values()) + story.events[0].state_json().decode()
