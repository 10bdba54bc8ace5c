"""How fast single events reach the log when every disk sync takes longer, from one process and from several."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from storage.database import Database
from storage.settings import Settings
from tests.benchmarks.append import CONCURRENCY, POOLS, recorder_rate
from tests.benchmarks.ground import WORKSPACE, Ground, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.writers import append_from, require_growth

if TYPE_CHECKING:
    from collections.abc import Sequence

FLUSH_DELAY = 2_000  # microseconds
PROCESSES = (1, 2, 8)
COMMITS = 50
SMALLEST_SHARE = 0.9  # of the delay by which one commit must have become slower for the delay to be in force


async def main(
    settings: Settings,
    *,
    flush_delay: int = FLUSH_DELAY,
    seconds: float = 8.0,
    warm_up_seconds: float = 1.0,
    concurrency: int = CONCURRENCY,
    processes: Sequence[int] = PROCESSES,
) -> dict[str, Any]:
    """Measure single-event commands from one and more processes while each flush waits `flush_delay` microseconds.

    `ratio` is ours from the first number of processes over the best of the library recorder's pools in one process,
    under the same delay. Raises MeasurementError.
    """
    async with ground(settings) as place:
        before = await _commit_milliseconds(await place.database())
        ours_at = place.settings.database_url or ""
        await _delay_flushes(place, ours_at, flush_delay)
        after = await _commit_milliseconds(await _delayed_database(place, flush_delay))
        in_force = after - before >= flush_delay / 1000 * SMALLEST_SHARE
        say(f"append: one commit takes {before:.2f} ms, {after:.2f} ms with flushes delayed by {flush_delay} µs")
        if not in_force:
            say("append: the delay is not in force (it takes fsync), so the figures are those without it")
        ours: dict[str, float] = {}
        for number in processes:
            await place.checkpoint()
            say(f"append: the log, {concurrency} commands in flight from {number} process(es), {seconds:g} s")
            ours[str(number)] = await _log(place, number, seconds, warm_up_seconds, concurrency)
            say(f"append: {ours[str(number)]:,.0f} events/s")
        recorder = {}
        for pool in POOLS:
            await place.checkpoint()
            say(f"append: the library's recorder, pool of {pool}")
            address = await _delayed_database(place, flush_delay)
            recorder[f"pool_{pool}"] = await asyncio.to_thread(recorder_rate, address, pool, seconds, warm_up_seconds)
        plain = max(recorder.values())
        say(f"append: {plain:,.0f} events/s")
        return {
            "benchmark": "append_delayed",
            "ratio": round(ours[str(processes[0])] / plain, 2),
            "ours_events_per_second": round(ours[str(processes[0])]),
            "ours_by_processes": {number: round(rate) for number, rate in ours.items()},
            "plain_events_per_second": round(plain),
            "plain_by_setting": {name: round(value, 1) for name, value in recorder.items()},
            "flush_delay_microseconds": flush_delay,
            "one_commit_milliseconds": {"without": round(before, 2), "with": round(after, 2)},
            "delay_in_force": in_force,
            "concurrency": concurrency,
            "seconds": seconds,
            "server": place.durability,
        }


async def _delayed_database(place: Ground, flush_delay: int) -> str:
    address = await place.database()
    await _delay_flushes(place, address, flush_delay)
    return address


async def _delay_flushes(place: Ground, address: str, flush_delay: int) -> None:
    """Have every connection to a database wait before it flushes, with the lock on flushing held, as a slow disk does."""
    name = sql.Identifier(str(conninfo_to_dict(address)["dbname"]))
    async with await psycopg.AsyncConnection.connect(place.address, autocommit=True) as connection:
        try:
            for option, value in (("commit_delay", flush_delay), ("commit_siblings", 0)):
                statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
                await connection.execute(statement.format(name, sql.Identifier(option), sql.Literal(value)))
        except psycopg.errors.InsufficientPrivilege:
            message = "Only a superuser of the server may delay its flushes."
            raise MeasurementError(message) from None


async def _commit_milliseconds(address: str) -> float:
    """Give the middle one of the times that single commits took, one after the other."""
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS commits (at timestamptz)")
        taken = []
        for _ in range(COMMITS):
            started = time.perf_counter()
            await connection.execute("INSERT INTO commits VALUES (now())", prepare=True)
            taken.append(time.perf_counter() - started)
    return sorted(taken)[COMMITS // 2] * 1000


async def _log(place: Ground, processes: int, seconds: float, warm_up: float, concurrency: int) -> float:
    async with await Database.open(place.settings) as database:
        log = (await database.workspace(WORKSPACE)).log
        before = (await log.head()).position
        shares = await append_from(place.settings, processes, seconds, warm_up, concurrency)
        require_growth(before, (await log.head()).position, sum(share.written for share in shares))
    return sum(share.counted for share in shares) / seconds


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
