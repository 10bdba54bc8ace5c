"""Whether a live view is what the log makes of it: folded afresh, and compared at the position it stands at."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from projections import bookkeeping
from projections.bookkeeping import ViewsNotReady
from replay.building import Builder
from replay.builds import Phase, Progress, Standing
from replay.rebuild_lane import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from projections.view import View
    from replay.comparison import Comparison
    from storage.database import Workspace


async def verify_view(
    workspace: Workspace,
    view: View,
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    workers: int | None = None,
) -> Comparison:
    """Fold the log into a table of its own up to where the view stands, compare the two, and drop it.

    The view is read and goes on throughout. In the comparison, the live table is the old one. Raises ViewsNotReady,
    NotComparable, RebuildRunning when another verification of the view is under way, RebuildFailed, RebuildStopped.
    """
    await bookkeeping.prepare(workspace, [])
    standing = Standing(progress)
    site = Site(workspace, view, bookkeeping.new_owner(), place="check")
    async with Builder.opened(site, standing, workers) as builder:
        reference = await builder.reference()
        if reference is None:
            raise ViewsNotReady(view.name)
        try:
            await builder.begin(anew=True)
            await builder.reach(reference.reachable)
            comparison = await builder.compare()
            if comparison is None:
                # Somebody put another table in place that stands behind: the one that was begun with is gone.
                raise site.taken_over
        finally:
            with suppress(psycopg.Error):
                await builder.drop()
        standing.report = {"comparison": comparison.as_json()}
        standing.phase = Phase.DONE
        return comparison
