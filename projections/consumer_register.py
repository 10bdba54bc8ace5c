"""Which consumers a workspace has, how far each has come, and what they were told to pass over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.sql import SQL, Identifier

from projections.bookkeeping import Failure
from projections.consumer import NoSuchConsumer
from projections.skipping import SkipRefused, checked, noted
from projections.view import ViewError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from storage.database import Workspace

NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")


class ConsumerRunning(ViewError):
    """A process is handing the consumer's events on."""


class ConsumerStatus(NamedTuple):
    """How a consumer stands. `attempts` is how often its next event was tried; `failure` tells of the last time."""

    name: str
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    state: str
    owner: str | None
    attempts: int
    registered_from: int
    failure: Failure | None


class ConsumerSkip(NamedTuple):
    """An event that a consumer was told not to hand on; `error` is what had been said against it."""

    consumer: str
    position: int
    stream: UUID
    topic: str
    error: str
    reason: str
    skipped_by: str
    skipped_at: datetime


async def register(workspace: Workspace, name: str, *, from_start: bool = False) -> bool:
    """Have a consumer, which begins with the next event of the log, or the first; False where it was there already.

    Raises ValueError for a name that is not lower-case letters, digits, _ and -, at most 40, letter first.
    """
    if NAME.fullmatch(name) is None:
        message = f"a consumer's name has 1 to 40 lower-case letters, digits, _ or -, a letter first; not {name!r}"
        raise ValueError(message)
    return await _execute(workspace, _REGISTER, {"name": name, "from_start": from_start}) == 1


async def remove(workspace: Workspace, name: str) -> None:
    """Forget a consumer and where it stands; what it was told to pass over stays recorded.

    Raises ConsumerRunning, NoSuchConsumer.
    """
    if await _execute(workspace, _REMOVE, {"name": name}) != 1:
        await consumer_named(workspace, name)
        message = f"a process is handing on the events of {name}; end it first"
        raise ConsumerRunning(message)


async def retry_consumer(workspace: Workspace, name: str) -> bool:
    """Let a consumer that stopped, or waits, try its event again at once; False where it does neither.

    Raises NoSuchConsumer.
    """
    done = await _execute(workspace, _RETRY, {"name": name}) == 1
    if not done:
        await consumer_named(workspace, name)
    workspace.database.wake(workspace.name)
    return done


async def skip_delivery(workspace: Workspace, name: str, *, position: int, reason: str, by: str) -> None:
    """Let a consumer pass over the event it stopped at, and go on; recorded in the same transaction.

    Raises SkipRefused where it stopped elsewhere or not at all, NoSuchConsumer, and ValueError for a reason that is
    empty or too long.
    """
    parameters = {"name": name, "position": position, "reason": checked(reason), "by": by}
    if await _execute(workspace, _SKIP, parameters) == 1:
        workspace.database.wake(workspace.name)
        return
    raise SkipRefused.of(await consumer_named(workspace, name), position)


async def consumer_named(workspace: Workspace, name: str) -> ConsumerStatus:
    """Give how one consumer stands. Raises NoSuchConsumer."""
    for status in await consumer_status(workspace):
        if status.name == name:
            return status
    raise NoSuchConsumer(name)


async def consumer_status(workspace: Workspace) -> list[ConsumerStatus]:
    """Give how every consumer stands, by name."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(SQL(_STATUS).format(schema=Identifier(workspace.schema)))
        rows = await cursor.fetchall()
    return [
        ConsumerStatus(
            name, position, head, max(head - position, 0), seconds, state, owner, attempts, registered_from,
            None if failed[0] is None else Failure(*failed),
        )
        for name, position, head, seconds, state, owner, attempts, registered_from, *failed in rows
    ]  # fmt: skip


async def consumer_skips(workspace: Workspace) -> list[ConsumerSkip]:
    """Give every event that any consumer was ever told not to hand on."""
    order = ("consumer", "position", "skipped_at")
    return [ConsumerSkip._make(row) for row in await noted(workspace, "consumer_skips", ConsumerSkip._fields, order)]


async def _execute(workspace: Workspace, statement: str, parameters: dict[str, Any]) -> int:
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(SQL(statement).format(schema=Identifier(workspace.schema)), parameters)
        return cursor.rowcount


_REGISTER = """
INSERT INTO {schema}.consumers (name, position, registered_from)
SELECT %(name)s, h.position, h.position
FROM (SELECT CASE WHEN %(from_start)s THEN 0 ELSE coalesce(max(notification_id), 0) END AS position
      FROM {schema}.events) h
ON CONFLICT (name) DO NOTHING
"""

_REMOVE = "DELETE FROM {schema}.consumers WHERE name = %(name)s AND (owner IS NULL OR leased_until < now())"

_RETRY = """
UPDATE {schema}.consumers SET state = 'live', attempts = 0, next_attempt_at = NULL
WHERE name = %(name)s AND (state = 'failed' OR next_attempt_at IS NOT NULL)
"""

_SKIP = """
WITH stopped AS (
    SELECT c.name, c.error, e.notification_id, e.originator_id, e.topic
    FROM {schema}.consumers c JOIN {schema}.events e ON e.notification_id = c.failed_position
    WHERE c.name = %(name)s AND c.state = 'failed'
      AND c.failed_position = %(position)s AND c.position = c.failed_position - 1
    FOR UPDATE OF c
), noted AS (
    INSERT INTO {schema}.consumer_skips (consumer, position, stream, topic, error, reason, skipped_by)
    SELECT name, notification_id, originator_id, topic, coalesce(error, ''), %(reason)s, %(by)s FROM stopped
)
UPDATE {schema}.consumers c
SET position = s.notification_id, state = 'live', attempts = 0, next_attempt_at = NULL,
    failed_position = NULL, failed_topic = NULL, error = NULL, failed_at = NULL
FROM stopped s WHERE c.name = s.name
"""

_STATUS = """
SELECT c.name, c.position, h.position,
       coalesce(extract(epoch FROM greatest(now() - e.recorded_at, interval '0')), 0)::float8,
       c.state, c.owner, c.attempts, c.registered_from, c.failed_position, c.failed_topic, c.error, c.failed_at
FROM {schema}.consumers c
CROSS JOIN (SELECT coalesce(max(notification_id), 0) AS position FROM {schema}.events) h
LEFT JOIN {schema}.events e ON e.notification_id = c.position + 1
ORDER BY c.name
"""
