"""How fast single events reach the log, beside the library's recorder and beside bare Postgres."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.persistence import InfrastructureFactory, StoredEvent
from eventsourcing.utils import Environment

from storage.database import Database
from storage.settings import Settings
from tests.benchmarks import pgbench
from tests.benchmarks.ground import WORKSPACE, Ground, MeasurementError, ground, library_environment, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.writers import (
    EVENTS_A_TICKET,
    PERSONAL,
    STATE,
    TOPIC,
    Counter,
    append_for,
    require_growth,
)

CONCURRENCY = 64
PGBENCH_CLIENTS = 16
POOLS = (5, 20)


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
                recorder_rate, await place.database(), pool, seconds, warm_up_seconds
            )
        await place.checkpoint()
        say(f"append: {max(recorder.values()):,.0f} events/s; pgbench, {PGBENCH_CLIENTS} clients")
        bare = await asyncio.to_thread(pgbench.rows_per_second, await place.database(), seconds, PGBENCH_CLIENTS)
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
        share = await append_for(log, seconds, warm_up, concurrency, keys=keys)
        require_growth(before, (await log.head()).position, share.written)
    return share.counted / seconds


def recorder_rate(address: str, pool: int, seconds: float, warm_up: float) -> float:
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


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
