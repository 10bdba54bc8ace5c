"""How fast live views take in a backlog, beside the library's ProjectionRunner and a bare COPY out."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from projections import bookkeeping
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from storage.database import Database
from storage.migrations import create_workspace
from storage.settings import Settings
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.rebuild import copied_out, memory_used, projected
from tests.benchmarks.seed import fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.view import View
    from storage.database import Workspace

EVENTS = 200_000
RUNNER_EVENTS = 5_000
VIEW = "ticket_queue"
ALL = "all"


async def main(settings: Settings, *, events: int = EVENTS, runner_events: int = RUNNER_EVENTS) -> dict[str, Any]:
    """Let the projection take in a backlog of seeded events; `ratio` is `ticket_queue`'s over the ProjectionRunner's.

    `ours_events_per_second` is with that view alone, as the runner has one; `all_views_events_per_second` with every view
    there is, in one process. Raises MeasurementError.
    """
    async with ground(settings) as place, await Database.open(place.settings) as database:
        await create_workspace(place.settings, ALL)
        workspace, other = await database.workspace(WORKSPACE), await database.workspace(ALL)
        say(f"catch-up: seeding {events:,} events, twice")
        for one in (workspace, other):
            await fill(place.settings, one, events)
        await place.checkpoint()
        async with memory_used() as used:
            ours = await _caught_up(workspace, [BY_NAME[VIEW]], events)
            every = await _caught_up(other, VIEWS, events)
        copied, _ = await copied_out(workspace, events)
        plain, last = await projected(place, runner_events)
    return {
        "benchmark": "catch_up",
        "ratio": round(ours / plain, 1),
        "ours_events_per_second": round(ours),
        "all_views_events_per_second": round(every),
        "plain_events_per_second": round(plain),
        "copy_out_rows_per_second": round(copied),
        "ratio_to_copy_out": round(ours / copied, 3),
        "memory_mebibytes": used(),
        "events": events,
        "plain_events": last,
        "server": place.durability,
    }


async def _caught_up(workspace: Workspace, views: Sequence[View], events: int) -> float:
    """Take the backlog into some views and check that they are there; gives events a second."""
    runner = Runner(workspace.database, views)
    started = time.perf_counter()
    await runner.catch_up(workspace)
    rate = events / (time.perf_counter() - started)
    await runner.release()
    say(f"catch-up: {', '.join(view.name for view in views)}: {rate:,.0f} events/s")
    for status in await bookkeeping.view_status(workspace, views):
        if status.position != events or status.state != bookkeeping.LIVE:
            message = f"{status.name} is {status.state} at {status.position} of {events}"
            raise MeasurementError(message)
    return rate


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
