"""Which releases of the desk write a log, so that an event nobody here knows can be traced to its writer."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, NamedTuple

from psycopg.sql import SQL, Identifier

from storage.codec import NewerShape, UnknownTopic

if TYPE_CHECKING:
    from storage.database import Workspace

UNPACKAGED: Final = "unpackaged"
"""What a copy of the desk that was never installed calls itself."""


class Writer(NamedTuple):
    """A release that has been writing a log since a position."""

    release: str
    first_position: int

    def __str__(self) -> str:
        return f"{self.release}, which has been writing this log since position {self.first_position}"


def installed_release() -> str:
    """Give the release of the desk that is installed here."""
    try:
        return version("ledgerdesk")
    except PackageNotFoundError:
        return UNPACKAGED


async def other_writers(workspace: Workspace, position: int) -> list[Writer]:
    """Give the other releases that may have written an event which this one does not know, the likeliest first.

    Those that began to write after this one did; where there are none, all that began before the event.
    """
    statement = SQL(_WRITERS).format(schema=Identifier(workspace.schema))
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(statement, {"own": workspace.database.release, "position": position})
        rows = await cursor.fetchall()
    found = [(Writer(release, first), later) for release, first, later in rows]
    return [writer for writer, later in found if later] or [writer for writer, _ in found]


async def told_in_full(workspace: Workspace, error: Exception) -> str:
    """Give an error's message; where it is about an event that only another release knows, with who wrote that."""
    if not isinstance(error, UnknownTopic | NewerShape):
        return str(error)
    here = f"{error}; this is release {workspace.database.release}"
    writers = await other_writers(workspace, error.row.position)
    if not writers:
        return f"{here}, and no other is known to have written this log by then"
    return f"{here}, the event was written by release {' or '.join(map(str, writers))}"


# Two releases that began at one position are told apart by who came second.
_WRITERS = """
SELECT r.release, r.first_position,
       coalesce((r.first_position, r.first_seen_at) > (o.first_position, o.first_seen_at), true)
FROM {schema}.releases r LEFT JOIN {schema}.releases o ON o.release = %(own)s
WHERE r.release <> %(own)s AND r.first_position <= %(position)s
ORDER BY r.first_position DESC, r.first_seen_at DESC
"""
