"""How many commands a second the desk carries out over HTTP, beside the same desk built the plain way."""

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
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
from storage.database import Database
from storage.settings import Settings, project_root
from tests.benchmarks import plain
from tests.benchmarks.client import Plan
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, library_environment, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.seed import STARTED_AT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from domain.event import Aggregate
    from storage.database import Workspace

CONCURRENCY = 64
PLAIN_SETTINGS = ((1, 5), (1, 20), (2, 5), (2, 20))
"""Worker processes and connections of each for the yardstick; the best of them counts."""
SHARED_TICKETS = 8
SHARED_ONE_IN = 50  # so that commands on one ticket meet now and then, and conflicts are retried on both sides
START_SECONDS = 60.0
CATCH_UP_SECONDS = 60.0
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class People:
    """Whom the commands are about, and the credential they are sent with."""

    token: str
    actor: UUID
    agents: list[str]
    teams: list[str]
    requesters: list[str]


async def main(
    settings: Settings,
    *,
    seconds: float = 10.0,
    warm_up_seconds: float = 3.0,
    concurrency: int = CONCURRENCY,
    workers: int = 2,
    plain_settings: Sequence[tuple[int, int]] = PLAIN_SETTINGS,
) -> dict[str, Any]:
    """Drive the real server and the plain one with the same commands; `ratio` is ours over the plain one's best.

    All views are live meanwhile and must have caught up at the end. Every answer is checked as it comes, and
    afterwards the log must hold what was acknowledged and nothing else. Raises MeasurementError.
    """
    async with ground(settings) as place:
        async with await Database.open(place.settings) as database:
            workspace = await database.workspace(WORKSPACE)
            people = await _people(workspace)
            load = (people, seconds, warm_up_seconds, concurrency)
            say(f"commands: desk serve, {workers} worker(s), {concurrency} at once, {seconds:g} s")
            async with _desk(place.settings, workers) as port:
                ours, acknowledged = await _load(port, *load)
                say(f"commands: {ours['per_second']:,.0f}/s, {ours['milliseconds']}; waiting for the views")
                caught_up = await _views_caught_up(workspace, acknowledged)
            await _require_exactly(place.settings.database_url or "", f"{workspace.schema}.events", acknowledged)
        by_setting: dict[str, Any] = {}
        for plain_workers, pool in plain_settings:
            await place.checkpoint()
            name = f"workers_{plain_workers}_pool_{pool}"
            say(f"commands: the plain way, {plain_workers} worker(s), pool of {pool}")
            address = await place.database()
            async with _plain(address, plain_workers, pool, people) as port:
                by_setting[name], acknowledged = await _load(port, *load)
            await _require_exactly(address, "desk_events", acknowledged)
            say(f"commands: {by_setting[name]['per_second']:,.0f}/s, {by_setting[name]['milliseconds']}")
        best = max(by_setting.values(), key=lambda result: result["per_second"])
        return {
            "benchmark": "commands",
            "ratio": round(ours["per_second"] / best["per_second"], 2),
            "ours_per_second": ours["per_second"],
            "ours_milliseconds": ours["milliseconds"],
            "ours_by_command": ours["by_command"],
            "plain_per_second": best["per_second"],
            "plain_milliseconds": best["milliseconds"],
            "plain_by_setting": {name: result["per_second"] for name, result in by_setting.items()},
            "views_behind_seconds": round(caught_up, 3),
            "views": [view.name for view in VIEWS],
            "workers": workers,
            "concurrency": concurrency,
            "seconds": seconds,
            "server": place.durability,
        }


async def _people(workspace: Workspace) -> People:
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


async def _load(
    port: int, people: People, seconds: float, warm_up_seconds: float, concurrency: int
) -> tuple[dict[str, Any], set[tuple[str, int, int]]]:
    """Send commands from a process of its own; gives its figures and every (ticket, version, position) acknowledged."""
    with tempfile.TemporaryDirectory() as directory:
        acknowledged = Path(directory) / "acknowledged"
        plan = Plan(
            host=HOST,
            port=port,
            token=people.token,
            concurrency=concurrency,
            warm_up_seconds=warm_up_seconds,
            seconds=seconds,
            seed=port,
            agents=people.agents,
            teams=people.teams,
            requesters=people.requesters,
            shared_tickets=SHARED_TICKETS,
            shared_one_in=SHARED_ONE_IN,
            acknowledged=str(acknowledged),
        )
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.client",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=project_root(),
        )  # fmt: skip
        output, _ = await client.communicate(json.dumps(asdict(plan)).encode())
        if client.returncode != 0:
            message = f"the client ended with status {client.returncode}"
            raise MeasurementError(message)
        lines = acknowledged.read_text("ascii").splitlines()
    result: dict[str, Any] = json.loads(output)
    if result["wrong"]:
        message = f"{len(result['wrong'])} wrong answers, the first: {result['wrong'][0]}"
        raise MeasurementError(message)
    found = {(ticket, int(version), int(position)) for ticket, version, position in map(str.split, lines)}
    if len(found) != len(lines) or not found:
        message = f"{len(lines) - len(found)} of {len(lines)} acknowledgements were given twice"
        raise MeasurementError(message)
    return result, found


async def _views_caught_up(workspace: Workspace, acknowledged: set[tuple[str, int, int]]) -> float:
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
    tickets = {ticket for ticket, _, _ in acknowledged}
    async with workspace.database.pool.connection() as connection:
        place = TICKET_QUEUE.shelf(workspace.schema).place.as_string(connection)
        cursor = await connection.execute(f"SELECT ticket_id::text, version FROM {place}".encode())
        rows: dict[str, int] = dict(await cursor.fetchall())
    last: dict[str, int] = {}
    for ticket, version, _ in acknowledged:
        last[ticket] = max(version, last.get(ticket, 0))
    if rows != last:
        message = f"the queue lists {len(rows)} tickets, {len(tickets)} were opened, or versions differ"
        raise MeasurementError(message)
    return seconds


async def _require_exactly(address: str, table: str, acknowledged: set[tuple[str, int, int]]) -> None:
    """Raise MeasurementError unless the log holds every acknowledged event at its place, and no other of a ticket."""
    statement = f"""
        SELECT originator_id::text, originator_version, notification_id FROM {table}
        WHERE topic LIKE 'ticket.%' OR topic LIKE 'tests.benchmarks.plain:Ticket%'
    """
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        rows = set(await (await connection.execute(statement.encode())).fetchall())
    if rows != acknowledged:
        message = (
            f"{len(acknowledged - rows)} acknowledged events are not in {table}"
            f" and {len(rows - acknowledged)} are there that nobody was told of"
        )
        raise MeasurementError(message)


@asynccontextmanager
async def _desk(settings: Settings, workers: int) -> AsyncIterator[int]:
    """Run `desk serve` on a free port."""
    environment = {
        "DATABASE_URL": settings.database_url or "",
        "DESK_DATA_DIR": str(settings.data_dir),
        "DESK_KEY_FILE": str(settings.key_file),
    }
    command = ["-m", "api.cli", "serve", "--host", HOST, "--port", "0", "--workers", str(workers)]
    async with _process(command, environment) as server:
        assert server.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = (await server.stdout.readline()).decode().strip()
        if not line.startswith("Serving on "):
            message = f"desk serve did not start: {line}"
            raise MeasurementError(message)
        yield int(line.rpartition(":")[2])


@asynccontextmanager
async def _plain(address: str, workers: int, pool: int, people: People) -> AsyncIterator[int]:
    """Run the plain service on a free port, with its tables made beforehand: its workers would make them at once."""
    environment = library_environment(address, pool_size=pool)
    await asyncio.to_thread(lambda: plain.Desk(environment).close())
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
    digest = hashlib.sha256(people.token.encode()).hexdigest()
    environment["CREATE_TABLE"] = "no"
    environment[plain.TOKENS_VARIABLE] = f"{digest}:{people.actor}:agent"
    command = [
        "-m", "uvicorn", "tests.benchmarks.plain:create", "--factory", "--host", HOST, "--port", str(port),
        "--workers", str(workers), "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        environment[plain.READY_VARIABLE] = directory
        async with _process(command, environment) as server:
            async with asyncio.timeout(START_SECONDS):
                await _ready(server, Path(directory), workers, port)
            yield port


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
async def _process(command: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_URL"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env={**kept, **environment}, cwd=project_root(), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
