"""What-ifs that somebody waits for elsewhere: asked, worked on by one process at a time, answered, forgotten."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - part of the public row
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID, uuid4

from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb

from projections.view import ViewError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from replay.what_if_asked import Asked
    from replay.what_if_report import Report
    from storage.database import Workspace

MOST_WAITING: Final = 10
MOST_KEPT: Final = 20
KEPT_DAYS: Final = 7
MOST_ATTEMPTS: Final = 3
LEASE_SECONDS: Final = 5.0  # how long a process that was killed keeps others from beginning again


class Phase(StrEnum):
    """How a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self not in {Phase.WAITING, Phase.RUNNING}


class Job(NamedTuple):
    """A job as its table has it; `running` is whether a process is at it right now. A list leaves reports out."""

    id: UUID
    asked: dict[str, Any]
    asked_by: UUID
    asked_at: datetime
    phase: Phase
    running: bool
    done: int
    total: int
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None
    error: str | None
    report: dict[str, Any] | None


class TooManyWaiting(ViewError):
    """So many what-ifs of the workspace wait already that another one would not come soon."""


async def submit(workspace: Workspace, asked: Asked, by: UUID) -> UUID:
    """Put a question in line, and forget answers that are old; gives its id. Raises TooManyWaiting."""
    job = uuid4()
    async with workspace.database.pool.connection() as connection, connection.transaction():
        await _alone(connection, workspace)
        await connection.execute(_sql(_FORGET, workspace), (KEPT_DAYS, MOST_KEPT))
        cursor = await connection.execute(
            _sql(_ASK, workspace), (job, Jsonb(asked.model_dump(mode="json")), by, MOST_WAITING)
        )
        if cursor.rowcount != 1:
            message = f"{MOST_WAITING} what-ifs wait already; cancel one, or ask again when they are done"
            raise TooManyWaiting(message)
    return job


async def find(workspace: Workspace, job: UUID) -> Job | None:
    """Give a job with its report; None where there is none, or none any more."""
    found = await _jobs(workspace, _ONE, (job,))
    return found[0] if found else None


async def listed(workspace: Workspace) -> list[Job]:
    """Give all jobs there are, the last asked first, without their reports."""
    return await _jobs(workspace, _ALL, ())


async def cancel(workspace: Workspace, job: UUID) -> bool:
    """Have a job ended, or forget one that has; False where there is none. Whoever works on it stops within a second."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(_sql(_CANCEL, workspace), {"id": job})
        found = await cursor.fetchone()
    return found is not None and bool(found[0])


async def claimable(workspace: Workspace) -> bool:
    """Tell whether there is a job that nobody works on, and nobody works on another."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(_sql(_CLAIMABLE, workspace), prepare=True)
        found = await cursor.fetchone()
    return found is not None and bool(found[0])


async def claim(workspace: Workspace, owner: str) -> Job | None:
    """Take the job that waits longest, one whose process is gone included; None where there is nothing to do.

    One that was begun MOST_ATTEMPTS times and never came to its end is given up.
    """
    async with workspace.database.pool.connection() as connection, connection.transaction():
        await _alone(connection, workspace)
        await connection.execute(_sql(_GIVE_UP, workspace), {"most": MOST_ATTEMPTS})
        cursor = await connection.execute(_sql(_CLAIM, workspace), {"owner": owner, "lease": LEASE_SECONDS})
        row = await cursor.fetchone()
    return None if row is None else _job(row)


async def note(workspace: Workspace, job: UUID, owner: str, done: int, total: int) -> bool:
    """Say how far a job is, and that its process lives; False where it is not ours any more, as when it was cancelled."""
    return await _changed(workspace, _NOTE, job, owner, done=done, total=total, lease=LEASE_SECONDS)


async def finish(workspace: Workspace, job: UUID, owner: str, outcome: Report | str) -> bool:
    """Give a job's report, or say why there is none."""
    if isinstance(outcome, str):
        return await _changed(workspace, _FAIL, job, owner, error=outcome)
    report = Jsonb(outcome.model_dump(mode="json"))
    return await _changed(workspace, _FINISH, job, owner, report=report, done=outcome.tickets)


async def put_back(workspace: Workspace, job: UUID, owner: str) -> None:
    """Leave a job to others, as if it had not been begun."""
    await _changed(workspace, _PUT_BACK, job, owner)


async def _changed(workspace: Workspace, statement: str, job: UUID, owner: str, **values: Any) -> bool:
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(_sql(statement, workspace), {"id": job, "owner": owner, **values})
    return cursor.rowcount == 1


async def _jobs(workspace: Workspace, statement: str, parameters: Sequence[Any]) -> list[Job]:
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(_sql(statement, workspace), parameters, prepare=True)
        return [_job(row) for row in await cursor.fetchall()]


def _job(row: tuple[Any, ...]) -> Job:
    job = Job(*row)
    return job._replace(phase=Phase(job.phase))


async def _alone(connection: AsyncConnection[Any], workspace: Workspace) -> None:
    """Let nobody else ask or claim in the workspace until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(1279608905, hashtext(%s))", (workspace.schema,))


def _sql(statement: str, workspace: Workspace) -> Composed:
    return SQL(statement).format(schema=Identifier(workspace.schema))


_LIVES = "(phase = 'running' AND leased_until >= now())"
_FREE = "(phase = 'waiting' OR (phase = 'running' AND leased_until < now()))"
_COLUMNS = f"""
id, asked, asked_by, asked_at, phase, {_LIVES}, done, total, started_at, updated_at, finished_at, error
"""

_FORGET = """
DELETE FROM {schema}.what_ifs
WHERE phase NOT IN ('waiting', 'running') AND (
    asked_at < now() - %s * interval '1 day'
    OR id NOT IN (SELECT id FROM {schema}.what_ifs ORDER BY asked_at DESC LIMIT %s)
)
"""

_ASK = """
INSERT INTO {schema}.what_ifs (id, asked, asked_by)
SELECT %s, %s, %s WHERE (SELECT count(*) FROM {schema}.what_ifs WHERE phase IN ('waiting', 'running')) < %s
"""

_ONE = f"SELECT {_COLUMNS}, report FROM {{schema}}.what_ifs WHERE id = %s"
_ALL = f"SELECT {_COLUMNS}, NULL FROM {{schema}}.what_ifs ORDER BY asked_at DESC, id"

_CANCEL = """
WITH forgotten AS (
    DELETE FROM {schema}.what_ifs WHERE id = %(id)s AND phase NOT IN ('waiting', 'running') RETURNING id
), cancelled AS (
    UPDATE {schema}.what_ifs
    SET phase = 'cancelled', owner = NULL, leased_until = NULL, updated_at = now(), finished_at = now()
    WHERE id = %(id)s AND phase IN ('waiting', 'running') RETURNING id
)
SELECT EXISTS (SELECT FROM forgotten) OR EXISTS (SELECT FROM cancelled)
"""

_CLAIMABLE = f"""
SELECT EXISTS (SELECT FROM {{schema}}.what_ifs WHERE {_FREE})
   AND NOT EXISTS (SELECT FROM {{schema}}.what_ifs WHERE {_LIVES})
"""

_GIVE_UP = f"""
UPDATE {{schema}}.what_ifs
SET phase = 'failed', owner = NULL, leased_until = NULL, updated_at = now(), finished_at = now(),
    error = 'its process ended before it was done, ' || attempts || ' times'
WHERE phase = 'running' AND {_FREE} AND attempts >= %(most)s
"""

_CLAIM = f"""
UPDATE {{schema}}.what_ifs
SET phase = 'running', owner = %(owner)s, leased_until = now() + %(lease)s * interval '1 second',
    attempts = attempts + 1, done = 0, total = 0, started_at = now(), updated_at = now()
WHERE id = (SELECT id FROM {{schema}}.what_ifs WHERE {_FREE} ORDER BY asked_at LIMIT 1)
  AND NOT EXISTS (SELECT FROM {{schema}}.what_ifs WHERE {_LIVES})
RETURNING {_COLUMNS}, NULL
"""

_OURS = "id = %(id)s AND owner = %(owner)s AND phase = 'running'"

_NOTE = f"""
UPDATE {{schema}}.what_ifs
SET done = %(done)s, total = %(total)s, leased_until = now() + %(lease)s * interval '1 second', updated_at = now()
WHERE {_OURS}
"""

_END = "owner = NULL, leased_until = NULL, updated_at = now(), finished_at = now()"
_FINISH = f"""
UPDATE {{schema}}.what_ifs SET phase = 'done', report = %(report)s, done = %(done)s, total = %(done)s, {_END} WHERE {_OURS}
"""
_FAIL = f"UPDATE {{schema}}.what_ifs SET phase = 'failed', error = %(error)s, {_END} WHERE {_OURS}"
_PUT_BACK = f"""
UPDATE {{schema}}.what_ifs
SET phase = 'waiting', owner = NULL, leased_until = NULL, attempts = attempts - 1, updated_at = now() WHERE {_OURS}
"""
