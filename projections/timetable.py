"""Where the timer looks: which tickets have something falling due, and which are open, as the queue has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from projections import bookkeeping
from projections.ticket_queue import UNFINISHED, VIEW

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from storage.database import Workspace

WORKSPACES_PER_STATEMENT: Final = 200

T = TypeVar("T")


class Outlook(NamedTuple):
    """When the next thing falls due in a workspace, and how far what was adopted has been carried to its tickets."""

    next_at: datetime | None
    adopted: int
    carried: int

    def calls(self, until: datetime) -> bool:
        """Tell whether there is anything to do by an instant."""
        return self.adopted > self.carried or (self.next_at is not None and self.next_at <= until)


class Entry(NamedTuple):
    """A ticket to be looked at, as the view has it: its stream's version then, and when something falls due."""

    ticket_id: UUID
    number: int
    version: int
    at: datetime | None


class Timetable:
    """Looks into the queue; says where to look, never what is so."""

    def __init__(self, levels: UUID) -> None:
        """`levels` is the stream of calendars and policies."""
        self._levels = levels

    async def outlook(self, workspaces: Sequence[Workspace]) -> dict[str, Outlook]:
        """Tell how it stands with each workspace that has a queue: one statement for many of them."""
        found: dict[str, Outlook] = {}
        for start in range(0, len(workspaces), WORKSPACES_PER_STATEMENT):
            some = workspaces[start : start + WORKSPACES_PER_STATEMENT]
            try:
                found |= await self._outlook(some)
            except psycopg.errors.UndefinedTable:
                # One of them is new, or waits for its queue to be rebuilt.
                for workspace in some:
                    try:
                        found |= await self._outlook([workspace])
                    except psycopg.errors.UndefinedTable:
                        continue
        return found

    async def _outlook(self, workspaces: Sequence[Workspace]) -> dict[str, Outlook]:
        parts = SQL(" UNION ALL ").join(
            SQL(_OUTLOOK).format(
                workspace=Literal(workspace.name), schema=Identifier(workspace.schema), queue=_queue(workspace)
            )
            for workspace in workspaces
        )
        async with workspaces[0].database.pool.connection() as connection:
            cursor = await connection.execute(parts, {"levels": self._levels}, prepare=True)
            return {name: Outlook(*rest) for name, *rest in await cursor.fetchall()}

    async def due(
        self, workspace: Workspace, until: datetime, *, after: Entry | None = None, limit: int
    ) -> list[Entry]:
        """Give tickets of which something falls due by `until`, the longest due first, those behind `after` only."""
        return await self._entries(
            workspace,
            _DUE if after is None else _DUE_AFTER,
            {
                "until": until,
                "limit": limit,
                "at": None if after is None else after.at,
                "number": None if after is None else after.number,
            },
        )

    async def open_tickets(self, workspace: Workspace, *, after: int, before: int, limit: int) -> list[Entry]:
        """Give tickets that are neither solved nor closed, with numbers between two, in their order."""
        return await self._entries(workspace, _OPEN, {"after": after, "before": before, "limit": limit})

    async def count_open(self, workspace: Workspace, *, before: int) -> int:
        """Tell how many tickets with lower numbers are neither solved nor closed."""
        statement = SQL(_COUNT).format(queue=_queue(workspace), unfinished=SQL(UNFINISHED))
        async with workspace.database.pool.connection() as connection:
            cursor = await connection.execute(statement, {"before": before}, prepare=True)
            row = await cursor.fetchone()
        return row[0] if row is not None else 0

    async def reached(self, workspace: Workspace) -> int:
        """Tell up to which position the queue follows the log."""
        return (await bookkeeping.reached(workspace, VIEW))[0]

    async def _entries(self, workspace: Workspace, statement: str, parameters: dict[str, Any]) -> list[Entry]:
        query = SQL(statement).format(queue=_queue(workspace), unfinished=SQL(UNFINISHED))
        async with workspace.database.pool.connection() as connection:
            cursor = await connection.execute(query, parameters, prepare=True, binary=True)
            return list(map(Entry._make, await cursor.fetchall()))


def _queue(workspace: Workspace) -> Identifier:
    return Identifier(workspace.schema, VIEW.label)


# By the index on timer_at, which holds only tickets that have one; the stream's end by its unique index.
_OUTLOOK = """
(SELECT {workspace}, (SELECT timer_at FROM {queue} WHERE timer_at IS NOT NULL ORDER BY timer_at LIMIT 1),
        coalesce((SELECT originator_version FROM {schema}.events WHERE originator_id = %(levels)s
                  ORDER BY originator_version DESC LIMIT 1), 0),
        done_upto
 FROM {schema}.sla_rollout)
"""

_DUE = """
SELECT ticket_id, number, version, timer_at FROM {queue}
WHERE timer_at <= %(until)s ORDER BY timer_at, number LIMIT %(limit)s
"""

_DUE_AFTER = """
SELECT ticket_id, number, version, timer_at FROM {queue}
WHERE timer_at <= %(until)s AND (timer_at, number) > (%(at)s, %(number)s) ORDER BY timer_at, number LIMIT %(limit)s
"""

# By the index on numbers, past those that are finished: one way through it for a whole walk. An index of the unfinished
# would have all of them sorted anew for each part.
_OPEN = """
SELECT ticket_id, number, version, timer_at FROM (
    SELECT * FROM {queue} WHERE number > %(after)s AND number < %(before)s ORDER BY number OFFSET 0
) q WHERE {unfinished} ORDER BY number LIMIT %(limit)s
"""

_COUNT = "SELECT count(*) FROM {queue} WHERE number < %(before)s AND {unfinished}"
