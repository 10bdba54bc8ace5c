"""Reads the tickets of a what-if from the queue's rows, all processes in one snapshot, a stretch of the table each."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from projections import ticket_queue
from projections.bookkeeping import ViewsNotReady
from replay.making_way import make_way_on_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from psycopg.sql import Composed

    from replay.what_if_comparing import Row
    from storage.database import Workspace

STRETCH_BLOCKS: Final = 256  # 2 MiB of the table, some thousands of tickets: a few tenths of a second of comparing
_NAME: Final = "desk what-if"


class Which(NamedTuple):
    """Which tickets; None: whichever. `opened_to` leaves out its instant."""

    opened_from: datetime | None = None
    opened_to: datetime | None = None
    teams: Sequence[UUID] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Give them for the statements below."""
        teams = None if self.teams is None else list(self.teams)
        return {"opened_from": self.opened_from, "opened_to": self.opened_to, "teams": teams}


class Snapshot(NamedTuple):
    """The queue at one moment: how it is shared, up to where in the log, how many tickets of how many blocks it is."""

    name: str
    position: int
    blocks: int
    tickets: int


@asynccontextmanager
async def snapshot_of(workspace: Workspace, which: Which) -> AsyncIterator[Snapshot]:
    """Hold the queue as it is now, for others to look at as well. Raises ViewsNotReady."""
    async with await workspace.database.connect(_NAME) as connection:
        make_way_on_server(connection)
        await connection.execute(_BEGIN)
        try:
            cursor = await connection.execute(_sql(_SNAPSHOT, workspace), _of_view())
            held = await cursor.fetchone()
            if held is None:
                raise ViewsNotReady(ticket_queue.VIEW.name)
            name, position, blocks = held
            cursor = await connection.execute(_sql(_COUNT, workspace), which.parameters)
            counted = await cursor.fetchone() or (0,)
        except psycopg.errors.UndefinedTable:
            raise ViewsNotReady(ticket_queue.VIEW.name) from None
        yield Snapshot(name, position, blocks, counted[0])


@asynccontextmanager
async def reading(workspace: Workspace, snapshot: Snapshot) -> AsyncIterator[psycopg.Connection[Any]]:
    """Give a connection that sees the snapshot and may change nothing, for a thread to read over."""
    connection: psycopg.Connection[Any] = await asyncio.to_thread(
        lambda: psycopg.connect(workspace.database.conninfo, autocommit=True, application_name=_NAME)
    )
    try:
        make_way_on_server(connection)
        connection.execute(_BEGIN)
        connection.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot.name))
        yield connection
    finally:
        connection.close()


async def stretches(
    workspace: Workspace, which: Which, snapshot: Snapshot, lane: int, lanes: int
) -> AsyncIterator[list[Row]]:
    """Give the tickets of every stretch that is a lane's, while the next is being read."""
    async with reading(workspace, snapshot) as connection:
        statement = _sql(_STRETCH, workspace).as_string(connection)

        def read(start: int) -> list[Row]:
            place = {"first": f"({start},0)", "end": f"({start + STRETCH_BLOCKS},0)"}
            cursor = connection.execute(statement, which.parameters | place, prepare=True, binary=True)
            return cursor.fetchall()

        ahead: asyncio.Task[list[Row]] | None = None
        try:
            for start in range(lane * STRETCH_BLOCKS, snapshot.blocks, lanes * STRETCH_BLOCKS):
                before, ahead = ahead, asyncio.create_task(asyncio.to_thread(read, start))
                if before is not None:
                    yield await before
            if ahead is not None:
                yield await ahead
        finally:
            # A thread cannot be stopped, and its connection must not be closed under it.
            if ahead is not None:
                await asyncio.gather(ahead, return_exceptions=True)


def _of_view() -> dict[str, Any]:
    return {"name": ticket_queue.VIEW.name, "version": ticket_queue.VIEW.version}


def _sql(statement: str, workspace: Workspace) -> Composed:
    place = ticket_queue.VIEW.shelf(workspace.schema).place
    return SQL(statement).format(
        schema=Identifier(workspace.schema), place=place, where=SQL(_WHERE), table=Literal(place.as_string())
    )


_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_SNAPSHOT: Final = """
SELECT pg_export_snapshot(), position, pg_relation_size({table}::regclass) / current_setting('block_size')::int
FROM {schema}.views WHERE name = %(name)s AND version = %(version)s
"""

_WHERE: Final = """
    (%(opened_from)s::timestamptz IS NULL OR opened_at >= %(opened_from)s)
AND (%(opened_to)s::timestamptz IS NULL OR opened_at < %(opened_to)s)
AND (%(teams)s::uuid[] IS NULL OR team_id = ANY (%(teams)s))
"""

_COUNT: Final = "SELECT count(*) FROM {place} WHERE {where}"

# By blocks, so that the processes divide the table among them without reading any of it twice or sorting it.
_STRETCH: Final = """
SELECT number, ticket_id::text, priority, team_id::text, requester_id::text, timeline FROM {place}
WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid AND {where}
"""
