"""How much memory a worker of the API needs as commands go by, over more tickets than it may keep."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from storage.database import Database
from storage.settings import Settings
from tests.benchmarks import processes
from tests.benchmarks.commands import CONCURRENCY, SHARED_ONE_IN, SHARED_TICKETS
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.sides import (
    PlainSetting,
    Service,
    desk,
    load,
    make_people,
    plain_service,
    plan_for,
    require_exactly,
    views_caught_up,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

COMMANDS = 1_000_000
PLAIN_COMMANDS = 20_000
PLAIN_SETTING = PlainSetting(1, 5)
SAMPLES = 10
LOOK_SECONDS = 0.2


async def main(
    settings: Settings,
    *,
    commands: int = COMMANDS,
    plain_commands: int = PLAIN_COMMANDS,
    concurrency: int = CONCURRENCY,
    workers: int = 2,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """Send `commands` to the desk, looking at each worker's memory on the way; `ratio` is ours over the plain one's.

    Ours is what the largest worker has resident at the end, the plain one's the same after `plain_commands`.
    `growth` is the largest at the end over the largest half-way. Raises MeasurementError.
    """
    async with ground(settings) as place:
        async with await Database.open(place.settings) as database:
            workspace = await database.workspace(WORKSPACE)
            people = await make_people(workspace)
            plan = plan_for(
                people, concurrency=concurrency, seconds=0.0, warm_up_seconds=0.0, commands=commands,
                shared_tickets=SHARED_TICKETS, shared_one_in=SHARED_ONE_IN,
            )  # fmt: skip
            before = (await workspace.log.head()).position

            async def done() -> int:
                return (await workspace.log.head()).position - before

            say(f"memory: desk serve, {workers} worker(s), {commands:,} commands")
            async with desk(place.settings, workers) as service:
                watching = asyncio.create_task(_watch(service, done, commands, samples))
                try:
                    ours = await load(service, plan, place.cluster)
                    taken = [*await _ended(watching), _sample(service, commands)]
                finally:
                    watching.cancel()
                await views_caught_up(workspace, ours.acknowledged)
            await require_exactly(place.settings.database_url or "", f"{workspace.schema}.events", ours.acknowledged)
        say(f"memory: the plain way, {PLAIN_SETTING.workers} worker(s), {plain_commands:,} commands")
        address = await place.database()
        async with plain_service(address, PLAIN_SETTING, people) as service:
            await load(service, replace(plan, commands=plain_commands), place.cluster)
            plain = _sample(service, plain_commands)
        say(f"memory: {plain}")
    last, half = taken[-1], taken[(len(taken) - 1) // 2]
    return {
        "benchmark": "memory",
        "ratio": round(_largest(last) / _largest(plain), 2),
        "ours_mebibytes": _largest(last),
        "growth": round(_largest(last) / _largest(half), 3),
        "ours_samples": taken,
        "ours_per_second": ours.per_second,
        "plain_mebibytes": _largest(plain),
        "plain_sample": plain,
        "commands": commands,
        "plain_commands": plain_commands,
        "workers": workers,
        "concurrency": concurrency,
        "server": place.durability,
    }


async def _watch(
    service: Service, done: Callable[[], Awaitable[int]], commands: int, samples: int
) -> list[dict[str, Any]]:
    """Take a sample each time a further share of the commands is done, but for the last, which is taken at the end."""
    taken: list[dict[str, Any]] = []
    for number in range(samples):
        while await done() < commands * number // samples:  # noqa: ASYNC110 - other processes do the commands
            await asyncio.sleep(LOOK_SECONDS)
        taken.append(_sample(service, commands * number // samples))
        say(f"memory: {taken[-1]}")
    return taken


async def _ended(watching: asyncio.Task[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Give the samples: all of them were due by the time the last command was answered."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(watching, 10 * LOOK_SECONDS + 1)
    message = "fewer commands are in the log than were answered"
    raise MeasurementError(message)


def _sample(service: Service, commands: int) -> dict[str, Any]:
    """Take every worker's memory in MiB. Raises MeasurementError."""
    workers = processes.use(service.pid, service.port).workers
    found = [memory for memory in map(processes.memory, workers) if memory is not None]
    if not found:
        message = "This system does not show how much memory a process has."
        raise MeasurementError(message)
    return {
        "commands": commands,
        "resident": [memory.resident for memory in found],
        "proportional": [memory.proportional for memory in found],
    }


def _largest(sample: dict[str, Any]) -> float:
    resident: list[float] = sample["resident"]
    return max(resident)


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
