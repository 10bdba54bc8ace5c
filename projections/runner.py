"""Keeps the views of every workspace up with its log: one owner per view, one transaction per page, exactly once."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import psycopg
from psycopg.sql import SQL, Identifier

from projections import bookkeeping
from projections.bookkeeping import LIVE, LostOwnership
from projections.lease import Lease, Share, divide, share
from projections.page import Page
from projections.reference import tell
from projections.together import Connections, Memory, write_together
from storage.codec import UnreadableEvent
from storage.ending import end
from storage.metrics import UNREADABLE
from storage.releases import told_in_full

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.lease import Living
    from projections.view import View
    from storage.database import Database, Workspace

logger = logging.getLogger(__name__)

T = TypeVar("T")

DISCOVER_SECONDS: Final = 2.0  # how soon a new workspace is found
SETTLE_SECONDS: Final = 3.0  # how long views are looked for at every turn after a process has come or gone
POLL_SECONDS: Final = 0.25  # a wake-up can be lost
# After a page that was not full the runner rests as long as it worked: events gather, since many at once cost less than
# one by one, and on a busy machine commands keep the processor.
SHORTEST_PAUSE: Final = 0.01  # seconds
LONGEST_PAUSE: Final = 0.02  # seconds, after a few events; what is seen late is late by this at most, and by the work
FEW_EVENTS: Final = 2  # so few are not worth waiting for more: nobody else is in a hurry then
FEW_PAUSE: Final = 0.001  # seconds
LEISURE_SECONDS: Final = 0.05  # between two pages of views at leisure, while others have more than a few events
BUSY_PAUSE: Final = 0.15  # seconds at most, after BUSY_EVENTS or more: then there is more to do than time
BUSY_EVENTS: Final = 300
PRUNE_SECONDS: Final = 60.0
ROTATE_SECONDS: Final = 3600.0  # the partitions of idempotency keys are a week each
TOGETHER: Final = 100  # events; larger pages are copied, by a connection for each view
FIRST_PAGE: Final = 500
LARGEST_PAGE: Final = 5_000
QUICK_SECONDS: Final = 0.25  # a full page done in less doubles the next one
SLOW_SECONDS: Final = 1.0  # a page that took longer halves it
WORKSPACES_AT_ONCE: Final = 4
WORKSPACES_PER_STATEMENT: Final = 200

# SQLSTATE classes that say nothing against the event: connections, conflicts of transactions, resources, operators.
PASSING: Final = ("08", "25", "40", "53", "55", "57", "58")


class Standing(NamedTuple):
    """How one of our views stands, as read in one poll."""

    workspace: Workspace
    view: View
    position: int
    head: int


class Runner:
    """Projects the logs of a database's workspaces into views, as far as no other process owns them."""

    def __init__(self, database: Database, views: Sequence[View], owner_id: str | None = None) -> None:
        self.owner_id = owner_id or bookkeeping.new_owner()
        self._database = database
        self._views = {(view.name, view.version): view for view in views}
        self._workspaces: dict[str, Workspace] = {}
        self._limits: dict[tuple[str, str], int] = {}
        self._taken_in = 0  # events of the largest page of this round
        self._served_at = 0.0  # when the views that are waited for were last written
        self._woken = asyncio.Event()
        self._living: Living = {self.owner_id: frozenset(view.label for view in views)}
        self._shares: list[Share] | None = None
        self._unsettled_until = float("-inf")
        self._to_divide = True
        self._grown: set[str] = set()  # workspaces whose logs may have events that we have not looked for
        self._standing: dict[str, dict[View, int]] = {}  # workspace → position of each view that is ours
        self._at_leisure: dict[str, float] = {}  # workspace → when its views at leisure had a page last
        self._memory = Memory()
        self._connections = Connections(database)
        self._polled_at = self._discovered_at = self._pruned_at = self._rotated_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Project until `stop` is set, then give the views up to others. Outages of the database are waited out."""
        listener = asyncio.create_task(self._listen(), name="views listen")
        stopper = asyncio.create_task(self._wake_on(stop), name="views stop")
        lease = Lease(self._database.conninfo, self.owner_id, self._views.values(), self._heard)
        lease.start()
        try:
            while not stop.is_set():
                self._woken.clear()
                self._taken_in = 0
                began = self._served_at = time.monotonic()
                try:
                    busy = await self._round()
                except Exception as error:
                    # Views' tables that are not there have not come to the server that goes on now: they are made anew below.
                    if not is_passing(error) and not isinstance(error, psycopg.errors.UndefinedTable):
                        logger.exception("the views of no workspace could be projected")
                    else:
                        logger.warning("views wait for the database: %s", error)
                    self._discovered_at = self._polled_at = float("-inf")
                    # Another server may go on now, to which the views' tables had not come yet: they are looked for anew.
                    self._workspaces = {}
                    self._memory.clear()
                    busy = False
                    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                        await self._database.pool.drain()  # the server may be written to no more; another is
                if stop.is_set():
                    break
                if busy is None:
                    await asyncio.sleep(0)
                elif busy:
                    # Following at leisure is rest enough.
                    rested = time.monotonic() - self._served_at
                    await asyncio.sleep(max(_pause(self._served_at - began, self._taken_in) - rested, 0))
                else:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), POLL_SECONDS)
        finally:
            for task in (listener, stopper):
                await end(task)
            await self.release()
            await lease.end()

    async def catch_up(self, workspace: Workspace) -> None:
        """Project one workspace until every view of it that is ours and has not stopped is at the log's end."""
        self._workspaces[workspace.name] = workspace
        self._memory.clear()  # the last time may have ended before it was known what was written
        await bookkeeping.prepare(workspace, self._views.values())
        await self._divide([Share(workspace, list(self._views.values()))])
        try:
            while any(one.position < one.head for one in await self._standings([workspace])):
                while await self._serve(workspace) is not None:
                    pass
        finally:
            await self._connections.close()

    def keeping(self, view: View) -> list[Workspace]:
        """Give the workspaces of which a view falls to this process, whether it follows there or has stopped."""
        return [one.workspace for one in self._shares or () if view in one.ours]

    async def release(self) -> None:
        """Give up the views, so that another process takes over as soon as it looks."""
        for workspace in self._workspaces.values():
            with suppress(psycopg.Error):
                await bookkeeping.release(workspace, self.owner_id)
        await self._connections.close()

    async def _listen(self) -> None:
        async for names in self._database.listen():
            if names:
                self._grown |= names
                self._woken.set()

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._woken.set()

    async def _round(self) -> bool | None:
        """Take in one page per view that is behind.

        Gives False when there was none, True when there was, None when there is more to do at once.
        """
        now = time.monotonic()
        if now - self._discovered_at >= DISCOVER_SECONDS:
            await self._discover()
            self._discovered_at, self._to_divide = now, True
        if self._to_divide:
            self._to_divide = False
            if self._shares is None:
                self._shares = [
                    share(workspace, self._views.values(), self._living, self.owner_id)
                    for workspace in self._workspaces.values()
                ]
            await self._divide(self._shares)
            self._polled_at = float("-inf")
        if now - self._pruned_at >= PRUNE_SECONDS:
            await self._prune()
            self._pruned_at = now
        if now - self._rotated_at >= ROTATE_SECONDS:
            for workspace in self._workspaces.values():
                await workspace.log.rotate_outcomes()
            self._rotated_at = now
        # What has been heard of is looked into at once; what has not, a wake-up having been lost, is found by a poll.
        grown, self._grown = self._grown, set()
        if now - self._polled_at >= POLL_SECONDS:
            self._polled_at = now
            standings = await self._standings(list(self._workspaces.values()))
            await self._stop_those_ahead(standings)
            grown |= {one.workspace.name for one in standings if one.position < one.head}
        gate = asyncio.Semaphore(WORKSPACES_AT_ONCE)

        async def serve(workspace: Workspace) -> bool | None:
            async with gate:
                return await self._serve(workspace)

        served = [self._workspaces[name] for name in grown if self._standing.get(name) and name in self._workspaces]
        full = await asyncio.gather(*map(serve, served))
        # Whatever came meanwhile need not be heard of first.
        self._grown |= {workspace.name for workspace, one in zip(served, full, strict=True) if one is not None}
        if any(full):
            return None
        return any(one is not None for one in full)

    async def _stop_those_ahead(self, standings: Sequence[Standing]) -> None:
        """Stop views that have taken in what the log does not have: both are of one server, so it was set back."""
        for workspace, view, position, head in standings:
            if position > head:
                message = f"the view has taken in position {position} and the log ends at {head}; rebuild the view"
                logger.error("%s: %s stopped: %s", workspace.name, view.label, message)
                with suppress(LostOwnership):
                    await bookkeeping.stop(
                        workspace, view, owner=self.owner_id, at=position, position=position, topic="", error=message
                    )

    async def _discover(self) -> None:
        found = {workspace.name: workspace for workspace in await self._database.workspaces()}
        if found != self._workspaces:
            self._shares = None
        for name, workspace in found.items():
            if name not in self._workspaces:
                await bookkeeping.prepare(workspace, self._views.values())
        self._workspaces = found

    async def _divide(self, shares: Sequence[Share]) -> None:
        for some in _chunks(shares):
            async with self._database.pool.connection() as connection:
                if await divide(connection, self.owner_id, some):
                    self._memory.clear()  # whoever had a view before us may have written it

    def _heard(self, living: Living, was_dead: bool) -> None:  # noqa: FBT001 - a callback
        """Take note of which processes live; where that has changed, the views are divided anew."""
        now = time.monotonic()
        if was_dead or living != self._living:
            self._living, self._shares, self._unsettled_until = living, None, now + SETTLE_SECONDS
        if now < self._unsettled_until:
            # More than once: the views of a process that is gone come free one after another.
            self._to_divide = True
            self._woken.set()

    async def _standings(self, workspaces: Sequence[Workspace]) -> list[Standing]:
        """Read where our live views and the logs' ends are, and remember it: one statement for many workspaces."""
        found = []
        for some in _chunks(workspaces):
            by_name = {workspace.name: workspace for workspace in some}
            parts = SQL(" UNION ALL ").join(
                SQL(_STANDING).format(workspace=workspace.name, schema=Identifier(workspace.schema))
                for workspace in some
            )
            async with self._database.pool.connection() as connection:
                cursor = await connection.execute(parts, {"owner": self.owner_id, "state": LIVE}, prepare=True)
                rows = await cursor.fetchall()
            for workspace, name, version, position, head in sorted(rows):
                view = self._views.get((name, version))
                if view is not None:
                    found.append(Standing(by_name[workspace], view, position, head))
        for workspace in workspaces:
            self._standing[workspace.name] = {one.view: one.position for one in found if one.workspace is workspace}
        return found

    async def _serve(self, workspace: Workspace) -> bool | None:
        """Take in a page for each of our views that is behind; those at one position share its reading and decoding.

        Tells whether a page was full, or None where no view was behind.
        """
        full = None
        standing = self._standing[workspace.name]
        groups = groupby(sorted(standing, key=lambda view: standing[view]), key=lambda view: standing[view])
        due = time.monotonic() - self._at_leisure.get(workspace.name, float("-inf")) >= LEISURE_SECONDS
        much = False
        for position, views in sorted(((position, list(group)) for position, group in groups), key=_leisurely):
            follow = much and all(view.at_leisure for view in views)
            if follow and not due:
                full = bool(full)
                continue
            limit = min(self._limits.get((workspace.name, view.label), FIRST_PAGE) for view in views)
            if follow:
                limit = min(limit, TOGETHER)  # so that the others have their turn again soon
            rows = await workspace.log.page(position, limit)
            if not rows:
                continue
            # Many events are decoded as far as these views look at them; what a few say is remembered in full.
            page = Page(rows, views=views if len(rows) > TOGETHER else None)
            much = much or FEW_EVENTS < len(page) <= TOGETHER
            if much and not due:
                views = [view for view in views if not view.at_leisure] or views  # noqa: PLW2901 - part of them
            if any(view.at_leisure for view in views):
                self._at_leisure[workspace.name] = time.monotonic()
            if not follow:
                self._taken_in = max(self._taken_in, len(page))
            full = bool(full) or (len(page) == limit and not follow)
            await self._take_in_all(workspace, views, page, position, full=len(page) == limit)
            if not follow:
                self._served_at = time.monotonic()
        return full

    async def _take_in_all(
        self, workspace: Workspace, views: Sequence[View], page: Page, position: int, *, full: bool
    ) -> None:
        """Take a page into these views: a few events together, otherwise, or where that fails, into each by itself."""
        if len(page) <= TOGETHER and await self._took_in_together(workspace, views, page, position):
            return
        self._memory.forget({view.shelf(workspace.schema) for view in views})
        # At the same time: the server writes for one view while another is folded here.
        outcomes = await asyncio.gather(
            *(self._take_in(workspace, view, page, position, full=full) for view in views), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _took_in_together(self, workspace: Workspace, views: Sequence[View], page: Page, position: int) -> bool:
        """Take a page into all of these views in one transaction; False when each has to be tried by itself."""
        try:
            taken = await write_together(
                workspace, views, page, self._memory, self._connections, owner=self.owner_id, old=position
            )
        except Exception as error:
            if is_passing(error):
                raise
            return False
        for view in views:
            if view in taken:
                self._standing[workspace.name][view] = page.ceiling.position
            else:
                self._lost(workspace, view, LostOwnership(view, position))
        return True

    async def _take_in(self, workspace: Workspace, view: View, page: Page, position: int, *, full: bool) -> None:
        started = time.perf_counter()
        try:
            reached = await take_in(workspace, view, page, 0, len(page), owner=self.owner_id, old=position)
        except LostOwnership as lost:
            self._lost(workspace, view, lost)
        except Exception:
            # A page that takes so long that the server ends its transaction must not come again as it was.
            self._adapt(workspace, view, full=False, seconds=time.perf_counter() - started)
            raise
        else:
            self._standing[workspace.name][view] = reached
            if reached != page.ceiling.position:  # it has stopped
                self._standing[workspace.name].pop(view, None)
                self._look_again()
            self._adapt(workspace, view, full, time.perf_counter() - started)

    def _lost(self, workspace: Workspace, view: View, lost: LostOwnership) -> None:
        self._standing[workspace.name].pop(view, None)
        logger.info("%s: %s", workspace.name, lost)
        self._look_again()

    def _look_again(self) -> None:
        """See in the next round what is ours and where it stands, instead of going by what we know."""
        self._to_divide, self._polled_at = True, float("-inf")

    def _adapt(self, workspace: Workspace, view: View, full: bool, seconds: float) -> None:  # noqa: FBT001
        limit = self._limits.get((workspace.name, view.label), FIRST_PAGE)
        if seconds > SLOW_SECONDS:
            limit = max(limit // 2, 1)
        elif full and seconds < QUICK_SECONDS:
            limit = min(limit * 2, LARGEST_PAGE)
        self._limits[workspace.name, view.label] = limit

    async def _prune(self) -> None:
        for workspace in self._workspaces.values():
            for view in self._views.values():
                if view.table.keeps_past:
                    await bookkeeping.prune(workspace, view)


async def take_in(workspace: Workspace, view: View, page: Page, start: int, stop: int, *, owner: str, old: int) -> int:
    """Fold part of a page into a view and give the position reached.

    When that fails for a reason that lies in the events, halves are tried, so that everything before the event
    at fault is taken in; the view is then stopped there with the reason. Raises LostOwnership.
    """
    try:
        await _write(workspace, view, page, start, stop, owner=owner, old=old)
    except LostOwnership:
        raise
    except Exception as error:
        if is_passing(error):
            raise
        if stop - start == 1:
            row = page.rows[start]
            if isinstance(error, UnreadableEvent):
                UNREADABLE.labels(workspace.name, error.reason).inc()
            message = f"{type(error).__name__}: {await told_in_full(workspace, error)}"
            logger.error("%s: %s stopped at event %d: %s", workspace.name, view.label, row.position, message)  # noqa: TRY400
            await bookkeeping.stop(
                workspace, view, owner=owner, at=old, position=row.position, topic=row.topic, error=message
            )
            return old
    else:
        return page.mark(stop).position
    middle = (start + stop) // 2
    reached = await take_in(workspace, view, page, start, middle, owner=owner, old=old)
    if reached != page.mark(middle).position:
        return reached
    return await take_in(workspace, view, page, middle, stop, owner=owner, old=reached)


async def _write(workspace: Workspace, view: View, page: Page, start: int, stop: int, *, owner: str, old: int) -> None:
    """Commit a part of a page: checkpoint and rows, together or not at all."""
    recorded = page.recorded(view, start, stop)
    streams = page.streams(view, start, stop)
    shelf = view.shelf(workspace.schema)
    await tell(workspace, [view], page)
    async with workspace.database.pool.connection() as connection, connection.transaction():
        mark = page.mark(stop)
        await shelf.lock(connection, "ROW EXCLUSIVE")
        if not await bookkeeping.advance(connection, workspace.schema, [view], owner=owner, old=old, new=mark):
            raise LostOwnership(view, old)
        if recorded:
            rows = await shelf.load(connection, streams)
            await shelf.store(connection, rows, page.folded(view, rows, recorded))


def _leisurely(group: tuple[int, Sequence[View]]) -> tuple[bool, int]:
    """Put views that are waited for before those that are not, and then the ones furthest behind first."""
    position, views = group
    return all(view.at_leisure for view in views), position


def _pause(worked: float, events: int) -> float:
    """Tell how long to rest after work of so many seconds on so many events."""
    if events <= FEW_EVENTS:
        return FEW_PAUSE
    return min(max(worked, SHORTEST_PAUSE), LONGEST_PAUSE if events < BUSY_EVENTS else BUSY_PAUSE)


def is_passing(error: BaseException) -> bool:
    """Tell an outage or a conflict, after which the same events may be tried again, from a fault in an event."""
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        if state is None:
            return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return state.startswith(PASSING)
    return isinstance(error, OSError | TimeoutError)


def _chunks(things: Sequence[T]) -> list[Sequence[T]]:
    size = WORKSPACES_PER_STATEMENT
    return [things[start : start + size] for start in range(0, len(things), size)]


_STANDING = """
SELECT {workspace}, name, version, position,
       coalesce((SELECT max(notification_id) FROM {schema}.events), 0)
FROM {schema}.views WHERE owner = %(owner)s AND state = %(state)s
"""
