"""A made-up log is one that the desk could have written, and goes on with."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from commands.desk import KINDS
from domain.customer import ContactKnown
from projections.registry import VIEWS
from projections.runner import Runner
from storage.codec import decode
from storage.settings import project_root
from tests.benchmarks import seed
from tests.benchmarks.ground import MeasurementError
from tests.benchmarks.seeded_course import CELL_LENGTHS, PLACE_BITS, WEEK, Course
from tests.benchmarks.seeded_lives import LIVES, lengths
from tests.commands.sending import Sender
from tests.faults.views_from_zero import check_views
from tests.storage.log_rules import check_log

if TYPE_CHECKING:
    from storage.database import Database, Workspace
    from storage.log_reader import StoredRow
    from storage.settings import Settings

EVENTS = 4_000
PATIENCE = 60.0


async def rows_of(workspace: Workspace) -> list[StoredRow]:
    return await workspace.log.page(0, 1_000_000)


async def test_a_made_up_log_keeps_every_rule_and_the_desk_goes_on_with_it(
    settings: Settings, database: Database, alpha: Workspace
) -> None:
    conninfo = settings.database_url or ""
    await seed.fill(settings, alpha, EVENTS)

    rows = await rows_of(alpha)
    assert len(rows) == EVENTS
    await alpha.keyring.load(rows)
    assert await asyncio.to_thread(check_log, conninfo, alpha.schema, alpha.keyring, like="ws_beta") == []

    sender = Sender.at(alpha)
    heads = Counter(row.stream for row in rows)
    kinds = {row.stream: row.topic.partition(".")[0] for row in rows}
    for stream, kind in kinds.items():
        assert (await sender.desk.load(KINDS[kind], stream)).version == heads[stream]  # type: ignore[index]
    chance = random.Random(1)  # noqa: S311 - a repeatable choice
    for stream in chance.sample([one for one, kind in kinds.items() if kind == "ticket"], 50):
        outcome = await sender.send("ticket", "add-note", stream, text="goes on")
        assert outcome.version == heads[stream] + 1
        assert outcome.number == next(row.position for row in rows if row.stream == stream)
    assert (await alpha.log.head()).position == EVENTS + 50

    await Runner(database, VIEWS).catch_up(alpha)
    assert await asyncio.to_thread(check_views, conninfo, alpha.schema) == []


async def test_a_customer_of_a_made_up_log_holds_his_address(settings: Settings, alpha: Workspace) -> None:
    await seed.fill(settings, alpha, 100)
    sender = Sender.at(alpha)
    row = next(row for row in await rows_of(alpha) if row.topic == "customer.registered")
    await alpha.keyring.load([row])
    customer = decode(row, alpha.keyring).event
    with pytest.raises(ContactKnown):
        await sender.customer(phone=customer.phone)


async def test_the_same_seed_gives_the_same_log_however_many_processes_make_it(
    settings: Settings, alpha: Workspace, beta: Workspace
) -> None:
    await seed.fill(settings, alpha, 3_000, seed=7, processes=1)
    await seed.fill(settings, beta, 3_000, seed=7, processes=3)

    async def told(workspace: Workspace) -> list[Any]:
        rows = await rows_of(workspace)
        await workspace.keyring.load(rows)
        # Opened, an event has neither salts nor nonces in it.
        return [(row.position, row.topic, row.recorded_at, decode(row, workspace.keyring).event) for row in rows]

    assert await told(alpha) == await told(beta)


async def test_another_seed_gives_another_log(settings: Settings, alpha: Workspace, beta: Workspace) -> None:
    await seed.fill(settings, alpha, 500, seed=7)
    await seed.fill(settings, beta, 500, seed=8)
    assert not {row.stream for row in await rows_of(alpha)} & {
        row.stream for row in await rows_of(beta) if row.topic != "customer.registered"
    }


@pytest.mark.parametrize("events", [1, 5, 30, 60])
async def test_a_log_of_next_to_nothing_has_as_many_events_as_were_asked_for(
    settings: Settings, alpha: Workspace, events: int
) -> None:
    await seed.fill(settings, alpha, events)
    rows = await rows_of(alpha)
    assert [row.position for row in rows] == list(range(1, events + 1))
    await alpha.keyring.load(rows)
    found = await asyncio.to_thread(check_log, settings.database_url or "", alpha.schema, alpha.keyring, like="ws_beta")
    assert found == []


async def test_a_log_that_has_events_is_left_as_it_is(settings: Settings, alpha: Workspace) -> None:
    await Sender.at(alpha).team()
    with pytest.raises(MeasurementError, match="has events already"):
        await seed.fill(settings, alpha, 1_000)
    assert (await alpha.log.head()).position == 1


async def test_a_process_that_is_ended_leaves_nothing_and_the_next_call_begins_again(
    settings: Settings, alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = seed._Content.pieces

    def interrupted(content: seed._Content) -> Any:
        for number, piece in enumerate(pieces(content)):
            if number == 3:
                content._workers[0].end()
            yield piece

    monkeypatch.setattr(seed._Content, "pieces", interrupted)
    with pytest.raises(MeasurementError, match="begins again"):
        await seed.fill(settings, alpha, EVENTS)
    monkeypatch.undo()
    assert (await alpha.log.head()).position == 0
    await seed.fill(settings, alpha, 100)
    rows = await rows_of(alpha)
    await alpha.keyring.load(rows)
    assert json.loads(rows[0].state)["by"]["role"] == "system"


def test_a_command_that_is_killed_half_way_leaves_nothing_and_can_be_given_again(
    settings: Settings, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "api.cli", "bench", "seed", "-w", "large", "--events"]
    with psycopg.connect(settings.database_url or "", autocommit=True) as watching:
        seeding = subprocess.Popen([*command, "400000"], cwd=project_root(), env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_for(
                watching,
                "SELECT FROM pg_stat_progress_copy WHERE tuples_processed > 1000 AND datname = current_database()",
            )
        finally:
            seeding.kill()
            seeding.wait()
        # The processes that made events had the connections of the one that was killed: they are gone, too.
        wait_for(
            watching, "SELECT WHERE (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) = 1"
        )
        assert watching.execute("SELECT count(*) FROM ws_large.events").fetchone() == (0,)
        again = subprocess.run([*command, "200"], cwd=project_root(), env=environment, capture_output=True, check=False)
        assert again.returncode == 0, again.stderr
        assert watching.execute("SELECT count(*), max(notification_id) FROM ws_large.events").fetchone() == (200, 200)


def wait_for(connection: psycopg.Connection[Any], statement: LiteralString) -> None:
    deadline = time.monotonic() + PATIENCE
    while connection.execute(statement).fetchone() is None:
        assert time.monotonic() < deadline, statement
        time.sleep(0.02)


def test_lives_are_as_long_as_those_of_real_tickets() -> None:
    found = lengths(LIVES)
    assert found == sorted(found)
    assert (found[LIVES // 2], found[int(LIVES * 0.99)]) == (6, 38)


def test_rounds_take_up_the_course_without_a_gap() -> None:
    for events in (0, 1, 7, 400, 10_000, 70_001):
        course = Course(events, seed=3)
        turns: list[int] = []
        for number in range(course.rounds):
            assert course.before(number) == len(turns)
            turns += course.order(number)
        assert len(turns) == events
        instants = [course.instant(turn >> PLACE_BITS) for turn in turns]
        assert all(earlier <= later for earlier, later in pairwise(instants))
    assert sum(CELL_LENGTHS) == WEEK
