"""How fast single events reach the log, beside the library's recorder and beside bare Postgres."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from eventsourcing.persistence import InfrastructureFactory, StoredEvent
from eventsourcing.utils import Environment

from storage.append import NewEvent, Submission
from storage.database import Database
from storage.programs import VERSIONS, installation
from storage.settings import Settings
from tests.benchmarks.ground import WORKSPACE, Ground, MeasurementError, ground, library_environment, say
from tests.benchmarks.machine import figures_line

CONCURRENCY = 64
PGBENCH_CLIENTS = 16
EVENTS_A_TICKET = 6
TOPIC = "ticket.replied"
STATE = os.urandom(210).hex().encode()  # a reply without its text: 420 bytes, with its commitment and provenance
PERSONAL = os.urandom(130).hex().encode()  # its text sealed: 260 bytes
POOLS = (5, 20)
LONGEST_ANSWER_SECONDS = 60.0

TABLE = """
CREATE TABLE one_row_each (
    notification_id    bigserial PRIMARY KEY,
    originator_id      uuid NOT NULL,
    originator_version bigint NOT NULL,
    topic              text NOT NULL,
    state              bytea NOT NULL,
    personal           bytea,
    recorded_at        timestamptz NOT NULL,
    UNIQUE (originator_id, originator_version)
)
"""
INSERT = (
    "INSERT INTO one_row_each (originator_id, originator_version, topic, state, personal, recorded_at) VALUES"
    f" (gen_random_uuid(), 1, '{TOPIC}', '{STATE.decode()}', '{PERSONAL.decode()}', clock_timestamp());\n"
)


@dataclass(slots=True)
class Counter:
    """Events written while counting was on."""

    since: float
    until: float
    events: int = 0

    def count(self, now: float) -> bool:
        """Count one that was durable at `now`; False when time is up."""
        if self.since <= now < self.until:
            self.events += 1
        return now < self.until


async def main(
    settings: Settings, *, seconds: float = 8.0, warm_up_seconds: float = 1.0, concurrency: int = CONCURRENCY
) -> dict[str, Any]:
    """Measure single-event commands through the log, the library's recorder and pgbench; the same bytes for each.

    `ratio` is ours over the best of the recorder's pools. Raises MeasurementError.
    """
    async with ground(settings) as place:
        say(f"append: the log, {concurrency} commands in flight, {seconds:g} s")
        ours = await _log(place, seconds, warm_up_seconds, concurrency, keys=False)
        say(f"append: {ours:,.0f} events/s; again with an idempotency key each")
        keyed = await _log(place, seconds, warm_up_seconds, concurrency, keys=True)
        recorder = {}
        for pool in POOLS:
            await place.checkpoint()
            say(f"append: {keyed:,.0f} events/s; the library's recorder, pool of {pool}")
            recorder[f"pool_{pool}"] = await asyncio.to_thread(
                _recorder, await place.database(), pool, seconds, warm_up_seconds
            )
        await place.checkpoint()
        say(f"append: {max(recorder.values()):,.0f} events/s; pgbench, {PGBENCH_CLIENTS} clients")
        bare = await asyncio.to_thread(_pgbench, await place.database(), seconds)
        say(f"append: {bare:,.0f} rows/s")
        plain = max(recorder.values())
        return {
            "benchmark": "append",
            "ratio": round(ours / plain, 2),
            "ours_events_per_second": round(ours),
            "ours_with_keys_events_per_second": round(keyed),
            "plain_events_per_second": round(plain),
            "plain_by_setting": {name: round(value) for name, value in recorder.items()},
            "pgbench_rows_per_second": round(bare),
            "pgbench_clients": PGBENCH_CLIENTS,
            "ratio_to_pgbench": round(ours / bare, 2),
            "concurrency": concurrency,
            "bytes_an_event": len(STATE) + len(PERSONAL),
            "seconds": seconds,
            "server": place.durability,
        }


async def _log(place: Ground, seconds: float, warm_up: float, concurrency: int, *, keys: bool) -> float:
    async with await Database.open(place.settings) as database:
        log = (await database.workspace(WORKSPACE)).log
        before = (await log.head()).position
        counter = Counter(since := time.perf_counter() + warm_up, since + seconds)
        async with asyncio.timeout(warm_up + seconds + LONGEST_ANSWER_SECONDS), asyncio.TaskGroup() as group:
            writers = [group.create_task(_write(log.append, counter, keys=keys)) for _ in range(concurrency)]
        written = sum(writer.result() for writer in writers)
        after = (await log.head()).position
    if after - before != written:
        message = f"{written} events were acknowledged and {after - before} are in the log"
        raise MeasurementError(message)
    return counter.events / seconds


async def _write(append: Any, counter: Counter, *, keys: bool) -> int:
    """Append one event after the other until time is up; each answer must stand after the one before."""
    written, position = 0, 0
    while True:
        stream = uuid4()
        for version in range(1, EVENTS_A_TICKET + 1):
            submission = Submission([NewEvent(stream, version, TOPIC, STATE, PERSONAL)])
            if keys:
                submission.key, submission.body_hash = os.urandom(32), STATE[:32]
            appended = await append(submission)
            written += 1
            if appended.position <= position:
                message = f"position {appended.position} was given after {position}"
                raise MeasurementError(message)
            position = appended.position
            if not counter.count(time.perf_counter()):
                return written


def _recorder(address: str, pool: int, seconds: float, warm_up: float) -> float:
    """Insert single events through the library's recorder, from as many threads as it has connections."""
    environment = Environment("bench", library_environment(address, pool_size=pool))
    with InfrastructureFactory[Any].construct(environment) as factory:
        recorder = factory.application_recorder()
        counter = Counter(since := time.perf_counter() + warm_up, since + seconds)
        lock = threading.Lock()

        def write() -> int:
            written = 0
            while True:
                stream: UUID = uuid4()
                for version in range(1, EVENTS_A_TICKET + 1):
                    recorder.insert_events([StoredEvent(stream, version, TOPIC, STATE + PERSONAL)])
                    written += 1
                    with lock:
                        if not counter.count(time.perf_counter()):
                            return written

        with ThreadPoolExecutor(pool) as threads:
            written = sum(future.result() for future in [threads.submit(write) for _ in range(pool)])
        found = recorder.max_notification_id() or 0
    if found < written:
        message = f"the recorder acknowledged {written} events and its sequence is at {found}"
        raise MeasurementError(message)
    return counter.events / seconds


def _pgbench(address: str, seconds: float) -> float:
    """Insert single rows of the same size and indexes as fast as Postgres itself can."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(TABLE)
        info = connection.info
        target = [f"--host={info.host}", f"--port={info.port}", f"--username={info.user}", info.dbname]
        environment = {**os.environ, "PGPASSWORD": info.password or ""}
    program = str(installation(next(iter(VERSIONS))) / "bin" / "pgbench")
    load = [f"--client={PGBENCH_CLIENTS}", "--jobs=2", f"--time={max(1, round(seconds))}"]
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "insert.sql"
        script.write_text(INSERT, encoding="ascii")
        command = [program, "--no-vacuum", "--protocol=prepared", *load, f"--file={script}", *target]
        outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"^tps = ([0-9.]+)", outcome.stdout, re.MULTILINE)
    if outcome.returncode != 0 or found is None:
        message = f"pgbench failed: {' '.join(outcome.stderr.split())[-300:]}"
        raise MeasurementError(message)
    return float(found[1])


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
