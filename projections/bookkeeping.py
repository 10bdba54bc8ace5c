"""How far each view of a workspace has come, who is writing it, and what stopped it."""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from projections.view import ViewError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection

    from projections.view import View
    from storage.database import Database, Workspace

LEASE_SECONDS: Final = 1.2  # how long the views of a process that was killed are kept for it
STILL_SECONDS: Final = 4  # how long a process may stand still in the middle of writing before the server ends that
PAST_SECONDS: Final = 3600  # how long a list may be paged through as it was when it was begun
LIVE: Final = "live"
FAILED: Final = "failed"


class ViewsNotReady(ViewError):
    """The view does not exist yet in the workspace: no runner has been there, or an older version is to be replaced."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the view {name} is not there yet: it is made in a moment, or, where an older version of it was live, by"
            f" `desk rebuild {name}`"
        )
        self.name = name


class LostOwnership(ViewError):
    """Another process owns the view, or it has moved on; nothing was written."""

    def __init__(self, view: View, position: int) -> None:
        super().__init__(f"{view.label} is not ours at position {position} any more")


class Mark(NamedTuple):
    """A place in the log: a position and when it was recorded; 0 and None before the first event."""

    position: int
    recorded_at: datetime | None


class Failure(NamedTuple):
    """The event a view stopped at, and why."""

    position: int
    topic: str
    error: str
    failed_at: datetime


class ViewStatus(NamedTuple):
    """How a view stands. `lag_seconds` is the age of the oldest event it has not taken in, 0 when there is none."""

    name: str
    version: int
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    state: str
    owner: str | None
    failure: Failure | None


def new_owner() -> str:
    """Give a name to own views, builds or consumers under: who looks after a machine finds the process by it."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


async def prepare(workspace: Workspace, views: Iterable[View]) -> None:
    """Make the tables of views that never had one; any number of processes may at once.

    A view of which another version is there is not made, unless the log is empty: people would see it half filled. It is
    absent until a rebuild has put it in place, and processes that know the other version go on with that.
    """
    place = Identifier(workspace.schema)
    async with workspace.database.pool.connection() as connection, connection.transaction():
        # One process at a time in a workspace: CREATE TABLE IF NOT EXISTS alone fails when two race.
        await connection.execute(
            "SELECT pg_advisory_xact_lock(1279608904, hashtext(%s))", (workspace.schema,), prepare=True
        )
        cursor = await connection.execute("SELECT to_regclass(%s)", (f'"{workspace.schema}".views',))
        if (await _one(cursor))[0] is None:
            await connection.execute(SQL(_TABLE).format(schema=place))
        cursor = await connection.execute(SQL("SELECT name, version FROM {}.views").format(place))
        known = set(await cursor.fetchall())
        names = {name for name, _ in known}
        cursor = await connection.execute(SQL("SELECT EXISTS (SELECT FROM {}.events)").format(place))
        (has_events,) = await _one(cursor)
        for view in views:
            if (view.name, view.version) in known or (view.name in names and has_events):
                continue
            shelf = view.shelf(workspace.schema)
            await shelf.create(connection)
            await shelf.create_indexes(connection)
            await shelf.create_past(connection)
            await connection.execute(
                SQL("INSERT INTO {}.views (name, version) VALUES (%s, %s)").format(place), (view.name, view.version)
            )


async def advance(
    connection: AsyncConnection[Any], schema: str, views: Sequence[View], *, owner: str, old: int, new: Mark
) -> list[View]:
    """Move checkpoints, inside the transaction that writes the views' rows; gives the views that are still ours.

    Done before the rows are written: whoever has lost a view finds out before doing anything. The views' tables are
    locked before (`Shelf.lock`), so that locks are taken in the order of a rebuild's swap: tables, then these rows.
    """
    parameters = advancing_parameters(views, owner=owner, old=old, new=new)
    cursor = await connection.execute(advancing(schema), parameters, prepare=True)
    return advanced(views, await cursor.fetchall())


@cache
def advancing(schema: str) -> str:
    """Give the statement of `advance`; `advanced` reads its rows."""
    return SQL(_ADVANCE).format(schema=Identifier(schema)).as_string()


def advancing_parameters(views: Sequence[View], *, owner: str, old: int, new: Mark) -> dict[str, Any]:
    """Give the parameters of the statement of `advance`."""
    return {
        # As the server reads arrays: names need no quotes, and psycopg takes its time over lists.
        "names": f"{{{','.join(view.name for view in views)}}}",
        "versions": f"{{{','.join(str(view.version) for view in views)}}}",
        "owner": owner,
        "old": old,
        "new": new.position,
        "recorded_at": new.recorded_at,
        "lease": LEASE_SECONDS,
        "still": STILL_SECONDS,
    }


def advanced(views: Sequence[View], rows: Iterable[tuple[Any, ...]]) -> list[View]:
    """Give those of the views whose checkpoints the statement of `advance` has moved, by its rows."""
    moved = {(name, version) for name, version, *_ in rows}
    return [view for view in views if (view.name, view.version) in moved]


async def stop(workspace: Workspace, view: View, *, owner: str, at: int, position: int, topic: str, error: str) -> None:
    """Record that a view, whose checkpoint is `at`, cannot take in the event at `position`. Raises LostOwnership."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            SQL(_STOP).format(schema=Identifier(workspace.schema)),
            (position, topic, error[:4000], view.name, view.version, at, owner),
        )
    if cursor.rowcount != 1:
        raise LostOwnership(view, at)


async def retry(workspace: Workspace, view: View) -> bool:
    """Let a view that stopped try its event again; False when it had not stopped. Raises ViewsNotReady."""
    try:
        async with workspace.database.pool.connection() as connection:
            cursor = await connection.execute(
                SQL(_RETRY).format(schema=Identifier(workspace.schema)), (view.name, view.version)
            )
    except psycopg.errors.UndefinedTable:
        raise ViewsNotReady(view.name) from None
    workspace.database.wake(workspace.name)
    return cursor.rowcount == 1


async def release(workspace: Workspace, owner: str) -> None:
    """Give up every view that `owner` has in a workspace, so that another need not wait for the lease to run out."""
    async with workspace.database.pool.connection() as connection:
        await connection.execute(SQL(_RELEASE).format(schema=Identifier(workspace.schema)), (owner,))


async def prune(workspace: Workspace, view: View) -> None:
    """Forget rows that stopped being true more than PAST_SECONDS ago, and refuse lists pinned to before that."""
    async with workspace.database.pool.connection() as connection:
        await connection.execute(
            SQL(_PRUNE).format(schema=Identifier(workspace.schema), past=view.shelf(workspace.schema).past),
            (PAST_SECONDS, view.name, view.version),
        )


async def reached(workspace: Workspace, view: View) -> tuple[int, str]:
    """Give a view's position and state. Raises ViewsNotReady."""
    try:
        async with workspace.database.pool.connection() as connection:
            cursor = await connection.execute(
                SQL("SELECT position, state FROM {}.views WHERE name = %s AND version = %s").format(
                    Identifier(workspace.schema)
                ),
                (view.name, view.version),
                prepare=True,
            )
            row = await cursor.fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    if row is None:
        raise ViewsNotReady(view.name)
    return row[0], row[1]


async def skipped(connection: AsyncConnection[Any], schema: str, view: View) -> frozenset[int]:
    """Give the positions of events that this version of a view passes over for ever: its fold must not see them."""
    cursor = await connection.execute(
        SQL("SELECT position FROM {}.view_skips WHERE view = %s AND version = %s").format(Identifier(schema)),
        (view.name, view.version),
    )
    return frozenset([position for (position,) in await cursor.fetchall()])


async def view_status(workspace: Workspace, views: Sequence[View]) -> list[ViewStatus]:
    """Give position, lag and state of views, in the order asked; a view that is not there yet stands at 0."""
    try:
        async with workspace.database.pool.connection() as connection:
            cursor = await connection.execute(SQL(_STATUS).format(schema=Identifier(workspace.schema)))
            rows = {(row[0], row[1]): row[2:] for row in await cursor.fetchall()}
    except psycopg.errors.UndefinedTable:
        rows = {}
    head = (await workspace.log.head()).position
    found = []
    for view in views:
        row = rows.get((view.name, view.version))
        if row is None:
            found.append(ViewStatus(view.name, view.version, 0, head, head, 0.0, "absent", None, None))
            continue
        position, at_head, seconds, state, owner, failed_position, topic, error, failed_at = row
        failure = Failure(failed_position, topic, error, failed_at) if state == FAILED else None
        found.append(
            ViewStatus(
                view.name, view.version, position, at_head, max(at_head - position, 0), seconds, state, owner, failure
            )
        )
    return found


async def stopped_views(database: Database, views: Sequence[View]) -> list[tuple[str, int, datetime]]:
    """Give name, position and time of each of these views that has stopped at an event, in whichever workspace."""
    ours = {(view.name, view.version) for view in views}
    rows = await _of_all(database, _STOPPED, {"failed": FAILED})
    return [(name, position, at) for name, version, position, at in rows if (name, version) in ours]


async def absent_views(database: Database, views: Sequence[View]) -> list[str]:
    """Name those of which a workspace has another version only, so that they wait for a rebuild."""
    there: dict[str, set[tuple[str, int]]] = {}
    for schema, name, version in await _of_all(database, _THERE, {}):
        there.setdefault(schema, set()).add((name, version))
    return [
        view.name
        for view in views
        if any(
            (view.name, view.version) not in found and any(name == view.name for name, _ in found)
            for found in there.values()
        )
    ]


async def _of_all(database: Database, part: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Ask the same of the views of every workspace."""
    schemas = [workspace.schema for workspace in await database.workspaces()]
    async with database.pool.connection() as connection:
        # A workspace that no runner has seen yet has none.
        cursor = await connection.execute(
            "SELECT s.name FROM unnest(%s::text[]) s (name) WHERE to_regclass(quote_ident(s.name) || '.views') IS NOT NULL",
            (schemas,),
        )
        prepared = [name for (name,) in await cursor.fetchall()]
        if not prepared:
            return []
        parts = SQL(" UNION ALL ").join(
            SQL(part).format(schema=Identifier(schema), name=Literal(schema)) for schema in prepared
        )
        return await (await connection.execute(parts, parameters)).fetchall()


async def _one(cursor: psycopg.AsyncCursor[Any]) -> tuple[Any, ...]:
    row = await cursor.fetchone()
    if row is None:
        message = "a statement that always gives a row gave none"
        raise psycopg.DataError(message)
    return tuple(row)


# The fill factor leaves room for the checkpoint's updates in the same page.
_TABLE = """
CREATE TABLE {schema}.views (
    name              text COLLATE "C" NOT NULL,
    version           integer NOT NULL,
    position          bigint NOT NULL DEFAULT 0,
    recorded_at       timestamptz,
    -- The lowest position that a list may still be pinned to: rows that stopped being true before are pruned.
    kept_from         bigint NOT NULL DEFAULT 0,
    state             text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'failed')),
    owner             text,
    leased_until      timestamptz,
    failed_position   bigint,
    failed_topic      text,
    error             text,
    failed_at         timestamptz,
    PRIMARY KEY (name, version)
) WITH (fillfactor = 50);
GRANT SELECT ON {schema}.views TO ledgerdesk_reader;
"""

# The fence: nobody but the owner, not twice over the same events, and only events that are in this server's log: a page
# read from a primary that is lost must not be written to the standby that was promoted instead. Writing also renews the
# lease. The commit does not wait for the disk: after a crash of the server rows and checkpoint are back together at an
# earlier place. A process that stands still in the middle would keep the row locked, and others from taking the view
# over: the server ends it. No pipeline of psycopg's may follow in the transaction: it ends with a Flush message, after
# which the server measures no idle time any more.
_ADVANCE = """
UPDATE {schema}.views
SET position = %(new)s, recorded_at = %(recorded_at)s, leased_until = now() + %(lease)s * interval '1 second'
WHERE (name, version) IN (SELECT * FROM unnest(%(names)s::text[], %(versions)s::int[]))
  AND position = %(old)s AND owner = %(owner)s AND state = 'live'
  AND (%(recorded_at)s::timestamptz IS NULL OR EXISTS (
      SELECT FROM {schema}.events WHERE notification_id = %(new)s AND recorded_at = %(recorded_at)s))
RETURNING name, version, set_config('synchronous_commit', 'off', true),
          set_config('idle_in_transaction_session_timeout', (%(still)s * 1000)::int::text, true)
"""

_STOP = """
UPDATE {schema}.views
SET state = 'failed', failed_position = %s, failed_topic = %s, error = %s, failed_at = now()
WHERE name = %s AND version = %s AND position = %s AND owner = %s AND state = 'live'
"""

_RETRY = """
UPDATE {schema}.views
SET state = 'live', failed_position = NULL, failed_topic = NULL, error = NULL, failed_at = NULL
WHERE name = %s AND version = %s AND state = 'failed'
"""

_RELEASE = "UPDATE {schema}.views SET owner = NULL, leased_until = NULL WHERE owner = %s"

_PRUNE = """
WITH gone AS (DELETE FROM {past} WHERE replaced_at < now() - %s * interval '1 second' RETURNING until)
UPDATE {schema}.views SET kept_from = greatest(kept_from, (SELECT max(until) FROM gone))
WHERE name = %s AND version = %s AND EXISTS (SELECT FROM gone)
"""

_STOPPED = "SELECT name, version, failed_position, failed_at FROM {schema}.views WHERE state = %(failed)s"

_THERE = "SELECT {name}, name, version FROM {schema}.views"

# Positions are dense, so that the oldest event not taken in is the one after the checkpoint.
_STATUS = """
SELECT v.name, v.version, v.position, h.position,
       coalesce(extract(epoch FROM greatest(now() - e.recorded_at, interval '0')), 0)::float8,
       v.state, v.owner, v.failed_position, v.failed_topic, v.error, v.failed_at
FROM {schema}.views v
CROSS JOIN (SELECT coalesce(max(notification_id), 0) AS position FROM {schema}.events) h
LEFT JOIN {schema}.events e ON e.notification_id = v.position + 1
"""
