"""Tables of views beside the live ones: whose they are, how far they have come, and what became of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb

from replay.rebuild_lane import RebuildRunning, Site
from storage.ending import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime

    from psycopg import AsyncConnection

    from projections.view import View
    from storage.database import Workspace

LEASE_SECONDS: Final = 5.0  # how long a run that was killed keeps the next from going on
RENEW_SECONDS: Final = 1.0
NOTE_SECONDS: Final = 0.4  # between two notes of how far a run is; whoever watches sees it as late
PLACES: Final = ("build", "check", "kept", "live")


class Phase(StrEnum):
    """What a run is doing, or what became of it."""

    READING = "reading"
    INDEXING = "indexing"
    CATCHING_UP = "catching up"
    COMPARING = "comparing"
    SWAPPING = "swapping"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self in {Phase.DONE, Phase.FAILED, Phase.REFUSED}


class Progress(NamedTuple):
    """How far a run has come: events done of `total`, in all and per second of this run, and what it is doing."""

    done: int
    total: int
    rate: float
    seconds_left: float
    phase: Phase


class Run(NamedTuple):
    """The last run on a table, or the one under way.

    `running` is false for one that was killed as well; another then goes on with it.
    """

    view: str
    version: int
    phase: Phase
    running: bool
    done: int
    total: int
    rate: float
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    error: str | None
    report: dict[str, Any] | None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the log is read, at the rate so far; None where that is not known."""
        if self.phase.final or not self.running or not self.rate:
            return None
        return max(self.total - self.done, 0) / self.rate


@dataclass
class Standing:
    """How a run stands, as its owner knows it; noted in the database every now and then."""

    show: Callable[[Progress], None] = lambda _: None
    phase: Phase = Phase.READING
    done: int = 0
    total: int = 0
    rate: float = 0.0
    resumed_at: int = 0
    error: str | None = None
    report: Mapping[str, Any] | None = None
    _began: float = field(default_factory=time.perf_counter)

    def tell(self, done: int, total: int) -> None:
        """Say how many events are done of how many."""
        seconds = time.perf_counter() - self._began
        self.done, self.total = done, max(total, done)
        self.rate = max(done - self.resumed_at, 0) / seconds if seconds else 0.0
        left = max(total - done, 0) / self.rate if self.rate else 0.0
        self.show(Progress(self.done, self.total, self.rate, left, self.phase))

    def fail(self, error: str) -> None:
        """Note what went wrong."""
        self.phase, self.error = Phase.FAILED, error

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.tell(self.done, self.total)


@asynccontextmanager
async def claimed(site: Site, standing: Standing) -> AsyncIterator[None]:
    """Keep others from the view's tables; a run that was killed keeps us away until its lease has run out.

    Phase, progress, error and report in `standing` are noted while it lasts and at its end. Raises RebuildRunning.
    """
    pool, us = site.workspace.database.pool, _us(site)
    seen = None
    while True:
        async with pool.connection() as connection, connection.transaction():
            await _ensure(connection, site.workspace, site.view)
            held = await _held(connection, site)
            if held is None:
                await connection.execute(_sql(_CLAIM, site.workspace), {**us, "lease": LEASE_SECONDS})
                break
        if seen is not None and held != seen:
            message = f"{site.view.name} is being {_DOING[held[0]]} by {held[1]}"
            raise RebuildRunning(message)
        seen = held
        await asyncio.sleep(RENEW_SECONDS / 2)

    async def note() -> None:
        async with pool.connection() as connection:
            await connection.execute(
                _sql(_NOTE, site.workspace),
                {
                    **us,
                    "lease": LEASE_SECONDS,
                    "phase": standing.phase,
                    "done": standing.done,
                    "target": standing.total,
                    "rate": standing.rate,
                    "error": standing.error,
                    "report": None if standing.report is None else Jsonb(standing.report),
                    "final": standing.phase.final,
                },
            )

    async def keep_noting() -> None:
        while True:
            await asyncio.sleep(min(NOTE_SECONDS, RENEW_SECONDS))
            with suppress(psycopg.Error):
                await note()

    noting = asyncio.create_task(keep_noting(), name=f"rebuild {site.view.name}")
    try:
        yield
    finally:
        await end(noting)
        with suppress(psycopg.Error):
            await note()
            await release(site)


async def release(site: Site) -> None:
    """Let others have the table at once."""
    async with site.workspace.database.pool.connection() as connection:
        await connection.execute(_sql(_RELEASE, site.workspace), _us(site))


async def standing_of(
    connection: AsyncConnection[Any], site: Site
) -> tuple[list[int] | None, str | None, Mapping[str, Any] | None]:
    """Give where the lanes of a table stand, by which recipe, and a report of it, and lock that.

    Raises RebuildRunning when it is not ours.
    """
    cursor = await connection.execute(_sql(_STANDING, site.workspace), _us(site))
    row = await cursor.fetchone()
    if row is None:
        raise site.taken_over
    return row[0], row[1], row[2]


async def stands(
    connection: AsyncConnection[Any], site: Site, positions: Sequence[int] | None, recipe: str | None
) -> None:
    """Note where the lanes of a table stand; None when there is no table any more. Raises RebuildRunning.

    A table at its beginning has no report yet.
    """
    cursor = await connection.execute(
        _sql(_STANDS, site.workspace),
        {
            **_us(site),
            "positions": None if positions is None else list(positions),
            "recipe": recipe,
            "new": positions is not None and not any(positions),
        },
    )
    if cursor.rowcount != 1:
        raise site.taken_over


async def join(connection: AsyncConnection[Any], site: Site, positions: Sequence[int]) -> None:
    """Make one lane of those that stand at the same position. Raises RebuildRunning."""
    cursor = await connection.execute(_sql(_JOIN, site.workspace), {**_us(site), "positions": list(positions)})
    if cursor.rowcount != 1:
        raise site.taken_over


async def exchanged(
    connection: AsyncConnection[Any], site: Site, recipe: str | None, live_position: int | None
) -> None:
    """Note that a table has been put in the live one's place, which stood at `live_position` and is kept."""
    parameters = {**_us(site), "recipe": recipe, "kept": None if live_position is None else [live_position]}
    if site.place != "kept":
        await connection.execute(_sql(_EMPTIED, site.workspace), parameters)
    await connection.execute(_sql(_KEPT, site.workspace), parameters)
    await connection.execute(_sql(_LIVE, site.workspace), parameters)


async def under_way(connection: AsyncConnection[Any], workspace: Workspace, view: View) -> tuple[str, str] | None:
    """Tell which table of a view is worked on and by whom; until the transaction ends, nobody else begins to."""
    await _ensure(connection, workspace, view)
    cursor = await connection.execute(_sql(_HELD, workspace), {"name": view.name, "version": view.version})
    return next(((place, owner) for place, owner, _, held in await cursor.fetchall() if held), None)


async def last_run(workspace: Workspace, view: View, place: str = "build") -> Run | None:
    """Give the run on a table that is under way, or else the last one; None where there never was one."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(_sql(_LAST, workspace), (view.name, view.version, place), prepare=True)
        row = await cursor.fetchone()
    return None if row is None else Run(view.name, view.version, Phase(row[0]), *row[1:])


async def _ensure(connection: AsyncConnection[Any], workspace: Workspace, view: View) -> None:
    await connection.execute(_sql(_ENSURE, workspace), (view.name, view.version, list(PLACES)))


async def _held(connection: AsyncConnection[Any], site: Site) -> tuple[Any, ...] | None:
    """Tell who keeps us away, and lock all rows of the view; a check keeps only checks away, and they only it."""
    cursor = await connection.execute(_sql(_HELD, site.workspace), _us(site))
    for place, owner, until, held in await cursor.fetchall():
        if held and (place == "check") == (site.place == "check"):
            return place, owner, until
    return None


def _us(site: Site) -> dict[str, Any]:
    return {"name": site.view.name, "version": site.view.version, "place": site.place, "owner": site.owner}


def _sql(statement: str, workspace: Workspace) -> Composed:
    return SQL(statement).format(schema=Identifier(workspace.schema))


_DOING: Final = {"build": "rebuilt", "kept": "rolled back", "check": "verified"}

_ENSURE = """
INSERT INTO {schema}.view_builds (name, version, place) SELECT %s, %s, place FROM unnest(%s::text[]) place
ON CONFLICT DO NOTHING
"""

# In one order, so that two that claim at once wait for one another and do not deadlock.
_HELD = """
SELECT place, owner, leased_until, coalesce(owner IS NOT NULL AND leased_until >= now(), false)
FROM {schema}.view_builds WHERE name = %(name)s AND version = %(version)s ORDER BY place FOR UPDATE
"""

_CLAIM = """
UPDATE {schema}.view_builds
SET owner = %(owner)s, leased_until = now() + %(lease)s * interval '1 second', phase = 'reading', done = 0, target = 0,
    rate = 0, started_at = now(), updated_at = now(), finished_at = NULL, error = NULL
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s
"""

_NOTE = """
UPDATE {schema}.view_builds
SET leased_until = now() + %(lease)s * interval '1 second', phase = %(phase)s, done = %(done)s, target = %(target)s,
    rate = %(rate)s, error = %(error)s, report = coalesce(%(report)s, report), updated_at = now(),
    finished_at = CASE WHEN %(final)s THEN coalesce(finished_at, now()) END
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s AND owner = %(owner)s
"""

_RELEASE = """
UPDATE {schema}.view_builds SET owner = NULL, leased_until = NULL
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s AND owner = %(owner)s
"""

_STANDING = """
SELECT positions, recipe, report FROM {schema}.view_builds
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s AND owner = %(owner)s FOR UPDATE
"""

_STANDS = """
UPDATE {schema}.view_builds SET positions = %(positions)s, recipe = %(recipe)s, report = CASE WHEN NOT %(new)s THEN report END
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s AND owner = %(owner)s
"""

_JOIN = """
UPDATE {schema}.view_builds SET positions = positions[1:1]
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s AND owner = %(owner)s
  AND positions = %(positions)s::bigint[]
"""

_EMPTIED = """
UPDATE {schema}.view_builds SET positions = NULL, recipe = NULL, phase = 'done', finished_at = now()
WHERE name = %(name)s AND version = %(version)s AND place = %(place)s
"""

_KEPT = """
UPDATE {schema}.view_builds k SET positions = %(kept)s, recipe = l.recipe, phase = 'done', finished_at = now()
FROM {schema}.view_builds l
WHERE l.name = k.name AND l.version = k.version AND l.place = 'live'
  AND k.name = %(name)s AND k.version = %(version)s AND k.place = 'kept'
"""

_LIVE = """
UPDATE {schema}.view_builds SET recipe = %(recipe)s
WHERE name = %(name)s AND version = %(version)s AND place = 'live'
"""

_LAST = """
SELECT phase, coalesce(owner IS NOT NULL AND leased_until >= now(), false), done, target, rate, started_at, updated_at,
       finished_at, error, report
FROM {schema}.view_builds WHERE name = %s AND version = %s AND place = %s AND phase IS NOT NULL
"""
