"""Builds a view again from the log, beside the live one, and puts it in the live one's place."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import inspect
import os
import socket
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier

from projections import bookkeeping
from projections.extract import Extract
from projections.page import Page, uncollected
from projections.view import ViewError
from storage.codec import UnreadableEvent
from storage.ending import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection

    from projections.bookkeeping import Mark
    from projections.table import Rows, Shelf
    from projections.view import View
    from storage.database import Workspace
    from storage.log import StoredRow

PAGE_EVENTS: Final = 25_000  # larger pages meet a row more often before it is written, and hold more of them in memory
PAGES_BETWEEN_COLLECTIONS: Final = 20
LEASE_SECONDS: Final = 5.0  # how long a rebuild that was killed keeps the next from going on
RENEW_SECONDS: Final = 1.0
LOCK_TIMEOUT: Final = "500ms"  # readers and the live projection wait behind the swap for no longer than this
SWAP_ATTEMPTS: Final = 60
NEAR_EVENTS: Final = 2_000  # few enough to be taken in while the live projection is held up


class RebuildRunning(ViewError):
    """Somebody else is rebuilding the view."""


class RebuildFailed(ViewError):
    """An event cannot be folded; the live view is as it was."""

    def __init__(self, view: View, row: StoredRow, error: Exception) -> None:
        super().__init__(f"{view.name} cannot take in event {row.position} ({row.topic}): {error}")
        self.position = row.position
        self.topic = row.topic


class Progress(NamedTuple):
    """How far a rebuild has come: events done of `total`, in all and per second of this run."""

    done: int
    total: int
    rate: float
    seconds_left: float


@dataclass(frozen=True)
class Report:
    """What a rebuild came to. `resumed_at` is where an earlier, killed run had come to (0: this run began anew)."""

    view: str
    version: int
    position: int
    resumed_at: int
    rows: int
    seconds: float
    rate: float
    """Events a second, waiting and the making of indexes included."""


async def rebuild(workspace: Workspace, view: View, progress: Callable[[Progress], None] = lambda _: None) -> Report:
    """Fold the whole log into a new table and put it in the place of the view's, in one short transaction.

    The live view is read and goes on throughout. A run that was killed is gone on with, unless the view's code has
    changed since. Raises RebuildRunning, RebuildFailed.
    """
    await bookkeeping.prepare(workspace, [view])
    build = _Build(workspace, view)
    async with _claimed(build):
        return await build.run(progress)


class _Build:
    """One run of one rebuild."""

    def __init__(self, workspace: Workspace, view: View) -> None:
        self.workspace = workspace
        self.view = view
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.position = 0
        self.recorded_at: datetime | None = None
        self._reader: psycopg.Connection[Any]
        self._taken_over = f"another rebuild of {view.name} has taken over"
        self._extract = Extract(view)
        self._live = view.shelf(workspace.schema)
        self._shadow: Shelf = view.shelf(workspace.schema, "_build")
        self._names = {"schema": Identifier(workspace.schema)}

    async def run(self, progress: Callable[[Progress], None]) -> Report:
        """Build, catch up and swap."""
        started = time.perf_counter()
        database = self.workspace.database
        self._reader = await asyncio.to_thread(psycopg.connect, database.conninfo, autocommit=True)
        connection = await database.connect(f"desk rebuild {self.view.name}")
        try:
            resumed_at = await self._begin(connection)

            def tell(total: int) -> None:
                seconds = time.perf_counter() - started
                rate = (self.position - resumed_at) / seconds if seconds else 0.0
                left = max(total - self.position, 0) / rate if rate else 0.0
                progress(Progress(self.position, max(total, self.position), rate, left))

            with uncollected():
                await self._reach(connection, await self._target(), tell)
            await self._index(connection)
            await self._put_in_place(connection, tell)
            tell(self.position)
            cursor = await connection.execute(SQL("SELECT count(*) FROM {}").format(self._live.place))
            count = await cursor.fetchone()
        finally:
            await connection.close()
            self._reader.close()
        seconds = time.perf_counter() - started
        return Report(
            view=self.view.name,
            version=self.view.version,
            position=self.position,
            resumed_at=resumed_at,
            rows=count[0] if count is not None else 0,
            seconds=seconds,
            rate=(self.position - resumed_at) / seconds,
        )

    async def _begin(self, connection: AsyncConnection[Any]) -> int:
        """Go on with the table that a killed run of the same code left, or make a new one. Gives where it stands."""
        recipe = _recipe(self.view)
        async with connection.transaction():
            row = await self._bookkeeping(
                connection,
                "build_position, build_recipe, to_regclass(%s)::text",
                [f'"{self.workspace.schema}"."{self._shadow.name}"'],
            )
            position, old_recipe, table = row
            if table is not None and position is not None and old_recipe == recipe:
                self.position = position
                return self.position
            await connection.execute(SQL("DROP TABLE IF EXISTS {}").format(self._shadow.place))
            await self._shadow.create(connection)
            await connection.execute(
                SQL(_BEGIN).format(**self._names), (recipe, self.view.name, self.view.version, self.owner)
            )
        return 0

    async def _target(self) -> int:
        """Tell how far to go: as far as the live view where it keeps up, so that lists begun on it can go on."""
        (status,) = await bookkeeping.view_status(self.workspace, [self.view])
        keeps_up = status.state == bookkeeping.LIVE and status.owner is not None and status.lag_events <= PAGE_EVENTS
        return status.position if keeps_up else status.head

    async def _reach(self, connection: AsyncConnection[Any], target: int, tell: Callable[[int], None]) -> None:
        """Take in the log up to a position, a page a transaction.

        While the server writes one page, the next is folded here and the one after it is read.
        """
        reading = asyncio.create_task(self._read(self.position, target))
        writing: asyncio.Task[None] | None = None
        written: Rows = {}
        pages = 0
        try:
            while page := await reading:
                reading = asyncio.create_task(self._read(page.ceiling.position, target))
                async with self.workspace.database.pool.connection() as other:
                    rows = await self._shadow.load(other, page.streams(self.view, 0, len(page)))
                # The page before may not be committed yet; its rows are newer than those just loaded.
                rows |= written
                changed = self._folded(page, rows)
                if writing is not None:
                    await writing
                    tell(target)
                writing = asyncio.create_task(self._write(connection, page.ceiling, rows, changed))
                written = changed
                pages += 1
                if pages % PAGES_BETWEEN_COLLECTIONS == 0:
                    gc.collect()
                await asyncio.sleep(0)
            if writing is not None:
                await writing
                tell(target)
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            # A thread cannot be stopped, and its connection must not be closed under it.
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, after: int, target: int) -> Page | None:
        if after >= target:
            return None
        rows = await asyncio.to_thread(self.workspace.log.page_over, self._reader, after, PAGE_EVENTS, upto=target)
        return Page(rows) if rows else None

    def _folded(self, page: Page, rows: Rows) -> Rows:
        """Give the rows that a page changes. Raises RebuildFailed, which names the event."""
        try:
            return self.view.fold(rows, self._extract.recorded(page.rows))
        except UnreadableEvent as error:
            raise RebuildFailed(self.view, error.row, error) from error
        except Exception as error:
            raise RebuildFailed(self.view, self._culprit(page, rows), error) from error

    def _culprit(self, page: Page, rows: Rows) -> StoredRow:
        """Find the event at which a fold of a page fails, by folding one at a time."""
        known = dict(rows)
        for row in page.rows:
            try:
                known |= self.view.fold(known, self._extract.recorded([row]))
            except Exception:  # noqa: BLE001 - whatever it is, it is reported with the event
                return row
        return page.rows[-1]

    async def _write(self, connection: AsyncConnection[Any], ceiling: Mark, rows: Rows, changed: Rows) -> None:
        """Commit a page: its rows and how far the build has come. Raises RebuildRunning when it is not ours any more."""
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            await self._shadow.store(connection, rows, changed, past=False)
            # Last, as the live projection writes the same row: it is held up for the length of a commit at most.
            cursor = await connection.execute(
                SQL(_ADVANCE).format(**self._names),
                (ceiling.position, self.view.name, self.view.version, self.owner, self.position),
                prepare=True,
            )
            if cursor.rowcount != 1:
                raise RebuildRunning(self._taken_over)
        self.position, self.recorded_at = ceiling

    async def _index(self, connection: AsyncConnection[Any]) -> None:
        """Make the indexes, all or none, unless a killed run already had."""
        async with connection.transaction():
            cursor = await connection.execute(_INDEXES, (self._shadow.place.as_string(connection),))
            row = await cursor.fetchone()
            if row == (1,):  # the key alone
                await self._shadow.create_indexes(connection)
        await connection.execute(SQL("ANALYZE {}").format(self._shadow.place))

    async def _put_in_place(self, connection: AsyncConnection[Any], tell: Callable[[int], None]) -> None:
        """Catch up and swap; where readers hold the live table for long, let them finish and try again."""
        for attempt in range(1, SWAP_ATTEMPTS + 1):
            while (target := await self._target()) - self.position > NEAR_EVENTS:
                await self._reach(connection, target, tell)
            try:
                async with connection.transaction():
                    await self._swap(connection)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                if attempt == SWAP_ATTEMPTS:
                    raise
                await asyncio.sleep(0.1)
            else:
                self.workspace.database.wake(self.workspace.name)
                return

    async def _swap(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        # The live projection's transactions begin by updating this row, so that from here on it stands still.
        position, state, head = await self._bookkeeping(
            connection, "position, state, (SELECT coalesce(max(notification_id), 0) FROM {schema}.events)", []
        )
        target = position if state == bookkeeping.LIVE and position >= self.position else head
        while page := await self._read(self.position, target):
            rows = await self._shadow.load(connection, page.streams(self.view, 0, len(page)))
            await self._shadow.store(connection, rows, self._folded(page, rows), past=False)
            self.position, self.recorded_at = page.ceiling
        if self.position and self.recorded_at is None:
            row = await self.workspace.log.row(self.position)
            self.recorded_at = row.recorded_at if row is not None else None
        same = self.position == position
        if self.view.table.keeps_past and not same:
            await connection.execute(SQL("TRUNCATE {}").format(self._live.past))
        await connection.execute(SQL("DROP TABLE {}").format(self._live.place))
        await connection.execute(
            SQL("ALTER TABLE {} RENAME TO {}").format(self._shadow.place, Identifier(self._live.name))
        )
        await connection.execute(
            SQL(_SWAP).format(**self._names),
            (self.position, self.recorded_at, 0 if same else self.position, self.view.name, self.view.version),
        )

    async def _bookkeeping(
        self, connection: AsyncConnection[Any], columns: str, parameters: Sequence[Any]
    ) -> tuple[Any, ...]:
        """Read and lock our row. Raises RebuildRunning when the build is not ours any more."""
        cursor = await connection.execute(
            SQL("SELECT " + columns + _OURS).format(**self._names),
            (*parameters, self.view.name, self.view.version, self.owner),
        )
        row = await cursor.fetchone()
        if row is None:
            raise RebuildRunning(self._taken_over)
        return tuple(row)


@asynccontextmanager
async def _claimed(build: _Build) -> AsyncIterator[None]:
    """Keep other rebuilds of the view away; one that was killed keeps us away until its lease has run out."""
    pool, names = build.workspace.database.pool, {"schema": Identifier(build.workspace.schema)}
    us = (build.view.name, build.view.version)
    seen = None
    while True:
        async with pool.connection() as connection:
            cursor = await connection.execute(SQL(_CLAIM).format(**names), (build.owner, LEASE_SECONDS, *us))
            if cursor.rowcount == 1:
                break
            cursor = await connection.execute(SQL(_HELD).format(**names), us)
            held = await cursor.fetchone()
        if seen is not None and held is not None and held != seen:
            message = f"{build.view.name} is being rebuilt by {held[0]}"
            raise RebuildRunning(message)
        seen = held
        await asyncio.sleep(RENEW_SECONDS / 2)

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(psycopg.Error):
                async with pool.connection() as connection:
                    await connection.execute(SQL(_RENEW).format(**names), (LEASE_SECONDS, *us, build.owner))

    renewing = asyncio.create_task(renew(), name=f"rebuild {build.view.name}")
    try:
        yield
    finally:
        await end(renewing)
        with suppress(psycopg.Error):
            async with pool.connection() as connection:
                await connection.execute(SQL(_RELEASE).format(**names), (*us, build.owner))


def _recipe(view: View) -> str:
    """Identify the code of a view: a build begun by other code is not gone on with."""
    try:
        source = inspect.getsource(sys.modules[view.fold.__module__])
    except (OSError, TypeError, KeyError):
        source = uuid4().hex
    return hashlib.sha256(f"{view.table!r}\n{source}".encode()).hexdigest()


_CLAIM = """
UPDATE {schema}.views SET build_owner = %s, build_leased_until = now() + %s * interval '1 second'
WHERE name = %s AND version = %s AND (build_owner IS NULL OR build_leased_until < now())
"""

_HELD = "SELECT build_owner, build_leased_until FROM {schema}.views WHERE name = %s AND version = %s"

_RENEW = """
UPDATE {schema}.views SET build_leased_until = now() + %s * interval '1 second'
WHERE name = %s AND version = %s AND build_owner = %s
"""

_RELEASE = """
UPDATE {schema}.views SET build_owner = NULL, build_leased_until = NULL
WHERE name = %s AND version = %s AND build_owner = %s
"""

_BEGIN = """
UPDATE {schema}.views SET build_position = 0, build_recipe = %s WHERE name = %s AND version = %s AND build_owner = %s
"""

_ADVANCE = """
UPDATE {schema}.views SET build_position = %s
WHERE name = %s AND version = %s AND build_owner = %s AND build_position = %s
"""

_OURS = " FROM {schema}.views WHERE name = %s AND version = %s AND build_owner = %s FOR UPDATE"

# The owner stays: its next transaction finds another position and reads where the view now stands.
_SWAP = """
UPDATE {schema}.views
SET position = %s, recorded_at = %s, kept_from = greatest(kept_from, %s), state = 'live',
    failed_position = NULL, failed_topic = NULL, error = NULL, failed_at = NULL,
    build_position = NULL, build_recipe = NULL
WHERE name = %s AND version = %s
"""

_INDEXES = "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass"
