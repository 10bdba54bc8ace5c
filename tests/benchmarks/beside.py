"""Whether those who read the queue notice that it is being rebuilt: delays over HTTP during rebuilds beside idle ones."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from domain.event import SYSTEM_ACTOR, Role
from projections.bookkeeping import view_status
from projections.registry import VIEWS
from projections.ticket_queue import QueueFilter, count_tickets
from replay.rebuild import rebuild
from storage.credentials import issue
from storage.database import Database
from storage.settings import Settings, project_root
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.seed import fill
from tests.benchmarks.sides import CATCH_UP_SECONDS, HOST, Service, desk
from tests.benchmarks.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.database import Workspace

EVENTS: Final = 300_000
RATE: Final = 50.0  # pages a second: a service that has nothing else to do answers in a few milliseconds
CONNECTIONS: Final = 16  # enough that none is waited for
WARM_UP_SECONDS: Final = 2.0
WANTED: Final = 2.0


async def main(
    settings: Settings,
    *,
    events: int = EVENTS,
    seconds: float = 20.0,
    rate: float = RATE,
    workers: int | None = None,
) -> dict[str, Any]:
    """Read pages of the queue by a timetable of `rate` a second, first while nothing else happens, then during rebuilds.

    Delays count from when a request was due. The rebuilds are `desk rebuild`, one after the other until the time is up;
    Each is divided among `workers` processes, without it one a processor. `ratio` is the p99 during them over the idle one, and wanted to be at most 2. Raises MeasurementError.
    """
    async with ground(settings) as place, await Database.open(place.settings) as database:
        workspace = await database.workspace(WORKSPACE)
        say(f"beside: seeding {events:,} events")
        await fill(place.settings, workspace, events)
        for view in VIEWS:
            await rebuild(workspace, view)
        await place.checkpoint()
        paths = await _paths(workspace)
        token = await issue(database, WORKSPACE, Role.AUDITOR, SYSTEM_ACTOR, label="bench")
        async with desk(place.settings, 1, timer=False) as service:
            await _kept_up(workspace)
            readers = await _Readers.connected(service, token, paths, rate)
            await readers.read(WARM_UP_SECONDS)
            idle = await readers.read(seconds)
            say(f"beside: idle {milliseconds(idle)}")
            rebuilding = asyncio.create_task(_rebuilt(place.settings, seconds, workers))
            during = await readers.read(seconds)
            rebuilds = await rebuilding
            say(f"beside: during {rebuilds} rebuild(s) {milliseconds(during)}")
            readers.close()
    told, beside = milliseconds(idle), milliseconds(during)
    return {
        "benchmark": "rebuild_beside",
        "ratio": round(beside["p99"] / told["p99"], 2),
        "wanted": WANTED,
        "idle_milliseconds": told,
        "during_milliseconds": beside,
        "rebuilds": rebuilds,
        "events": events,
        "rate": rate,
        "workers": workers,
        "seconds": seconds,
        "server": place.durability,
    }


async def _kept_up(workspace: Workspace) -> None:
    """Wait until the service keeps all views up."""
    async with asyncio.timeout(CATCH_UP_SECONDS):
        # Another process sees to it.
        while any(view.owner is None or view.lag_events for view in await view_status(workspace, VIEWS)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _paths(workspace: Workspace) -> list[bytes]:
    """Give what is read by turns: pages as agents look at them, and counts."""
    teams = (await count_tickets(workspace, QueueFilter(), by="team")).counts
    some = [one for one in teams if one is not None][:4]
    pages = [f"/queue?team={team}&status=open&sort=due&limit=50".encode() for team in some]
    return [b"/queue?status=open&limit=50", b"/queue/counts?by=team", *pages]


class _Readers:
    """Connections that ask in turn, each request when it is due and a connection is free."""

    def __init__(self, token: str, paths: list[bytes], rate: float) -> None:
        self._head = f" HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        self._paths: Iterator[bytes] = cycle(paths)
        self._pause = 1 / rate
        self._free: asyncio.Queue[_Reader] = asyncio.Queue()
        self._all: list[_Reader] = []
        self.delays: list[float] = []
        self.wrong: list[str] = []

    @classmethod
    async def connected(cls, service: Service, token: str, paths: list[bytes], rate: float) -> _Readers:
        """Connect them all."""
        readers = cls(token, paths, rate)
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            reader = _Reader(readers)
            await loop.create_connection(lambda one=reader: one.wire, HOST, service.port)  # type: ignore[misc]
            readers._all.append(reader)
            readers.free(reader)
        return readers

    def free(self, reader: _Reader) -> None:
        """Take one back."""
        self._free.put_nowait(reader)

    async def read(self, seconds: float) -> list[float]:
        """Read by the timetable for so long; gives the delays in seconds. Raises MeasurementError."""
        self.delays = []
        began = time.monotonic()
        for number in range(max(round(seconds / self._pause), 1)):
            due_at = began + number * self._pause
            await asyncio.sleep(max(due_at - time.monotonic(), 0))
            reader = await self._free.get()
            reader.ask(b"GET %b%b" % (next(self._paths), self._head), due_at)
            if self.wrong:
                break
        all_of_them = [await asyncio.wait_for(self._free.get(), 60) for _ in self._all]
        for reader in all_of_them:
            self.free(reader)
        if self.wrong:
            raise MeasurementError(self.wrong[0])
        return self.delays

    def close(self) -> None:
        """End all connections."""
        for reader in self._all:
            reader.wire.close()


class _Reader:
    def __init__(self, readers: _Readers) -> None:
        self._readers = readers
        self._due_at = 0.0
        self.wire = Wire(self._answered, readers.wrong.append)

    def ask(self, request: bytes, due_at: float) -> None:
        self._due_at = due_at
        self.wire.send(request)

    def _answered(self, status: int, _head: bytes, body: bytes) -> None:
        self._readers.delays.append(time.monotonic() - self._due_at)
        if status != 200:
            self._readers.wrong.append(f"{status} {body.decode(errors='replace')}")
        elif "position" not in from_json(body):
            self._readers.wrong.append("an answer without its position")
        self._readers.free(self)


async def _rebuilt(settings: Settings, seconds: float, workers: int | None) -> int:
    """Run `desk rebuild`, again and again for so long; gives how often. Raises MeasurementError."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_URL"))}
    environment = {
        "DATABASE_URL": settings.database_url or "",
        "DESK_DATA_DIR": str(settings.data_dir),
        "DESK_KEY_FILE": str(settings.key_file),
        "DESK_WORKSPACE": WORKSPACE,
    }
    divided = [] if workers is None else ["--workers", str(workers)]
    until, times = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api.cli", "rebuild", "ticket_queue", "--require-equal", *divided,
            env={**kept, **environment}, cwd=project_root(),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        if process.returncode != 0:
            message = f"desk rebuild ended with status {process.returncode}: {said.decode(errors='replace')}"
            raise MeasurementError(message)
        times += 1
    return times


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
