"""A dump taken while commands run, restored onto another server: the desk goes on there with every guarantee."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import psycopg
import pytest

from api.app import create_app
from api.conditions import position_text
from domain.customer import ContactKnown, Customer
from domain.event import Role
from projections.registry import VIEWS
from projections.runner import Runner
from projections.waiting import wait_for
from storage import credentials
from storage.database import Database
from storage.embedded import OWNER, SUPERUSER, EmbeddedServer
from storage.migrations import create_workspace, migrate
from storage.settings import Settings, external_conninfo
from tests.commands.sending import Sender
from tests.conftest import UNSAFE_BUT_QUICK
from tests.faults.views_from_zero import check_views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from commands.request import Outcome
    from storage.database import Workspace

CLIENTS: Final = 4


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that any user may pass through, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="ledgerdesk_test_") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@dataclass
class Site:
    """A desk on a server of its own."""

    server: EmbeddedServer
    settings: Settings
    database: Database
    workspace: Workspace

    def owner(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.settings.database_url or "", autocommit=True)

    async def client(self, token: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(self.database, longest_wait=0.2)),
            base_url="http://desk.test",
            headers={"Authorization": f"Bearer {token}"},
        )


@asynccontextmanager
async def site(directory: Path, key_file: Path, dump: Path | None = None) -> AsyncIterator[Site]:
    """Set a desk up, from a dump or empty."""
    version = Settings.from_environment().postgres_version
    with EmbeddedServer(directory, version=version, options=UNSAFE_BUT_QUICK) as server:
        settings = Settings(directory, key_file, database_url=server.conninfo(user=OWNER), pool_size=6)
        if dump is not None:
            # As superuser: what the application owns is given to it before it has the right to own anything there.
            given = ("--exit-on-error", "--dbname=ledgerdesk", str(dump))
            done = await asyncio.to_thread(server.run, "pg_restore", *given, user=SUPERUSER, check=False)
            assert done.returncode == 0, done.stderr
        await migrate(settings)
        if dump is None:
            await create_workspace(settings, "main")
        async with await Database.open(settings) as database:
            yield Site(server, settings, database, await database.workspace("main"))


@dataclass
class Work:
    """What clients do until they are told to stop, and what they were answered."""

    sender: Sender
    ticket: UUID
    answered: dict[str, Outcome] = field(default_factory=dict)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, number: int) -> None:
        count = 0
        while not self.stop.is_set():
            count += 1
            key = f"{number}-{count}"
            self.answered[key] = await self.again(key)
            await asyncio.sleep(0)

    async def again(self, key: str, sender: Sender | None = None) -> Outcome:
        return await (sender or self.sender).send("ticket", "add-note", self.ticket, key=key, text=f"note {key}")

    async def until(self, commands: int) -> None:
        async with asyncio.timeout(60):
            while len(self.answered) < commands:  # noqa: ASYNC110 - many clients add to it
                await asyncio.sleep(0.01)


async def test_a_restored_dump_goes_on_with_every_guarantee(place: Path) -> None:
    key_file, dump = place / "root.key", place / "desk.dump"
    async with site(place / "one", key_file) as one:
        people = Sender.at(one.workspace)
        customer = await people.customer("王小明", email="wang@example.com")
        work = Work(people, await people.ticket(customer))
        token = await credentials.issue(one.database, "main", Role.ADMINISTRATOR, people.caller.actor_id, label="a")
        stop = asyncio.Event()
        runner = Runner(one.database, VIEWS)
        await runner.catch_up(one.workspace)
        views = asyncio.create_task(runner.run(stop))
        clients = [asyncio.create_task(work.client(number)) for number in range(CLIENTS)]
        await work.until(50)
        for view in VIEWS:
            await wait_for(one.workspace, view, 1, 60)
        before = dict(work.answered)
        await asyncio.to_thread(one.server.run, "pg_dump", "--format=custom", f"--file={dump}")
        await work.until(len(work.answered) + 50)
        work.stop.set()
        stop.set()
        await asyncio.gather(views, *clients)
        original = await one.workspace.log.page(0, 100_000)
        epoch = await one.workspace.log.epoch()

    async with site(place / "two", key_file, dump) as two:
        log = two.workspace.log
        restored = await log.page(0, 100_000)
        kept = len(restored)
        assert [row.position for row in restored] == list(range(1, kept + 1))
        assert restored == original[:kept]
        assert len(before) < kept < len(original)
        sender = Sender.at(two.workspace, caller=people.caller)

        # Keys: what the dump has is answered as it was; what it lacks is carried out, at the next position and version.
        for key, outcome in work.answered.items():
            again = await work.again(key, sender)
            assert again.replayed == (outcome.position <= kept), key
            if again.replayed:
                assert (again.position, again.version) == (outcome.position, outcome.version)
        rows = await log.page(0, 100_000)
        assert [row.position for row in rows] == list(range(1, len(original) + 1))
        assert [row.version for row in rows if row.stream == work.ticket] == list(range(1, len(work.answered) + 2))

        await check_persons(sender, customer)
        await check_views_and_positions(two, len(rows), kept, epoch, token)
        # Partitions, roles and rights.
        await log.rotate_outcomes()
        check_rights(two, len(rows))


async def check_persons(sender: Sender, customer: UUID) -> None:
    """Claims hold, and personal values are read with the root key."""
    with pytest.raises(ContactKnown):
        await sender.customer("Somebody else", email="wang@example.com")
    assert (await sender.desk.load(Customer, customer)).name == "王小明"


async def check_views_and_positions(two: Site, head: int, kept: int, epoch: str, token: str) -> None:
    """Views go on from where the dump has them; positions of before hold as far as the dump has them."""
    with two.owner() as owner:
        found = owner.execute("SELECT min(position) FROM ws_main.views").fetchone()
    assert found is not None
    assert isinstance(found[0], int)
    assert 0 < found[0] <= kept
    stop = asyncio.Event()
    views = asyncio.create_task(Runner(two.database, VIEWS).run(stop))
    client = await two.client(token)
    last = position_text(head, await two.workspace.log.epoch())
    async with client, asyncio.timeout(60):
        # The leases of the desk that was dumped run out first.
        for path in ("/queue", "/sla-clocks", "/audit-trail", "/teams"):
            while (await client.get(path, params={"after": last})).status_code != 200:
                pass
        # Positions of before, those that the dump has and those that it lacks.
        for position, status in ((kept, 200), (kept + 1, 409)):
            answer = await client.get("/queue", params={"after": position_text(position, epoch)})
            assert answer.status_code == status, answer.text
        assert answer.json()["type"] == "/problems/log-epoch-changed"
        assert answer.json()["epoch"] == await two.workspace.log.epoch() != epoch
    stop.set()
    await views
    assert await asyncio.to_thread(check_views, two.settings.database_url or "", "ws_main") == []


def check_rights(two: Site, head: int) -> None:
    """The application and the reader may read the log, and neither may write to it."""
    for role in ("ledgerdesk_app", "ledgerdesk_reader"):
        with psycopg.connect(external_conninfo(two.settings.database_url or "", role), autocommit=True) as other:
            assert other.execute("SELECT count(*) FROM ws_main.events").fetchone() == (head,)
            for statement in (
                b"DELETE FROM ws_main.events",
                b"UPDATE ws_main.events SET topic = 'x'",
                b"INSERT INTO ws_main.events VALUES (99999999, gen_random_uuid(), 1, 't', '', NULL, now())",
                b"SELECT ws_main.renew_epoch('mine', 0)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    other.execute(statement)
