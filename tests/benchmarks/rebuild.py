"""How fast a view is built again from the log, beside the library's ProjectionRunner and a bare COPY out."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from replay.rebuild import rebuild
from replay.rebuild_together import rebuild_together
from storage.database import Database
from storage.ending import end
from storage.migrations import create_workspace
from storage.settings import Settings
from tests.benchmarks import plain_projection, processes
from tests.benchmarks.ground import WORKSPACE, Ground, MeasurementError, ground, library_environment, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.seed import fill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from replay.rebuild import Progress
    from storage.database import Workspace

EVENTS = 200_000
RUNNER_EVENTS = 5_000
RUNS = 2  # the first also warms the server's memory; the better one counts, for the yardstick as well
VIEW = "ticket_queue"
SMALL = "small"
PART = 10  # memory is looked at over a log of a tenth of the events, too
LOOK_SECONDS = 0.2


async def main(
    settings: Settings,
    *,
    events: int = EVENTS,
    runner_events: int = RUNNER_EVENTS,
    view: str = VIEW,
    runs: int = RUNS,
    every: bool = False,
) -> dict[str, Any]:
    """Rebuild a view over seeded events; `ratio` is our events a second over the ProjectionRunner's.

    With `every`, all views together, which are caught up with the log first, as they are on a desk. The runner works on
    fewer events, as its cost is per event. `memory_mebibytes` is the most that all processes of a rebuild had at once,
    what they share counted once, `memory_growth` that over the same with a tenth of the events. Raises MeasurementError.
    """
    if every:
        return await _every_view(settings, events=events, runner_events=runner_events, runs=runs)
    async with ground(settings) as place, await Database.open(place.settings) as database:
        await create_workspace(place.settings, SMALL)
        small, workspace = await database.workspace(SMALL), await database.workspace(WORKSPACE)
        say(f"rebuild: seeding {events:,} events")
        await fill(place.settings, small, max(events // PART, 1))
        await fill(place.settings, workspace, events)
        await place.checkpoint()
        async with memory_used() as used:
            await _rebuilt(small, view, max(events // PART, 1))
        few = used()
        async with memory_used() as used:
            ours = max([await _rebuilt(workspace, view, events) for _ in range(runs)])
        copied, mebibytes = await copied_out(workspace, events)
        say(f"rebuild: binary COPY out {copied:,.0f} rows/s; the library's runner over {runner_events:,} events")
        plain, last = max([await projected(place, runner_events) for _ in range(runs)])
        say(f"rebuild: {plain:,.0f} events/s")
    return {
        "benchmark": "rebuild",
        "ratio": round(ours / plain, 1),
        "ours_events_per_second": round(ours),
        "plain_events_per_second": round(plain),
        "copy_out_rows_per_second": round(copied),
        "ratio_to_copy_out": round(ours / copied, 3),
        "memory_mebibytes": used(),
        "memory_growth": round(used() / few, 3) if few else None,
        "view": view,
        "events": events,
        "mebibytes": round(mebibytes, 1),
        "plain_events": last,
        "server": place.durability,
    }


async def _every_view(settings: Settings, *, events: int, runner_events: int, runs: int) -> dict[str, Any]:
    async with ground(settings) as place, await Database.open(place.settings) as database:
        workspace = await database.workspace(WORKSPACE)
        say(f"rebuild: seeding {events:,} events")
        await fill(place.settings, workspace, events)
        await place.checkpoint()
        runner = Runner(database, VIEWS)
        await runner.catch_up(workspace)
        await runner.release()
        await place.checkpoint()
        best = 0.0
        async with memory_used() as used:
            for _ in range(runs):
                started = time.perf_counter()
                reports = await rebuild_together(workspace, VIEWS)
                rate = events / (time.perf_counter() - started)
                if any(report.position != events for report in reports):
                    message = f"views stand at {[(report.view, report.position) for report in reports]}"
                    raise MeasurementError(message)
                say(f"rebuild: {len(VIEWS)} views from {events:,} events, {rate:,.0f}/s")
                best = max(best, rate)
        copied, mebibytes = await copied_out(workspace, events)
        plain, last = max([await projected(place, runner_events) for _ in range(runs)])
    return {
        "benchmark": "rebuild_all",
        "ratio": round(best / plain, 1),
        "ours_events_per_second": round(best),
        "plain_events_per_second": round(plain),
        "copy_out_rows_per_second": round(copied),
        "ratio_to_copy_out": round(best / copied, 3),
        "memory_mebibytes": used(),
        "views": {report.view: report.rows for report in reports},
        "events": events,
        "mebibytes": round(mebibytes, 1),
        "plain_events": last,
        "server": place.durability,
    }


@asynccontextmanager
async def memory_used() -> AsyncIterator[Callable[[], float]]:
    """Look at the memory of this process and all that it starts; gives the most there was so far, in MiB."""
    most = 0.0

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, await asyncio.to_thread(processes.proportional, os.getpid()))
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield lambda: round(most, 1)
        most = max(most, processes.proportional(os.getpid()))
    finally:
        await end(looking)


async def _rebuilt(workspace: Workspace, view: str, events: int) -> float:
    """Rebuild once and check what came of it; gives events a second, indexes and swap included."""
    said = time.perf_counter()

    def tell(progress: Progress) -> None:
        nonlocal said
        if time.perf_counter() - said > 1:
            said = time.perf_counter()
            say(f"rebuild: {progress.done:,} of {progress.total:,} events, {progress.rate:,.0f}/s")

    started = time.perf_counter()
    report = await rebuild(workspace, BY_NAME[view], tell)
    seconds = time.perf_counter() - started
    say(f"rebuild: {report.rows:,} rows of {view} from {events:,} events in {seconds:.2f} s, {events / seconds:,.0f}/s")
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            f"SELECT count(*) FROM {workspace.schema}.events WHERE topic = 'ticket.opened'".encode()
        )
        row = await cursor.fetchone()
    tickets = row[0] if row is not None else 0
    if report.position != events or (view == VIEW and report.rows != tickets):
        message = f"{view} has {report.rows} rows at position {report.position}; the log {tickets} tickets at {events}"
        raise MeasurementError(message)
    return events / seconds


async def projected(place: Ground, events: int) -> tuple[float, int]:
    """Let the library's runner build its view of `events` events or a few more; gives events a second and how many."""
    environment = library_environment(await place.database(), pool_size=5)
    last = await asyncio.to_thread(plain_projection.fill, environment, events)
    await place.checkpoint()
    return await asyncio.to_thread(plain_projection.run, environment, last), last


async def copied_out(workspace: Workspace, events: int) -> tuple[float, float]:
    """Read the same rows with a binary COPY and do nothing with them; gives rows a second and MiB in all."""
    started = time.perf_counter()
    size = 0
    async with workspace.database.pool.connection() as connection, connection.cursor() as cursor:
        statement = f"COPY (SELECT * FROM {workspace.schema}.events ORDER BY notification_id) TO STDOUT (FORMAT binary)"
        async with cursor.copy(statement.encode()) as copy:
            async for block in copy:
                size += len(block)
    return events / (time.perf_counter() - started), size / 2**20


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
