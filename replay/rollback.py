"""Puts the table of a view that was live before a rebuild back, and keeps the one that was live until now."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg.sql import SQL, Identifier

from projections import bookkeeping
from projections.view import ViewError
from replay.building import Builder, recipe_of
from replay.builds import Progress, Standing
from replay.comparison import columns_of
from replay.rebuild_lane import Site
from replay.swapping import Swap

if TYPE_CHECKING:
    from collections.abc import Callable

    from projections.view import View
    from storage.database import Workspace


class NothingKept(ViewError):
    """There is no table that could be put back; the message says what there is instead."""


class RolledBack(NamedTuple):
    """What a rollback came to: the position that the view stands at, and that its table was kept at."""

    view: str
    version: int
    position: int
    kept_at: int
    other_code: bool
    """Whether the rows put back were folded by other code than that of this release, which goes on with them."""


async def roll_back(
    workspace: Workspace, view: View, progress: Callable[[Progress], None] = lambda _: None
) -> RolledBack:
    """Let the table that a rebuild replaced catch up, and put it in the live one's place, in one short transaction.

    The live table is kept in turn, so that a second rollback undoes the first. Killed at any point, it can be repeated.
    Raises NothingKept, RebuildRunning, RebuildFailed, RebuildStopped.
    """
    await bookkeeping.prepare(workspace, [])
    standing = Standing(progress)
    site = Site(workspace, view, bookkeeping.new_owner(), place="kept")
    async with Builder.opened(site, standing) as builder:
        if not await builder.take_up():
            message = await _what_there_is(builder)
            standing.fail(message)
            raise NothingKept(message)
        connection, names = builder.connection, view.table.names
        if sorted(await columns_of(connection, workspace.schema, site.shadow.name)) != sorted(names):
            message = (
                f"the table kept of {view.name} has other columns than this release writes;"
                " run the release that made it, and `desk views rollback` there"
            )
            standing.fail(message)
            raise NothingKept(message)
        other_code = builder.recipe != recipe_of(view, builder.lane.skipped)
        swap = Swap(builder, equal=False)
        await swap.approach()
        await swap.put_in_place()
        return RolledBack(view.name, view.version, builder.lane.position, standing.resumed_at, other_code)


async def _what_there_is(builder: Builder) -> str:
    view = builder.site.view
    cursor = await builder.connection.execute(
        SQL("SELECT version, position FROM {}.views WHERE name = %s AND version < %s ORDER BY version DESC").format(
            Identifier(builder.site.workspace.schema)
        ),
        (view.name, view.version),
    )
    older = await cursor.fetchone()
    if older is None:
        return f"nothing is kept of {view.name}: it was not rebuilt, or `desk views prune` dropped what was"
    return (
        f"nothing is kept of {view.name} version {view.version}. Version {older[0]} is still there, up to position"
        f" {older[1]}: to go back to it, run the release that has it, whose processes go on with it from there"
    )
