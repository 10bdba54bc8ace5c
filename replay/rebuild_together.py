"""Builds several views again while the log is read and decoded once for all of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from projections import bookkeeping
from projections.extract import Extract
from replay import builds
from replay.building import Builder
from replay.builds import Standing
from replay.rebuild import rebuild
from replay.rebuild_lane import Lane, RebuildFailed, Site, read_ahead, stretch
from replay.rebuild_workers import can_fork, processors, side_by_side
from storage.codec import UnreadableEvent
from storage.log_reader import Cut

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from projections.view import View
    from replay.builds import Progress
    from replay.held_rows import Stretch
    from replay.rebuild import Report
    from storage.database import Workspace

AT_ONCE: Final = 2  # tables whose indexes are made, and that are compared and put in place


class _Part(NamedTuple):
    """A table that is filled with others: from where each lane goes on, and how far."""

    site: Site
    positions: Sequence[int]
    target: int


async def rebuild_together(
    workspace: Workspace,
    views: Sequence[View],
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    workers: int | None = None,
    dry_run: bool = False,
    expected: Collection[str] | None = None,
    tell: Callable[[Report], None] = lambda _: None,
) -> list[Report]:
    """Rebuild views as `rebuild` does each, and fill their tables as far as the live ones are in one go through the log.

    `progress` is of the go through the log, `tell` gets each report when there is one. A view that fails or is refused
    holds no other up: when all others are in place, why is raised. Killed at any point, another run goes on with each of
    them, this or `rebuild`. Raises as `rebuild`.
    """
    await bookkeeping.prepare(workspace, views)
    with suppress(RebuildFailed):  # said below, by the view that it concerns: the others go on each by itself
        await _fill(workspace, views, progress, workers or (processors() if can_fork() else 1))
    gate = asyncio.Semaphore(AT_ONCE)

    async def finished(view: View) -> Report:
        async with gate:
            report = await rebuild(workspace, view, workers=workers, dry_run=dry_run, expected=expected)
        tell(report)
        return report

    outcomes = await asyncio.gather(*map(finished, views), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


async def _fill(workspace: Workspace, views: Sequence[View], progress: Callable[[Progress], None], count: int) -> None:
    """Bring the tables of views to where the live ones are, but those that have to be filled by themselves."""
    standing = Standing(progress)
    async with AsyncExitStack() as stack:
        builders = []
        parts = []
        for view in views:
            site = Site(workspace, view, bookkeeping.new_owner())
            builder = await stack.enter_async_context(Builder.opened(site, Standing(), count))
            await builder.begin()
            target = await _target(workspace, builder)
            positions = builder.positions if len(builder.positions) > 1 else list(builder.positions) * count
            # What one passes over the others do not, and what depends on several streams is not divided.
            alone = builder.lane.skipped or not (view.stream_local or count == 1) or len(positions) != count
            if not alone and min(positions) < target >= max(positions):
                await builds.stands(builder.connection, site, positions, builder.recipe)
                builders.append(builder)
                parts.append(_Part(site, positions, target))
        if not parts:
            return
        begun = [min(part.positions[number] for part in parts) for number in range(count)]
        standing.resumed_at = sum(begun) // count
        end = max(part.target for part in parts)

        async def lane(number: int, stands: Callable[[int], None]) -> None:
            async with AsyncExitStack() as opened:
                lanes = [builder.lane for builder in builders]
                if number:
                    lanes = [await opened.enter_async_context(Lane.opened(part.site)) for part in parts]
                await _take(lanes, parts, number, stands)

        def tell(now: Sequence[int]) -> None:
            standing.tell(sum(now) // count, end)
            for builder in builders:
                builder.standing.tell(sum(now) // count, end)

        await side_by_side(lane, begun, tell, doing="rebuilt part of several views")
        for builder, part in zip(builders, parts, strict=True):
            await builds.join(builder.connection, part.site, [part.target] * count)


async def _target(workspace: Workspace, builder: Builder) -> int:
    reference = await builder.reference()
    return (await workspace.log.head()).position if reference is None else reference.reachable


async def _take(lanes: Sequence[Lane], parts: Sequence[_Part], number: int, stands: Callable[[int], None]) -> None:
    """Take the log into one lane of each table. Raises RebuildFailed, RebuildRunning."""
    count = len(parts[0].positions)
    extract = Extract(*(part.site.view for part in parts))
    cut = Cut(number, count, extract.without, extract.bare)
    log, connection = parts[0].site.workspace.log, lanes[0].reading
    targets = sorted({part.target for part in parts})

    async def read(after: int) -> Stretch | None:
        upto = next((target for target in targets if target > after), after)
        return await stretch(log, connection, after, upto, cut)

    async def take(page: Stretch) -> None:
        try:
            page = page._replace(recorded=list(extract.recorded(page.rows)))
        except UnreadableEvent as error:
            raise RebuildFailed.at(error.row, parts[0].site.view, error) from error
        position = page.ceiling.position
        for lane, part in zip(lanes, parts, strict=True):
            if part.positions[number] < position <= part.target:
                await lane.take(lane.part_of(page), last=position == part.target)

    async with AsyncExitStack() as taking:
        for lane, part in zip(lanes, parts, strict=True):
            lane.stand(part.positions[number], number, count)
            await taking.enter_async_context(lane.taking(lambda: None, share=len(parts)))
        pages = await taking.enter_async_context(read_ahead(read, min(part.positions[number] for part in parts)))
        async for page in pages:
            await take(page)
            stands(page.ceiling.position)
