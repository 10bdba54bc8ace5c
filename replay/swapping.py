"""Puts a table that was filled beside the live one in its place, and keeps what was live."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from projections import bookkeeping
from replay import building, builds
from replay.building import ATTEMPTS, SETTINGS
from replay.builds import Phase
from replay.rebuild_workers import RebuildStopped

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import AsyncConnection

    from projections.view import View
    from replay.building import Builder
    from storage.database import Workspace

KEPT: Final = "_kept"
DROPPED: Final = "_dropped"
"""What a table is called that nothing names any more, until it is dropped."""


class _Live(NamedTuple):
    """How the live table stands, held still; `position` None: there is none of this version."""

    position: int | None
    state: str
    head: int


class Swap:
    """Puts a builder's table in the place of its view's, in one short transaction; `equal` says that rows are the same.

    Lists begun on the table that was live go on where rows are equal and both tables stand at one position.
    """

    def __init__(self, builder: Builder, *, equal: bool) -> None:
        self._builder = builder
        self._site = builder.site
        self._workspace = builder.site.workspace
        self._view = builder.site.view
        self._lane = builder.lane
        self._equal = equal
        self._live = self._view.shelf(self._workspace.schema)
        self._schema = Identifier(self._workspace.schema)

    async def approach(self) -> None:
        """Catch up until what is left can be taken in while the live table is held still."""
        target, kept_up = await self._target()
        if not kept_up:
            await self._builder.reach(target)
        while target - self._lane.position > building.NEAR_EVENTS:
            await self._builder.reach(target)
            target, kept_up = await self._target()

    async def put_in_place(self) -> None:
        """Catch up and swap; where readers hold the live table for long, let them finish and try again."""
        builder, lane = self._builder, self._lane
        for attempt in range(1, ATTEMPTS + 1):
            builder.standing.enter(Phase.CATCHING_UP)
            await self.approach()
            stood = lane.position
            builder.standing.enter(Phase.SWAPPING)
            try:
                async with builder.connection.transaction():
                    await self._swap(builder.connection)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                lane.stand(stood)  # what the transaction took in is undone
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(0.1)
            else:
                break
        builder.standing.tell(lane.position, lane.position)
        builder.standing.phase = Phase.DONE
        self._workspace.database.wake(self._workspace.name)
        await drop_leftovers(builder.connection, self._workspace, self._view)

    async def _target(self) -> tuple[int, bool]:
        """Tell how far to go, and whether that is as far as the live view, which keeps up: then its lists can go on."""
        reference = await self._builder.reference()
        if reference is None:
            return (await self._workspace.log.head()).position, False
        kept_up = reference.version == self._view.version and reference.keeps_up
        return (reference.position if kept_up else reference.head), kept_up

    async def _swap(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(SETTINGS)
        live = await self._hold(connection)
        positions, recipe, _ = await builds.standing_of(connection, self._site)
        if positions != [self._lane.position]:
            raise self._site.taken_over
        if self._lane.skipped != await bookkeeping.skipped(connection, self._workspace.schema, self._view):
            message = f"the live {self._view.name} was told to pass an event over meanwhile; begin again"
            raise RebuildStopped(message)
        position = await self._take_in_the_last(connection, live)
        lists_go_on = self._equal and position == live.position
        if live.position is not None and self._view.table.keeps_past and not lists_go_on:
            await connection.execute(SQL("TRUNCATE {}").format(self._live.past))
        await self._exchange(connection, live)
        await connection.execute(
            SQL(_LIVE).format(schema=self._schema),
            {
                "name": self._view.name,
                "version": self._view.version,
                "position": position,
                "recorded_at": await self._recorded_at(),
                "kept_from": 0 if lists_go_on else position,
            },
        )
        await builds.exchanged(connection, self._site, recipe, live.position)

    async def _hold(self, connection: AsyncConnection[Any]) -> _Live:
        """Hold the live table still, but for readers: its projection locks the tables first, and then this row, too."""
        cursor = await connection.execute("SELECT to_regclass(%s)", (self._live.place.as_string(connection),))
        if await cursor.fetchone() != (None,):
            await self._live.lock(connection, "SHARE ROW EXCLUSIVE")
        cursor = await connection.execute(SQL(_HOLD).format(schema=self._schema), (self._view.name, self._view.version))
        position, state = await cursor.fetchone() or (None, "")
        cursor = await connection.execute(SQL(_HEAD).format(schema=self._schema))
        (head,) = await cursor.fetchone() or (0,)
        return _Live(position, state, head)

    async def _take_in_the_last(self, connection: AsyncConnection[Any], live: _Live) -> int:
        lane, shadow = self._lane, self._site.shadow
        level = (
            live.position is not None and live.state == bookkeeping.LIVE and lane.position <= live.position <= live.head
        )
        target = live.position if level and live.position is not None else live.head
        while (page := await lane.read(lane.position, target)) is not None:
            rows = await shadow.load(connection, lane.streams(page))
            await shadow.store(connection, rows, await lane.folded(page, rows), past=False)
            lane.position, lane.recorded_at = page.ceiling
        return lane.position

    async def _recorded_at(self) -> datetime | None:
        lane = self._lane
        if lane.position and lane.recorded_at is None:
            row = await self._workspace.log.row(lane.position)
            return row.recorded_at if row is not None else None
        return lane.recorded_at

    async def _exchange(self, connection: AsyncConnection[Any], live: _Live) -> None:
        """Rename the tables: what was live is kept, and what was kept before is to be dropped, if it was not put back."""
        name, place = self._live.name, self._site.shadow.name
        if live.position is None:
            await self._rename(connection, place, name)
            await self._live.create_past(connection)
            return
        await connection.execute(SQL("DROP TABLE IF EXISTS {}").format(self._named(name + DROPPED)))
        await self._rename(connection, name, name + DROPPED)
        await self._rename(connection, place, name)
        if place != name + KEPT:
            await self._rename(connection, name + KEPT, f"{name}_former")
        await self._rename(connection, name + DROPPED, name + KEPT)
        await self._rename(connection, f"{name}_former", name + DROPPED)

    async def _rename(self, connection: AsyncConnection[Any], old: str, new: str) -> None:
        await connection.execute(SQL("ALTER TABLE IF EXISTS {} RENAME TO {}").format(self._named(old), Identifier(new)))

    def _named(self, table: str) -> Identifier:
        return Identifier(self._workspace.schema, table)


async def drop_leftovers(connection: AsyncConnection[Any], workspace: Workspace, view: View) -> None:
    """Drop what a swap has left, after it so that the swap is short; done again where that was cut off."""
    leftover = Identifier(workspace.schema, view.label + DROPPED)
    await connection.execute(SQL("DROP TABLE IF EXISTS {}").format(leftover))


_HOLD = "SELECT position, state FROM {schema}.views WHERE name = %s AND version = %s FOR UPDATE"

_HEAD = "SELECT coalesce(max(notification_id), 0) FROM {schema}.events"

# Whoever projects the view may remember rows of the table that was live, so that nobody owns this one yet. A version
# that comes to be live has its bookkeeping from here on: before, processes of this release say that it is absent.
_LIVE = """
INSERT INTO {schema}.views AS v (name, version, position, recorded_at, kept_from)
VALUES (%(name)s, %(version)s, %(position)s, %(recorded_at)s, %(kept_from)s)
ON CONFLICT (name, version) DO UPDATE
SET position = excluded.position, recorded_at = excluded.recorded_at,
    kept_from = greatest(v.kept_from, excluded.kept_from), state = 'live', owner = NULL, leased_until = NULL,
    failed_position = NULL, failed_topic = NULL, error = NULL, failed_at = NULL
"""
