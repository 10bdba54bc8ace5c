"""How soon commands are answered, and seen in the queue, when so many come a second whatever becomes of the others."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from projections.ticket_queue import VIEW as TICKET_QUEUE
from storage.database import Database
from storage.settings import Settings
from tests.benchmarks import pgbench
from tests.benchmarks.checkpoint_watch import CheckpointWatch
from tests.benchmarks.commands import SHARED_ONE_IN, SHARED_TICKETS
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.ground import WORKSPACE, Ground, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.sides import (
    Loaded,
    People,
    PlainSetting,
    desk,
    load,
    make_people,
    measure_plain,
    plan_for,
    require_exactly,
    views_caught_up,
)

if TYPE_CHECKING:
    from tests.benchmarks.client import Plan

RATE = 1_000.0  # commands a second
CONNECTIONS = 256  # enough for a quarter of a second's commands to be under way at once
PLAIN_RATE = 200.0  # a second, which the plain service can hold on two cores
PLAIN_SETTING = PlainSetting(1, 5)
PGBENCH_CLIENTS = 16
LOOKS_PER_SECOND = 10.0


async def main(
    settings: Settings,
    *,
    rate: float = RATE,
    seconds: float = 20.0,
    warm_up_seconds: float = 3.0,
    connections: int = CONNECTIONS,
    workers: int = 2,
    plain_rate: float = PLAIN_RATE,
) -> dict[str, Any]:
    """Send commands by a timetable of `rate` a second to the desk, and by two timetables to the plain service.

    `ratio` is the plain service's p99 at `plain_rate`, which it can hold, over ours at `rate`: how many times sooner
    we answer. At `rate` itself it is told how many a second the plain service answered. Raises MeasurementError.
    """
    async with ground(settings) as place:
        async with await Database.open(place.settings) as database:
            workspace = await database.workspace(WORKSPACE)
            people = await make_people(workspace)
            plan = plan_for(
                people, concurrency=connections, seconds=seconds, warm_up_seconds=warm_up_seconds, rate=rate,
                shared_tickets=SHARED_TICKETS, shared_one_in=SHARED_ONE_IN,
            )  # fmt: skip
            say(f"commands: desk serve, {workers} worker(s), {rate:g} commands due a second, {seconds:g} s")
            address = place.settings.database_url or ""
            watch = CheckpointWatch(address, workspace.schema, TICKET_QUEUE)
            async with desk(place.settings, workers) as service:
                await views_caught_up(workspace, [])
                with watch:
                    ours = await load(service, replace(plan, looks_per_second=LOOKS_PER_SECOND), place.cluster)
                    await views_caught_up(workspace, ours.acknowledged)
            await require_exactly(address, f"{workspace.schema}.events", ours.acknowledged)
        # As with the answers, what warms the services up is not counted.
        warm_at = min(one.at for one in ours.acknowledged) + warm_up_seconds
        visible = milliseconds(watch.behind([one for one in ours.acknowledged if one.at >= warm_at]))
        say(f"commands: answered in {ours.result['milliseconds']}, in the queue {visible} after that")
        plain = await _plain(place, people, replace(plan, rate=plain_rate))
        plain_at_rate = await _plain(place, people, plan)
        await place.checkpoint()
        say(f"commands: pgbench, {rate:g} single rows due a second")
        bare = await asyncio.to_thread(pgbench.paced, await place.database(), seconds, PGBENCH_CLIENTS, rate)
        say(f"commands: {bare}")
    return {
        "benchmark": "commands_paced",
        "ratio": round(plain.result["milliseconds"]["p99"] / ours.result["milliseconds"]["p99"], 2),
        "ours_milliseconds": ours.result["milliseconds"],
        "ours_visible_milliseconds": visible,
        "ours_read_back_milliseconds": ours.result["timetable"]["read_back_milliseconds"],
        "ours_answered_per_second": ours.per_second,
        "ours_timetable": ours.result["timetable"],
        "ours_processor_seconds": ours.processor,
        "plain_rate": plain_rate,
        "plain_milliseconds": plain.result["milliseconds"],
        "plain_answered_per_second": plain.per_second,
        "plain_at_rate_milliseconds": plain_at_rate.result["milliseconds"],
        "plain_at_rate_answered_per_second": plain_at_rate.per_second,
        "pgbench_milliseconds": bare,
        "rate": rate,
        "connections": connections,
        "workers": workers,
        "seconds": seconds,
        "server": place.durability,
    }


async def _plain(place: Ground, people: People, plan: Plan) -> Loaded:
    say(f"commands: the plain way, {PLAIN_SETTING.workers} worker, {plan.rate:g} commands due a second")
    found = await measure_plain(place, PLAIN_SETTING, people, plan)
    say(f"commands: {found.per_second:,.0f}/s, {found.result['milliseconds']}")
    return found


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
