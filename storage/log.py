"""The log of one workspace: dense positions in commit order, written in groups."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.sql import SQL, Identifier

from storage.append import (
    APPEND,
    Appended,
    Claimed,
    Conflict,
    EarlierEpoch,
    EventTooLarge,
    LogBusy,
    LogError,
    LogUnavailable,
    Submission,
    arguments_of,
    check_sizes,
    read_outcome,
)
from storage.log_reader import LogReader, StoredRow
from storage.metrics import LogMeter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from storage.database import Database

BATCH_COMMANDS: Final = 500  # beyond this a batch holds the append lock long enough to be felt by other writers
GATHER_SECONDS: Final = 0.005  # how long a batch may wait for commands that are just being decided
QUIET_TURNS: Final = 2  # of the loop without another command, after which none is
BATCH_BYTES: Final = 8 * 1024 * 1024
OUTCOME_DAYS: Final = 7  # an idempotency key is known for at least as long
OUTCOME_WEEKS_AHEAD: Final = 4  # so that a rotation may be missed for a month
APPEND_TIMEOUT: Final = 30.0  # seconds one append may take, reconnections included
RECONNECT_PAUSE: Final = 0.05  # seconds; a server that restarts refuses connections for a while


class Log(LogReader):
    """Appends and reads for one workspace. One per process and workspace; safe for concurrent tasks."""

    def __init__(self, database: Database, workspace: str, schema: str) -> None:
        super().__init__(database, workspace, schema)
        self.waiting_commands = database.waiting_commands
        """How many commands may wait at once: a stalled database must not grow this process."""
        self._waiting: deque[tuple[Submission, asyncio.Future[Appended]]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._meter = LogMeter(workspace)
        self._epoch: str | None = None  # that of the append connection's server
        self._warned = False
        name = Identifier(schema)
        self._sql_append = SQL(APPEND).format(schema=name).as_string()
        self._sql_note = SQL("SELECT {schema}.note_release(%s)").format(schema=name).as_string()
        self._sql_lock = SQL(_LOCK).format(schema=name, patience=int(APPEND_TIMEOUT * 1000)).as_string()
        self._sql_rotate = SQL("SELECT {schema}.rotate_outcomes(%s, %s)").format(schema=name).as_string()

    async def append(self, submission: Submission) -> Appended:
        """Append one command and wait until it is durable.

        Commands that arrive while an append is under way form the next batch: one round trip, one transaction,
        one disk sync. Raises Conflict, Claimed, KeyReused, EventTooLarge, LogBusy, LogUnavailable.
        """
        return await self.submit(submission)

    def submit(self, submission: Submission) -> asyncio.Future[Appended]:
        """Queue one command; the future is what `append` waits for. Commands are appended in the order submitted.

        Raises EventTooLarge, LogBusy.
        """
        self._check(submission)
        if len(self._waiting) >= self.waiting_commands:
            raise self.busy(len(self._waiting))
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name=f"append {self._workspace}")
        return future

    def busy(self, waiting: int) -> LogBusy:
        """Count a command that is turned away, and give the error that says so."""
        self._meter.busy()
        return LogBusy(f"{waiting} commands are waiting for the log")

    @property
    def waiting(self) -> int:
        """How many commands wait for an append."""
        return len(self._waiting)

    def _check(self, submission: Submission) -> None:
        try:
            check_sizes(submission.events, self._database.largest_event)
        except EventTooLarge:
            self._meter.too_large()
            raise

    @asynccontextmanager
    async def exclusively(self) -> AsyncIterator[Callable[[Submission], Awaitable[Appended]]]:
        """Keep every other append of the workspace waiting while a command is decided and recorded.

        For the command that was second too often: what it reads inside the block stays as it is until the block
        ends, and what it appends is durable when the block has ended. Raises LogUnavailable.
        """
        try:
            async with (
                asyncio.timeout(APPEND_TIMEOUT),
                await self._database.connect(f"desk decide {self._workspace}") as connection,
            ):
                await self.epochs.enter(connection)
                async with connection.transaction():
                    await connection.execute(self._sql_lock)

                    async def append(submission: Submission) -> Appended:
                        self._check(submission)
                        cursor = await connection.execute(self._sql_append, arguments_of([submission]), binary=True)
                        outcome = read_outcome((await cursor.fetchall())[0])
                        if isinstance(outcome, LogError):
                            raise outcome
                        return outcome

                    yield append
        except (
            TimeoutError,
            psycopg.OperationalError,
            psycopg.errors.ReadOnlySqlTransaction,
            psycopg.errors.IdleInTransactionSessionTimeout,
        ) as error:
            message = f"the database did not answer: {error}"
            raise LogUnavailable(message) from error
        self._database.wake(self._workspace)

    async def _flush(self) -> None:
        while self._waiting:
            await self._gather()
            batch = self._next_batch()
            if not batch:
                continue
            began = time.perf_counter()
            try:
                outcomes = await self._append_batch([submission for submission, _ in batch])
            except Exception as error:  # noqa: BLE001 - each waiting caller gets the error, whatever it is
                _settle(batch, [error] * len(batch))
                continue
            finally:
                self._meter.appended(len(batch), time.perf_counter() - began)
            _settle(batch, outcomes)
            self._database.wake(self._workspace)

    async def _gather(self) -> None:
        """Let the commands that are just being decided come along.

        An append costs the server ten times what one more command in it does, so a busy process that sent off each
        at once would spend most of its time on appends. When nothing else is going on this takes two turns of the loop.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHER_SECONDS
        quiet = 0
        while quiet < QUIET_TURNS and len(self._waiting) < BATCH_COMMANDS and loop.time() < until:
            seen = len(self._waiting)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._waiting) == seen else 0

    def _next_batch(self) -> list[tuple[Submission, asyncio.Future[Appended]]]:
        batch: list[tuple[Submission, asyncio.Future[Appended]]] = []
        size = 0
        while self._waiting and len(batch) < BATCH_COMMANDS and size < BATCH_BYTES:
            submission, future = self._waiting.popleft()
            if future.cancelled():
                # A caller that went away before its command was sent gets it cleanly not done.
                submission.settle(LogError("not sent"))
            elif submission.after is not None and submission.after.recorded is False:
                stream, version = next(iter(submission.guards.items()))
                _settle([(submission, future)], [Conflict(stream, version - 1)])
            else:
                batch.append((submission, future))
                size += sum(len(event.state) + len(event.personal or b"") for event in submission.events)
        return batch

    async def _append_batch(self, batch: Sequence[Submission]) -> list[Appended | LogError]:
        """Append a batch; a lost connection is answered by sending it again, to whichever server writes by then.

        Sending again is always safe: a key that is known replays, and events that are already in their streams
        conflict, in which case the stored bytes tell whether they are ours. So nothing is guessed.
        """
        lost = False
        try:
            async with asyncio.timeout(APPEND_TIMEOUT):
                while True:
                    try:
                        return await self._attempt(batch, again=lost)
                    except psycopg.Error as error:
                        if not _is_lost(error, self._connection):
                            raise
                        lost = True
                        await self.close()
                        await asyncio.sleep(RECONNECT_PAUSE)
        except TimeoutError:
            await self.close()
            message = f"the database did not answer within {APPEND_TIMEOUT:.0f} seconds"
            raise LogUnavailable(message) from None
        except psycopg.errors.UniqueViolation:
            # Only a batch that contradicts itself gets here, such as one event twice; its neighbours must not suffer.
            if len(batch) == 1:
                raise
            outcomes = []
            for submission in batch:
                outcomes.append(await self._alone(submission))
                submission.settle(outcomes[-1])
            return outcomes

    async def _attempt(self, batch: Sequence[Submission], *, again: bool) -> list[Appended | LogError]:
        """Send a batch once. `again` says that it may have been recorded by a sending whose reply was lost."""
        connection = await self._own_connection()
        self._warned = False
        current = [submission for submission in batch if submission.epoch in {None, self._epoch}]
        outcomes: list[Appended | LogError] = []
        if current:
            cursor = await connection.execute(self._sql_append, arguments_of(current), prepare=True, binary=True)
            outcomes = [read_outcome(row) for row in await cursor.fetchall()]
            self._remember(current, outcomes)
        # An event found by its bytes was written before, by a backend that may have been ended while it waited for a
        # standby; one that was told to stop waiting warns. Their commits are waited for here.
        unsure = self._warned
        if again or len(current) < len(batch):
            answered = iter(outcomes)
            outcomes = []
            for submission in batch:
                outcome = next(answered) if submission.epoch in {None, self._epoch} else EarlierEpoch()
                # A value it claimed may be another's by now, given up again by a later command of the same batch.
                if isinstance(outcome, Conflict | Claimed | EarlierEpoch):
                    known = await self._recognised(connection, submission)
                    unsure = unsure or known is not None
                    outcome = known or outcome
                outcomes.append(outcome)
        if unsure:
            await self._await_standby(connection)
        return outcomes

    async def _alone(self, submission: Submission) -> Appended | LogError:
        try:
            return (await self._append_batch([submission]))[0]
        except psycopg.errors.UniqueViolation as error:
            first = submission.events[0] if submission.events else None
            if first is None:
                return LogError(str(error))
            return Conflict(first.stream, first.version)

    async def _recognised(self, connection: psycopg.AsyncConnection[Any], submission: Submission) -> Appended | None:
        """Tell whether the events of a submission are in the log already, on the server that it is sent to."""
        if not submission.events:
            return None
        first = submission.events[0]
        parameters = (first.stream, first.version - 1, first.version, 1)
        cursor = await connection.execute(self._sql_stream, parameters, binary=True)
        rows = list(map(StoredRow._make, await cursor.fetchall()))
        if not rows or (rows[0].topic, rows[0].state) != (first.topic, first.state):
            return None
        start = rows[0]
        last = start.position + len(submission.events) - 1
        return Appended(start.position, last, start.recorded_at, replayed=False, result=submission.result)

    async def _await_standby(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Return once everything committed so far is where a synchronous standby, if any is asked for, has it."""
        while True:
            self._warned = False
            # A commit waits for the standby if its transaction wrote something; to have a number is not enough.
            await connection.execute("SELECT pg_logical_emit_message(true, 'ledgerdesk', '')")
            if not self._warned:
                return

    def _remember(self, batch: Sequence[Submission], outcomes: Sequence[Appended | LogError]) -> None:
        """Keep the last event that was seen appended, to know a log again that was set back."""
        for submission, outcome in zip(reversed(batch), reversed(outcomes), strict=True):
            if submission.events and isinstance(outcome, Appended) and not outcome.replayed:
                self.epochs.saw(outcome.position, outcome.recorded_at)
                return

    async def _own_connection(self) -> psycopg.AsyncConnection[Any]:
        """Open or give the appends' own connection: a pool hand-over would cost as much as a small append."""
        if self._connection is not None and (self._connection.closed or self._epoch != self.epochs.known):
            await self.close()
        if self._connection is None:
            connection = await self._database.connect(f"desk append {self._workspace}")
            try:
                connection.add_notice_handler(self._notice)
                await connection.execute(self._sql_note, (self._database.release,))
                self._epoch = await self.epochs.enter(connection)
            except BaseException:
                await connection.close()
                raise
            self._connection = connection
        return self._connection

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        """Hear that a commit was told to stop waiting for its standby, which the server only warns of."""
        self._warned = self._warned or diagnostic.severity_nonlocalized == "WARNING"

    async def rotate_outcomes(self) -> None:
        """Make room for the outcomes of the weeks ahead and drop those of keys older than OUTCOME_DAYS."""
        async with self._database.pool.connection() as connection:
            await connection.execute(self._sql_rotate, (OUTCOME_DAYS, OUTCOME_WEEKS_AHEAD))

    async def close(self) -> None:
        """Give the append connection back; a later append opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()

    async def drain(self) -> None:
        """Wait until every command accepted so far has its outcome."""
        while self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher])


def _settle(
    batch: Sequence[tuple[Submission, asyncio.Future[Appended]]], outcomes: Sequence[Appended | Exception]
) -> None:
    for (submission, future), outcome in zip(batch, outcomes, strict=True):
        submission.settle(outcome)
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _is_lost(error: psycopg.Error, connection: psycopg.AsyncConnection[Any] | None) -> bool:
    """Tell a connection that is gone, or a server that is starting, stopping or not to be written to, from a refusal."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return True
    state = error.sqlstate or ""
    lost = connection is None or connection.closed or state[:3] in {"08", "57P"} or not state
    return lost and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


# A process that stands still with the log to itself would keep everybody else waiting: the server ends it.
_LOCK = """
SELECT {schema}.lock_log(), set_config('idle_in_transaction_session_timeout', {patience}::text, true)
"""
