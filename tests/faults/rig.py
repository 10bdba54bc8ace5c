"""A real desk to be broken: its processes, its own PostgreSQL, and the wire between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from domain.event import Role
from storage import credentials
from storage.database import Database
from storage.embedded import SUPERUSER, EmbeddedServer
from storage.migrations import create_workspace, migrate
from storage.programs import EmbeddedServerError
from storage.settings import Settings
from tests.faults.proxy import Proxy
from tests.faults.small_disk import SmallDisk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
WORKSPACE: Final = "main"
SCHEMA: Final = f"ws_{WORKSPACE}"
PATIENCE: Final = 120.0  # seconds for anything to come up or come back
WATCH: Final = 0.1  # seconds between looks
PORTS: Final = range(
    20000, 32000
)  # below those that connections are given, so that none takes a desk's while it is down


class DidNotComeBack(AssertionError):
    """Something was not as it should be long after it should have been."""


@dataclass(eq=False)
class Rig:
    """One desk under test. `together` says how it is set up.

    Together: `desk serve` keeps workers, views and the embedded PostgreSQL, as `make run` does. Apart: PostgreSQL is
    somebody else's, named by DATABASE_URL and reached through a proxy, `desk serve --no-views` serves, and one `desk
    project` keeps the views, with another to take over.
    """

    directory: Path
    together: bool
    disk: SmallDisk | None
    proxy: Proxy | None = None
    token: str = ""
    address: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    held: list[psycopg.AsyncConnection[Any]] = field(default_factory=list)
    """Connections of strangers, which a fault left open."""
    _stopping: bool = False
    _keeper: asyncio.Task[None] | None = None

    # Setting up and clearing away

    @property
    def data_dir(self) -> Path:
        """Where PostgreSQL keeps its data."""
        return (self.disk.directory if self.disk is not None else self.directory) / "data"

    def server(self) -> EmbeddedServer:
        """Give another view of the server, held by nobody."""
        # Small enough for a small disk, and every commit on it.
        options = {"max_wal_size": "96MB", "shared_buffers": "64MB"} if self.disk is not None else {}
        return EmbeddedServer(self.data_dir, version=Settings.from_environment().postgres_version, options=options)

    def conninfo(self) -> str:
        """Give the way past the proxy, as superuser."""
        return make_conninfo(self.server().conninfo(user=SUPERUSER), connect_timeout=5)

    @property
    def log_file(self) -> Path:
        """Where the desk's processes write what they have to say."""
        return self.directory / "desk.log"

    def environment(self) -> dict[str, str]:
        """Give what the desk's processes find in their surroundings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_"))}
        given = {"DESK_KEY_FILE": str(self.directory / "root.key"), "DESK_WORKSPACE": WORKSPACE}
        if self.proxy is None:
            version = self.server().version
            return kept | given | {"DESK_DATA_DIR": str(self.data_dir), "DESK_POSTGRES_VERSION": str(version)}
        return kept | given | {"DESK_DATA_DIR": str(self.directory / "unused"), "DATABASE_URL": self.proxy.conninfo}

    def commands(self) -> dict[str, Sequence[str]]:
        """Give the desk's processes by name."""
        port = self.address.rpartition(":")[2]
        serve = ("serve", "--workers", "2", "--port", port)
        if self.together:
            return {"desk": serve}
        return {"desk": (*serve, "--no-views"), "views": ("project",), "spare views": ("project",)}

    async def start(self) -> None:
        """Bring everything up."""
        self.address = f"http://127.0.0.1:{free_port()}"
        server = self.server()
        await asyncio.to_thread(server.start)
        try:
            if not self.together:
                self.proxy = Proxy(self.directory / "wire", server.conninfo())
                await self.proxy.start()
            self.token = await self._furnish()
            for name in self.commands():
                self.launch(name)
            await self.ready()
        finally:
            if self.together:
                await asyncio.to_thread(server.stop)  # from here on it is the desk's alone
        self._keeper = asyncio.create_task(self._keep(None if self.together else server))

    async def _furnish(self) -> str:
        """Make the workspace, and give a credential of an administrator."""
        settings = Settings(self.data_dir, self.directory / "root.key", postgres_version=self.server().version)
        await migrate(settings)
        await create_workspace(settings, WORKSPACE)
        async with await Database.open(settings) as database:
            return await credentials.issue(database, WORKSPACE, Role.ADMINISTRATOR, uuid4(), label="faults")

    async def stop(self) -> None:
        """End every process."""
        self._stopping = True
        await self.let_go()
        # In threads: the desk's last words to PostgreSQL pass through the proxy, which is here.
        await asyncio.gather(*(asyncio.to_thread(end_group, process) for process in self.processes.values()))
        if self._keeper is not None:
            await self._keeper
        if self.proxy is not None:
            await self.proxy.stop()

    def launch(self, name: str) -> None:
        """Start one of the desk's processes, in a group of its own."""
        with self.log_file.open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "api.cli", *self.commands()[name]],
                env=self.environment(),
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _keep(self, server: EmbeddedServer | None) -> None:
        """Start a process again that has ended, as an init system does; and PostgreSQL where it is not the desk's."""
        try:
            while not self._stopping:
                for name, process in list(self.processes.items()):
                    if process.poll() is not None and not self._stopping:
                        self.launch(name)
                if server is not None:
                    with contextlib.suppress(EmbeddedServerError):
                        await asyncio.to_thread(server.revive)
                await asyncio.sleep(WATCH)
        finally:
            if server is not None:
                await asyncio.to_thread(server.stop)

    # Looking and waiting

    async def ready(self) -> None:
        """Wait until the desk answers."""
        async with httpx.AsyncClient(base_url=self.address, timeout=5) as http:

            async def answers() -> bool:
                try:
                    return (await http.get("/health/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(answers, "the desk is ready")

    async def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Ask PostgreSQL past the desk. Raises psycopg.OperationalError while it is down."""
        connection = await psycopg.AsyncConnection.connect(self.conninfo(), autocommit=True)
        async with connection:
            cursor = await connection.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def let_go(self) -> None:
        """End the sessions of strangers."""
        while self.held:
            connection = self.held.pop()
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()

    async def repair(self) -> None:
        """Undo every fault and wait until the desk answers and its views have caught up with the log."""
        if self.proxy is not None:
            self.proxy.flow()
        await self.let_go()
        if self.disk is not None:
            self.disk.free()
        await self.ready()

    async def views_caught_up(self) -> None:
        """Wait until every view is at the end of the log. Raises DidNotComeBack."""

        async def caught_up() -> bool:
            try:
                rows = await self.query(
                    f"SELECT count(*) > 0, coalesce(bool_and(state = 'live'), false), coalesce(min(position), 0) ="
                    f" (SELECT coalesce(max(notification_id), 0) FROM {SCHEMA}.events) FROM {SCHEMA}.views"
                )
            except psycopg.OperationalError:
                return False
            return rows == [(True, True, True)]

        async def standing() -> str:
            return str(await self.query(f"SELECT name, position, state, error, owner FROM {SCHEMA}.views"))

        try:
            await eventually(caught_up, "the views have caught up")
        except DidNotComeBack as error:
            message = f"{error}: {await standing()}"
            raise DidNotComeBack(message) from None

    def workers(self) -> list[int]:
        """Give the processes below `desk serve` that do its work."""
        return [pid for pid in children(self.processes["desk"].pid) if b"resource_tracker" not in command_line(pid)]

    async def projection(self) -> int | None:
        """Give the process that keeps the views, as they tell themselves."""
        with contextlib.suppress(psycopg.OperationalError):
            for (owner,) in await self.query(f"SELECT DISTINCT owner FROM {SCHEMA}.views WHERE owner IS NOT NULL"):
                found = re.search(r":(\d+):", owner)
                if found is not None and command_line(int(found[1])):
                    return int(found[1])
        return None

    def postgres_processes(self) -> list[int]:
        """Give the postmaster first and then its backends and helpers."""
        postmaster = self.server()._postmaster()
        return [] if postmaster is None else [postmaster, *children(postmaster)]


@contextlib.asynccontextmanager
async def rig(*, together: bool, small_disk: bool = False) -> AsyncIterator[Rig]:
    """Give a desk that runs, and clear it away."""
    directory = _fresh_directory()
    made = Rig(directory, together, SmallDisk.mounted(directory / "disk") if small_disk else None)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        if made.disk is not None:
            made.disk.unmount()
        shutil.rmtree(directory, ignore_errors=True)


def _fresh_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="ledgerdesk-faults-"))
    directory.chmod(0o711)  # the PostgreSQL of a root's desk is another user and must pass through
    return directory


async def eventually(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition holds. Raises DidNotComeBack."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            message = f"not within {seconds:.0f} seconds: {what}"
            raise DidNotComeBack(message)
        await asyncio.sleep(WATCH)


def free_port() -> int:
    """Choose a port that nobody listens on, to be listened on again and again."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def children(pid: int) -> list[int]:
    """Give the processes that a process has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return sorted(found)


def command_line(pid: int) -> bytes:
    """Give what a process was called with; nothing when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process in order and, when it does not, with all of its children."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
