"""The classic lost event: of two open transactions the later commits first, and a reader has gone past the earlier.

A reader keeps the position up to which it has seen everything. Let one transaction append at position 1 and stay open,
and another append behind it and commit at once. Did the second get position 2, a reader would see 2, go on from there,
and never see the 1 that is committed later. So appends of one log wait for one another until the end of the transaction.

What would happen without that wait is tried as well, on a log whose lock does nothing:

- Positions are counted up from the last committed one, so that both transactions choose position 1. The primary key
  lets the second wait for the first to end; if that commits, the second fails (`UniqueViolation`), and if it rolls back,
  the second takes the position. An error for a command that is in nobody's way, yet no event lost: for a higher position
  than an open transaction's, somebody must have seen that transaction's as committed.
- Without a unique index on positions both are committed as position 1, and the reader that has seen the first one's
  never asks for the second's. That is the lost event.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from storage.append import APPEND, Appended, Conflict, LogError, NewEvent, Submission, arguments_of, read_outcome
from storage.database import ROLE_NAMES
from storage.settings import external_conninfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from uuid import UUID

    from storage.database import Workspace
    from storage.settings import Settings

DEADLINE: Final = 30  # seconds


class Step(StrEnum):
    BEGIN = "begin"
    APPEND = "append"
    COMMIT = "commit"
    ROLLBACK = "rollback"


Schedule = tuple[tuple[int, Step], ...]
"""Steps in the order in which they are asked for, each of the transaction with that number."""


class Wrong(NamedTuple):
    """What went wrong in a schedule: a word for it, and a sentence."""

    kind: str
    what: str


def schedules(*transactions: Sequence[Step]) -> Iterator[Schedule]:
    """Give every interleaving of the transactions' steps, each transaction's own order being kept."""
    if not any(transactions):
        yield ()
    for number, steps in enumerate(transactions):
        if steps:
            rest = [steps[1:] if n == number else other for n, other in enumerate(transactions)]
            for schedule in schedules(*rest):
                yield ((number, steps[0]), *schedule)


ENDS: Final = (Step.COMMIT, Step.ROLLBACK)
OF_TWO: Final = [
    schedule
    for ends in product(ENDS, repeat=2)
    for schedule in schedules(*((Step.BEGIN, Step.APPEND, end) for end in ends))
]
# Which of three begins to append first is a matter of names.
OF_THREE: Final = [
    schedule
    for ends in product(ENDS, repeat=3)
    for schedule in schedules(*((Step.APPEND, end) for end in ends))
    if [number for number, step in schedule if step is Step.APPEND] == [0, 1, 2]
]


class Transaction:
    """One of the transactions: it takes its steps one after another, while others may be waited for."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], statement: str) -> None:
        self.connection = connection
        self.pid = connection.info.backend_pid
        self._statement = statement
        self._last: asyncio.Task[None] | None = None
        self.clear()

    def clear(self) -> None:
        self.open = self.appending = False
        self.committed = False
        self.outcomes: list[Appended | LogError] = []
        self.errors: list[psycopg.Error] = []

    @property
    def busy(self) -> bool:
        return self._last is not None and not self._last.done()

    def ask(self, step: Step, events: Sequence[NewEvent]) -> None:
        """Take a step when those before are done."""
        self._last = asyncio.create_task(self._take(step, events, after=self._last))

    async def _take(self, step: Step, events: Sequence[NewEvent], after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await after
        match step:
            case Step.BEGIN:
                await self._begin()
            case Step.APPEND:
                await self._begin()
                try:
                    cursor = await self.connection.execute(
                        self._statement, arguments_of([Submission(events)]), prepare=True, binary=True
                    )
                    self.outcomes.append(read_outcome((await cursor.fetchall())[0]))
                except psycopg.Error as error:
                    self.errors.append(error)
            case Step.COMMIT if not self.errors:
                await self.connection.execute("COMMIT")
                self.open, self.committed = False, True
            case _:
                await self.connection.execute("ROLLBACK")
                self.open = False

    async def _begin(self) -> None:
        if not self.open:
            await self.connection.execute("BEGIN")
            self.open = True

    @property
    def holds(self) -> bool:
        """Whether it has appended and not ended."""
        return self.open and not self.busy and any(isinstance(outcome, Appended) for outcome in self.outcomes)


class Stage:
    """Three connections that append in transactions of their own, a reader, and somebody who sees who waits for whom."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self.workspace = workspace
        self.settings = settings
        self.statement = SQL(APPEND).format(schema=Identifier(workspace.schema)).as_string()

    async def open(self, stack: AsyncExitStack) -> None:
        url = self.settings.database_url
        assert url is not None
        application = external_conninfo(url, ROLE_NAMES["application"])
        connections = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(address, autocommit=True))
            for address in (application, application, application, url)
        ]
        *appending, self.owner = connections
        self.transactions = [Transaction(connection, self.statement) for connection in appending]

    async def play(self, schedule: Schedule, events: Callable[[int], Sequence[NewEvent]]) -> list[Wrong]:
        """Ask for the steps in their order, reading after each, and give all that went wrong."""
        wrong: list[Wrong] = []
        log = self.workspace.log
        start = (await log.head()).position
        seen: list[tuple[int, UUID]] = []
        for transaction in self.transactions:
            transaction.clear()
        for number, step in schedule:
            acting = self.transactions[number]
            others_hold = step is Step.APPEND and any(other.holds for other in self.transactions)
            acting.ask(step, events(number))
            await self.settle()
            if others_hold and not acting.busy:
                wrong.append(Wrong("no wait", f"transaction {number} appended while another had, and was still open"))
            # A reader's checkpoint is the last position it has seen.
            page = await log.page(seen[-1][0] if seen else start, 100)
            seen += [(row.position, row.stream) for row in page]
        assert not any(transaction.busy for transaction in self.transactions)

        wrong += [
            Wrong("error", f"transaction {number}: {type(error).__name__}")
            for number, transaction in enumerate(self.transactions)
            for error in transaction.errors
        ]
        if [position for position, _ in seen] != list(range(start + 1, start + 1 + len(seen))):
            wrong.append(Wrong("hole", f"the reader saw the positions {[position for position, _ in seen]}"))
        stored = [(row.position, row.stream) for row in await log.page(start, 100)]
        wrong += [
            Wrong("lost", f"the reader never saw {each}, which is in the log") for each in stored if each not in seen
        ]
        wrong += [
            Wrong("ghost", f"the reader saw {each}, which is not in the log") for each in seen if each not in stored
        ]
        acknowledged = [
            position
            for transaction in self.transactions
            if transaction.committed
            for outcome in transaction.outcomes
            if isinstance(outcome, Appended)
            for position in range(outcome.first_position, outcome.position + 1)
        ]
        if sorted(acknowledged) != [position for position, _ in stored]:
            wrong.append(Wrong("unlike", f"acknowledged were {acknowledged}, stored are {stored}"))
        return wrong

    async def settle(self) -> None:
        """Wait until each transaction has taken its steps or waits for a lock that another of them holds."""
        deadline = time.monotonic() + DEADLINE
        while busy := [transaction for transaction in self.transactions if transaction.busy]:
            assert time.monotonic() < deadline, "somebody neither goes on nor waits for a lock"
            cursor = await self.owner.execute(
                "SELECT pid FROM unnest(%s::int[]) pid WHERE pg_blocking_pids(pid) && %s::int[]",
                ([transaction.pid for transaction in busy], [transaction.pid for transaction in self.transactions]),
            )
            waiting = {pid for (pid,) in await cursor.fetchall()}
            if all(transaction.busy and transaction.pid in waiting for transaction in busy):
                return
            await asyncio.sleep(0)


@pytest.fixture
async def stage(alpha: Workspace, settings: Settings) -> AsyncIterator[Stage]:
    made = Stage(alpha, settings)
    async with AsyncExitStack() as stack:
        await made.open(stack)
        yield made


def on_streams_of_their_own(number: int) -> list[NewEvent]:
    """Transactions of different sizes, so that their positions overlap in part."""
    stream = uuid4()
    return [NewEvent(stream, version, "thing.happened", b"{}", None) for version in range(1, (3, 2, 4)[number])]


async def played(stage: Stage, chosen: Sequence[Schedule]) -> dict[Schedule, list[Wrong]]:
    found = {schedule: await stage.play(schedule, on_streams_of_their_own) for schedule in chosen}
    return {schedule: wrong for schedule, wrong in found.items() if wrong}


async def test_in_every_order_of_two_transactions_a_reader_passes_no_position_it_has_not_seen(stage: Stage) -> None:
    assert len(OF_TWO) == 80
    assert await played(stage, OF_TWO) == {}


async def test_in_every_order_of_three_transactions_a_reader_passes_no_position_it_has_not_seen(stage: Stage) -> None:
    assert len(OF_THREE) == 120
    assert await played(stage, OF_THREE) == {}


async def test_of_two_transactions_on_one_stream_the_second_hears_what_became_of_the_first(stage: Stage) -> None:
    for schedule in OF_TWO:
        one = [NewEvent(uuid4(), 1, "thing.happened", b"{}", None)]
        wrong = await stage.play(schedule, {0: one, 1: one}.__getitem__)
        assert wrong == [], schedule
        order = [number for number, step in schedule if step is Step.APPEND]
        first, second = (stage.transactions[number] for number in order)
        assert isinstance(first.outcomes[0], Appended)
        assert isinstance(second.outcomes[0], Conflict if first.committed else Appended), schedule


async def test_without_the_lock_the_same_driver_finds_errors_though_the_primary_key_prevents_the_loss(
    stage: Stage,
) -> None:
    await take_the_lock_out(stage)
    found = await played(stage, OF_TWO)
    both_commit = [schedule for schedule in OF_TWO if not any(step is Step.ROLLBACK for _, step in schedule)]
    assert any(schedule in found for schedule in both_commit)
    assert {wrong.what.partition(": ")[2] for each in found.values() for wrong in each} == {"UniqueViolation"}


async def test_without_the_lock_and_unique_positions_the_same_driver_finds_lost_events(stage: Stage) -> None:
    await take_the_lock_out(stage)
    cursor = await stage.owner.execute(
        "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'",
        (f"{stage.workspace.schema}.events",),
    )
    ((name,),) = await cursor.fetchall()
    table = Identifier(stage.workspace.schema, "events")
    await stage.owner.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, Identifier(name)))
    found = await played(stage, OF_TWO)
    kinds = {wrong.kind for each in found.values() for wrong in each}
    assert {"no wait", "lost"} <= kinds
    early, late = 0, 1
    classic = (
        (early, Step.BEGIN),
        (early, Step.APPEND),
        (late, Step.BEGIN),
        (late, Step.APPEND),
        (late, Step.COMMIT),
        (early, Step.COMMIT),
    )
    assert "lost" in {wrong.kind for wrong in found[classic]}


async def take_the_lock_out(stage: Stage) -> None:
    """Leave every function of the log as it is but for the calls that take the advisory lock."""
    cursor = await stage.owner.execute(
        "SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p"
        " WHERE p.pronamespace = %s::regnamespace AND p.prokind = 'f' AND p.proname <> 'rotate_outcomes'",
        (stage.workspace.schema,),
    )
    changed = []
    for name, definition in await cursor.fetchall():
        without = without_lock(definition)
        if without != definition:
            await stage.owner.execute(without)
            changed.append(name)
    assert changed, "no function of the log takes an advisory lock"


def without_lock(definition: str) -> str:
    """Put NULL in the place of each call of pg_advisory_xact_lock, up to the parenthesis that closes it."""
    while call := re.search(r"(pg_catalog\.)?pg_advisory_xact_lock\s*\(", definition):
        depth, end = 1, call.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(definition[end], 0)
            end += 1
        definition = f"{definition[: call.start()]}NULL{definition[end:]}"
    return definition
