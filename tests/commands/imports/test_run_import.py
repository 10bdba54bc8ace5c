"""Whole imports on a real log: accounted for, repeatable, and all or nothing by case."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_core import from_json

from commands.identity import stream_id_for
from commands.imports import FORMATS, ImportRefused, Summary, run_import, scribe
from domain.event import Act, Channel, Provenance, Role
from domain.ticket import Ticket
from storage.append import Submission
from storage.codec import decode, encode
from tests.commands.imports.files import REAL, SERVICENOW, real_log, rows_of, text_of, write

if TYPE_CHECKING:
    from commands.imports.story import Story
    from storage.database import Workspace

SERVICENOW_FORMAT = FORMATS["servicenow"]


def incidents(count: int) -> list[dict[str, str]]:
    """Make incidents of five rows each, one of which changes nothing."""
    rows = []
    for number in range(count):
        held = {
            "number": f"INC{number}",
            "caller_id": f"Caller {number % 17}",
            "assignment_group": f"Group {number % 5}",
            "assigned_to": f"Resolver {number % 11}",
        }
        states = ["New", "Active", "Active", "Resolved", "Closed"]
        rows += rows_of(
            "servicenow",
            *(held | {"sys_mod_count": str(n), "incident_state": state} for n, state in enumerate(states)),
        )
    return rows


async def brought_in(workspace: Workspace, path: Path, format_name: str = "servicenow", **options: Any) -> Summary:
    """Import a file; every one of its rows must be accounted for."""
    summary = await run_import(workspace, FORMATS[format_name], path, **options)
    assert summary.rows_accounted == summary.rows_read
    return summary


async def what_lies(workspace: Workspace) -> list[tuple[Any, ...]]:
    """Give the log without what differs between two runs: salts and recorded times."""
    rows = await workspace.log.page(0, 1_000_000)
    found = []
    for row in rows:
        state = from_json(row.state)
        state.pop("commitments", None)
        found.append((row.position, row.stream, row.version, row.topic, state))
    return found


async def test_every_row_is_accounted_for_and_the_account_says_what_was_made(alpha: Workspace, tmp_path: Path) -> None:
    rows = [*incidents(20), dict(incidents(1)[2])]
    rows[7] = rows[7] | {"sys_updated_at": "soon"}
    progress: list[tuple[int, int]] = []
    rejects = tmp_path / "rejects.csv"
    summary = await brought_in(
        alpha,
        write(tmp_path / "a.csv.gz", rows),
        progress=lambda done, total: progress.append((done, total)),
        rejects_path=rejects,
    )
    assert (summary.rows_read, summary.rows_duplicate, summary.rows_refused) == (101, 1, 1)
    assert (summary.rows_with_events, summary.rows_unchanged) == (80, 19)
    assert (summary.tickets.new, summary.customers.new, summary.teams.new) == (20, 17, 5)
    assert summary.agents.new == 11 + 3
    assert summary.events["ticket.opened"] == 20
    assert summary.events.total() == (await alpha.log.head()).position == summary.last_position
    assert progress[-1] == (101, 101)
    assert list(csv.reader(rejects.read_text().splitlines())) == [
        ["line", "case", "reason"],
        ["9", "INC1", "the time 'soon' is none that this format knows"],
    ]
    assert "line 9 (INC1): the time 'soon'" in summary.as_text()
    assert summary.as_json()["events"]["ticket.opened"] == 20
    assert json.loads(json.dumps(summary.as_json()))["rows_refused"] == 1


async def test_what_was_imported_reads_back_as_it_happened_at_the_source(alpha: Workspace, tmp_path: Path) -> None:
    await brought_in(alpha, write(tmp_path / "a.csv", incidents(1)))
    rows = await alpha.log.stream(stream_id_for("ticket", "servicenow:INC0"))
    await alpha.keyring.load(rows)
    events = [decode(row, alpha.keyring).event for row in rows]
    assert [event.TOPIC for event in events] == [
        "ticket.opened",
        "ticket.assigned",
        "ticket.source_status_recorded",
        "ticket.solved",
        "ticket.closed",
    ]
    assert events[0].subject == "Network / Wi-Fi / Slow"
    assert events[0].timestamp.year == 2020
    assert rows[0].recorded_at.year > 2020
    assert {event.by.channel for event in events} == {Channel.IMPORT}
    (customer,) = await alpha.log.stream(stream_id_for("customer", "servicenow-caller:Caller 0"))
    await alpha.keyring.load([customer])
    assert decode(customer, alpha.keyring).event.name == "Caller 0"
    assert b"Caller 0" not in customer.state


async def test_importing_twice_adds_nothing(alpha: Workspace, beta: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", incidents(30))
    first = await brought_in(alpha, path)
    before = await alpha.log.head()
    second = await brought_in(alpha, path)
    assert await alpha.log.head() == before
    assert second.events.total() == 0
    assert second.rows_already_imported == first.rows_with_events
    assert (second.tickets.new, second.tickets.known, second.customers.known) == (0, 30, 17)
    assert (await beta.log.head()).position == 0


async def test_a_file_that_has_grown_gives_the_rest(alpha: Workspace, beta: Workspace, tmp_path: Path) -> None:
    rows = incidents(12)
    await brought_in(alpha, write(tmp_path / "a.csv", [row for row in rows if int(row["sys_mod_count"]) < 3]))
    grown = await brought_in(alpha, write(tmp_path / "b.csv", rows))
    assert (grown.tickets.new, grown.tickets_continued) == (0, 12)
    assert grown.events == {"ticket.solved": 12, "ticket.closed": 12, "agent.created": 1}
    await brought_in(beta, tmp_path / "b.csv")
    assert sorted(event[1:] for event in await what_lies(alpha) if event[3].startswith("ticket")) == sorted(
        event[1:] for event in await what_lies(beta) if event[3].startswith("ticket")
    )


async def test_a_file_that_tells_the_past_otherwise_is_refused_from_there_on(alpha: Workspace, tmp_path: Path) -> None:
    rows = incidents(2)
    await brought_in(alpha, write(tmp_path / "a.csv", rows[:9]))
    before = await alpha.log.head()
    rows[6] = rows[6] | {"assigned_to": "Resolver 99"}
    summary = await brought_in(alpha, write(tmp_path / "b.csv", rows))
    assert await alpha.log.head() == before
    assert [refusal.line for refusal in summary.refusals] == [8, 9, 10, 11]
    assert "differs from version" in summary.refusals[0].reason
    assert summary.rows_already_imported == 4 + 1


async def test_another_personal_value_in_the_past_is_noticed_as_well(alpha: Workspace, tmp_path: Path) -> None:
    rows = incidents(1)
    await brought_in(alpha, write(tmp_path / "a.csv", rows))
    changed = [row | {"location": "Hall 5"} for row in rows]
    summary = await brought_in(alpha, write(tmp_path / "b.csv", changed))
    assert summary.rows_refused == 4


async def test_a_ticket_worked_on_here_keeps_its_history_and_takes_no_more_from_the_file(
    alpha: Workspace, tmp_path: Path
) -> None:
    rows = incidents(1)
    await brought_in(alpha, write(tmp_path / "a.csv", rows[:3]))
    stream = stream_id_for("ticket", "servicenow:INC0")
    stored = await alpha.log.stream(stream)
    await alpha.keyring.load(stored)
    ticket = None
    for row in stored:
        ticket = decode(row, alpha.keyring).event.mutate(ticket)
    assert isinstance(ticket, Ticket)
    by = Provenance(actor_id=stream, role=Role.AGENT, channel=Channel.WEB)
    ticket.add_note(text="Called back.", act=Act(stored[0].recorded_at, by))
    await alpha.log.append(Submission([encode(event, alpha.keyring) for event in ticket.collect_events()]))  # type: ignore[arg-type]
    same = await brought_in(alpha, tmp_path / "a.csv")
    assert (same.rows_refused, same.events.total()) == (0, 0)
    grown = await brought_in(alpha, write(tmp_path / "b.csv", rows))
    assert [refusal.line for refusal in grown.refusals] == [5, 6]


async def test_two_imports_of_one_file_at_once_make_everything_once(alpha: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", incidents(150))
    first, second = await asyncio.gather(brought_in(alpha, path), brought_in(alpha, path))
    assert first.events.total() + second.events.total() == (await alpha.log.head()).position
    assert first.tickets.new + second.tickets.new == 150
    assert (await brought_in(alpha, path)).events.total() == 0


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from commands.imports import FORMATS, run_import
    from storage.database import Database
    from storage.settings import Settings

    def progress(done, total):
        if done >= total // 3:
            os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        async with await Database.open(Settings.from_environment()) as database:
            workspace = await database.workspace("alpha")
            await run_import(workspace, FORMATS["servicenow"], Path(sys.argv[1]), progress=progress)

    asyncio.run(main())
"""


async def test_an_import_that_was_killed_and_run_again_ends_with_the_same_log(
    alpha: Workspace, beta: Workspace, environment: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", incidents(1500))
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path)],
        env=environment,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    reached = (await alpha.log.head()).position
    assert reached > 0
    again = await brought_in(alpha, path)
    assert again.events.total() > 0
    await brought_in(beta, path)
    assert await what_lies(alpha) == await what_lies(beta)


async def test_a_fourth_format_is_one_new_file(tmp_path: Path) -> None:
    (tmp_path / "tracker.py").write_text(
        textwrap.dedent('''
        """Another desk."""
        from typing import NamedTuple
        from commands.imports.format import Format, iso_only
        from domain.event import Channel
        from domain.priority import Priority
        from domain.status import Status

        class Row(NamedTuple):
            key: str
            at: str
            state: str

        def tell(story, row, before):
            story.turn(story.time(row.at), by=None)
            if before is None:
                story.opens(requester=("user", "somebody"), subject=row.key, body=row.key, channel=Channel.WEB,
                            priority=Priority.LOW)
            story.becomes(Status(row.state), row.state)

        FORMAT = Format(name="tracker", title="Tracker", row=Row,
                        columns={"key": ("Key",), "at": ("When",), "state": ("State",)},
                        required=frozenset({"key", "at", "state"}), case="key", ticket_type="task", zone="UTC",
                        parse_time=iso_only, key=lambda row, clock: clock(row.at), tell=tell)
        ''')
    )
    program = f"""
        import commands.imports.formats as formats
        formats.__path__.append({str(tmp_path)!r})
        print(*sorted(formats.found()))
    """
    found = subprocess.run(  # noqa: ASYNC221 - nothing else waits
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == ["italian-helpdesk", "servicenow", "tracker", "volvo"]


async def test_an_unknown_zone_and_a_file_of_another_kind_are_refused_before_anything_is_recorded(
    alpha: Workspace, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", [SERVICENOW])
    with pytest.raises(ImportRefused, match="no time zone"):
        await run_import(alpha, SERVICENOW_FORMAT, path, zone="Mars/Olympus")
    with pytest.raises(ImportRefused, match="is not a Volvo IT log"):
        await run_import(alpha, FORMATS["volvo"], path)
    assert (await alpha.log.head()).position == 0


async def test_a_header_alone_gives_an_empty_account(alpha: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text_of([SERVICENOW]).splitlines()[0])
    summary = await brought_in(alpha, path)
    assert (summary.rows_read, summary.events.total()) == (0, 0)


@pytest.mark.parametrize("format_name", sorted(REAL))
async def test_a_real_log_comes_in_whole_and_once(format_name: str, alpha: Workspace) -> None:
    path = real_log(format_name)
    _, rows, cases = REAL[format_name]
    summary = await brought_in(alpha, path, format_name)
    assert (summary.rows_read, summary.tickets.new, summary.rows_refused) == (rows, cases, 0)
    assert summary.rows_duplicate == (127 if format_name == "italian-helpdesk" else 0)
    assert summary.events["ticket.opened"] == cases
    head = await alpha.log.head()
    assert summary.events.total() == head.position
    again = await brought_in(alpha, path, format_name)
    assert again.events.total() == 0
    assert (await alpha.log.head()) == head


async def test_telling_in_this_process_gives_the_same_log_as_in_another(
    alpha: Workspace, beta: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.csv", incidents(100))
    for workspace, apart in ((alpha, True), (beta, False)):
        monkeypatch.setattr(scribe, "_can_fork", lambda apart=apart: apart)
        await brought_in(workspace, path)
    assert await what_lies(alpha) == await what_lies(beta)


async def test_a_format_that_fails_ends_the_import_and_keeps_what_was_recorded(
    alpha: Workspace, tmp_path: Path
) -> None:
    def tell(story: Story, row: Any, before: Any) -> None:
        if row.number == "INC150":
            os._exit(3)
        SERVICENOW_FORMAT.tell(story, row, before)

    path = write(tmp_path / "a.csv", incidents(200))
    with pytest.raises(RuntimeError, match="ended with status 3"):
        await run_import(alpha, dataclasses.replace(SERVICENOW_FORMAT, tell=tell), path)
    head = (await alpha.log.head()).position
    again = await brought_in(alpha, path)
    assert again.events.total() == (await alpha.log.head()).position - head
    assert again.tickets.new + again.tickets.known == 200


async def test_a_case_with_an_event_larger_than_the_log_takes_is_refused_and_the_others_come_in(
    alpha: Workspace, beta: Workspace, tmp_path: Path
) -> None:
    rows = incidents(30)
    await brought_in(beta, write(tmp_path / "b.csv", rows))
    largest = max(len(row.state) + len(row.personal or b"") for row in await beta.log.page(0, 1_000))
    for row in rows:
        if row["number"] == "INC7":
            row["subcategory"] = "网" * 90
    alpha.database.largest_event = largest + 20
    summary = await brought_in(alpha, write(tmp_path / "a.csv", rows))
    assert summary.tickets.new == 29
    assert {refusal.case for refusal in summary.refusals} == {"INC7"}
    assert all("bytes; the log takes" in refusal.reason for refusal in summary.refusals)
    alpha.database.largest_event = 100_000
    again = await brought_in(alpha, write(tmp_path / "a.csv", rows))
    assert (again.tickets.new, again.tickets.known, again.rows_refused) == (1, 29, 0)
