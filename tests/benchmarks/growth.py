"""Whether an append costs the same in a large log: one of millions of events beside one of thousands, turn by turn."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, sql

from storage.database import Database, Workspace, reach
from storage.migrations import create_workspace
from storage.settings import Settings
from tests.benchmarks.ground import Ground, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.writers import EVENTS_A_TICKET, STATE, TOPIC, append_for, new_tickets, require_growth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

CONCURRENCY = 64
STORED = 10_000_000
FEW = 10_000
ROUNDS = 8
TICKETS_AT_ONCE = 100  # whose events lie mixed in the log, as they do in life
BLOCK = TICKETS_AT_ONCE * EVENTS_A_TICKET
EVENTS_A_STATEMENT = 1_000_000  # and a checkpoint, so that the write-ahead log of the filling does not pile up
NATURAL_FILL = 70  # per cent: how full an index of random ids is that has grown by itself; a new one would be fuller

# Position p is in block p / BLOCK, which holds the whole lives of its tickets, so that stream and version follow from p.
FILL = f"""
INSERT INTO {{schema}}.events (notification_id, originator_id, originator_version, topic, state, recorded_at)
SELECT p + 1, md5((p / {BLOCK} * {TICKETS_AT_ONCE} + p %% {TICKETS_AT_ONCE})::text)::uuid,
       p %% {BLOCK} / {TICKETS_AT_ONCE} + 1, %s, %s, timestamptz '2026-01-05 07:00Z' + p * interval '1 millisecond'
FROM generate_series(%s::bigint, %s::bigint - 1) p
"""
STREAMS = "SELECT i, md5(i::text)::uuid FROM unnest(%s::bigint[]) i"
UNIQUE = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'u'
"""
WRITTEN = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


async def main(
    settings: Settings,
    *,
    stored: int = STORED,
    few: int = FEW,
    seconds: float = 16.0,
    warm_up_seconds: float = 1.0,
    concurrency: int = CONCURRENCY,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Measure single-event commands on two logs by turns; `ratio` is the large one's rate over the small one's.

    Half of the events go to new tickets, half to tickets stored beforehand, any of them. Raises MeasurementError.
    """
    async with ground(settings) as place, await Database.open(place.settings) as database:
        logs: dict[str, Store] = {}
        for name, events in (("small", few), ("large", stored)):
            await create_workspace(place.settings, name)
            workspace = await database.workspace(name)
            took = await _fill(place, workspace, events)
            logs[name] = Store(workspace, events)
            say(f"growth: {events:,} events stored in {took:.0f} s")
        await place.checkpoint()
        for turn in range(rounds):
            # The other one first every other time. No checkpoint in between: in life they are minutes apart, and the
            # pages that the large log's first turns log whole after this one are more than their share already.
            for name, store in sorted(logs.items(), reverse=turn % 2 == 0):
                rate = await store.measure(seconds / rounds, warm_up_seconds, concurrency)
                say(f"growth: the {name} log, {rate:,.0f} events/s")
        mebibytes = await _mebibytes(logs["large"].workspace)
    small, large = logs["small"], logs["large"]
    return {
        "benchmark": "growth",
        "ratio": round(large.rate / small.rate, 3),
        "ours_events_per_second": round(large.rate),
        "small_events_per_second": round(small.rate),
        "ours_by_round": [round(rate) for rate in large.rates],
        "small_by_round": [round(rate) for rate in small.rates],
        "bytes_logged_an_event": {"small": round(small.logged), "large": round(large.logged)},
        "stored": stored,
        "small_stored": few,
        "mebibytes": round(mebibytes),
        "concurrency": concurrency,
        "seconds": seconds,
        "server": place.durability,
    }


class Store:
    """One of the two logs, and how fast it took events."""

    def __init__(self, workspace: Workspace, stored: int) -> None:
        self.workspace = workspace
        self.rates: list[float] = []
        self._streams = stored // BLOCK * TICKETS_AT_ONCE
        self._versions: dict[UUID, int] = {}
        self._logged = 0
        self._written = 0
        self._turns = 0

    @property
    def rate(self) -> float:
        """Events a second over all rounds."""
        return sum(self.rates) / len(self.rates)

    @property
    def logged(self) -> float:
        """Bytes of write-ahead log that an event came to."""
        return self._logged / self._written

    async def measure(self, seconds: float, warm_up: float, concurrency: int) -> float:
        """Append for some seconds; gives events a second."""
        known = await self._choose(concurrency)
        log = self.workspace.log
        before, logged = (await log.head()).position, await self._write_ahead()
        share = await append_for(
            log, seconds, warm_up, concurrency, places=lambda number: self._places(known[number::concurrency])
        )
        require_growth(before, (await log.head()).position, share.written)
        self._logged += await self._write_ahead() - logged
        self._written += share.written
        self.rates.append(share.counted / seconds)
        return self.rates[-1]

    async def _choose(self, concurrency: int) -> list[UUID]:
        """Choose stored tickets to write to, in no order; each of as many writers gets its own."""
        self._turns += 1
        chance = random.Random(self._turns)  # noqa: S311 - repeatable load, no secret
        wanted = min(self._streams, 2_000 * concurrency)
        numbers = chance.sample(range(self._streams), wanted)
        async with self.workspace.database.pool.connection() as connection:
            rows = await (await connection.execute(STREAMS, (numbers,))).fetchall()
        return [stream for _, stream in rows]

    def _places(self, known: list[UUID]) -> Iterator[tuple[UUID, int]]:
        """Give a new ticket's life, then as many events of stored tickets, and so on."""
        new = new_tickets()
        turn = 0
        while True:
            for _ in range(EVENTS_A_TICKET):
                yield next(new)
            for _ in range(EVENTS_A_TICKET if known else 0):
                stream = known[turn % len(known)]
                turn += 1
                self._versions[stream] = version = self._versions.get(stream, EVENTS_A_TICKET) + 1
                yield stream, version

    async def _write_ahead(self) -> int:
        async with self.workspace.database.pool.connection() as connection:
            row = await (await connection.execute(WRITTEN)).fetchone()
        return int(row[0]) if row is not None else 0


async def _fill(place: Ground, workspace: Workspace, events: int) -> float:
    """Store events as the owner, with the unique index made at the end but as full as one that grew; gives seconds."""
    started = time.perf_counter()
    schema = sql.Identifier(workspace.schema)
    table = f'"{workspace.schema}".events'
    async with (
        reach(place.settings, "owner") as address,
        await AsyncConnection.connect(address, autocommit=True) as owner,
    ):
        await owner.execute("SET maintenance_work_mem = '1GB'")
        await owner.execute("SET synchronous_commit = off")
        found = await (await owner.execute(UNIQUE, (table,))).fetchall()
        for name, _ in found:
            drop = sql.SQL("ALTER TABLE {}.events DROP CONSTRAINT {}")
            await owner.execute(drop.format(schema, sql.Identifier(name)))
        fill = sql.SQL(FILL).format(schema=schema)
        for first in range(0, events, EVENTS_A_STATEMENT):
            last = min(first + EVENTS_A_STATEMENT, events)
            await owner.execute(fill, (TOPIC, STATE, first, last))
            await place.checkpoint()
            if last < events:
                say(f"growth: {last:,} of {events:,} events stored, {last / (time.perf_counter() - started):,.0f}/s")
        for name, definition in found:
            add = sql.SQL("ALTER TABLE {}.events ADD CONSTRAINT {} {} WITH (fillfactor = {})")
            await owner.execute(
                add.format(schema, sql.Identifier(name), sql.SQL(definition), sql.Literal(NATURAL_FILL))
            )
        await owner.execute(f"VACUUM (ANALYZE, FREEZE) {table}".encode())
    return time.perf_counter() - started


async def _mebibytes(workspace: Workspace) -> float:
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute("SELECT pg_total_relation_size(%s)", (f'"{workspace.schema}".events',))
        row = await cursor.fetchone()
    return float(row[0]) / 2**20 if row is not None else 0.0


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
