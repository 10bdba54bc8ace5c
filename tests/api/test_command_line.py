"""The command line as people meet it: what it prints, one sentence for what is wrong, and a status."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest

from api.cli import main
from api.timer import Timer
from projections.consumer import Consumer
from projections.consumer_register import consumer_named, register
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from storage.database import Database
from tests.commands.imports.files import rows_of, write
from tests.commands.timed_desk import TimedDesk, replies_within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from projections.consumer import Delivery
    from storage.settings import Settings

    Desk = Callable[..., "Done"]


class Done(NamedTuple):
    """What became of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def desk(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Run `desk` with arguments in the workspace alpha of an empty database."""
    for name in os.environ:
        if name.startswith(("PG", "DESK_", "DATABASE_URL")):
            monkeypatch.delenv(name)

    def run(*arguments: str, **more: str) -> Done:
        for name, value in (environment | more).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["desk", *arguments])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        else:
            status = 0
        told = capsys.readouterr()
        return Done(status, told.out, told.err)

    return run


def refused(done: Done, status: int, *words: str) -> None:
    """Assert that a command ended with a status and one sentence that has words in it."""
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("desk: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/desk"}, ["cannot be reached"]),
        ({"DATABASE_URL": "postgresql://no-such-host.invalid/desk"}, ["cannot be reached"]),
        ({"DATABASE_URL": "nonsense"}, ["DATABASE_URL"]),
        ({"DESK_PORT": "eight"}, ["DESK_PORT"]),
        ({"DESK_WORKSPACE": "No Such"}, ["DESK_WORKSPACE"]),
        ({"DESK_WORKSPACE": "gamma"}, ["gamma", "desk workspace create"]),
    ],
)
def test_a_wrong_setting_gives_one_sentence_and_status_2(
    desk: Desk, variables: dict[str, str], words: list[str]
) -> None:
    refused(desk("views", **variables), 2, *words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["rebuild", "nothing"],
        ["rebuild"],
        ["rebuild", "--all", "ticket_queue"],
        ["views", "retry", "nothing"],
        ["consume", "relay", "no-such-program"],
        ["consume", "No Name", "--", "cat"],
        ["consumers", "skip", "relay", "--position", "1", "--reason", ""],
        ["views", "skip", "nothing", "--position", "1", "--reason", "because"],
        ["views", "skip", "ticket_queue", "--position", "1", "--reason", " "],
        ["import", "nothing", "file.csv"],
        ["credential", "issue", "--role", "customer"],
        ["credential", "issue", "--role", "agent", "--expires", "soon"],
        ["workspace", "create", "No Such"],
        ["replay", "1", "--as-of", "yesterday"],
        ["replay", "1", "--position", "-1"],
        ["replay", "1", "--version", "1", "--position", "1"],
        ["-w", "No Such", "views"],
        ["diff", "--from", "1", "--to", "2", "--view", "audit_trail"],
        ["diff", "--from", "yesterday", "--to", "2"],
        ["diff", "--from", "1", "--to", "2026-01-01T00:00:00"],
        ["diff", "--from", "1", "--to", "2", "--agent", "nobody"],
    ],
)
def test_wrong_usage_gives_one_sentence_and_status_2(desk: Desk, arguments: list[str]) -> None:
    refused(desk(*arguments), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "1"],
        ["views", "retry", "ticket_queue"],
        ["consumers", "retry", "relay"],
        ["consumers", "skip", "relay", "--position", "1", "--reason", "because"],
        ["consumers", "remove", "relay"],
        ["views", "skip", "ticket_queue", "--position", "1", "--reason", "because"],
        ["ticket", "zendesk:1"],
        ["diff", "--from", "1", "--to", "99"],
        ["diff", "--from", "0", "--to", "0.elsewhere"],
        ["import", "volvo", "/no/such/file.csv"],
        ["workspace", "create", "alpha"],
        ["credential", "issue", "--role", "agent", "--agent", "nobody"],
    ],
)
def test_work_that_cannot_be_done_gives_one_sentence_and_status_1(desk: Desk, arguments: list[str]) -> None:
    refused(desk(*arguments), 1)


def test_an_unknown_command_is_status_2(desk: Desk) -> None:
    done = desk("fly")
    assert done.returncode == 2
    assert "No such command" in done.stderr


def test_everything_has_help(desk: Desk) -> None:
    for command in ("run", "serve", "project", "migrate", "views", "rebuild", "replay", "ticket", "import", "bench"):
        done = desk(command, "--help")
        assert done.returncode == 0, command
        assert "Usage: desk" in done.stdout


def test_a_workspace_is_made_filled_read_and_rebuilt(desk: Desk, tmp_path: Path) -> None:
    assert desk("workspace", "create", "gamma").returncode == 0
    assert desk("workspace", "list").stdout.split() == ["alpha", "beta", "gamma"]
    token = desk("-w", "gamma", "credential", "issue", "--role", "auditor", "--expires", "90d").stdout.strip()
    assert token.startswith("desk_auditor_")
    log = tmp_path / "log.csv"
    log.write_text(
        "concept:name,lifecycle:transition,org:resource,org:group,impact,product,time:timestamp,case:concept:name\n"
        "Queued,Awaiting Assignment,Minnie,Org line A2,High,PROD191,2006-01-11 15:49:42+00:00,1-109135791\n"
        "Accepted,In Progress,Minnie,Org line A2,High,PROD191,2006-02-11 15:49:42+00:00,1-109135791\n"
        "Accepted,In Progress,Minnie,Org line A2,High,PROD191,yesterday,1-109135792\n"
    )
    rejects = tmp_path / "rejects.csv"
    imported = desk("-w", "gamma", "import", "volvo", str(log), "--json", "--rejects", str(rejects), "--announce")
    assert imported.returncode == 0, imported.stderr
    account = json.loads(imported.stdout)
    assert (account["rows_read"], account["rows_refused"], account["tickets"]["new"]) == (3, 1, 1)
    assert account["events"]["ticket.sla_announcements_asked"] == 1
    assert "yesterday" in rejects.read_text()
    views = desk("-w", "gamma", "views").stdout
    assert "ticket_queue" in views
    assert desk("-w", "gamma", "rebuild", "directory").returncode == 0
    rebuilt = desk("-w", "gamma", "rebuild", "--all", "--require-equal", "--json")
    assert {json.loads(line)["view"] for line in rebuilt.stdout.splitlines()} == set(BY_NAME), rebuilt.stderr
    assert "live" in desk("-w", "gamma", "views").stdout
    shown = desk("-w", "gamma", "ticket", "volvo:1-109135791")
    assert "volvo:1-109135791" in shown.stdout
    told = json.loads(desk("-w", "gamma", "ticket", "volvo:1-109135791", "--json").stdout)
    life = desk("-w", "gamma", "replay", str(told["number"])).stdout
    assert "opened" in life
    entries = json.loads(desk("-w", "gamma", "replay", told["id"], "--json").stdout)["entries"]
    assert len(entries) == told["version"]
    then = json.loads(desk("-w", "gamma", "replay", told["id"], "--json", "--version", "1").stdout)
    assert (then["version"], then["status"]) == (1, "new")
    past = desk("-w", "gamma", "replay", told["id"], "--position", str(told["number"])).stdout
    assert "version 1" in past
    refused(desk("ticket", str(told["number"])), 1)


def test_two_moments_of_the_queue_are_compared_as_a_table_and_as_json(desk: Desk, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(
        "concept:name,lifecycle:transition,org:resource,org:group,impact,product,time:timestamp,case:concept:name\n"
        "Queued,Awaiting Assignment,Minnie,Org line A2,High,PROD191,2006-01-11 15:49:42+00:00,1-109135791\n"
        "Accepted,In Progress,Minnie,Org line A2,High,PROD191,2006-02-11 15:49:42+00:00,1-109135791\n"
        "Completed,Closed,Minnie,Org line A2,High,PROD191,2006-03-11 15:49:42+00:00,1-109135791\n"
        "Queued,Awaiting Assignment,Minnie,Org line A2,High,PROD191,2006-03-12 15:49:42+00:00,1-109135792\n"
    )
    assert desk("import", "volvo", str(log)).returncode == 0
    now = "2100-01-01T00:00:00Z"
    told = json.loads(desk("diff", "--from", "0", "--to", now, "--json").stdout)
    assert (told["view"], told["from"]["position"], told["to"]["provisional"]) == ("ticket_queue", 0, True)
    assert (len(told["entered"]), told["left"], told["changed"]) == (2, [], [])
    first, second = sorted(one["number"] for one in told["entered"])
    everything = desk("diff", "--from", str(first), "--to", str(told["to"]["position"]), "--json")
    (changed,) = json.loads(everything.stdout)["changed"]
    columns = {change["column"]: (change["old"], change["new"]) for change in changed["changes"]}
    assert changed["number"] == first
    assert columns["status"][0] == "new"
    gone = desk("diff", "--from", str(first), "--to", now, "--status", "new", "--view", "ticket_queue")
    assert gone.returncode == 0, gone.stderr
    assert "1 entered, 1 left, 0 changed" in gone.stdout
    assert str(second) in gone.stdout
    assert "may still gain events" in gone.stdout


def test_a_workspace_is_seeded_once_and_its_tickets_can_be_read(desk: Desk, environment: dict[str, str]) -> None:
    seeded = desk("bench", "seed", "--events", "300", "--seed", "3", "--workspace", "large")
    assert seeded.returncode == 0, seeded.stderr
    figures = json.loads(seeded.stdout)
    assert (figures["benchmark"], figures["workspace"], figures["events"], figures["seed"]) == ("seed", "large", 300, 3)
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        found = connection.execute(
            "SELECT originator_id FROM ws_large.events WHERE topic = 'ticket.opened' LIMIT 1"
        ).fetchone()
    assert found is not None
    assert "opened" in desk("-w", "large", "replay", str(found[0])).stdout
    again = desk("bench", "seed", "--events", "300", "-w", "large")
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("desk: Workspace large has events already")
    refused(desk("bench", "seed", "--events", "300", "-w", "No Such"), 1, "workspace name")
    assert desk("bench", "seed", "--events", "0").returncode == 2


def test_benchmarks_outside_a_checkout_say_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tests.benchmarks.append", None)
    refused(desk("bench", "append"), 2, "checkout")


def test_a_ticket_that_cannot_be_read_is_replayed_as_far_as_it_can_and_the_place_is_named(
    desk: Desk, environment: dict[str, str], tmp_path: Path
) -> None:
    states = ("New", "Active", "Resolved", "Closed")
    rows = rows_of("servicenow", *({"sys_mod_count": str(n), "incident_state": one} for n, one in enumerate(states)))
    assert desk("import", "servicenow", str(write(tmp_path / "log.csv", rows))).returncode == 0
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        found = connection.execute(
            "UPDATE ws_alpha.events SET topic = 'ticket.teleported' WHERE (originator_id, originator_version) = ("
            "SELECT originator_id, 2 FROM ws_alpha.events WHERE topic LIKE 'ticket.%' AND originator_version = 3 "
            "LIMIT 1) RETURNING originator_id, notification_id"
        ).fetchone()
    assert found is not None
    ticket, position = found
    told = desk("replay", str(ticket))
    refused(told, 1, f"Event {position} (ticket.teleported, version 2")
    assert "v2  cannot be read" in told.stdout
    assert "v3  " in told.stdout
    refused(desk("ticket", str(ticket)), 1, "ticket.teleported")
    marked = desk("replay", str(ticket), "--json")
    assert [mark["version"] for mark in json.loads(marked.stdout)["unreadable"]] == [2]
    assert desk("replay", str(ticket), "--version", "1").returncode == 0


def test_a_view_that_stopped_is_told_to_try_again_and_then_to_pass_the_event_over(
    desk: Desk, environment: dict[str, str], tmp_path: Path, settings: Settings
) -> None:
    assert desk("import", "servicenow", str(write(tmp_path / "log.csv", rows_of("servicenow", {})))).returncode == 0
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        (position,) = connection.execute(
            "UPDATE ws_alpha.events SET topic = 'ticket.teleported' WHERE notification_id ="
            " (SELECT max(notification_id) FROM ws_alpha.events) RETURNING notification_id"
        ).fetchone() or (0,)

    async def project() -> None:
        async with await Database.open(settings) as database:
            await Runner(database, VIEWS, "the runner").catch_up(await database.workspace("alpha"))

    asyncio.run(project())
    stopped = f"ticket_queue stopped at event {position} (ticket.teleported)"
    assert stopped in desk("views").stdout
    assert desk("views", "retry", "ticket_queue").returncode == 0
    assert stopped not in desk("views").stdout
    refused(desk("views", "retry", "ticket_queue"), 1, "has not stopped")
    asyncio.run(project())
    assert stopped in desk("views").stdout
    skip = ("views", "skip", "ticket_queue", "--reason", "Nobody was teleported.", "--position")
    refused(desk(*skip, str(position - 1)), 1, f"stopped at event {position}, not at {position - 1}")
    assert f"passes over event {position}" in desk(*skip, str(position)).stdout
    told = desk("views").stdout
    assert stopped not in told
    assert f"ticket_queue v{BY_NAME['ticket_queue'].version} passes over event {position}" in told
    assert "Nobody was teleported." in told
    assert "sla_clock stopped at event" in told
    assert desk("rebuild", "ticket_queue").returncode == 0
    assert "Nobody was teleported." in desk("views").stdout


def test_a_consumer_is_listed_told_to_try_again_to_pass_an_event_over_and_removed(
    desk: Desk, tmp_path: Path, settings: Settings
) -> None:
    assert desk("import", "servicenow", str(write(tmp_path / "log.csv", rows_of("servicenow", {})))).returncode == 0

    async def refuse(_delivery: Delivery) -> None:
        message = "no room"
        raise RuntimeError(message)

    async def hand_on() -> None:
        async with await Database.open(settings) as database:
            alpha = await database.workspace("alpha")
            await register(alpha, "relay", from_start=True)
            stop = asyncio.Event()
            running = asyncio.create_task(Consumer(alpha, "relay", refuse, attempts=1).run(stop))
            async with asyncio.timeout(30):
                while (await consumer_named(alpha, "relay")).state != "failed":  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.01)
            stop.set()
            await running

    asyncio.run(hand_on())
    for command in (("consumers",), ("views",)):
        told = desk(*command).stdout
        assert "consumer" in told
        assert "relay stopped at event 1 (" in told
        assert "no room" in told
    assert desk("consumers", "retry", "relay").returncode == 0
    refused(desk("consumers", "retry", "relay"), 1, "relay has not stopped")
    asyncio.run(hand_on())
    skip = ("consumers", "skip", "relay", "--reason", "Sent by hand.", "--position")
    refused(desk(*skip, "2"), 1, "stopped at event 1, not at 2")
    assert "passes over event 1" in desk(*skip, "1").stdout
    assert "Sent by hand." in desk("consumers").stdout
    assert desk("consumers", "remove", "relay").returncode == 0
    assert "Sent by hand." in desk("views").stdout
    refused(desk("consumers", "remove", "relay"), 1, "no consumer 'relay'")


OFFICE = {"name": "office", "time_zone": "Europe/Berlin", "hours": {"mon": [["09:00", "17:00"]]}}
ALL = {"name": "all", "calendar": "office", "targets": [{"metric": "first_reply", "amount": 3600}]}


def test_a_desk_that_has_adopted_nothing_says_what_holds(desk: Desk) -> None:
    assert desk("sla", "calendars").stdout == "No calendar has been adopted.\n"
    assert "the standard promises hold" in desk("sla", "policies").stdout


def test_calendars_and_policies_are_adopted_from_files_and_listed(desk: Desk, tmp_path: Path) -> None:
    office, everything = tmp_path / "office.json", tmp_path / "all.json"
    office.write_text(json.dumps(OFFICE))
    everything.write_text(json.dumps(ALL))
    refused(desk("sla", "adopt-policy", str(everything)), 1, "No calendar 'office'", "none has been adopted")
    adopted = desk("sla", "adopt-calendar", str(office))
    assert adopted.stdout == "Adopted the calendar office, version 1; open tickets move to it.\n"
    kept = desk("sla", "adopt-policy", str(everything), "--keep").stdout
    assert kept == "Adopted the policy all, version 1; open tickets stay with what they go by.\n"
    assert desk("sla", "calendars").stdout.split()[-3:] == ["office", "1", "Europe/Berlin"]
    assert desk("sla", "policies").stdout.split()[-7:] == ["all", "1", "100", "office", "first_reply", "in", "force"]
    assert desk("sla", "retire-policy", "all").stdout == "Retired the policy all; open tickets go by another.\n"
    assert desk("sla", "policies").stdout.split()[-1] == "retired"
    refused(desk("sla", "retire-policy", "none"), 1, "No policy 'none' is in force")


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        ("adopt-policy", "{", ["JSON"]),
        ("adopt-policy", json.dumps(ALL | {"targets": [{"metric": "first_reply", "amount": 0}]}), ["targets.0.amount"]),
        ("adopt-policy", json.dumps(ALL | {"surprise": 1}), ["surprise"]),
        ("adopt-calendar", json.dumps(OFFICE | {"hours": {"mon": [["25:00", "26:00"]]}}), ["hours.mon.0", "1 more"]),
    ],
)
def test_a_file_that_is_no_calendar_or_policy_gives_one_sentence(
    desk: Desk, tmp_path: Path, command: str, content: str, words: list[str]
) -> None:
    file = tmp_path / "terms.json"
    file.write_text(content)
    refused(desk("sla", command, str(file)), 2, str(file), *words)
    refused(desk("sla", command, str(tmp_path / "none.json")), 2, "cannot be read")


def test_a_credential_is_issued_with_scopes(desk: Desk) -> None:
    assert desk("credential", "issue", "--role", "agent", "--scope", "backdate").stdout.startswith("desk_agent_")
    refused(desk("credential", "issue", "--role", "agent", "--scope", "everything"), 2, "everything", "backdate")


def test_how_late_the_timer_is_and_how_far_adoptions_have_come_is_told(desk: Desk, settings: Settings) -> None:
    assert "There is no queue yet" in desk("sla", "timer").stdout

    async def adopt(*, at: float, **given: Any) -> None:
        async with await Database.open(settings) as database:
            alpha = await database.workspace("alpha")
            timed = await TimedDesk.at(alpha)
            await timed.adopt(replies_within(6_000), at=-100)
            await timed.ticket()
            await timed.adopt(replies_within(5_000), at=at, **given)
            await Runner(database, VIEWS, "the runner").catch_up(alpha)

    async def see_to_it() -> None:
        async with await Database.open(settings) as database:
            alpha = await database.workspace("alpha")
            for _ in range(2):
                await Timer(lambda: [alpha]).round()
                await Runner(database, VIEWS, "the runner").catch_up(alpha)

    asyncio.run(adopt(at=30, open_tickets="move"))
    told = desk("sla", "timer").stdout
    assert "s late: something fell due at 2026-03-06 16:00:00." in told
    assert "policy adopted: all version 1" in told
    assert "policy adopted: all version 2  2026-03-02 12:30  waits" in told
    asyncio.run(see_to_it())
    told = desk("sla", "timer").stdout
    assert "Nothing is going to fall due." in told
    assert "policy adopted: all version 2  2026-03-02 12:30  carried to open tickets" in told


def test_the_clocks_of_a_ticket_are_explained_line_by_line(desk: Desk, tmp_path: Path) -> None:
    assert desk("import", "servicenow", str(write(tmp_path / "log.csv", rows_of("servicenow", {})))).returncode == 0
    told = desk("sla", "explain", "servicenow:INC1")
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0] == "first_reply: not applicable"
    assert "  120:00:00 around the clock" in lines
    assert "  counted Mon 2020-02-03 08:00:00 UTC to Sat 2020-02-08 08:00:00 UTC: 120:00:00" in lines
    assert "  due Sat 2020-02-08 08:00:00 UTC, after 120:00:00" in lines
    only = desk("sla", "explain", "servicenow:INC1", "--metric", "total_resolution", "--json")
    (clock,) = json.loads(only.stdout)["items"]
    assert (clock["metric"], clock["state"], clock["due_at"]) == (
        "total_resolution",
        "breached",
        "2020-02-08T08:00:00Z",
    )
    assert [line["text"] for line in clock["lines"] if line["kind"] == "due"] == [
        "due Sat 2020-02-08 08:00:00 UTC, after 120:00:00"
    ]
    refused(desk("sla", "explain", "no-such-ticket"), 1, "no-such-ticket")
    refused(desk("sla", "explain", "999"), 1, "999")
