"""How many commands a second one ticket takes from many people at once, none of whom is to see a conflict."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from storage.database import Database
from storage.settings import Settings
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, say
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
PLAIN_SETTINGS = (PlainSetting(1, 5), PlainSetting(1, 5, cache=True), PlainSetting(2, 5, cache=True))


async def main(
    settings: Settings,
    *,
    seconds: float = 10.0,
    warm_up_seconds: float = 3.0,
    concurrency: int = CONCURRENCY,
    workers: int = 2,
    plain_settings: Sequence[PlainSetting] = PLAIN_SETTINGS,
) -> dict[str, Any]:
    """Send replies, notes and tags to one ticket, without If-Match; `ratio` is ours over the plain service's best.

    The plain service's clients send again when it tells them of a conflict; ours must not have to.
    Raises MeasurementError.
    """
    async with ground(settings) as place:
        async with await Database.open(place.settings) as database:
            workspace = await database.workspace(WORKSPACE)
            people = await make_people(workspace)
            plan = plan_for(
                people, concurrency=concurrency, seconds=seconds, warm_up_seconds=warm_up_seconds, together=True
            )
            say(f"hot ticket: desk serve, {workers} worker(s), {concurrency} at once, {seconds:g} s")
            async with desk(place.settings, workers) as service:
                ours = await load(service, plan, place.cluster)
                await views_caught_up(workspace, ours.acknowledged)
            await require_exactly(place.settings.database_url or "", f"{workspace.schema}.events", ours.acknowledged)
        if ours.result["conflicts_told"]:
            message = f"{ours.result['conflicts_told']} clients were told of a conflict that we could have resolved"
            raise MeasurementError(message)
        say(f"hot ticket: {ours.per_second:,.0f}/s, {ours.result['milliseconds']}, no conflict told")
        by_setting: dict[str, Loaded] = {}
        for setting in plain_settings:
            say(f"hot ticket: the plain way, {setting.name}")
            by_setting[setting.name] = found = await measure_plain(place, setting, people, plan)
            say(f"hot ticket: {found.per_second:,.0f}/s, {found.result['conflicts_told']} conflicts told")
        best = max(by_setting.values(), key=lambda found: found.per_second)
    return {
        "benchmark": "hot_ticket",
        "ratio": round(ours.per_second / best.per_second, 2),
        "ours_per_second": ours.per_second,
        "ours_milliseconds": ours.result["milliseconds"],
        "ours_conflicts_told": 0,
        "ours_changed_nothing": ours.result["changed_nothing"],
        "ours_by_command": ours.result["by_command"],
        "ours_processor_seconds": ours.processor,
        "plain_per_second": best.per_second,
        "plain_milliseconds": best.result["milliseconds"],
        "plain_by_setting": {name: found.per_second for name, found in by_setting.items()},
        "plain_conflicts_told": {name: found.result["conflicts_told"] for name, found in by_setting.items()},
        "workers": workers,
        "concurrency": concurrency,
        "seconds": seconds,
        "server": place.durability,
    }


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
