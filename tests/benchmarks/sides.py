"""The two sides that commands are measured on, the desk and the plain way, and one load for both of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

import psycopg

from domain.agent import Agent
from domain.customer import Customer
from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.team import Team
from projections.bookkeeping import LIVE, view_status
from projections.registry import VIEWS
from projections.ticket_queue import VIEW as TICKET_QUEUE
from storage.append import Submission
from storage.codec import encode
from storage.credentials import issue
from storage.settings import project_root
from tests.benchmarks import plain, processes
from tests.benchmarks.client import COUNTED, COUNTING, Plan
from tests.benchmarks.ground import MeasurementError, library_environment
from tests.benchmarks.seeded_course import STARTED_AT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from domain.event import Aggregate
    from storage.database import Workspace
    from storage.settings import Settings
    from tests.benchmarks.ground import Ground

START_SECONDS = 60.0
CATCH_UP_SECONDS = 60.0
MOST_TRIES = 100  # twentieths of a second until all workers are up
LONGEST_LINE = 2**24  # bytes; a wrong answer is told whole
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class People:
    """Whom the commands are about, and the credential they are sent with."""

    token: str
    actor: UUID
    agents: list[str]
    teams: list[str]
    requesters: list[str]


class Service(NamedTuple):
    """A service that runs: where it answers and the process it was started as."""

    port: int
    pid: int


class Acknowledged(NamedTuple):
    """An event a client was told of, and when, by time.monotonic."""

    ticket: str
    version: int
    position: int
    at: float


class PlainSetting(NamedTuple):
    """How the plain service is run; with `cache` it keeps aggregates in memory, as the library can."""

    workers: int
    pool: int
    cache: bool = False

    @property
    def name(self) -> str:
        """Say it in one word."""
        return f"workers_{self.workers}_pool_{self.pool}{'_cache' if self.cache else ''}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load came to; a wrong answer would have ended the measurement instead."""

    result: dict[str, Any]
    acknowledged: list[Acknowledged]
    processor: dict[str, Any] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Commands answered a second."""
        found: float = self.result["per_second"]
        return found


def plan_for(people: People, *, concurrency: int, seconds: float, warm_up_seconds: float, **further: Any) -> Plan:
    """Lay out a load; where it goes is added when it is sent."""
    return Plan(
        host=HOST, port=0, token=people.token, concurrency=concurrency, warm_up_seconds=warm_up_seconds,
        seconds=seconds, seed=0, agents=people.agents, teams=people.teams, requesters=people.requesters,
        acknowledged="", **further,
    )  # fmt: skip


async def make_people(workspace: Workspace) -> People:
    """Record teams, agents and customers, and make a credential for one of the agents."""
    act = Act(STARTED_AT, Provenance(actor_id=SYSTEM_ACTOR, role=Role.SYSTEM, channel=Channel.SYSTEM))
    teams = [Team.create(team_id=uuid4(), name=f"Team {n}", act=act) for n in range(5)]
    agents = [Agent.create(agent_id=uuid4(), name=f"Agent {n}", teams=teams[:1], act=act) for n in range(20)]
    customers = [Customer.register(customer_id=uuid4(), name=f"客户 {n}", act=act) for n in range(200)]
    await workspace.keyring.ensure([one.id for one in (*agents, *customers)])
    everybody: list[Aggregate] = [*teams, *agents, *customers]
    events: list[Any] = [event for one in everybody for event in one.collect_events()]
    await workspace.log.append(Submission([encode(event, workspace.keyring) for event in events]))
    return People(
        token=await issue(workspace.database, workspace.name, "agent", agents[0].id, label="bench"),
        actor=agents[0].id,
        agents=[str(one.id) for one in agents],
        teams=[str(one.id) for one in teams],
        requesters=[str(one.id) for one in customers],
    )


async def load(service: Service, plan: Plan, cluster: Path | None = None) -> Loaded:
    """Send commands from a process of its own; every event acknowledged must have been told once.

    `cluster` is the PostgreSQL server's data directory where its processor time is to be told. Raises MeasurementError.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "acknowledged"
        plan = replace(plan, port=service.port, seed=service.port, acknowledged=str(file))
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.sending", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, cwd=project_root(), limit=LONGEST_LINE,
        )  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        result: dict[str, Any] | None = None
        used: dict[str, tuple[float, processes.Use]] = {}
        try:
            client.stdin.write(json.dumps(asdict(plan)).encode())
            client.stdin.close()
            async for line in client.stdout:
                said = line.decode().strip()
                if said in {COUNTING, COUNTED}:
                    used[said] = time.monotonic(), processes.use(service.pid, service.port, cluster)
                else:
                    result = json.loads(said)
        finally:
            if client.returncode is None and result is None:
                client.kill()
            await client.wait()
        if client.returncode != 0 or result is None:
            message = f"the client ended with status {client.returncode}"
            raise MeasurementError(message)
        lines = [line.split() for line in file.read_text("ascii").splitlines()]
    if result["wrong"]:
        message = f"{len(result['wrong'])} wrong answers, the first: {result['wrong'][0]}"
        raise MeasurementError(message)
    acknowledged = [Acknowledged(line[0], int(line[1]), int(line[2]), float(line[3])) for line in lines]
    different = len(events_of(acknowledged))
    if different != len(acknowledged) or not acknowledged:
        message = f"{len(acknowledged) - different} of {len(acknowledged)} acknowledgements were given twice"
        raise MeasurementError(message)
    processor = {}
    if len(used) == len({COUNTING, COUNTED}):
        (begun, before), (ended, after) = used[COUNTING], used[COUNTED]
        processor = processes.told(before, after, result["processor_seconds"], ended - begun)
    return Loaded(result, acknowledged, processor)


def events_of(acknowledged: Sequence[Acknowledged]) -> set[tuple[str, int, int]]:
    """Give what is to be in the log: ticket, version, position."""
    return {(one.ticket, one.version, one.position) for one in acknowledged}


async def views_caught_up(workspace: Workspace, acknowledged: Sequence[Acknowledged]) -> float:
    """Wait until every view stands at the head of the log; gives how long that took. The queue must hold every ticket."""
    started = time.perf_counter()
    while True:
        standing = await view_status(workspace, VIEWS)
        if all(view.state == LIVE and view.lag_events == 0 for view in standing):
            break
        if time.perf_counter() - started > CATCH_UP_SECONDS or any(view.failure for view in standing):
            message = f"the views did not catch up: {standing}"
            raise MeasurementError(message)
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - started
    async with workspace.database.pool.connection() as connection:
        place = TICKET_QUEUE.shelf(workspace.schema).place.as_string(connection)
        cursor = await connection.execute(f"SELECT ticket_id::text, version FROM {place}".encode())
        rows: dict[str, int] = dict(await cursor.fetchall())
    last: dict[str, int] = {}
    for one in acknowledged:
        last[one.ticket] = max(one.version, last.get(one.ticket, 0))
    if rows != last:
        message = f"the queue lists {len(rows)} tickets, {len(last)} were opened, or versions differ"
        raise MeasurementError(message)
    return seconds


async def require_exactly(address: str, table: str, acknowledged: Sequence[Acknowledged]) -> None:
    """Raise MeasurementError unless the log holds every acknowledged event at its place, and no other of a ticket."""
    statement = f"""
        SELECT originator_id::text, originator_version, notification_id FROM {table}
        WHERE topic LIKE 'ticket.%' OR topic LIKE 'tests.benchmarks.plain:Ticket%'
    """
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        rows = set(await (await connection.execute(statement.encode())).fetchall())
    expected = events_of(acknowledged)
    if rows != expected:
        message = (
            f"{len(expected - rows)} acknowledged events are not in {table}"
            f" and {len(rows - expected)} are there that nobody was told of"
        )
        raise MeasurementError(message)


@asynccontextmanager
async def desk(settings: Settings, workers: int, *, views: bool = True, timer: bool = True) -> AsyncIterator[Service]:
    """Run `desk serve` on a free port, with the views kept up or without, and with what falls due seen to or not."""
    environment = {
        "DATABASE_URL": settings.database_url or "",
        "DESK_DATA_DIR": str(settings.data_dir),
        "DESK_KEY_FILE": str(settings.key_file),
        "DESK_TIMER": "on" if timer else "off",
    }
    command = ["-m", "api.cli", "serve", "--host", HOST, "--port", "0", "--workers", str(workers)]
    if not views:
        command.append("--no-views")
    async with process(command, environment) as server:
        assert server.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = (await server.stdout.readline()).decode().strip()
            if not line.startswith("Serving on "):
                message = f"desk serve did not start: {line}"
                raise MeasurementError(message)
            service = Service(int(line.rpartition(":")[2]), server.pid)
            await all_there(service, workers)
        yield service


@asynccontextmanager
async def plain_service(address: str, setting: PlainSetting, people: People) -> AsyncIterator[Service]:
    """Run the plain service on a free port, with its tables made beforehand: its workers would make them at once."""
    environment = library_environment(address, pool_size=setting.pool)
    await asyncio.to_thread(lambda: plain.Desk(environment).close())
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
    digest = hashlib.sha256(people.token.encode()).hexdigest()
    environment["CREATE_TABLE"] = "no"
    environment[plain.TOKENS_VARIABLE] = f"{digest}:{people.actor}:agent"
    if setting.cache:
        environment["AGGREGATE_CACHE_MAXSIZE"] = "1000"
    command = [
        "-m", "uvicorn", "tests.benchmarks.plain:create", "--factory", "--host", HOST, "--port", str(port),
        "--workers", str(setting.workers), "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        environment[plain.READY_VARIABLE] = directory
        async with process(command, environment) as server:
            async with asyncio.timeout(START_SECONDS):
                await _ready(server, Path(directory), setting.workers, port)
            yield Service(port, server.pid)


async def measure_plain(place: Ground, setting: PlainSetting, people: People, plan: Plan) -> Loaded:
    """Load the plain service in a database of its own, which then holds what it acknowledged and nothing else.

    Raises MeasurementError.
    """
    await place.checkpoint()
    address = await place.database()
    async with plain_service(address, setting, people) as service:
        found = await load(service, plan, place.cluster)
    await require_exactly(address, "desk_events", found.acknowledged)
    return found


async def all_there(service: Service, workers: int) -> None:
    """Wait until every worker has taken a connection: one that still starts would leave all of them to the others."""
    writers = []
    try:
        for _ in range(MOST_TRIES):
            writers.append((await asyncio.open_connection(HOST, service.port))[1])
            await asyncio.sleep(0.05)
            taken = processes.use(service.pid, service.port).connections
            if not processes.SHOWN or sum(map(bool, taken.values())) >= workers:
                return
    finally:
        for writer in writers:
            writer.close()


async def _ready(server: asyncio.subprocess.Process, directory: Path, workers: int, port: int) -> None:
    """Wait until every worker is up: a connection stays with the worker that took it."""
    while server.returncode is None:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        if len(await asyncio.to_thread(os.listdir, directory)) == workers:
            return
        await asyncio.sleep(0.05)
    message = f"the plain service ended with status {server.returncode}"
    raise MeasurementError(message)


@asynccontextmanager
async def process(command: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a Python program of the project with an environment that names no other database; it is ended afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_URL"))}
    running = await asyncio.create_subprocess_exec(
        sys.executable, *command, env={**kept, **environment}, cwd=project_root(), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.terminate()
        await running.wait()
