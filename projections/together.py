"""Takes a few events into all views of a workspace at once, by one statement, and remembers the rows it wrote."""

from __future__ import annotations

import re
from collections import OrderedDict
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from psycopg import AsyncRawCursor
from psycopg.sql import SQL, Literal

from projections import bookkeeping
from projections.reference import tell
from projections.table import document
from storage.database import spoken_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from projections.page import Page
    from projections.table import Rows, Shelf
    from projections.view import View
    from storage.database import Database, Workspace

ROWS_REMEMBERED: Final = 20_000


class Memory:
    """Rows of views as we, who own the views, wrote them last; those of streams not met for longest are forgotten.

    They are the table's rows as long as the view stands where we left it and is ours: whoever writes a view otherwise
    (another owner, a rebuild that is swapped in) moves its checkpoint or takes it from us, and then nothing is written
    and what is remembered has to be forgotten.
    """

    def __init__(self, most: int = ROWS_REMEMBERED) -> None:
        self._most = most
        self._rows: OrderedDict[tuple[Shelf, UUID], Rows] = OrderedDict()
        self.held = 0
        """Number of rows, and of streams known to have none."""

    def recall(self, shelf: Shelf, streams: Iterable[UUID]) -> tuple[Rows, list[UUID]]:
        """Give the rows of these streams, and the streams that are not remembered."""
        found: Rows = {}
        missing = []
        for stream in streams:
            rows = self._rows.get((shelf, stream))
            if rows is None:
                missing.append(stream)
            else:
                found |= rows
        return found, missing

    def keep(self, shelf: Shelf, streams: Iterable[UUID], rows: Rows) -> None:
        """Remember all the rows of these streams, as far as a fold is given them."""
        by_stream: dict[UUID, Rows] = {stream: {} for stream in streams}
        for key, row in rows.items():
            if key[0] in by_stream and shelf.table.is_loaded(key):
                by_stream[key[0]][key] = row
        for stream, its in by_stream.items():
            old = self._rows.pop((shelf, stream), None)
            self._rows[shelf, stream] = its
            self.held += max(len(its), 1) - (0 if old is None else max(len(old), 1))
        while self.held > self._most:
            _, gone = self._rows.popitem(last=False)
            self.held -= max(len(gone), 1)

    def forget(self, shelves: Collection[Shelf]) -> None:
        """Forget the rows of views that others may have written."""
        for place in [place for place in self._rows if place[0] in shelves]:
            self.held -= max(len(self._rows.pop(place)), 1)

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self.held = 0


class Connections:
    """Connections that views are written over, the one used last first.

    A pool gives them in turn, and each would have to plan every statement, which takes longer than to carry it out.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._idle: list[AsyncConnection[Any]] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection; one over which something failed is closed."""
        connection = self._idle.pop() if self._idle else None
        if connection is not None and spoken_to(connection):
            await self.close()
            await connection.close()
            connection = None
        connection = connection or await self._database.connect("desk views")
        try:
            yield connection
        except BaseException:
            await connection.close()
            raise
        self._idle.append(connection)

    async def close(self) -> None:
        """Close those that are not lent."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


async def write_together(
    workspace: Workspace,
    views: Sequence[View],
    page: Page,
    memory: Memory,
    connections: Connections,
    *,
    owner: str,
    old: int,
) -> Sequence[View]:
    """Commit a page to several views at once, and give those that were still ours.

    A few events a page is what a live view mostly takes in, and a transaction for each view, with the reading of its
    rows, would cost more than they.
    """
    recorded = {view: found for view in views if (found := page.recorded(view, 0, len(page)))}
    shelves = {view: view.shelf(workspace.schema) for view in views}
    streams = {view: page.streams(view, 0, len(page)) for view in recorded}
    born = {row.stream for row in page.rows if row.version == 1}
    rows: dict[View, Rows] = {}
    missing: dict[View, list[UUID]] = {}
    for view in recorded:
        rows[view], unknown = memory.recall(shelves[view], streams[view])
        if view.needs is None:
            unknown = [stream for stream in unknown if stream not in born]  # it has no rows yet
        if unknown:
            missing[view] = unknown
    await tell(workspace, views, page)
    async with connections.one() as connection:
        if missing:
            async with connection.pipeline():
                asked = {view: await shelves[view].ask(connection, unknown) for view, unknown in missing.items()}
            for view, cursor in asked.items():
                rows[view] |= await shelves[view].rows_of(cursor)
        changed = {view: new for view in recorded if (new := page.folded(view, rows[view], recorded[view]))}
        parameters = bookkeeping.advancing_parameters(views, owner=owner, old=old, new=page.mark(len(page)))
        parameters |= {f"rows_{number}": document(found) for number, found in enumerate(changed.values())}
        statement, names = _statement(tuple(changed), workspace.schema)
        cursor = AsyncRawCursor(connection)
        await cursor.execute(statement, [parameters[name] for name in names], prepare=True)
        ours = bookkeeping.advanced(views, await cursor.fetchall())
    for view in ours:
        if view in recorded:
            memory.keep(shelves[view], streams[view], rows[view] | changed.get(view, {}))
    if len(ours) < len(views):
        memory.forget({shelves[view] for view in views if view not in ours})
    return ours


@cache
def _statement(views: tuple[View, ...], schema: str) -> tuple[str, tuple[str, ...]]:
    """Compose the statement that moves checkpoints and writes the rows of those that moved, with its parameters' names.

    Placeholders are the server's own ($1): psycopg looks through so long a text for others each time it is sent.
    """
    parts: list[Any] = [SQL("ours AS ({})").format(SQL(bookkeeping.advancing(schema)))]
    for number, view in enumerate(views):
        is_ours = SQL("EXISTS (SELECT FROM ours WHERE name = {} AND version = {})").format(
            Literal(view.name), Literal(view.version)
        )
        parts.append(view.shelf(schema).saving(f"rows_{number}", only_if=is_ours))
    text = SQL("WITH {} TABLE ours").format(SQL(", ").join(parts)).as_string()
    names = tuple(dict.fromkeys(_PLACEHOLDER.findall(text)))
    return _PLACEHOLDER.sub(lambda found: f"${names.index(found[1]) + 1}", text), names


_PLACEHOLDER: Final = re.compile(r"%\((\w+)\)s")
