"""The log of one workspace: dense positions in commit order, written in groups, read in pages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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
from storage.epochs import Epochs
from storage.metrics import LogMeter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from storage.database import Database

BATCH_COMMANDS: Final = 500  # beyond this a batch holds the append lock long enough to be felt by other writers
GATHER_SECONDS: Final = 0.005  # how long a batch may wait for commands that are just being decided
QUIET_TURNS: Final = 2  # of the loop without another command, after which none is
BATCH_BYTES: Final = 8 * 1024 * 1024
OUTCOME_DAYS: Final = 7  # an idempotency key is known for at least as long
OUTCOME_WEEKS_AHEAD: Final = 4  # so that a rotation may be missed for a month
APPEND_TIMEOUT: Final = 30.0  # seconds one append may take, reconnections included
RECONNECT_PAUSE: Final = 0.05  # seconds; a server that restarts refuses connections for a while


class StoredRow(NamedTuple):
    """An event as it lies in the log."""

    position: int
    stream: UUID
    version: int
    topic: str
    state: bytes
    personal: bytes | None
    recorded_at: datetime


class Cut(NamedTuple):
    """What somebody who reads through the whole log takes of it.

    That is: of `lanes` that divide the streams among them one, no event of the topics `without`, and of the topics
    `bare` no personal values.
    """

    lane: int = 0
    lanes: int = 1
    without: Sequence[str] = ()
    bare: Sequence[str] = ()


WHOLE: Final = Cut()


class Head(NamedTuple):
    """The end of the log; position 0 and no time when it is empty."""

    position: int
    recorded_at: datetime | None
    epoch: str


class Log:
    """Appends and reads for one workspace. One per process and workspace; safe for concurrent tasks."""

    def __init__(self, database: Database, workspace: str, schema: str) -> None:
        self._database = database
        self._workspace = workspace
        self.waiting_commands = database.waiting_commands
        """How many commands may wait at once: a stalled database must not grow this process."""
        self._waiting: deque[tuple[Submission, asyncio.Future[Appended]]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._meter = LogMeter(workspace)
        self._epoch: str | None = None  # that of the append connection's server
        self._warned = False
        self.epochs = Epochs(database, schema)
        name = Identifier(schema)
        self._sql_append = SQL(APPEND).format(schema=name).as_string()
        self._sql_note = SQL("SELECT {schema}.note_release(%s)").format(schema=name).as_string()
        self._sql_lock = SQL(_LOCK).format(schema=name, patience=int(APPEND_TIMEOUT * 1000)).as_string()
        self._sql_rotate = SQL("SELECT {schema}.rotate_outcomes(%s, %s)").format(schema=name).as_string()
        self._sql_stream = SQL(_STREAM).format(schema=name).as_string()
        self._sql_page = SQL(_PAGE).format(schema=name).as_string()
        self._sql_page_topics = SQL(_PAGE_OF_TOPICS).format(schema=name).as_string()
        self._sql_range = SQL(_RANGE).format(schema=name).as_string()
        self._sql_heads = SQL(_HEADS).format(schema=name).as_string()
        self._sql_head = SQL(_HEAD).format(schema=name).as_string()
        self._sql_at = SQL(_POSITION_AT).format(schema=name).as_string()
        self._sql_owner = SQL(_OWNER).format(schema=name).as_string()

    # Writing

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

    # Reading

    async def stream(
        self, stream: UUID, *, after: int = 0, upto: int | None = None, limit: int | None = None
    ) -> list[StoredRow]:
        """Give the events of one stream with versions `after` < v ≤ `upto`, in order."""
        lowest = after if after > 0 else -1  # streams of the `eventsourcing` package start at version 0
        return await self._rows(self._sql_stream, (stream, lowest, upto, limit))

    async def page(
        self, after: int, limit: int, *, upto: int | None = None, topics: Sequence[str] | None = None
    ) -> list[StoredRow]:
        """Give the next `limit` events with positions `after` < p ≤ `upto`, in order."""
        if topics is None:
            return await self._rows(self._sql_page, (after, upto, limit))
        return await self._rows(self._sql_page_topics, (after, upto, list(topics), limit))

    def page_over(
        self, connection: psycopg.Connection[Any], after: int, upto: int, cut: Cut = WHOLE
    ) -> list[StoredRow]:
        """Give what a reader takes of the positions `after` < p ≤ `upto`, in order, over a blocking connection.

        For a thread that reads the whole log: large answers arrive in thousands of small pieces, each of which would
        be a turn of the event loop.
        """
        parameters = {
            "after": after,
            "upto": upto,
            "lane": cut.lane,
            "lanes": cut.lanes,
            "without": list(cut.without),
            "bare": list(cut.bare),
        }
        cursor = connection.execute(self._sql_range, parameters, prepare=True, binary=True)
        return list(map(StoredRow._make, cursor.fetchall()))

    async def row(self, position: int) -> StoredRow | None:
        """Give the event at a position, or None when there is none yet."""
        rows = await self.page(position - 1, 1, upto=position)
        return rows[0] if rows else None

    async def heads(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """Give the last version of each of the streams that exist."""
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_heads, (list(streams),), prepare=True)
            return dict(await cursor.fetchall())

    async def head(self) -> Head:
        """Give the end of the log and its epoch."""
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_head, prepare=True)
            row = await cursor.fetchone()
        if row is None:
            message = f"workspace {self._workspace} has no log identity"
            raise LogError(message)
        return Head(*row)

    async def epoch(self) -> str:
        """Give the log's epoch as this process knows it; it is read again after a restore or a failover."""
        return await self.epochs.current()

    async def position_at(self, instant: datetime) -> tuple[int, bool]:
        """Give the last position recorded at or before an instant, and whether that is provisional.

        It is provisional until an event with a later recorded time is in the log: until then another event
        may still be recorded within the instant.
        """
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_at, (instant,), prepare=True)
            row = await cursor.fetchone()
        position, later = row if row is not None else (0, False)
        return position, not later

    async def owner_of(self, kind: str, key: bytes) -> UUID | None:
        """Give the stream that holds a claimed value, or None."""
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_owner, (kind, key), prepare=True)
            row = await cursor.fetchone()
        return row[0] if row is not None else None

    async def _rows(self, statement: str, parameters: tuple[Any, ...]) -> list[StoredRow]:
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(statement, parameters, prepare=True, binary=True)
            return list(map(StoredRow._make, await cursor.fetchall()))


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

_COLUMNS = "notification_id, originator_id, originator_version, topic, state, personal, recorded_at"

# By the unique index on stream and version.
_STREAM = f"""
SELECT {_COLUMNS} FROM {{schema}}.events
WHERE originator_id = %s AND originator_version > %s AND originator_version <= coalesce(%s, 9223372036854775807)
ORDER BY originator_version LIMIT %s
"""

# By the primary key; positions are dense, so that a page of n is n steps of the index.
_PAGE = f"""
SELECT {_COLUMNS} FROM {{schema}}.events
WHERE notification_id > %s AND notification_id <= coalesce(%s, 9223372036854775807)
ORDER BY notification_id LIMIT %s
"""

_PAGE_OF_TOPICS = f"""
SELECT {_COLUMNS} FROM {{schema}}.events
WHERE notification_id > %s AND notification_id <= coalesce(%s, 9223372036854775807) AND topic = ANY(%s)
ORDER BY notification_id LIMIT %s
"""

# A stream is in the lane that the last byte of its id says: random in ids of versions 4 and 5, and the same for ever.
_RANGE = """
SELECT notification_id, originator_id, originator_version, topic, state,
       CASE WHEN topic <> ALL (%(bare)s::text[]) THEN personal END, recorded_at
FROM {schema}.events
WHERE notification_id > %(after)s AND notification_id <= %(upto)s
  AND (%(lanes)s::int = 1 OR get_byte(uuid_send(originator_id), 15) %% %(lanes)s = %(lane)s::int)
  AND topic <> ALL (%(without)s::text[])
ORDER BY notification_id
"""

_HEADS = """
SELECT u.id, x.version FROM unnest(%s::uuid[]) u (id)
CROSS JOIN LATERAL (
    SELECT originator_version AS version FROM {schema}.events
    WHERE originator_id = u.id ORDER BY originator_version DESC LIMIT 1
) x
"""

_HEAD = """
SELECT coalesce(e.notification_id, 0), e.recorded_at, i.epoch
FROM {schema}.log_identity i
LEFT JOIN LATERAL (
    SELECT notification_id, recorded_at FROM {schema}.events ORDER BY notification_id DESC LIMIT 1
) e ON true
"""

# The last position by the end of the primary key: asked whether one above exists, the planner scans the table for it.
_POSITION_AT = """
SELECT p.position, p.position < (SELECT max(notification_id) FROM {schema}.events)
FROM {schema}.position_at(%s) p (position)
"""

_OWNER = "SELECT stream FROM {schema}.claims WHERE kind = %s AND key = %s"
