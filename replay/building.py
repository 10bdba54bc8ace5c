"""Fills a table of a view from the log, beside the live one, and holds the two against each other at one position."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import psycopg
from psycopg.sql import SQL, Identifier

import domain
import projections
from projections.bookkeeping import LIVE, ViewsNotReady
from projections.page import uncollected
from replay import builds, rebuild_lane
from replay.builds import Phase, Standing
from replay.comparison import Comparison, NotComparable, compare
from replay.making_way import make_way_on_server
from replay.rebuild_lane import Lane, RebuildFailed, Site
from replay.rebuild_workers import RebuildStopped, can_fork, processors, reach_in_lanes
from storage.codec import UnreadableEvent, decode
from storage.releases import told_in_full

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from psycopg import AsyncConnection

    from projections.view import View
    from storage.database import Workspace

NEAR_EVENTS: Final = 2_000  # few enough to be taken in while the live projection is held up
WORTH_FORKING: Final = 50_000  # events ahead; for fewer the forking and its connections cost what they save
LOCK_TIMEOUT: Final = "500ms"  # readers and the live projection wait behind us for no longer than this
# Nor do they wait for a process that stands still in the middle: the server ends its transaction.
STILL_TIMEOUT: Final = "4s"
ATTEMPTS: Final = 60


class Reference(NamedTuple):
    """The live table that a build is compared with: the view's own, or where it has none yet another version's."""

    version: int
    table: str
    position: int
    state: str
    owner: str | None
    head: int

    @property
    def keeps_up(self) -> bool:
        """Whether somebody projects it and is near the log's end."""
        behind = self.head - self.position
        return self.state == LIVE and self.owner is not None and 0 <= behind <= rebuild_lane.PAGE_EVENTS

    @property
    def reachable(self) -> int:
        """How far a build can follow it: it may have taken in what a log that was set back does not have any more."""
        return min(self.position, self.head)


class Builder:
    """Fills the table of a site, in one process or several, a page a transaction."""

    def __init__(self, site: Site, lane: Lane, standing: Standing, workers: int | None) -> None:
        self.site = site
        self.lane = lane
        self.connection = lane.connection
        self.standing = standing
        self._workers = workers
        self.positions: list[int] = []
        self.recipe: str | None = recipe_of(site.view, lane.skipped)
        self._schema = Identifier(site.workspace.schema)

    @classmethod
    @asynccontextmanager
    async def opened(cls, site: Site, standing: Standing, workers: int | None = None) -> AsyncIterator[Self]:
        """Claim the table, and give a builder with connections of its own.

        Where the view is stream-local and processes can be forked, `workers` of them divide the streams among them;
        None is one a processor where there is enough to do. What goes wrong is noted with the run. Raises
        RebuildRunning, RebuildFailed, RebuildStopped.
        """
        async with builds.claimed(site, standing):
            try:
                async with Lane.opened(site) as lane:
                    with uncollected():
                        yield cls(site, lane, standing, workers)
            except RebuildFailed as failed:
                told = await _traced(site.workspace, failed)
                standing.fail(str(told))
                raise told from failed
            except psycopg.OperationalError as lost:
                reason = " ".join(str(lost).split())
                message = f"{site.view.name} was not rebuilt: {reason}; another run goes on from there"
                standing.fail(message)
                raise RebuildStopped(message) from lost

    async def begin(self, *, anew: bool = False) -> None:
        """Go on with the table that a killed run of the same code left, or make a new one."""
        site, shadow, connection = self.site, self.site.shadow, self.connection
        reference = await self.reference()
        async with connection.transaction():
            found, old_recipe, report = await builds.standing_of(connection, site)
            cursor = await connection.execute("SELECT to_regclass(%s)", [shadow.place.as_string(connection)])
            there = await cursor.fetchone() != (None,)
            positions = None
            if there and found and old_recipe == self.recipe and not anew:
                # One that has gone further than what it would be compared with is good only where it was, before.
                compared = report is not None and "comparison" in report
                if compared or reference is None or max(found) <= reference.reachable:
                    positions = self._places(found)
            if positions is not None:
                self.standing.report = report
            else:
                await connection.execute(SQL("DROP TABLE IF EXISTS {}").format(shadow.place))
                await shadow.create(connection)
                if site.place == "check":
                    await connection.execute(SQL("ALTER TABLE {} SET UNLOGGED").format(shadow.place))
                positions = [0]
            await builds.stands(connection, site, positions, self.recipe)
        self.positions = positions
        self.standing.resumed_at = sum(positions) // len(positions)

    async def take_up(self) -> bool:
        """Go on with the table that there is, whatever code filled it; False where there is none."""
        site, connection = self.site, self.connection
        async with connection.transaction():
            found, recipe, _ = await builds.standing_of(connection, site)
            cursor = await connection.execute("SELECT to_regclass(%s)", [site.shadow.place.as_string(connection)])
            if not found or await cursor.fetchone() == (None,):
                return False
        self.recipe = recipe
        self.positions = found
        self.lane.stand(found[0])
        self.standing.resumed_at = sum(found) // len(found)
        return True

    async def reach(self, target: int) -> None:
        """Take in the log up to a position, by as many processes as that is worth; what is there already stays."""
        positions, lane, tell = self.positions, self.lane, self.standing.tell
        if len(positions) == 1:
            lanes = self._lanes(target - positions[0])
            if lanes > 1:
                positions = [positions[0]] * lanes
                await builds.stands(self.connection, self.site, positions, self.recipe)
        target = max(target, *positions)
        if len(positions) > 1:
            await reach_in_lanes(self.site, lane, positions, target, lambda now: tell(sum(now) // len(now), target))
            await builds.join(self.connection, self.site, [target] * len(positions))
            positions = [target]
        lane.stand(positions[0])
        await lane.reach(target, lambda: tell(lane.position, target))
        self.positions = [lane.position]

    async def reference(self) -> Reference | None:
        """Tell what the build is to be compared with, as it stands; None where there is no other table."""
        view, schema = self.site.view, self.site.workspace.schema
        cursor = await self.connection.execute(
            SQL(_REFERENCE).format(schema=self._schema),
            {"name": view.name, "version": view.version, "check": self.site.place == "check", "in": schema},
        )
        row = await cursor.fetchone()
        return None if row is None else Reference(*row)

    async def compare(self) -> Comparison | None:
        """Compare with the live table, at its position; None where there is none, or the build is beyond it.

        The live projection is held still while the last events are taken in, and goes on while rows are compared.
        Raises NotComparable, RebuildStopped.
        """
        workspace, view = self.site.workspace, self.site.view
        self.standing.enter(Phase.CATCHING_UP)
        for _ in range(ATTEMPTS):
            while (reference := await self.reference()) is not None and self._far_from(reference):
                await self.reach(reference.reachable)
            if reference is not None and reference.position > reference.head:
                message = f"{reference.table} stands at position {reference.position}, the log ends at {reference.head}"
                raise NotComparable(message)
            if reference is None or reference.position < self.lane.position:
                return None
            async with await workspace.database.connect(f"desk compare {view.name}") as looking:
                make_way_on_server(looking)
                await looking.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                async with looking.transaction():
                    try:
                        position = await self._hold_still(reference, looking)
                    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                        position = None
                    if position is not None:
                        self.standing.enter(Phase.COMPARING)
                        await self.connection.execute(SQL("ANALYZE {}").format(self.site.shadow.place))
                        return await compare(
                            looking, workspace.schema, reference.table, self.site.shadow.name, position=position
                        )
            await asyncio.sleep(0.1)
        message = f"the live {view.name} could not be held still to be compared with; another run goes on from there"
        raise RebuildStopped(message)

    def _far_from(self, reference: Reference) -> bool:
        return reference.reachable - self.lane.position > NEAR_EVENTS

    async def _hold_still(self, reference: Reference, looking: AsyncConnection[Any]) -> int | None:
        """Bring the build to where the live table stands, and let `looking` see both there; None: too far to hold it."""
        workspace = self.site.workspace
        async with workspace.database.pool.connection() as holding, holding.transaction():
            await holding.execute(SETTINGS)
            # The live projection's transactions update this row before they write rows: from here on these stand still.
            cursor = await holding.execute(
                SQL(_HOLD).format(schema=self._schema), (self.site.view.name, reference.version)
            )
            row = await cursor.fetchone()
            if row is None:
                raise ViewsNotReady(self.site.view.name)
            held = reference._replace(position=row[0])
            if self._far_from(held) or held.position < self.lane.position:
                return None
            await self.lane.reach(held.position, lambda: None)
            self.positions = [self.lane.position]
            await looking.execute("SELECT")  # what it sees from now on is what is there now
        return held.position

    async def index(self) -> None:
        """Make the indexes, all or none, unless a killed run already had."""
        shadow, connection = self.site.shadow, self.connection
        self.standing.enter(Phase.INDEXING)
        async with connection.transaction():
            cursor = await connection.execute(_INDEXES, (shadow.place.as_string(connection),))
            if await cursor.fetchone() == (1,):  # the key alone
                await shadow.create_indexes(connection)
        await connection.execute(SQL("ANALYZE {}").format(shadow.place))

    async def drop(self) -> None:
        """Throw the table away."""
        async with self.connection.transaction():
            await builds.stands(self.connection, self.site, None, None)
            await self.connection.execute(SQL("DROP TABLE IF EXISTS {}").format(self.site.shadow.place))

    def _places(self, found: Sequence[int]) -> list[int] | None:
        """Give the places from which lanes can go on with a build; None where it was divided otherwise than asked."""
        if len(set(found)) == 1:
            return [found[0]]
        asked = self._workers if self._workers is not None else len(found)
        return list(found) if asked == len(found) and can_fork() else None

    def _lanes(self, ahead: int) -> int:
        """Tell among how many processes to divide a number of events."""
        if not self.site.view.stream_local or not can_fork() or ahead <= 0:
            return 1
        if self._workers is not None:
            return max(self._workers, 1)
        return processors() if ahead >= WORTH_FORKING else 1


def recipe_of(view: View, skipped: Collection[int]) -> str:
    """Identify the code of a view and what it passes over: a build begun by another recipe is not gone on with."""
    return hashlib.sha256(f"{view.label}\n{view.table!r}\n{sorted(skipped)}\n{_code()}".encode()).hexdigest()


@cache
def _code() -> str:
    """Identify all code that a fold may call: views share some of it, and rules of the domain are applied by it."""
    digest = hashlib.sha256()
    for package in (domain, projections):
        directory = Path(package.__path__[0])
        for file in sorted(directory.rglob("*.py")):
            digest.update(f"{package.__name__}/{file.relative_to(directory).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


async def _traced(workspace: Workspace, failed: RebuildFailed) -> RebuildFailed:
    """Say also which release wrote the event, where that is what it failed at."""
    row = await workspace.log.row(failed.position)
    try:
        if row is not None:
            decode(row)
    except UnreadableEvent as error:
        writer = (await told_in_full(workspace, error)).removeprefix(str(error))
        return RebuildFailed(f"{failed}{writer}", failed.position, failed.topic)
    return failed


SETTINGS: Final = (
    f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL idle_in_transaction_session_timeout = '{STILL_TIMEOUT}'"
).encode()

# A check is of the view's own table and no other. Of older versions the newest is what people look at until now.
_REFERENCE = """
SELECT v.version, v.name || '_v' || v.version, v.position, v.state, v.owner,
       (SELECT coalesce(max(notification_id), 0) FROM {schema}.events)
FROM {schema}.views v
WHERE v.name = %(name)s AND (v.version = %(version)s OR NOT %(check)s)
  AND to_regclass(format('%%I.%%I', %(in)s::text, v.name || '_v' || v.version)) IS NOT NULL
ORDER BY v.version <> %(version)s, v.version > %(version)s, v.version DESC LIMIT 1
"""

_HOLD = "SELECT position FROM {schema}.views WHERE name = %s AND version = %s FOR UPDATE"

_INDEXES = "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass"
