"""The primary dies under a serving desk: its standby goes on with all that was acknowledged, and nobody is lied to."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import httpx
import pytest

from domain.event import Role
from storage import credentials
from storage.append import Submission
from storage.database import Database
from storage.migrations import create_workspace, migrate
from storage.settings import Settings
from tests.faults.pair import PATIENCE, Pair, eventually, pair
from tests.faults.views_from_zero import check_views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
CLIENTS: Final = 6


@pytest.fixture
def servers() -> Iterator[Pair]:
    """Give a primary and a standby, in a directory that any user may pass through."""
    with tempfile.TemporaryDirectory(prefix="ledgerdesk_test_") as directory:
        Path(directory).chmod(0o711)
        with pair(Path(directory)) as made:
            yield made


@dataclass
class Acknowledged:
    """What somebody was told was done."""

    key: str
    position: int
    token: str
    replayed: bool


@dataclass
class Desk:
    """A desk that serves over the pair, and what its callers were told."""

    http: httpx.AsyncClient
    servers: Pair
    settings: Settings
    told: list[Acknowledged] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def command(self, key: str | None) -> Acknowledged:
        """Make a team, and ask again until it is known to be there; without a key, ask once."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await self.http.post("/teams", json={"name": f"Team {key}"}, headers=headers)
                if answer.status_code == 201:
                    break
                self.refused.append(answer.text)
                assert answer.status_code == 503, answer.text
                assert key is not None
                await asyncio.sleep(0.1)
        told: dict[str, Any] = answer.json()
        done = Acknowledged(key or "", told["position"], answer.headers["Log-Position"], told["replayed"])
        self.told.append(done)
        return done

    async def client(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.command(uuid4().hex)

    async def acknowledged(self, commands: int) -> None:
        """Wait until so many more were told."""
        wanted = len(self.told) + commands
        async with asyncio.timeout(PATIENCE):
            while len(self.told) < wanted:  # noqa: ASYNC110 - many clients add to it
                await asyncio.sleep(0.01)

    def log(self) -> list[tuple[int, str]]:
        """Give position and team of each event that the promoted server has."""
        rows = self.servers.standby.query("SELECT notification_id, originator_id::text FROM ws_main.events ORDER BY 1")
        return [(row[0], row[1]) for row in rows]

    async def views_follow(self) -> None:
        """Wait until the views have taken in everything, and compare them with folds of the whole log."""
        async with asyncio.timeout(PATIENCE):
            token = (await self.http.get("/log")).json()["token"]
            for path in ("/queue", "/sla-clocks", "/audit-trail", "/teams"):
                while (await self.http.get(path, params={"after": token})).status_code != 200:
                    pass
        assert await asyncio.to_thread(check_views, self.servers.standby.embedded.conninfo(), "ws_main") == []


async def until(holds: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(eventually, holds, what)


@asynccontextmanager
async def serving(servers: Pair, **environment: str) -> AsyncIterator[Desk]:
    """Run `desk serve` over the pair."""
    directory = servers._directory
    settings = Settings(directory / "data", directory / "root.key", database_url=servers.database_url)
    await migrate(settings)
    await create_workspace(settings, "main")
    async with await Database.open(settings) as database:
        token = await credentials.issue(database, "main", Role.ADMINISTRATOR, uuid4(), label="test")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_"))}
    given = {"DATABASE_URL": servers.database_url, "DESK_KEY_FILE": str(settings.key_file)}
    given |= {"DESK_DATA_DIR": str(directory / "data"), **environment}
    log = directory / "desk.log"
    process = launch(kept | given, log)
    try:
        await until(lambda: "Serving on " in log.read_text(), "the desk serves")
        address = log.read_text().partition("Serving on ")[2].split()[0]
        limits = httpx.Limits(max_connections=CLIENTS * 2)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=PATIENCE, limits=limits) as http:
            yield Desk(http, servers, settings)
        assert process.poll() is None, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def launch(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "api.cli", "serve", "--port", "0"],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def check_exactly_once(desk: Desk) -> None:
    """Positions have no holes, and what was acknowledged is where it was said to be; nothing is there twice."""
    log = desk.log()
    assert [position for position, _ in log] == list(range(1, len(log) + 1))
    assert len({stream for _, stream in log}) == len(log)
    positions = [done.position for done in desk.told]
    assert len(positions) == len(set(positions))
    assert set(positions) <= {position for position, _ in log}


async def test_clients_go_on_when_the_primary_is_killed_and_no_acknowledged_command_is_lost(servers: Pair) -> None:
    servers.synchronous()
    async with serving(servers) as desk:
        stop = asyncio.Event()
        clients = [asyncio.create_task(desk.client(stop)) for _ in range(CLIENTS)]
        await desk.acknowledged(60)
        reading = asyncio.create_task(read_on(desk, stop))
        before = list(desk.told)
        await asyncio.to_thread(servers.fail_over)
        await desk.acknowledged(60)
        stop.set()
        await asyncio.gather(*clients)
        assert await reading == []
        check_exactly_once(desk)
        assert len(desk.log()) == len(desk.told)  # every command ended acknowledged
        told = {done.key: done for done in desk.told}
        for done in before[::10]:
            again = await desk.command(done.key)
            desk.told.remove(again)
            assert (again.replayed, again.position) == (True, told[done.key].position)
            # Nothing was lost, so what was handed out before is good.
            assert (await desk.http.get("/teams", params={"after": done.token})).status_code == 200
        await desk.views_follow()
        assert desk.refused == []
        assert servers.standby.query("SELECT count(*) FROM ws_main.log_epochs") == [(2,)]


async def read_on(desk: Desk, stop: asyncio.Event) -> list[str]:
    """Read all the while, and give what was answered other than as hoped."""
    failures = []
    while not stop.is_set():
        for path in ("/log", "/teams"):
            answer = await desk.http.get(path)
            if answer.status_code != 200:
                failures.append(answer.text)
    return failures


async def test_a_command_whose_wait_for_the_standby_was_cut_short_is_answered_when_the_standby_has_it(
    servers: Pair,
) -> None:
    servers.synchronous()
    async with serving(servers) as desk:
        first = await desk.command("first")
        for key in (None, "with-a-key"):
            with servers.parted():
                asked = asyncio.create_task(desk.command(key))
                for _ in range(2):
                    # The commit is done here, and not there. Cut short, it stays done here; the desk asks again.
                    await until(lambda: len(servers.waiting()) == 1, "a command waits for the standby")
                    (pid,) = servers.waiting()
                    servers.primary.query("SELECT pg_terminate_backend(%s)", pid)
                    await until(lambda pid=pid: pid not in servers.waiting(), "the wait is cut short")  # type: ignore[misc]
                await until(lambda: len(servers.waiting()) == 1, "the command waits again")
                assert not asked.done()
            done = await asked
            assert done.position == first.position + (1 if key is None else 2)
            await until(
                lambda done=done: desk.log()[-1:] == desk.log()[done.position - 1 :] != [],  # type: ignore[misc]
                "the standby has it",
            )
        check_exactly_once(desk)

        # What appends nothing, such as a refusal, may stand on what is not there yet, and waits as well.
        async with await Database.open(desk.settings) as database:
            log = (await database.workspace("main")).log
            with servers.parted():
                confirmed = asyncio.create_task(log.append(Submission(guards={uuid4(): 0})))
                await until(lambda: len(servers.waiting()) == 1, "a confirmation waits for the standby")
                assert not confirmed.done()
            await confirmed

        # Told to stop waiting, a commit is reported as done, with no more than a warning.
        with servers.parted():
            asked = asyncio.create_task(desk.command("told-to-stop-waiting"))
            await until(lambda: len(servers.waiting()) == 1, "a command waits for the standby")
            (pid,) = servers.waiting()
            servers.primary.query("SELECT pg_cancel_backend(%s)", pid)
            here = "SELECT count(*) FROM ws_main.events"
            await until(lambda: servers.primary.query(here) == [(first.position + 3,)], "the commit is done here")
            await until(lambda: len(servers.waiting()) == 1, "the command waits again")
            assert not asked.done()
        await asked

        # The standby is promoted without it: carried out there, once.
        with servers.parted() as receiver:
            asked = asyncio.create_task(desk.command("lost"))
            await until(lambda: len(servers.waiting()) == 1, "a command waits for the standby")
            servers.primary.query("SELECT pg_terminate_backend(%s)", servers.waiting()[0])
            await until(lambda: servers.primary.query(here) == [(first.position + 4,)], "the commit is done here")
            seen = (await desk.http.get("/log")).json()
            assert seen["position"] == first.position + 4
            assert not asked.done()
            await asyncio.to_thread(servers.fail_over, receiver)
            done = await asked
        assert (done.replayed, done.position) == (False, first.position + 4)
        check_exactly_once(desk)
        # What was read of the commit that is lost is refused, though its position was given anew.
        answer = await desk.http.get("/teams", params={"after": seen["token"]})
        assert answer.json()["type"] == "/problems/log-epoch-changed"
        assert (await desk.http.get("/teams", params={"after": done.token})).status_code == 200
        await desk.views_follow()


async def test_a_failover_that_lost_commands_begins_an_epoch_and_those_concerned_are_told(servers: Pair) -> None:
    async with serving(servers) as desk:
        kept = [await desk.command(f"kept-{number}") for number in range(5)]
        standby = "SELECT count(*) FROM ws_main.events"
        await until(lambda: servers.standby.query(standby) == [(5,)], "the standby has them")
        with servers.parted() as receiver:
            lost = [await desk.command(f"lost-{number}") for number in range(3)]
            await asyncio.to_thread(servers.fail_over, receiver)
        answers = [await desk.command("new"), *[await desk.command(done.key) for done in lost]]
        assert [(done.replayed, done.position) for done in answers] == [(False, 6), (False, 7), (False, 8), (False, 9)]
        again = await desk.command(kept[0].key)
        assert (again.replayed, again.position) == (True, kept[0].position)
        for done, status in ((kept[-1], 200), (lost[0], 409), (lost[-1], 409), (answers[0], 200)):
            answer = await desk.http.get("/teams", params={"after": done.token})
            assert answer.status_code == status, answer.text
        epochs = servers.standby.query("SELECT after_position, reason FROM ws_main.log_epochs ORDER BY number")
        assert [position for position, _ in epochs] == [0, 5]
        assert "timeline 00000001" in epochs[1][1]
        await desk.views_follow()
