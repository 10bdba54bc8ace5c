"""What was imported is there in every view, and the views agree with each other and with the log."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from commands.imports import FORMATS, run_import
from domain.ticket import Ticket
from projections.audit_trail import AuditFilter, list_changes
from projections.registry import VIEWS
from projections.runner import Runner
from projections.sla_clock import clocks_of, count_clocks, list_clocks
from projections.ticket_queue import QueueFilter, count_tickets, list_tickets
from replay.as_of import as_of
from replay.history import history
from replay.rebuild import rebuild
from tests.commands.imports.files import REAL, real_log, rows_of, write
from tests.projections.desk_days import rows_of as rows_of_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from projections.listing import Listing
    from projections.ticket_queue import QueueEntry
    from storage.database import Workspace

SAMPLE = 60
"""Cases of a real log that are looked at: enough for several pages of each list, few enough to be quick."""

TEXTS = {"body", "text"}
"""Shown by a replay as what somebody wrote, and listed by the audit trail as fields."""

COURSES: Mapping[str, Sequence[Mapping[str, str]]] = {
    "servicenow": [
        {"sys_mod_count": str(number), "incident_state": state, "assigned_to": "Resolver 3", "assignment_group": group}
        for number, (state, group) in enumerate(
            [("New", "?"), ("Active", "Group 1"), ("Awaiting Vendor", "Group 1"), ("-100", "Group 2"),
             ("Active", "Group 2"), ("Resolved", "Group 2"), ("Closed", "Group 2")]
        )
    ],
    "italian-helpdesk": [
        {"Activity": activity, "Complete Timestamp": f"2020/07/0{day} 09:00:00.250"}
        for day, activity in enumerate(
            ["Assign seriousness", "Take in charge ticket", "Wait", "VERIFIED", "Resolve ticket", "Closed"], start=1
        )
    ],
    "volvo": [
        {"concept:name": status, "lifecycle:transition": substatus, "time:timestamp": f"2020-03-0{day} 10:00:00+00:00"}
        for day, (status, substatus) in enumerate(
            [("Queued", "Awaiting Assignment"), ("Accepted", "In Progress"), ("Accepted", "Wait - User"),
             ("Unmatched", "Unmatched"), ("Completed", "Resolved"), ("Completed", "Closed")], start=1
        )
    ],
}  # fmt: skip
"""Of each format, the rows of one case that makes moves of ours and moves that we have not."""


def name_column(format_name: str, header: Sequence[str]) -> str:
    """Find what a file calls the column that names the case."""
    format_ = FORMATS[format_name]
    return next(name for name in header if name in format_.columns[format_.case])


def made_up(format_name: str, path: Path) -> Path:
    """Write seven cases that stop at different points of one course."""
    rows = rows_of(format_name, *COURSES[format_name])
    name = name_column(format_name, list(rows[0]))
    return write(
        path / f"{format_name}.csv",
        [{**row, name: f"case {case}"} for case in range(7) for row in rows[: len(rows) - case % 4]],
    )


def sample(format_name: str, path: Path) -> Path:
    """Write the first cases of the real log, with all of their rows."""
    with gzip.open(real_log(format_name), "rt", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    name = name_column(format_name, list(rows[0]))
    wanted = set(list(dict.fromkeys(row[name] for row in rows))[:SAMPLE])
    taken = path / f"{format_name}.csv"
    with taken.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row[name] in wanted)
    return taken


@pytest.mark.parametrize("format_name", sorted(REAL))
async def test_all_views_show_what_was_imported_and_agree(format_name: str, alpha: Workspace, tmp_path: Path) -> None:
    await all_views_agree(alpha, format_name, made_up(format_name, tmp_path))


@pytest.mark.parametrize("format_name", sorted(REAL))
async def test_all_views_show_a_real_log_and_agree(format_name: str, alpha: Workspace, tmp_path: Path) -> None:
    tickets = await all_views_agree(alpha, format_name, sample(format_name, tmp_path))
    assert len(tickets) == SAMPLE


async def all_views_agree(workspace: Workspace, format_name: str, path: Path) -> list[QueueEntry]:
    """Import a file and hold queue, counts, clocks, audit trail and replay of every ticket against each other."""
    summary = await run_import(workspace, FORMATS[format_name], path)
    assert summary.rows_accounted == summary.rows_read
    assert summary.rows_refused == 0
    runner = Runner(workspace.database, VIEWS, "live")
    await runner.catch_up(workspace)
    await runner.release()

    tickets = await whole(lambda cursor: list_tickets(workspace, sort="opened", limit=25, cursor=cursor))
    assert len({ticket.ticket_id for ticket in tickets}) == len(tickets) == summary.tickets.new > 0
    counted = await count_tickets(workspace)
    assert counted.position == (await workspace.log.head()).position == summary.last_position
    assert counted.counts == Counter(ticket.status for ticket in tickets)
    registered = await workspace.log.page(0, 100_000, topics=["customer.registered"])
    assert {ticket.requester_id for ticket in tickets} <= {row.stream for row in registered}
    for status in counted.counts:
        listed = await whole(
            lambda cursor, status=status: list_tickets(  # type: ignore[misc]
                workspace, QueueFilter(statuses=[status]), limit=25, cursor=cursor
            )
        )
        assert len(listed) == counted.counts[status]

    now = max(ticket.updated_at for ticket in tickets)
    clocks = await whole(lambda cursor: list_clocks(workspace, now=now, limit=25, cursor=cursor))
    assert (await count_clocks(workspace, now=now)).counts == Counter(clock.state for clock in clocks)
    for ticket in tickets:
        assert ticket.foreign_id is not None
        assert ticket.foreign_id.startswith(f"{format_name}:")
        assert [c for c in clocks if c.ticket_id == ticket.ticket_id] == sorted(
            (c for c in (await clocks_of(workspace, ticket.ticket_id, now=now)).items if c.due_at is not None),
            key=lambda clock: (clock.due_at, clock.metric),
        )
        await one_ticket_agrees(workspace, ticket)

    for view in VIEWS:
        live = await rows_of_table(workspace, view.label)
        rebuilt = await rebuild(workspace, view, workers=1, expected=[])
        assert rebuilt.rows == len(live) > 0
        assert rebuilt.comparison is not None
        assert rebuilt.comparison.equal == len(live)
        assert await rows_of_table(workspace, view.label) == live
    return tickets


async def one_ticket_agrees(workspace: Workspace, ticket: QueueEntry) -> None:
    """Hold the queue's row of a ticket and its audit trail against its replay."""
    told = await history(workspace, ticket.ticket_id, kind="ticket")
    assert told.number == ticket.number
    assert [entry.version for entry in told.entries] == list(range(1, ticket.version + 1))
    assert (told.entries[0].occurred_at, told.entries[-1].occurred_at) == (ticket.opened_at, ticket.updated_at)
    assert {entry.channel for entry in told.entries} == {"import"}
    stands = (await as_of(workspace, Ticket, ticket.ticket_id)).aggregate
    for field in ("status", "priority", "category", "team_id", "agent_id", "requester_id", "subject", "foreign_id"):
        assert getattr(ticket, field) == getattr(stands, field), field
    before = (await as_of(workspace, Ticket, ticket.ticket_id, version=1)).aggregate
    assert (before.status, before.version) == ("new", 1)
    about = AuditFilter(stream=ticket.ticket_id)
    trail = await whole(lambda cursor: list_changes(workspace, about, sort="oldest", limit=40, cursor=cursor))
    assert [(row.version, row.field, row.old, row.new) for row in trail if row.field not in {None, *TEXTS}] == [
        (entry.version, change.field, change.old, change.new) for entry in told.entries for change in entry.changes
    ]
    assert {(row.version, row.actor_id, row.occurred_at) for row in trail} == {
        (entry.version, entry.actor.id, entry.occurred_at) for entry in told.entries
    }


async def whole(page: Callable[[str | None], Awaitable[Listing[Any]]]) -> list[Any]:
    """Follow a list's cursors to its end."""
    found, cursor = [], None
    while True:
        listing = await page(cursor)
        found += listing.items
        cursor = listing.cursor
        if cursor is None:
            return found
