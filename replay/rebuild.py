"""Builds a view again from the log, beside the live one, compares the two, and puts it in the live one's place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from projections import bookkeeping
from projections.view import ViewError
from replay.building import Builder
from replay.builds import Phase, Progress, Standing
from replay.comparison import Comparison, NotComparable, columns_of
from replay.rebuild_lane import RebuildFailed, RebuildRunning, Site
from replay.rebuild_workers import RebuildStopped
from replay.swapping import Swap, drop_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from projections.table import Shelf
    from projections.view import View
    from storage.database import Workspace

__all__ = [
    "Progress",
    "RebuildFailed",
    "RebuildRefused",
    "RebuildRunning",
    "RebuildStopped",
    "Report",
    "UnknownColumns",
    "rebuild",
]


@dataclass(frozen=True)
class Report:
    """What a rebuild came to. `resumed_at` is where an earlier, killed run had come to (0: this run began anew).

    `comparison` is None where there was no other table to compare with, or none with the same key (`note` says so).
    """

    view: str
    version: int
    position: int
    resumed_at: int
    rows: int
    seconds: float
    rate: float
    """Events a second, waiting and the making of indexes included."""
    swapped: bool
    comparison: Comparison | None
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Give it for a machine."""
        return {
            **{name: value for name, value in self.__dict__.items() if name != "comparison"},
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate),
            "comparison": None if self.comparison is None else self.comparison.as_json(),
        }


class UnknownColumns(ViewError):
    """Columns were named that neither the view nor the table it is compared with has."""


class RebuildRefused(ViewError):
    """The table built differs from the live one otherwise than was allowed; it was dropped, and nothing has changed."""

    def __init__(self, view: View, differences: list[str], report: Report) -> None:
        super().__init__(f"{view.name} was not put in place: {'; '.join(differences)}")
        self.differences = differences
        self.report = report


async def rebuild(
    workspace: Workspace,
    view: View,
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    workers: int | None = None,
    dry_run: bool = False,
    expected: Collection[str] | None = None,
) -> Report:
    """Fold the whole log into a new table, compare it, and put it in the place of the view's in a short transaction.

    The live view is read and goes on throughout, and is kept afterwards for going back. Where this version of the view
    is not live yet, an older one is what is compared with and goes on serving processes of older releases. A run that
    was killed is gone on with, unless the view's code has changed since. `expected` names the columns that may differ,
    of none where it is empty; None lets anything. `dry_run` drops what was built once it is compared. Raises
    RebuildRefused, RebuildRunning, RebuildFailed, RebuildStopped.
    """
    began = time.perf_counter()
    await bookkeeping.prepare(workspace, [view])
    standing = Standing(progress)
    async with Builder.opened(Site(workspace, view, bookkeeping.new_owner()), standing, workers) as builder:
        await drop_leftovers(builder.connection, workspace, view)
        await _check_names(builder, expected)
        await builder.begin()
        comparison, note = await _compared(builder)

        async def report(*, swapped: bool) -> Report:
            rows = await _count(builder, view.shelf(workspace.schema) if swapped else builder.site.shadow)
            seconds = time.perf_counter() - began
            position = builder.lane.position
            told = Report(
                view=view.name,
                version=view.version,
                position=position,
                resumed_at=standing.resumed_at,
                rows=rows,
                seconds=seconds,
                rate=max(position - standing.resumed_at, 0) / seconds,
                swapped=swapped,
                comparison=comparison,
                note=note,
            )
            standing.report = told.as_json()
            return told

        # Noted before the swap, so that a run that goes on with a killed one knows it, whose table may have gone further.
        compared = await report(swapped=False)
        differences = _unexpected(view, comparison, note, expected)
        if differences:
            await builder.drop()
            refused = RebuildRefused(view, differences, compared)
            standing.phase, standing.error = Phase.REFUSED, str(refused)
            raise refused
        if dry_run:
            await builder.drop()
            standing.phase = Phase.DONE
            return compared
        swap = Swap(builder, equal=comparison is not None and comparison.same)
        standing.enter(Phase.READING)
        await swap.approach()
        await builder.index()
        await swap.put_in_place()
        return await report(swapped=True)


async def _check_names(builder: Builder, expected: Collection[str] | None) -> None:
    known = set(builder.site.view.table.names)
    reference = await builder.reference()
    if reference is not None:
        known |= set(await columns_of(builder.connection, builder.site.workspace.schema, reference.table))
    unknown = sorted(set(expected or ()) - known)
    if unknown:
        message = f"{builder.site.view.name} has no column {', '.join(unknown)}"
        raise UnknownColumns(message)


async def _compared(builder: Builder) -> tuple[Comparison | None, str | None]:
    """Read the log as far as the live table has and compare with that, or say why that cannot be."""
    reference = await builder.reference()
    if reference is None:
        return None, "there was no table to compare with"
    await builder.reach(reference.reachable)
    try:
        comparison = await builder.compare()
    except NotComparable as error:
        return None, f"the two were not compared: {error}"
    if comparison is not None:
        return comparison, None
    told = builder.standing.report or {}
    before = told.get("comparison")
    return (None if before is None else Comparison.from_json(before)), told.get("note")


def _unexpected(
    view: View, comparison: Comparison | None, note: str | None, expected: Collection[str] | None
) -> list[str]:
    if expected is None:
        return []
    if comparison is None:
        return [note or f"{view.name} was not compared"]
    return comparison.unexpected(expected)


async def _count(builder: Builder, shelf: Shelf) -> int:
    cursor = await builder.connection.execute(SQL("SELECT count(*) FROM {}").format(shelf.place))
    row = await cursor.fetchone()
    return row[0] if row is not None else 0
