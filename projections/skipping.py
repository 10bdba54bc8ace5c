"""Passing an event over that a view cannot take in: only where it stopped, only with a reason, recorded for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import psycopg
from psycopg.sql import SQL, Identifier

from projections.bookkeeping import FAILED, ViewsNotReady, view_status
from projections.view import ViewError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from projections.bookkeeping import ViewStatus
    from projections.consumer_register import ConsumerStatus
    from projections.view import View
    from storage.database import Workspace

LONGEST_REASON: Final = 500


class SkipRefused(ViewError):
    """The event may not be passed over: it is not the one that the view or consumer stopped at."""

    @classmethod
    def of(cls, status: ViewStatus | ConsumerStatus, position: int) -> Self:
        """Say why an event may not be passed over by what stands so."""
        if status.state != FAILED or status.failure is None:
            return cls(f"{status.name} has not stopped")
        if status.failure.position != position:
            return cls(f"{status.name} stopped at event {status.failure.position}, not at {position}")
        return cls(f"there is no event {position} that {status.name} could pass over")


class Skip(NamedTuple):
    """An event that a version of a view was told to pass over; `error` is what the view had said against it."""

    view: str
    version: int
    position: int
    stream: UUID
    topic: str
    error: str
    reason: str
    skipped_by: str
    skipped_at: datetime


async def skip(workspace: Workspace, view: View, *, position: int, reason: str, by: str) -> None:
    """Let a view pass over the event it stopped at, and go on; recorded in the same transaction.

    Raises SkipRefused where the view stopped elsewhere or not at all, ViewsNotReady, and ValueError for a reason that
    is empty or longer than LONGEST_REASON.
    """
    reason = checked(reason)
    try:
        async with workspace.database.pool.connection() as connection:
            cursor = await connection.execute(
                SQL(_SKIP).format(schema=Identifier(workspace.schema)),
                {"name": view.name, "version": view.version, "position": position, "reason": reason, "by": by},
            )
    except psycopg.errors.UndefinedTable:
        raise ViewsNotReady(view.name) from None
    if cursor.rowcount == 1:
        workspace.database.wake(workspace.name)
        return
    (status,) = await view_status(workspace, [view])
    if status.state == "absent":
        raise ViewsNotReady(view.name)
    raise SkipRefused.of(status, position)


async def skips(workspace: Workspace) -> list[Skip]:
    """Give every event that any version of any view passes over, in the order of views and positions."""
    return [
        Skip._make(row) for row in await noted(workspace, "view_skips", Skip._fields, ("view", "version", "position"))
    ]


async def noted(
    workspace: Workspace, table: str, columns: Sequence[str], order: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Give all that is recorded in a table of what was passed over."""
    statement = SQL("SELECT {} FROM {} ORDER BY {}").format(
        SQL(", ").join(map(Identifier, columns)),
        Identifier(workspace.schema, table),
        SQL(", ").join(map(Identifier, order)),
    )
    async with workspace.database.pool.connection() as connection:
        return await (await connection.execute(statement)).fetchall()


def checked(reason: str) -> str:
    """Give a reason without spaces around it. Raises ValueError where that is empty or too long."""
    found = reason.strip()
    if not 1 <= len(found) <= LONGEST_REASON:
        message = f"a reason has 1 to {LONGEST_REASON} characters"
        raise ValueError(message)
    return found


# The checkpoint passes the event here, so that the live projection need not know of it; whoever folds the log again
# asks `bookkeeping.skipped`. Commits to disk, and everything before it with it.
_SKIP = """
WITH stopped AS (
    SELECT v.name, v.version, v.error, e.notification_id, e.originator_id, e.topic, e.recorded_at
    FROM {schema}.views v JOIN {schema}.events e ON e.notification_id = v.failed_position
    WHERE v.name = %(name)s AND v.version = %(version)s AND v.state = 'failed'
      AND v.failed_position = %(position)s AND v.position = v.failed_position - 1
    FOR UPDATE OF v
), noted AS (
    INSERT INTO {schema}.view_skips (view, version, position, stream, topic, error, reason, skipped_by)
    SELECT name, version, notification_id, originator_id, topic, coalesce(error, ''), %(reason)s, %(by)s FROM stopped
    ON CONFLICT (view, version, position) DO NOTHING
)
UPDATE {schema}.views v
SET position = s.notification_id, recorded_at = s.recorded_at, state = 'live',
    failed_position = NULL, failed_topic = NULL, error = NULL, failed_at = NULL
FROM stopped s WHERE v.name = s.name AND v.version = s.version
"""
