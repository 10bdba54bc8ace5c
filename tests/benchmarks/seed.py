"""A log of believable tickets, made fast and the same for the same seed (but for salts, nonces and keys)."""

from __future__ import annotations

import asyncio
import gc
import mmap
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql

from commands.desk import Desk
from storage.codec import encode
from storage.database import Database, reach
from storage.migrations import create_workspace, migrate
from storage.settings import Settings
from tests.benchmarks.ground import MeasurementError, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.seeded_course import STARTED_AT, Course
from tests.benchmarks.seeded_lives import LIVES, play, texts
from tests.benchmarks.seeded_people import People
from tests.benchmarks.seeded_rows import COLUMNS, HEADER, LARGEST_PIECE, TRAILER, Script, Writer, row_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    from domain.event import Event
    from storage.database import Workspace
    from storage.keyring import Keyring

EVENTS: Final = 200_000
WORKSPACE: Final = "seeded"
SAID_EVERY: Final = 2.0  # seconds
MAINTENANCE_MEMORY: Final = "256MB"
BEFORE: Final = timedelta(hours=1)  # when the people were made known
SLOTS: Final = 32  # pieces that a process may be ahead: two rounds, as another's turn takes one; some 10 MB
TAKEN: Final = b"taken"
FEW: Final = 50_000
LIVES_OF_FEW: Final = 64  # where there are not even thousands of events, playing more takes longer than all the rest

COPY = f"COPY {{schema}}.events ({COLUMNS}) FROM STDIN (FORMAT binary, FREEZE)"
CONSTRAINTS = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = %s::regclass AND contype IN ('p', 'u') ORDER BY contype
"""
CLAIM = "INSERT INTO {schema}.claims (kind, key, stream) SELECT * FROM unnest(%s::text[], %s::bytea[], %s::uuid[])"
EVENTS_OF_TICKETS = """
SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY number), percentile_disc(0.99) WITHIN GROUP (ORDER BY number)
FROM (SELECT count(*) AS number FROM {schema}.events WHERE starts_with(topic, 'ticket.') GROUP BY originator_id) t
"""


class Filled(NamedTuple):
    """What filling a log took."""

    events: int
    seconds: float
    processes: int


async def main(
    settings: Settings, *, events: int = EVENTS, seed: int = 1, workspace: str = WORKSPACE, processes: int | None = None
) -> dict[str, Any]:
    """Make a workspace on the desk's own database and fill its log. Raises MeasurementError."""
    async with reach(settings, "owner"):
        await migrate(settings)
        try:
            made = await create_workspace(settings, workspace)
        except ValueError as error:
            raise MeasurementError(str(error)) from None
        async with await Database.open(settings) as database:
            place = await database.workspace(workspace)
            say(f"seed: {'made' if made else 'found'} the workspace {workspace}")
            filled = await fill(settings, place, events, seed=seed, processes=processes)
            async with database.pool.connection() as connection:
                cursor = await connection.execute(
                    sql.SQL(EVENTS_OF_TICKETS).format(schema=sql.Identifier(place.schema))
                )
                tickets, median, p99 = await cursor.fetchone() or (0, None, None)
    return {
        "benchmark": "seed",
        "events_per_second": round(filled.events / filled.seconds),
        "workspace": workspace,
        "events": filled.events,
        "tickets": tickets,
        "events_a_ticket": {"median": median, "p99": p99},
        "seed": seed,
        "processes": filled.processes,
        "seconds": round(filled.seconds, 2),
    }


async def fill(
    settings: Settings, workspace: Workspace, events: int, *, seed: int = 1, processes: int | None = None
) -> Filled:
    """Put a log of `events` events into an empty workspace by COPY, as the owner. Raises MeasurementError.

    Tickets live lives that the real domain has played (`seeded_lives`), LIVES different ones; ids, instants, people and
    texts are each ticket's own, and so is the sealing of its texts, which are combinations of a few sentences. The same
    seed and number give the same log whatever the number of processes, one a processor unless it is given.

    All of it is one transaction, which holds the log's table to itself: killed at any moment it leaves an empty log,
    and the same call can be made again.
    """
    if (await workspace.log.head()).position:
        message = f"workspace {workspace.name} has events already; choose another, which is made if it is not there"
        raise MeasurementError(message)
    started = time.perf_counter()
    people = People(events, seed, STARTED_AT - BEFORE)
    first = people.events(events)
    script = Script(
        seed=seed,
        course=Course(events - len(first), seed),
        lives=play(LIVES if events >= FEW else LIVES_OF_FEW, people.teams, people.agents, _chance("lives", seed)),
        texts=texts(_chance("texts", seed)),
        requesters=[one.id for one in people.customers],
        first_position=len(first) + 1,
    )
    async with await workspace.database.connect("desk bench seed") as connection:
        await workspace.log.epochs.enter(connection)  # as whoever appends does first
    await workspace.keyring.ensure(set().union(*(event.data_subjects() for event in first)))
    content = _Content(script, workspace.keyring, processes or _processors(), _rows_of_people(first, workspace))
    there = {event.originator_id for event in first}
    key_of = Desk(workspace).claim_key
    claims = [(kind, key_of(kind, value), one) for kind, value, one in people.contacts() if one in there]
    async with reach(settings, "owner") as address:
        try:
            await asyncio.to_thread(_copy, address, workspace, content, claims)
        finally:
            # Where this task is cancelled, the thread learns of it by the end of the pipe that it reads from.
            content.end()
        async with await AsyncConnection.connect(address, autocommit=True) as connection:
            # Rows went in frozen and pages as visible to all, so that this reads a sample and writes next to nothing.
            await connection.execute(sql.SQL("VACUUM (ANALYZE) {}.events").format(sql.Identifier(workspace.schema)))
    workspace.database.wake(workspace.name)
    filled = Filled(events, time.perf_counter() - started, content.processes)
    say(f"seed: {events:,} events in {filled.seconds:.1f} s, {events / filled.seconds:,.0f}/s")
    return filled


class _Content:
    """The rows of the whole log in order: those of people, then round after round from the processes by turns."""

    def __init__(self, script: Script, keyring: Keyring, processes: int, people: bytes) -> None:
        self.events = script.first_position - 1 + script.course.events
        self.processes = max(1, min(processes, script.course.rounds))
        self._script = script
        self._people = people
        self._workers: list[_Worker] = []
        for number in range(self.processes):
            self._workers.append(_Worker(script, keyring, number, self.processes, self._workers))

    def pieces(self) -> Iterator[tuple[int, bytes | memoryview]]:
        """Give pieces of rows, each with the position that it reaches, roughly, and good until the next one is taken.

        Raises MeasurementError.
        """
        course, before = self._script.course, self._script.first_position - 1
        yield before, self._people
        for number in range(course.rounds):
            for piece in self._workers[number % self.processes].pieces():
                yield before + course.before(number), piece

    def end(self) -> None:
        """End the processes, wherever they are."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """A process that makes the rows of every so-manieth round, and ends with this one.

    It leaves them in memory that both have, and says over a pipe how long each piece is; it hears over the pipe when one
    has been taken.
    """

    def __init__(self, script: Script, keyring: Keyring, number: int, of: int, others: list[_Worker]) -> None:
        context = multiprocessing.get_context("fork")
        self._shared = mmap.mmap(-1, SLOTS * LARGEST_PIECE)
        self._pipe, there = context.Pipe()
        self._taken = 0
        inherited = [self._pipe, *(other._pipe for other in others)]
        rounds = range(number, script.course.rounds, of)
        self._process: ForkProcess = context.Process(
            target=_work, args=(script, keyring, rounds, self._shared, there, inherited), daemon=True
        )
        with warnings.catch_warnings():
            # Other threads may hold locks at the fork; the child uses nothing that they could hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        there.close()

    def pieces(self) -> Iterator[memoryview]:
        """Give the pieces of its next round. Raises MeasurementError when the process has ended."""
        try:
            while size := int.from_bytes(self._pipe.recv_bytes()):
                first = self._taken % SLOTS * LARGEST_PIECE
                with memoryview(self._shared) as shared, shared[first : first + size] as piece:
                    yield piece
                self._taken += 1
                self._pipe.send_bytes(TAKEN)
        except (EOFError, OSError):
            message = "a process that made events was ended, and nothing was written; the same command begins again"
            raise MeasurementError(message) from None

    def end(self) -> None:
        """End the process and clear away what is left of it."""
        self._process.kill()
        self._process.join()


def _work(
    script: Script,
    keyring: Keyring,
    rounds: range,
    shared: mmap.mmap,
    pipe: Connection,
    inherited: Sequence[Connection],
) -> None:
    """Make rounds of rows in the child; the pipe breaks when the parent is gone."""
    for one in inherited:
        one.close()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()  # collecting would copy the pages shared with the parent, and there is no cyclic garbage
    writer = Writer(script, keyring)
    left = 0
    with suppress(BrokenPipeError, EOFError):
        for number in rounds:
            for piece in writer.rows(number):
                if left >= SLOTS:
                    pipe.recv_bytes()
                first = left % SLOTS * LARGEST_PIECE
                shared[first : first + len(piece)] = piece
                pipe.send_bytes(len(piece).to_bytes(4))
                left += 1
            pipe.send_bytes(bytes(4))
        while True:  # what was left in the memory is the parent's to take, who ends this process when it has all
            pipe.recv_bytes()


def _copy(address: str, workspace: Workspace, content: _Content, claims: list[tuple[str, bytes, Any]]) -> None:
    """Write the log in one transaction; blocks. Raises MeasurementError."""
    names = {"schema": sql.Identifier(workspace.schema)}
    table = sql.Identifier(workspace.schema, "events")
    with psycopg.connect(address, application_name="desk bench seed") as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {schema}.lock_log()").format(**names))
        cursor.execute(sql.SQL("SELECT {schema}.note_release(%s)").format(**names), (workspace.database.release,))
        found = cursor.execute(CONSTRAINTS, (f'"{workspace.schema}".events',)).fetchall()
        # An index of random ids filled row by row is read and logged over and over; made at the end it is sorted once.
        for name, _ in found:
            cursor.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(name)))
        if cursor.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(table)).fetchone() is not None:
            message = f"workspace {workspace.name} has got events meanwhile; they are as they were"
            raise MeasurementError(message)
        cursor.execute(sql.SQL("TRUNCATE {}").format(table))  # in the same transaction: so rows can go in frozen
        _copy_in(cursor, sql.SQL(COPY).format(**names), content)
        say("seed: making the indexes")
        cursor.execute(f"SET LOCAL maintenance_work_mem = '{MAINTENANCE_MEMORY}'")
        for name, definition in found:
            add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}")
            cursor.execute(add.format(table, sql.Identifier(name), sql.SQL(definition)))
        kinds, keys, streams = zip(*claims, strict=True) if claims else ((), (), ())
        cursor.execute(sql.SQL(CLAIM).format(**names), (list(kinds), list(keys), list(streams)))


def _copy_in(cursor: psycopg.Cursor[Any], statement: sql.Composed, content: _Content) -> None:
    started = said = time.perf_counter()
    with cursor.copy(statement) as copy:
        copy.write(HEADER)
        for position, piece in content.pieces():
            copy.write(piece)
            now = time.perf_counter()
            if now - said > SAID_EVERY:
                said = now
                say(f"seed: {position:,} of {content.events:,} events, {position / (now - started):,.0f}/s")
        copy.write(TRAILER)
    if cursor.rowcount != content.events:
        message = f"{cursor.rowcount} events were made instead of {content.events}; nothing was written"
        raise MeasurementError(message)


def _rows_of_people(events: list[Event], workspace: Workspace) -> bytes:
    """Pack the first events of people, all recorded at once."""
    at = int((STARTED_AT - BEFORE).timestamp()) * 1_000_000
    encoded = (encode(event, workspace.keyring) for event in events)
    return b"".join(row_of(position, event, at) for position, event in enumerate(encoded, start=1))


def _chance(purpose: str, seed: int) -> random.Random:
    return random.Random(f"{purpose} {seed}")  # noqa: S311 - repeatable events, no secret


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
