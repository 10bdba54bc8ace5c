"""One lane of a rebuild: takes the events of its streams into the table being built, a page a transaction."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
from psycopg.sql import SQL, Identifier

from projections import bookkeeping
from projections.bookkeeping import Mark
from projections.extract import Extract
from projections.view import ViewError
from replay.held_rows import Held, Stretch
from storage.codec import UnreadableEvent
from storage.log_reader import Cut, StoredRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime
    from uuid import UUID

    from psycopg import AsyncConnection

    from projections.table import Rows, Shelf
    from projections.view import View
    from storage.database import Workspace

PAGE_EVENTS: Final = 10_000  # a page is in memory three times over: read, folded, and its bytes in the driver
HELD_ROWS: Final = 20_000  # a row held for long meets more of its events before it is written
HELD_PAGES: Final = 50  # pages at most whose events are taken in anew after a kill, where they change few rows
PAGES_BETWEEN_COLLECTIONS: Final = 20


class RebuildRunning(ViewError):
    """Somebody else is rebuilding the view."""


class RebuildFailed(ViewError):
    """The event at `position`, of type `topic`, cannot be folded; the live view is as it was."""

    def __init__(self, message: str, position: int, topic: str) -> None:
        super().__init__(message, position, topic)  # all of it, so that it can be sent from process to process
        self.position = position
        self.topic = topic

    def __str__(self) -> str:
        return str(self.args[0])

    @classmethod
    def at(cls, row: StoredRow, view: View, error: Exception) -> Self:
        """Name the event and what is wrong with it."""
        return cls(f"{view.name} cannot take in event {row.position} ({row.topic}): {error}", row.position, row.topic)


@dataclass(frozen=True)
class Site:
    """What is being built, in which workspace, and the name under which that is claimed.

    `place` says what for: it is the table's suffix, and its row's in view_builds.
    """

    workspace: Workspace
    view: View
    owner: str
    place: str = "build"

    @property
    def shadow(self) -> Shelf:
        """The table being built."""
        return self.view.shelf(self.workspace.schema, f"_{self.place}")

    @property
    def taken_over(self) -> RebuildRunning:
        """What is to be said when somebody else has claimed it."""
        return RebuildRunning(f"another rebuild of {self.view.name} has taken over")


class Lane:
    """Takes in the events of its streams from `position` on; it alone does, and so nobody else changes their rows."""

    def __init__(
        self,
        site: Site,
        connection: AsyncConnection[Any],
        looking: AsyncConnection[Any],
        reading: psycopg.Connection[Any],
        skipped: frozenset[int],
    ) -> None:
        self.position = 0
        self.recorded_at: datetime | None = None
        self.connection = connection
        self._looking = looking
        self._reading = reading
        self._site = site
        self._shadow = site.shadow
        self.skipped = skipped
        """Events that the view passes over."""
        self._extract = Extract(site.view, skipped=skipped)
        self._cut = Cut()
        self.stand(0)

    @classmethod
    @asynccontextmanager
    async def opened(cls, site: Site) -> AsyncIterator[Self]:
        """Give a lane with connections of its own: none is shared, so that it may be in another process."""
        address, name = site.workspace.database.conninfo, f"desk rebuild {site.view.name}"[:63]
        reading: psycopg.Connection[Any] = await asyncio.to_thread(
            lambda: psycopg.connect(address, autocommit=True, application_name=name)
        )
        try:
            async with (
                await psycopg.AsyncConnection.connect(address, autocommit=True, application_name=name) as connection,
                await psycopg.AsyncConnection.connect(address, autocommit=True, application_name=name) as looking,
            ):
                skipped = await bookkeeping.skipped(connection, site.workspace.schema, site.view)
                yield cls(site, connection, looking, reading, skipped)
        finally:
            reading.close()

    def stand(self, position: int, number: int = 0, lanes: int = 1) -> None:
        """Take up a lane's place: everything of its streams up to `position` is in the table."""
        self.position, self.recorded_at = position, None
        self._cut = Cut(number, lanes, self._extract.without, self._extract.bare)

    async def reach(self, target: int, tell: Callable[[], None]) -> None:
        """Take in the log up to a position; `tell` is called after each write.

        Rows are held and written when there are many, so that most of them are written once. While the server writes,
        the next page is folded here and the one after it is read. Raises RebuildFailed, RebuildRunning.
        """
        reading = asyncio.create_task(self.read(self.position, target))
        writing: asyncio.Task[None] | None = None
        held, written = Held(), Held()
        pages = 0
        try:
            while (page := await reading) is not None:
                reading = asyncio.create_task(self.read(page.ceiling.position, target))
                if writing is not None and writing.done():
                    await writing
                    written = Held()
                met, begun = self._met(page)
                missing = met - begun - held.streams
                held.move(written, missing & written.streams)
                held.load(await self._shadow.load(self._looking, missing - written.streams))
                held.take(met, self.folded(page, held.rows))
                if page.ceiling.position == target or len(held.rows) >= HELD_ROWS or held.pages >= HELD_PAGES:
                    if writing is not None:
                        await writing
                        tell()
                    writing = asyncio.create_task(self._write(page.ceiling, held.loaded, held.changed()))
                    held, written = Held(), held
                pages += 1
                if pages % PAGES_BETWEEN_COLLECTIONS == 0:
                    gc.collect()
                await asyncio.sleep(0)
            if writing is not None:
                await writing
                tell()
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            # A thread cannot be stopped, and its connection must not be closed under it.
            await asyncio.gather(reading, return_exceptions=True)

    async def read(self, after: int, target: int) -> Stretch | None:
        """Give what the lane takes of the next positions, which may be nothing; None at the target."""
        if after >= target:
            return None
        upto = min(after + PAGE_EVENTS * self._cut.lanes, target)
        log = self._site.workspace.log
        rows = await asyncio.to_thread(log.page_over, self._reading, after, upto, self._cut)
        at_ceiling = rows and rows[-1][0] == upto
        return Stretch(rows, Mark(upto, rows[-1][6] if at_ceiling else None))

    def streams(self, page: Stretch) -> set[UUID]:
        """Name the streams that may have rows already: those whose first event is in the page have none."""
        met, begun = self._met(page)
        return met - begun

    def _met(self, page: Stretch) -> tuple[set[UUID], set[UUID]]:
        """Name the streams whose rows a page is folded into, and which of them have none before."""
        needs = self._site.view.needs
        if needs is None:
            return {row[1] for row in page.rows}, {row[1] for row in page.rows if row[2] == 1}
        found = {stream for one in self._extract.recorded(page.rows) if (stream := needs(one.event)) is not None}
        return found, set()

    def folded(self, page: Stretch, rows: Rows) -> Rows:
        """Give the rows that a page changes. Raises RebuildFailed, which names the event."""
        view = self._site.view
        try:
            return view.fold(rows, self._extract.recorded(page.rows))
        except UnreadableEvent as error:
            raise RebuildFailed.at(error.row, view, error) from error
        except Exception as error:
            raise RebuildFailed.at(self._culprit(page, rows), view, error) from error

    def _culprit(self, page: Stretch, rows: Rows) -> StoredRow:
        """Find the event at which a fold of a page fails, by folding one at a time."""
        known = dict(rows)
        for row in page.rows:
            try:
                known |= self._site.view.fold(known, self._extract.recorded([row]))
            except Exception:  # noqa: BLE001 - whatever it is, it is reported with the event
                return StoredRow._make(row)
        return StoredRow._make(page.rows[-1])

    async def _write(self, ceiling: Mark, rows: Rows, changed: Rows) -> None:
        """Commit a page: its rows and how far the lane has come. Raises RebuildRunning when it is not ours any more."""
        site, cut = self._site, self._cut
        async with self.connection.transaction():
            await self.connection.execute("SET LOCAL synchronous_commit = off")
            await self._shadow.store(self.connection, rows, changed, past=False)
            # Last, as all lanes write the same row: they wait for one another for the length of a commit at most.
            cursor = await self.connection.execute(
                SQL(_ADVANCE).format(schema=Identifier(site.workspace.schema)),
                {
                    "name": site.view.name,
                    "version": site.view.version,
                    "place": site.place,
                    "owner": site.owner,
                    "number": cut.lane + 1,
                    "lanes": cut.lanes,
                    "old": self.position,
                    "new": ceiling.position,
                },
                prepare=True,
            )
            if cursor.rowcount != 1:
                raise site.taken_over
        self.position, self.recorded_at = ceiling


# The fence: nobody but the owner, and no lane twice over the same events. The others' places are left as they are.
_ADVANCE = """
UPDATE {schema}.view_builds SET positions[%(number)s] = %(new)s
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s AND owner = %(owner)s
  AND cardinality(positions) = %(lanes)s AND positions[%(number)s] = %(old)s
"""
