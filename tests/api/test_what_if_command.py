"""`desk sla what-if` as people meet it: tables, JSON, a page, and one sentence for what is wrong."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from projections.registry import VIEWS
from projections.runner import Runner
from replay.what_if_report import Report
from storage.database import Database
from tests.api.test_command_line import desk, refused
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from pathlib import Path

    from storage.settings import Settings
    from tests.api.test_command_line import Desk

__all__ = ["desk"]

QUICK = {
    "name": "quick",
    "open_tickets": "move",
    "targets": [
        {"metric": "first_reply", "amount": 3600, "unit": "calendar"},
        {"metric": "total_resolution", "amount": 90 * 3600, "unit": "calendar"},
    ],
}
OFFICE = {"name": "office", "time_zone": "Asia/Shanghai", "hours": {"mon": [["09:00", "18:00"]]}}


@pytest.fixture
def lived(settings: Settings) -> DeskDays:
    """Let some days go by; the views have not heard of them."""
    days = DeskDays(3, tickets=60)

    async def live() -> None:
        async with await Database.open(settings) as database:
            await record(await database.workspace("alpha"), [*days.first(), *days.more(500)])

    asyncio.run(live())
    return days


def written(directory: Path, name: str, content: Any) -> str:
    path = directory / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return str(path)


def test_it_prints_tables_and_says_by_which_axis(desk: Desk, lived: DeskDays, tmp_path: Path) -> None:
    policy = written(tmp_path, "policies.json", [QUICK])
    done = desk("sla", "what-if", "--policy", policy, "--as-of", "2026-08-01", "--flips", "2")
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "What if: policy quick, and no other",
        "As known then:",
        f"{len(lived.tickets)} tickets opened up to now, as of 2026-08-01 00:00:00+00:00",
        "By priority",
        "By tier",
        "By team",
        "Team 1",
        "promises would be broken that were not",
        "are shown, on tickets opened last",
        "quick (given)",
    ):
        assert words in done.stdout
    done = desk("sla", "what-if", "--policy", policy, "--axis", "as-corrected")
    assert "As corrected now:" in done.stdout


def test_it_gives_all_of_it_as_json_and_as_a_page(desk: Desk, lived: DeskDays, tmp_path: Path) -> None:
    policy = written(tmp_path, "policy.json", QUICK)
    page = tmp_path / "page.html"
    team = str(lived.teams[0].id)
    options = ("--from", "2026-03-02T12:00:00+00:00", "--to", "2027-01-01", "--team", team, "--html", str(page))
    done = desk("sla", "what-if", "--policy", policy, *options, "--json", "--workers", "1")
    assert done.returncode == 0, done.stderr
    report = Report.model_validate_json(done.stdout)
    assert (report.given, str((report.teams or ())[0])) == (("policy quick",), team)
    assert report.opened_from is not None
    assert 0 < report.tickets < len(lived.tickets)
    assert report.names[lived.teams[0].id] == "Team 0"
    assert page.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.usefixtures("lived")
def test_asking_changes_nothing(desk: Desk, settings: Settings, tmp_path: Path) -> None:
    async def everything() -> dict[str, str]:
        """Give what every table says, but for who keeps the views up."""
        found = {}
        async with await Database.open(settings) as database:
            alpha = await database.workspace("alpha")
            runner = Runner(database, VIEWS)
            await runner.catch_up(alpha)
            await runner.release()
            async with database.pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = %s::regnamespace"
                    " AND has_table_privilege(oid, 'SELECT')",
                    (alpha.schema,),
                )
                names = {name for (name,) in await cursor.fetchall()} - {"views"}
                for name in names:
                    statement = f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {alpha.schema}.{name} t"
                    found[name] = (await (await connection.execute(statement.encode())).fetchone() or ("",))[0]
        return found

    before = asyncio.run(everything())
    assert before["events"]
    assert desk("sla", "what-if", "--policy", written(tmp_path, "p.json", QUICK)).returncode == 0
    assert asyncio.run(everything()) == before


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({}, [], ["Give policies, calendars or both"]),
        ({"--policy": "{"}, [], ["--policy", "p.json", "Invalid JSON"]),
        ({"--policy": {**QUICK, "targets": [{"metric": "wishes", "amount": 1}]}}, [], ["targets.0.metric"]),
        ({"--policy": {**QUICK, "targets": [{"metric": "first_reply", "amount": 0}]}}, [], ["targets.0.amount"]),
        ({"--policy": [QUICK, QUICK]}, [], ["Each of the policies has a name of its own"]),
        ({"--policy": QUICK}, ["--from", "yesterday"], ["--from", "2026-01-31", "'yesterday'"]),
        (
            {"--policy": QUICK},
            ["--from", "2026-02-01", "--to", "2026-01-01"],
            ["--to 2026-01-01 does not come after --from 2026-02-01"],
        ),
        ({"--policy": QUICK}, ["--html", "/nowhere/page.html"], ["--html", "/nowhere"]),
        ({"--calendar": {"time_zone": "UTC", "hours": {}}}, [], ["--calendar", "name"]),
    ],
)
def test_what_is_wrong_with_the_question_is_said_in_a_sentence(
    desk: Desk, tmp_path: Path, files: dict[str, Any], options: list[str], words: list[str]
) -> None:
    given = [part for option, content in files.items() for part in (option, written(tmp_path, "p.json", content))]
    refused(desk("sla", "what-if", *given, *options), 2, *words)


def test_a_file_that_is_not_there_is_named(desk: Desk, tmp_path: Path) -> None:
    refused(desk("sla", "what-if", "--policy", str(tmp_path / "none.json")), 2, "none.json", "No such file")


def test_what_no_desk_could_go_by_is_refused(desk: Desk, lived: DeskDays, tmp_path: Path) -> None:
    assert lived.tickets
    calendar = ("--calendar", written(tmp_path, "c.json", {**OFFICE, "name": "factory"}))
    refused(desk("sla", "what-if", *calendar), 1, "factory")
    refused(desk("sla", "what-if", "--policy", written(tmp_path, "p.json", {**QUICK, "calendar": "moon"})), 1, "moon")
    zone = {**OFFICE, "time_zone": "Mars/Olympus"}
    policy = ("--policy", written(tmp_path, "q.json", {**QUICK, "calendar": "office"}))
    refused(desk("sla", "what-if", *policy, "--calendar", written(tmp_path, "d.json", zone)), 2, "Mars/Olympus")
