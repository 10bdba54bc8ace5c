"""Builds a view again from the log, beside the live one, and puts it in the live one's place."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier

from projections import bookkeeping
from projections.page import uncollected
from replay import builds, rebuild_lane
from replay.builds import Phase, Progress, Standing
from replay.rebuild_lane import Lane, RebuildFailed, RebuildRunning, Site
from replay.rebuild_workers import RebuildStopped, can_fork, processors, reach_in_lanes
from storage.codec import UnreadableEvent, decode
from storage.releases import told_in_full

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from psycopg import AsyncConnection

    from projections.table import Shelf
    from projections.view import View
    from storage.database import Workspace

__all__ = ["Progress", "RebuildFailed", "RebuildRunning", "RebuildStopped", "Report", "rebuild"]

LOCK_TIMEOUT: Final = "500ms"  # readers and the live projection wait behind the swap for no longer than this
SWAP_ATTEMPTS: Final = 60
NEAR_EVENTS: Final = 2_000  # few enough to be taken in while the live projection is held up
WORTH_FORKING: Final = 50_000  # events ahead; for fewer the forking and its connections cost what they save


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


async def rebuild(
    workspace: Workspace,
    view: View,
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    workers: int | None = None,
) -> Report:
    """Fold the whole log into a new table and put it in the place of the view's, in one short transaction.

    The live view is read and goes on throughout. A run that was killed is gone on with, unless the view's code has
    changed since. Where the view is stream-local and processes can be forked, `workers` of them divide the streams
    among them; None is one a processor where there is enough to do. Raises RebuildRunning, RebuildFailed,
    RebuildStopped.
    """
    await bookkeeping.prepare(workspace, [view])
    standing = Standing(progress)
    build = _Build(workspace, view, workers, standing)
    async with builds.claimed(build.site, standing):
        try:
            return await build.run()
        except RebuildFailed as failed:
            raise await _traced(workspace, failed) from failed


async def _traced(workspace: Workspace, failed: RebuildFailed) -> RebuildFailed:
    """Say also which release wrote the event, where that is what it failed at."""
    row = await workspace.log.row(failed.position)
    try:
        if row is not None:
            decode(row)
    except UnreadableEvent as error:
        writer = (await told_in_full(workspace, error)).removeprefix(str(error))
        return RebuildFailed(f"{failed}{writer}", failed.position, failed.topic)
    return failed


class _Build:
    """One run of one rebuild."""

    def __init__(self, workspace: Workspace, view: View, workers: int | None, standing: Standing) -> None:
        self.workspace = workspace
        self.view = view
        self.site = Site(workspace, view, builds.new_owner())
        self._workers = workers
        self._standing = standing
        self._lane: Lane
        self._live = view.shelf(workspace.schema)
        self._shadow: Shelf = self.site.shadow
        self._names = {"schema": Identifier(workspace.schema)}

    async def run(self) -> Report:
        """Build, catch up and swap."""
        tell = self._standing.tell
        started = time.perf_counter()
        async with Lane.opened(self.site) as self._lane:
            connection = self._lane.connection
            positions = await self._begin(connection)
            resumed_at = self._standing.resumed_at = sum(positions) // len(positions)
            with uncollected():
                # An earlier run may have gone further than the live view now stands.
                target = max(await self._target(), *positions)
                if len(positions) > 1:
                    await reach_in_lanes(
                        self.site, self._lane, positions, target, lambda now: tell(sum(now) // len(now), target)
                    )
                    await builds.join(connection, self.site, [target] * len(positions))
                self._lane.stand(target if len(positions) > 1 else positions[0])
                await self._lane.reach(target, lambda: tell(self._lane.position, target))
            self._standing.enter(Phase.INDEXING)
            await self._index(connection)
            self._standing.enter(Phase.CATCHING_UP)
            await self._put_in_place(connection)
            self._standing.phase = Phase.DONE
            position = self._lane.position
            tell(position, position)
            cursor = await connection.execute(SQL("SELECT count(*) FROM {}").format(self._live.place))
            count = await cursor.fetchone()
        seconds = time.perf_counter() - started
        return Report(
            view=self.view.name,
            version=self.view.version,
            position=position,
            resumed_at=resumed_at,
            rows=count[0] if count is not None else 0,
            seconds=seconds,
            rate=(position - resumed_at) / seconds,
        )

    async def _begin(self, connection: AsyncConnection[Any]) -> list[int]:
        """Go on with the table that a killed run of the same code left, or make a new one. Gives where lanes stand."""
        recipe = _recipe(self.view, self._lane.skipped)
        async with connection.transaction():
            found, old_recipe, _ = await builds.standing_of(connection, self.site)
            cursor = await connection.execute(
                SQL("SELECT to_regclass(%s), (SELECT coalesce(max(notification_id), 0) FROM {schema}.events)").format(
                    **self._names
                ),
                [self._shadow.place.as_string(connection)],
            )
            table, head = await cursor.fetchone() or (None, 0)
            positions = self._divided(found, head) if table is not None and found and old_recipe == recipe else None
            if positions is None:
                await connection.execute(SQL("DROP TABLE IF EXISTS {}").format(self._shadow.place))
                await self._shadow.create(connection)
                positions = [0] * self._lanes(head)
            await builds.stands(connection, self.site, positions, recipe)
        return positions

    def _divided(self, found: list[int], head: int) -> list[int] | None:
        """Give the places from which lanes can go on with a build; None where it was divided otherwise than asked."""
        if len(set(found)) == 1:
            return found[:1] * self._lanes(head - found[0])
        asked = self._workers if self._workers is not None else len(found)
        return found if asked == len(found) and can_fork() else None

    def _lanes(self, ahead: int) -> int:
        """Tell among how many processes to divide a number of events."""
        if not self.view.stream_local or not can_fork():
            return 1
        if self._workers is not None:
            return max(self._workers, 1)
        return processors() if ahead >= WORTH_FORKING else 1

    async def _target(self) -> int:
        """Tell how far to go: as far as the live view where it keeps up, so that lists begun on it can go on."""
        (status,) = await bookkeeping.view_status(self.workspace, [self.view])
        keeps_up = (
            status.state == bookkeeping.LIVE
            and status.owner is not None
            and status.lag_events <= rebuild_lane.PAGE_EVENTS
        )
        return status.position if keeps_up else status.head

    async def _index(self, connection: AsyncConnection[Any]) -> None:
        """Make the indexes, all or none, unless a killed run already had."""
        async with connection.transaction():
            cursor = await connection.execute(_INDEXES, (self._shadow.place.as_string(connection),))
            row = await cursor.fetchone()
            if row == (1,):  # the key alone
                await self._shadow.create_indexes(connection)
        await connection.execute(SQL("ANALYZE {}").format(self._shadow.place))

    async def _put_in_place(self, connection: AsyncConnection[Any]) -> None:
        """Catch up and swap; where readers hold the live table for long, let them finish and try again."""
        lane, tell = self._lane, self._standing.tell
        for attempt in range(1, SWAP_ATTEMPTS + 1):
            while (target := await self._target()) - lane.position > NEAR_EVENTS:
                await lane.reach(target, lambda target=target: tell(lane.position, target))  # type: ignore[misc]
            stood = lane.position
            try:
                async with connection.transaction():
                    await self._swap(connection)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                lane.stand(stood)  # what the transaction took in is undone
                if attempt == SWAP_ATTEMPTS:
                    raise
                await asyncio.sleep(0.1)
            else:
                self.workspace.database.wake(self.workspace.name)
                return

    async def _swap(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        # The live projection's transactions begin by updating this row, so that from here on it stands still.
        cursor = await connection.execute(SQL(_HOLD).format(**self._names), (self.view.name, self.view.version))
        position, state, head = await cursor.fetchone() or (0, "", 0)
        await builds.stands(connection, self.site, None, None)
        lane = self._lane
        if lane.skipped != await bookkeeping.skipped(connection, self.workspace.schema, self.view):
            message = f"the live {self.view.name} was told to pass an event over meanwhile; begin again"
            raise RebuildStopped(message)
        target = position if state == bookkeeping.LIVE and position >= lane.position else head
        while (page := await lane.read(lane.position, target)) is not None:
            rows = await self._shadow.load(connection, lane.streams(page))
            await self._shadow.store(connection, rows, lane.folded(page, rows), past=False)
            lane.position, lane.recorded_at = page.ceiling
        if lane.position and lane.recorded_at is None:
            row = await self.workspace.log.row(lane.position)
            lane.recorded_at = row.recorded_at if row is not None else None
        same = lane.position == position
        if self.view.table.keeps_past and not same:
            await connection.execute(SQL("TRUNCATE {}").format(self._live.past))
        await connection.execute(SQL("DROP TABLE {}").format(self._live.place))
        await connection.execute(
            SQL("ALTER TABLE {} RENAME TO {}").format(self._shadow.place, Identifier(self._live.name))
        )
        await connection.execute(
            SQL(_SWAP).format(**self._names),
            (lane.position, lane.recorded_at, 0 if same else lane.position, self.view.name, self.view.version),
        )


def _recipe(view: View, skipped: Collection[int]) -> str:
    """Identify the code of a view and what it passes over: a build begun by another recipe is not gone on with."""
    try:
        source = inspect.getsource(sys.modules[view.fold.__module__])
    except (OSError, TypeError, KeyError):
        source = uuid4().hex
    return hashlib.sha256(f"{view.table!r}\n{sorted(skipped)}\n{source}".encode()).hexdigest()


_HOLD = """
SELECT position, state, (SELECT coalesce(max(notification_id), 0) FROM {schema}.events)
FROM {schema}.views WHERE name = %s AND version = %s FOR UPDATE
"""

# The owner stays: its next transaction finds another position and reads where the view now stands.
_SWAP = """
UPDATE {schema}.views
SET position = %s, recorded_at = %s, kept_from = greatest(kept_from, %s), state = 'live',
    failed_position = NULL, failed_topic = NULL, error = NULL, failed_at = NULL,
    -- Whoever projects the view remembers rows of it and has to look again.
    owner = NULL, leased_until = NULL
WHERE name = %s AND version = %s
"""

_INDEXES = "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass"
