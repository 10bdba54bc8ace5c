"""How far what was adopted has been carried to the tickets that were open: a walk by number that outlives its process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg.sql import SQL, Identifier

if TYPE_CHECKING:
    from datetime import datetime

    from storage.database import Workspace


class Rollout(NamedTuple):
    """What was adopted up to version `done_upto` of the stream of service levels has reached every ticket open then.

    While a walk is under way it will be so `upto` a later version; tickets up to number `after_number` have been looked
    at. Counts are those of this walk, or of the last one.
    """

    done_upto: int
    upto: int | None
    after_number: int
    total: int
    looked_at: int
    moved: int
    started_at: datetime | None
    updated_at: datetime | None
    finished_at: datetime | None


async def rollout(workspace: Workspace) -> Rollout:
    """Tell how far it is."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(SQL(_READ).format(_names(workspace)), prepare=True)
        row = await cursor.fetchone()
    return Rollout._make(row or (0, None, 0, 0, 0, 0, None, None, None))


async def begin(workspace: Workspace, *, upto: int, total: int) -> bool:
    """Begin a walk over `total` tickets; False where one is under way or it has been done."""
    return await _changed(workspace, _BEGIN, {"upto": upto, "total": total})


async def advance(workspace: Workspace, *, old: int, new: int, looked_at: int, moved: int) -> bool:
    """Note that the tickets past number `old` up to `new` are done; False where somebody else has gone on from `old`."""
    return await _changed(workspace, _ADVANCE, {"old": old, "new": new, "looked_at": looked_at, "moved": moved})


async def finish(workspace: Workspace, *, upto: int) -> bool:
    """End the walk up to a version, or pass over versions that move nobody; False where that is done already."""
    return await _changed(workspace, _FINISH, {"upto": upto})


async def _changed(workspace: Workspace, statement: str, parameters: dict[str, int]) -> bool:
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(SQL(statement).format(_names(workspace)), parameters, prepare=True)
        return cursor.rowcount == 1


def _names(workspace: Workspace) -> Identifier:
    return Identifier(workspace.schema, "sla_rollout")


_READ = """
SELECT done_upto, upto, after_number, total, looked_at, moved, started_at, updated_at, finished_at FROM {}
"""

_BEGIN = """
UPDATE {} SET upto = %(upto)s, after_number = 0, total = %(total)s, looked_at = 0, moved = 0, started_at = now(),
    updated_at = now(), finished_at = NULL
WHERE upto IS NULL AND done_upto < %(upto)s
"""

_ADVANCE = """
UPDATE {} SET after_number = %(new)s, looked_at = looked_at + %(looked_at)s, moved = moved + %(moved)s, updated_at = now()
WHERE upto IS NOT NULL AND after_number = %(old)s
"""

_FINISH = """
UPDATE {} SET done_upto = %(upto)s, upto = NULL, updated_at = now(),
    finished_at = CASE WHEN upto IS NULL THEN finished_at ELSE now() END
WHERE done_upto < %(upto)s AND (upto IS NULL OR upto = %(upto)s)
"""
