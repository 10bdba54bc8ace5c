"""How soon, and how often a second, a page of a queue of a million tickets is read, beside bare FastAPI and pgbench."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import ClientCursor

from projections.ticket_queue import SORTS, VIEW, QueueFilter
from storage.credentials import issue
from storage.database import Database
from storage.programs import VERSIONS, installation
from storage.settings import Settings, project_root
from tests.benchmarks import plain_queue, processes
from tests.benchmarks.asking import Plan
from tests.benchmarks.client import COUNTED, COUNTING
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.ground import WORKSPACE, Ground, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.sides import HOST, LONGEST_LINE, START_SECONDS, Service, all_there, desk, process
from tests.benchmarks.standing import Standing, let_stand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

TICKETS = 1_000_000
CONCURRENCY = 16
PAGE = 50
STATUSES = ("open", "pending")
SORT = "due"
EXPLAINED = 200


async def main(
    settings: Settings,
    *,
    tickets: int = TICKETS,
    seconds: float = 10.0,
    warm_up_seconds: float = 5.0,
    concurrency: int = CONCURRENCY,
    workers: int = 2,
) -> dict[str, Any]:
    """Ask for pages of the queue, by team and status in the order of what is due; the view is kept up meanwhile.

    `ratio` is our pages a second over those of bare FastAPI and psycopg with as many workers. Every page must be full.
    Raises MeasurementError.
    """
    async with ground(settings) as place:
        address = place.settings.database_url or ""
        async with await Database.open(place.settings) as database:
            workspace = await database.workspace(WORKSPACE)
            who = await let_stand(workspace, tickets)
            token = await issue(database, WORKSPACE, "agent", who.agents[0], label="bench")
        table = f"{workspace.schema}.{VIEW.label}"
        items, chosen = await asyncio.to_thread(_full_pages, address, table, who)
        await place.checkpoint()
        in_postgres = await asyncio.to_thread(_explained, address, workspace.schema, chosen, items)
        say(f"queue-page: in PostgreSQL {in_postgres} ms")
        queries = [f"team={team}&status={status}&limit={items}" for team, status in chosen]
        plan = Plan(HOST, 0, token, [], items, concurrency, warm_up_seconds, seconds)
        async with desk(place.settings, workers, timer=False) as service:
            paths = [f"/queue?{query}&sort={SORT}" for query in queries]
            ours, processor = await _asked(service, plan, paths, place)
        say(f"queue-page: desk serve, {workers} worker(s): {ours['per_second']:,.0f}/s, {ours['milliseconds']}")
        async with _plain(address, table, workers) as service:
            paths = [f"/queue?{query}" for query in queries]
            plain, plain_processor = await _asked(service, plan, paths, place)
        say(f"queue-page: bare FastAPI: {plain['per_second']:,.0f}/s, {plain['milliseconds']}")
        bare = await asyncio.to_thread(_pgbench, address, table, chosen, items, max(1, round(seconds)), concurrency)
        say(f"queue-page: pgbench {bare:,.0f}/s")
    return {
        "benchmark": "queue_page",
        "ratio": round(ours["per_second"] / plain["per_second"], 2),
        "ours_per_second": ours["per_second"],
        "ours_milliseconds": ours["milliseconds"],
        "ours_postgres_milliseconds": in_postgres,
        "ours_bytes_a_page": ours["bytes_a_page"],
        "ours_processor_seconds": processor,
        "plain_per_second": plain["per_second"],
        "plain_milliseconds": plain["milliseconds"],
        "plain_processor_seconds": plain_processor,
        "pgbench_per_second": round(bare, 1),
        "tickets": tickets,
        "items_a_page": items,
        "queries": len(chosen),
        "workers": workers,
        "concurrency": concurrency,
        "seconds": seconds,
        "server": place.durability,
    }


def _full_pages(address: str, table: str, who: Standing) -> tuple[int, list[tuple[UUID, str]]]:
    """Give how many items a page has, PAGE where there are tickets enough, and the teams and statuses that fill one."""
    with psycopg.connect(address) as connection:
        statement = f"SELECT team_id, status, count(*) FROM {table} WHERE status = ANY(%s) GROUP BY team_id, status"
        found = connection.execute(statement.encode(), (list(STATUSES),)).fetchall()
    counts = {(team, status): number for team, status, number in found if team in who.teams}
    items = min(PAGE, max(counts.values()))
    return items, sorted(chosen for chosen, number in counts.items() if number >= items)


def _explained(address: str, schema: str, chosen: Sequence[tuple[UUID, str]], items: int) -> dict[str, float]:
    """Have the server say how long it takes over a page: its planning, which prepared statements save, and its work.

    Raises MeasurementError where the plan sorts, or walks through the table, and there is more than a page.
    """
    times = []
    with psycopg.connect(address, autocommit=True) as connection:
        cursor = ClientCursor(connection)
        for number in range(EXPLAINED):
            team, status = chosen[number % len(chosen)]
            where = QueueFilter(teams=[team], statuses=[status]).listed(SORT)
            statement = where.select(VIEW, schema, VIEW.table.names, SORTS[SORT], PAGE + 1, pinned=False)
            cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}".encode(), where.parameters)
            row = cursor.fetchone()
            told = row[0][0] if row is not None else {}
            if items == PAGE and re.search(r"'(Sort|Seq Scan|Bitmap Heap Scan)'", str(told["Plan"])):
                message = f"the page is not read from an index in its order: {told['Plan']}"
                raise MeasurementError(message)
            times.append((told["Planning Time"] + told["Execution Time"]) / 1000)
    return milliseconds(times)


async def _asked(
    service: Service, plan: Plan, paths: Sequence[str], place: Ground
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask from a process of its own; gives what came of it and the processor time taken. Raises MeasurementError."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.asking", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, cwd=project_root(), limit=LONGEST_LINE,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps({**asdict(plan), "port": service.port, "paths": paths}).encode())
    client.stdin.close()
    result: dict[str, Any] = {"wrong": ["the client said nothing"], "processor_seconds": 0.0}
    used: dict[str, tuple[float, processes.Use]] = {}
    try:
        async for line in client.stdout:
            said = line.decode().strip()
            if said in {COUNTING, COUNTED}:
                used[said] = time.monotonic(), processes.use(service.pid, service.port, place.cluster)
            else:
                result = json.loads(said)
    finally:
        if client.returncode is None and result["wrong"]:
            client.kill()
        await client.wait()
    if result["wrong"] or not result["pages"]:
        message = f"a page was not right: {result['wrong'][:1]}"
        raise MeasurementError(message)
    (begun, before), (ended, after) = used[COUNTING], used[COUNTED]
    return result, processes.told(before, after, result["processor_seconds"], ended - begun)


@asynccontextmanager
async def _plain(address: str, table: str, workers: int) -> AsyncIterator[Service]:
    """Run the bare service on a free port."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
    command = [
        "-m", "uvicorn", "tests.benchmarks.plain_queue:create", "--factory", "--host", HOST, "--port", str(port),
        "--workers", str(workers), "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    async with process(command, {plain_queue.ADDRESS_VARIABLE: f"{address}|{table}"}) as server:
        service = Service(port, server.pid)
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    (await asyncio.open_connection(HOST, port))[1].close()
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    break
            await all_there(service, workers)
        yield service


def _pgbench(
    address: str, table: str, chosen: Sequence[tuple[UUID, str]], items: int, seconds: int, clients: int
) -> float:
    """Let pgbench select the same rows, prepared, and give pages a second."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE asked (number integer PRIMARY KEY, team_id uuid, status text)")
        with connection.cursor() as cursor, cursor.copy("COPY asked FROM STDIN") as copy:
            for number, (team, status) in enumerate(chosen, start=1):
                copy.write_row((number, team, status))
        connection.execute("ANALYZE asked")
        info = connection.info
        target = [f"--host={info.host}", f"--port={info.port}", f"--username={info.user}", info.dbname]
        environment = {**os.environ, "PGPASSWORD": info.password or ""}
    page = plain_queue.PAGE.format(
        table=table, team="(SELECT team_id FROM asked WHERE number = :number)",
        status="(SELECT status FROM asked WHERE number = :number)", limit=items,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "page.sql"
        script.write_text(f"\\set number random(1, {len(chosen)})\n{' '.join(page.split())};\n", encoding="ascii")
        command = [
            str(installation(next(iter(VERSIONS))) / "bin" / "pgbench"), "--no-vacuum", "--protocol=prepared",
            f"--client={clients}", "--jobs=2", f"--time={seconds}", f"--file={script}", *target,
        ]  # fmt: skip
        outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"^tps = ([0-9.]+)", outcome.stdout, re.MULTILINE)
    if outcome.returncode != 0 or found is None:
        message = f"pgbench failed: {' '.join(outcome.stderr.split())[-300:]}"
        raise MeasurementError(message)
    return float(found[1])


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
