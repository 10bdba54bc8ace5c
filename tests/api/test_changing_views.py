"""Changing, checking and clearing away views from the command line: what is printed, and with which status."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from storage.database import Database
from tests.api.test_command_line import desk, refused
from tests.commands.imports.files import rows_of, write

if TYPE_CHECKING:
    from pathlib import Path

    from storage.settings import Settings
    from tests.api.test_command_line import Desk

__all__ = ["desk"]

LABEL = BY_NAME["ticket_queue"].label
STATES = ("New", "Active", "Resolved", "Closed")


@pytest.fixture
def filled(
    desk: Desk,
    environment: dict[str, str],
    settings: Settings,
    tmp_path: Path,
) -> psycopg.Connection[tuple[object, ...]]:
    """Give a connection to a desk with a few tickets, all of whose views are there."""
    rows = rows_of("servicenow", *({"sys_mod_count": str(n), "incident_state": one} for n, one in enumerate(STATES)))
    assert desk("import", "servicenow", str(write(tmp_path / "log.csv", rows))).returncode == 0

    async def project() -> None:
        async with await Database.open(settings) as database:
            runner = Runner(database, VIEWS)
            await runner.catch_up(await database.workspace("alpha"))
            await runner.release()

    asyncio.run(project())
    return psycopg.connect(environment["DATABASE_URL"], autocommit=True)


def spoil(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    """Change a row behind the desk's back and give its key."""
    found = connection.execute(f"UPDATE ws_alpha.{LABEL} SET priority = 'secret' RETURNING ticket_id::text").fetchone()
    assert found is not None
    return str(found[0])


def test_a_rebuild_says_what_differs_and_refuses_it_when_told_to(
    desk: Desk,
    filled: psycopg.Connection[tuple[object, ...]],
) -> None:
    with filled:
        key = spoil(filled)
        done = desk("rebuild", "ticket_queue", "--require-equal")
        refused(done, 1, "not put in place", "priority differs in 1 row")
        assert "0 rows equal, 1 changed" in done.stdout
        assert key in done.stdout
        assert "secret" in done.stdout
        assert "would hold 1 rows" in done.stdout
        refused(desk("rebuild", "ticket_queue", "--expect-columns", "status, team_id"), 1, "priority differs")
        told = json.loads(desk("rebuild", "ticket_queue", "--dry-run", "--json").stdout)
        assert (told["swapped"], told["comparison"]["same"]) == (False, False)
        (column,) = told["comparison"]["columns"]["changed"]
        assert (column["name"], column["rows"], column["samples"][0]["key"]) == ("priority", 1, [key])
        assert desk("verify", "views", "ticket_queue").returncode == 1  # nothing has changed
        done = desk("rebuild", "ticket_queue", "--expect-columns", "priority")
        assert done.returncode == 0
        assert "ticket_queue holds 1 rows" in done.stdout
        assert desk("verify", "views").returncode == 0


def test_views_are_verified_and_differences_named_with_their_keys(
    desk: Desk,
    filled: psycopg.Connection[tuple[object, ...]],
) -> None:
    with filled:
        done = desk("verify", "views")
        assert done.returncode == 0
        assert [line.split(":")[0] for line in done.stdout.splitlines()] == [view.name for view in VIEWS]
        key = spoil(filled)
        done = desk("verify", "views", "sla_clock", "ticket_queue")
        refused(done, 1, "Not as the log has them: ticket_queue")
        assert "sla_clock: " in done.stdout
        assert key in done.stdout
        told = json.loads(desk("verify", "views", "--json").stdout)["views"]
        assert {name: outcome["same"] for name, outcome in told.items() if not outcome["same"]} == {
            "ticket_queue": False
        }
        filled.execute(f"DELETE FROM ws_alpha.{LABEL}")
        done = desk("verify", "views", "ticket_queue")
        refused(done, 1)
        assert f"Only in the new, among others: {key}" in done.stdout


def test_what_was_replaced_is_put_back_and_cleared_away(
    desk: Desk,
    filled: psycopg.Connection[tuple[object, ...]],
) -> None:
    with filled:
        spoil(filled)
        assert desk("rebuild", "ticket_queue").returncode == 0
        done = desk("views", "rollback", "ticket_queue")
        assert done.returncode == 0
        assert "is what it was before" in done.stdout
        assert desk("verify", "views", "ticket_queue").returncode == 1
        assert desk("views", "rollback", "ticket_queue").returncode == 0
        assert desk("verify", "views", "ticket_queue").returncode == 0
        assert f"{LABEL}_kept" in desk("views", "prune", "ticket_queue", "--dry-run").stdout
        pruned = desk("views", "prune").stdout
        assert f"{LABEL}_kept" in pruned
        assert "KiB" in pruned
        assert desk("views", "prune").stdout == "There is nothing to drop.\n"
        refused(desk("views", "rollback", "ticket_queue"), 1, "Nothing is kept")


@pytest.mark.parametrize(
    "arguments",
    [
        ["rebuild", "ticket_queue", "--require-equal", "--expect-columns", "status"],
        ["rebuild", "ticket_queue", "--expect-columns", ""],
        ["rebuild", "ticket_queue", "--expect-columns", "statos"],
        ["views", "rollback", "nothing"],
        ["views", "prune", "nothing"],
        ["verify", "views", "nothing"],
    ],
)
def test_wrong_usage_gives_one_sentence_and_status_2(desk: Desk, arguments: list[str]) -> None:
    refused(desk(*arguments), 2)


def test_a_view_that_is_not_there_is_not_verified(desk: Desk) -> None:
    done = desk("verify", "views", "ticket_queue")
    refused(done, 1)
    assert "ticket_queue was not verified: the view ticket_queue is not there yet" in done.stdout
