"""How many commands a second the desk carries out over HTTP, beside the same desk built the plain way."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from projections.registry import VIEWS
from storage.database import Database
from storage.settings import Settings
from tests.benchmarks.ground import WORKSPACE, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.sides import (
    Loaded,
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
    from collections.abc import Sequence

CONCURRENCY = 64
PLAIN_SETTINGS = (PlainSetting(1, 5), PlainSetting(1, 20), PlainSetting(2, 5), PlainSetting(2, 20))
"""Worker processes and connections of each for the yardstick; the best of them counts."""
SHARED_TICKETS = 8
SHARED_ONE_IN = 50  # so that commands on one ticket meet now and then, and conflicts are retried on both sides


async def main(
    settings: Settings,
    *,
    seconds: float = 10.0,
    warm_up_seconds: float = 3.0,
    concurrency: int = CONCURRENCY,
    workers: int = 2,
    plain_settings: Sequence[PlainSetting] = PLAIN_SETTINGS,
) -> dict[str, Any]:
    """Drive the real server and the plain one with the same commands; `ratio` is ours over the plain one's best.

    All views are live meanwhile and must have caught up at the end. Every answer is checked as it comes, and
    afterwards the log must hold what was acknowledged and nothing else. Raises MeasurementError.
    """
    async with ground(settings) as place:
        async with await Database.open(place.settings) as database:
            workspace = await database.workspace(WORKSPACE)
            people = await make_people(workspace)
            plan = plan_for(
                people, concurrency=concurrency, seconds=seconds, warm_up_seconds=warm_up_seconds,
                shared_tickets=SHARED_TICKETS, shared_one_in=SHARED_ONE_IN,
            )  # fmt: skip
            say(f"commands: desk serve, {workers} worker(s), {concurrency} at once, {seconds:g} s")
            async with desk(place.settings, workers) as service:
                ours = await load(service, plan, place.cluster)
                say(f"commands: {ours.per_second:,.0f}/s, {ours.result['milliseconds']}; waiting for the views")
                caught_up = await views_caught_up(workspace, ours.acknowledged)
            await require_exactly(place.settings.database_url or "", f"{workspace.schema}.events", ours.acknowledged)
        by_setting: dict[str, Loaded] = {}
        for setting in plain_settings:
            say(f"commands: the plain way, {setting.workers} worker(s), pool of {setting.pool}")
            by_setting[setting.name] = found = await measure_plain(place, setting, people, plan)
            say(f"commands: {found.per_second:,.0f}/s, {found.result['milliseconds']}")
        best = max(by_setting.values(), key=lambda found: found.per_second)
        return {
            "benchmark": "commands",
            "ratio": round(ours.per_second / best.per_second, 2),
            "ours_per_second": ours.per_second,
            "ours_milliseconds": ours.result["milliseconds"],
            "ours_by_command": ours.result["by_command"],
            "ours_processor_seconds": ours.processor,
            "plain_per_second": best.per_second,
            "plain_milliseconds": best.result["milliseconds"],
            "plain_by_setting": {name: found.per_second for name, found in by_setting.items()},
            "plain_processor_seconds": {name: found.processor for name, found in by_setting.items()},
            "views_behind_seconds": round(caught_up, 3),
            "views": [view.name for view in VIEWS],
            "workers": workers,
            "concurrency": concurrency,
            "seconds": seconds,
            "server": place.durability,
        }


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
