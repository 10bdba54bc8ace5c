"""Small foreign logs written for one test each, and the real ones where they lie."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from commands.imports import FORMATS
from commands.imports.format import Clock
from commands.imports.reading import Refusal, cases, layout_of, survey
from commands.imports.story import Source, Story
from commands.imports.telling import tell
from domain.ticket_events import TicketType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERVICENOW = {
    "number": "INC1",
    "incident_state": "New",
    "active": "true",
    "reassignment_count": "0",
    "reopen_count": "0",
    "sys_mod_count": "0",
    "made_sla": "true",
    "caller_id": "Caller 7",
    "opened_by": "Opener 1",
    "opened_at": "3/2/2020 08:00",
    "sys_created_by": "Creator 1",
    "sys_created_at": "3/2/2020 08:02",
    "sys_updated_by": "Updater 1",
    "sys_updated_at": "3/2/2020 08:05",
    "contact_type": "Phone",
    "location": "Hall 4",
    "category": "Network",
    "subcategory": "Wi-Fi",
    "u_symptom": "Slow",
    "cmdb_ci": "?",
    "impact": "2 - Medium",
    "urgency": "2 - Medium",
    "priority": "3 - Moderate",
    "assignment_group": "?",
    "assigned_to": "?",
    "knowledge": "false",
    "u_priority_confirmation": "false",
    "notify": "Do Not Notify",
    "problem_id": "?",
    "rfc": "?",
    "vendor": "?",
    "caused_by": "?",
    "closed_code": "code 9",
    "resolved_by": "Solver 3",
    "resolved_at": "9/2/2020 10:00",
    "closed_at": "14/2/2020 10:00",
}
ITALIAN = {
    "Case ID": "Case 1",
    "Activity": "Assign seriousness",
    "Resource": "Value 1",
    "Complete Timestamp": "2020/07/01 09:00:00.250",
    "Variant": "Variant 3",
    "Variant index": "3",
    "Variant.1": "Variant 3",
    "seriousness": "Value 1",
    "customer": "Value 4",
    "product": "Value 2",
    "responsible_section": "Value 1",
    "seriousness_2": "Value 2",
    "service_level": "Value 2",
    "service_type": "Value 1",
    "support_section": "Value 1",
    "workgroup": "Value 1",
}
VOLVO = {
    "org:group": "Line A",
    "resource country": "Sweden",
    "organization country": "se",
    "org:resource": "Astrid",
    "organization involved": "Team 2nd",
    "org:role": "",
    "concept:name": "Accepted",
    "impact": "Medium",
    "product": "PROD1",
    "lifecycle:transition": "In Progress",
    "time:timestamp": "2020-03-01 10:00:00+00:00",
    "case:concept:name": "1-1",
}
BASES: Mapping[str, Mapping[str, str]] = {"servicenow": SERVICENOW, "italian-helpdesk": ITALIAN, "volvo": VOLVO}

REAL = {
    "servicenow": ("uci_servicenow_first3000.csv.gz", 21_453, 3_000),
    "italian-helpdesk": ("italian_helpdesk_full.csv.gz", 21_348, 4_580),
    "volvo": ("bpi2013_volvo_closed_problems.csv.gz", 6_660, 1_487),
}
"""Format → file name, rows, cases."""


def rows_of(format_name: str, *changes: Mapping[str, str]) -> list[dict[str, str]]:
    """Give the usual row of a format once for each of the changes, with that change."""
    return [{**BASES[format_name], **change} for change in changes]


def text_of(rows: Sequence[Mapping[str, str]], delimiter: str = ",") -> str:
    """Write rows as CSV; the header is that of the first."""
    lines = [delimiter.join(rows[0]), *(delimiter.join(row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def write(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write rows as a file, packed where its name ends in gz."""
    data = text_of(rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def told(format_name: str, path: Path, zone: str | None = None) -> tuple[list[Story], list[Refusal]]:
    """Tell a file without a database: the stories in order, and every refusal."""
    format_ = FORMATS[format_name]
    clock = Clock(format_.parse_time, ZoneInfo(zone or format_.zone))
    source = Source(format_.name, TicketType(format_.ticket_type), clock, "test")
    stories, refusals = [], []
    layout = layout_of(path, format_)
    for item in cases(layout, survey(layout).scattered):
        if isinstance(item, Refusal):
            refusals.append(item)
        else:
            stories.append(tell(format_, source, item))
            refusals += item.refusals
    return stories, refusals


def story_of(format_name: str, path: Path, *changes: Mapping[str, str]) -> Story:
    """Tell one case made of the usual row with these changes; nothing may be refused."""
    stories, refusals = told(format_name, write(path / f"{format_name}.csv", rows_of(format_name, *changes)))
    assert refusals == []
    assert len(stories) == 1
    return stories[0]


def topics(story: Story) -> list[str]:
    """Name what happened, without the kind of thing it happened to."""
    return [event.TOPIC.removeprefix("ticket.") for event in story.events]


def events(story: Story, topic: str) -> list[Any]:
    """Give the events of that topic."""
    return [event for event in story.events if f"ticket.{topic}" == event.TOPIC]


def event(story: Story, topic: str) -> Any:
    """Give the one event of that topic."""
    (found,) = events(story, topic)
    return found


def real_log(format_name: str) -> Path:
    """Give the real log of a format, or skip the test where it does not lie beside the checkout."""
    place = os.environ.get("LEDGERDESK_SHARED_DATA")
    data = Path(place) if place else Path(__file__).resolve().parents[4] / "shared" / "data"
    path = data / "logs" / REAL[format_name][0]
    if not path.exists():
        pytest.skip(f"the real log {path} is not here; LEDGERDESK_SHARED_DATA says where the shared data lies")
    return path
