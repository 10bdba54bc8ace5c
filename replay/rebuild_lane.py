"""One lane of a rebuild: takes the events of its streams into the table being built, a page a transaction."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
from psycopg.sql import SQL, Identifier

from projections import bookkeeping
from projections.bookkeeping import Mark
from projections.extract import Extract
from projections.reference import finish, folded, read_on
from projections.view import ViewError
from replay.held_rows import Held, Stretch
from replay.making_way import make_way_on_server
from storage.codec import UnreadableEvent
from storage.log_reader import Cut, StoredRow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
    from datetime import datetime
    from uuid import UUID

    from psycopg import AsyncConnection

    from projections.reference import Told
    from projections.table import Rows, Shelf
    from projections.view import View
    from storage.codec import Recorded
    from storage.database import Workspace
    from storage.log_reader import LogReader

PAGE_EVENTS: Final = 8_000  # a page is in memory three times over: read, folded, and its bytes in the driver
HELD_ROWS: Final = 12_000  # a row held for long meets more of its events before it is written
HELD_PAGES: Final = 50  # pages at most whose events are taken in anew after a kill, where they change few rows
PAGES_BETWEEN_COLLECTIONS: Final = 100  # nearly all goes without one, and each looks through all that is held


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
        self.reading = reading
        self._site = site
        self._shadow = site.shadow
        self.skipped = skipped
        """Events that the view passes over."""
        self._extract = Extract(site.view, skipped=skipped)
        self._told: Told | None = None
        self._cut = Cut()
        self._held, self._written = Held(), Held()
        self._writing: asyncio.Task[None] | None = None
        self._tell: Callable[[], None] = lambda: None
        self._most = HELD_ROWS
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
                make_way_on_server(connection, looking, reading)
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
        async with read_ahead(lambda after: self.read(after, target), self.position) as pages, self.taking(tell):
            async for page in pages:
                await self.take(page, last=page.ceiling.position == target)

    @asynccontextmanager
    async def taking(self, tell: Callable[[], None], *, share: int = 1) -> AsyncIterator[None]:
        """Let pages be taken in from where the lane stands; at the end what is being written is there.

        With others beside it in the process the lane holds its `share`, one of so many, of the rows that may be held.
        """
        self._tell, self._most = tell, max(HELD_ROWS // share, 1)
        try:
            yield
            await self._settle()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        """Hold nothing any more, and write nothing."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        self._held, self._written, self._writing = Held(), Held(), None

    async def take(self, page: Stretch, *, last: bool) -> None:
        """Fold a page into the rows held, and begin to write them where they are many. Raises as `reach`."""
        if self._writing is not None and self._writing.done():
            await self._settle()
        held = self._held
        if page.recorded is None and self._site.view.needs is not None:
            page = page._replace(recorded=self._decoded(page))
        met, begun = self._met(page)
        missing = met - begun - held.streams
        held.move(self._written, missing & self._written.streams)
        held.load(await self._shadow.load(self._looking, missing - self._written.streams))
        held.take(met, await self.folded(page, held.rows, unfinished=True))
        if last or len(held.rows) >= self._most or held.pages >= HELD_PAGES:
            await self._settle()
            changed = held.changed()
            finish(self._site.view, changed.values(), self._told)
            self._writing = asyncio.create_task(self._write(page.ceiling, held.loaded, changed))
            self._held, self._written = Held(), held

    async def _look_up(self, upto: int) -> None:
        """Learn what the view looks up beside its events, as far as it has been told by a position."""
        reference = self._site.view.reference
        if reference is not None and (self._told is None or self._told.upto < upto):
            self._told = await read_on(self._site.workspace.log, self._looking, reference, self._told)

    async def _settle(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            await self._writing
            self._writing, self._written = None, Held()
            self._tell()

    def part_of(self, page: Stretch) -> Stretch:
        """Give what the lane takes of a page that was read and decoded for several."""
        rows, recorded, topics = page.rows, page.recorded or (), self._site.view.topics
        if topics is not None:
            rows = [row for row in rows if row[3] in topics]
            recorded = [one for one in recorded if one[0].TOPIC in topics]
        if rows and rows[0][0] <= self.position:
            rows = [row for row in rows if row[0] > self.position]
            recorded = [one for one in recorded if one[1] > self.position]
        return Stretch(rows, page.ceiling, recorded)

    async def read(self, after: int, target: int) -> Stretch | None:
        """Give what the lane takes of the next positions, which may be nothing; None at the target."""
        return await stretch(self._site.workspace.log, self.reading, after, target, self._cut)

    def streams(self, page: Stretch) -> set[UUID]:
        """Name the streams that may have rows already: those whose first event is in the page have none."""
        met, begun = self._met(page)
        return met - begun

    def _met(self, page: Stretch) -> tuple[set[UUID], set[UUID]]:
        """Name the streams whose rows a page is folded into, and which of them have none before."""
        needs = self._site.view.needs
        if needs is None:
            return {row[1] for row in page.rows}, {row[1] for row in page.rows if row[2] == 1}
        recorded = self._decoded(page) if page.recorded is None else page.recorded
        return {stream for one in recorded if (stream := needs(one.event)) is not None}, set()

    def _decoded(self, page: Stretch) -> list[Recorded]:
        try:
            return list(self._extract.recorded(page.rows))
        except UnreadableEvent as error:
            raise RebuildFailed.at(error.row, self._site.view, error) from error

    async def folded(self, page: Stretch, rows: Rows, *, unfinished: bool = False) -> Rows:
        """Give the rows that a page changes, `unfinished` as they may be held. Raises RebuildFailed, which names the event."""
        view = self._site.view
        await self._look_up(page.ceiling.position)
        try:
            recorded = self._extract.recorded(page.rows) if page.recorded is None else page.recorded
            return folded(view, rows, recorded, self._told, unfinished=unfinished)
        except UnreadableEvent as error:
            raise RebuildFailed.at(error.row, view, error) from error
        except Exception as error:
            raise RebuildFailed.at(self._culprit(page, rows), view, error) from error

    def _culprit(self, page: Stretch, rows: Rows) -> StoredRow:
        """Find the event at which a fold of a page fails, by folding one at a time."""
        known = dict(rows)
        for row in page.rows:
            try:
                known |= folded(self._site.view, known, self._extract.recorded([row]), self._told)
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


def read_ahead(
    read: Callable[[int], Coroutine[Any, Any, Stretch | None]], after: int
) -> aclosing[AsyncGenerator[Stretch, None]]:
    """Give the pages of the log that `read` finds after a position, each while the one after it is read already."""

    async def pages() -> AsyncGenerator[Stretch, None]:
        reading = asyncio.create_task(read(after))
        given = 0
        try:
            while (page := await reading) is not None:
                reading = asyncio.create_task(read(page.ceiling.position))
                yield page
                given += 1
                if given % PAGES_BETWEEN_COLLECTIONS == 0:
                    gc.collect()
                await asyncio.sleep(0)
        finally:
            # A thread cannot be stopped, and its connection must not be closed under it.
            await asyncio.gather(reading, return_exceptions=True)

    return aclosing(pages())


async def stretch(
    log: LogReader, reading: psycopg.Connection[Any], after: int, target: int, cut: Cut
) -> Stretch | None:
    """Read what a cut takes of the next positions, which may be nothing; None at the target."""
    if after >= target:
        return None
    upto = min(after + PAGE_EVENTS * cut.lanes, target)
    rows = await asyncio.to_thread(log.page_over, reading, after, upto, cut)
    at_ceiling = rows and rows[-1][0] == upto
    return Stretch(rows, Mark(upto, rows[-1][6] if at_ceiling else None))


# The fence: nobody but the owner, and no lane twice over the same events. The others' places are left as they are.
_ADVANCE = """
UPDATE {schema}.view_builds SET positions[%(number)s] = %(new)s
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s AND owner = %(owner)s
  AND cardinality(positions) = %(lanes)s AND positions[%(number)s] = %(old)s
"""
