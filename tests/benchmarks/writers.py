"""Writers of single events: the load of the measurements of the log, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import uvloop

from storage.append import NewEvent, Submission
from storage.database import Database
from storage.settings import Settings, project_root
from tests.benchmarks.ground import WORKSPACE, MeasurementError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from uuid import UUID

    from storage.log import Log

EVENTS_A_TICKET = 6
TOPIC = "ticket.replied"
STATE = os.urandom(210).hex().encode()  # a reply without its text: 420 bytes, with its commitment and provenance
PERSONAL = os.urandom(130).hex().encode()  # its text sealed: 260 bytes
LONGEST_ANSWER_SECONDS = 60.0
READY = "ready"


class Share(NamedTuple):
    """What one process wrote: in all, and while it was counted."""

    written: int
    counted: int


@dataclass(slots=True)
class Counter:
    """Events written while counting was on."""

    since: float
    until: float
    events: int = 0

    def count(self, now: float) -> bool:
        """Count one that was durable at `now`; False when time is up."""
        if self.since <= now < self.until:
            self.events += 1
        return now < self.until


def new_tickets() -> Iterator[tuple[UUID, int]]:
    """Give stream and version of one event after the other, ticket by ticket."""
    while True:
        stream = uuid4()
        for version in range(1, EVENTS_A_TICKET + 1):
            yield stream, version


async def append_for(
    log: Log,
    seconds: float,
    warm_up: float,
    concurrency: int,
    *,
    keys: bool = False,
    places: Callable[[int], Iterator[tuple[UUID, int]]] = lambda _: new_tickets(),
) -> Share:
    """Keep so many commands of one event each in flight; `places` says where each of the writers writes."""
    counter = Counter(since := time.perf_counter() + warm_up, since + seconds)
    async with asyncio.timeout(warm_up + seconds + LONGEST_ANSWER_SECONDS), asyncio.TaskGroup() as group:
        writers = [
            group.create_task(_write(log.append, counter, places(number), keys=keys)) for number in range(concurrency)
        ]
    return Share(sum(writer.result() for writer in writers), counter.events)


async def _write(
    append: Callable[[Submission], Awaitable[Any]], counter: Counter, places: Iterator[tuple[UUID, int]], *, keys: bool
) -> int:
    """Append one event after the other until time is up; each answer must stand after the one before."""
    written, position = 0, 0
    for stream, version in places:
        submission = Submission([NewEvent(stream, version, TOPIC, STATE, PERSONAL)])
        if keys:
            submission.key, submission.body_hash = os.urandom(32), STATE[:32]
        appended = await append(submission)
        written += 1
        if appended.position <= position:
            message = f"position {appended.position} was given after {position}"
            raise MeasurementError(message)
        position = appended.position
        if not counter.count(time.perf_counter()):
            break
    return written


def require_growth(before: int, after: int, written: int) -> None:
    """Raise MeasurementError unless the log has grown by what was acknowledged."""
    if after - before != written:
        message = f"{written} events were acknowledged and {after - before} are in the log"
        raise MeasurementError(message)


async def append_from(
    settings: Settings, processes: int, seconds: float, warm_up: float, concurrency: int
) -> list[Share]:
    """Append from several processes at once, each with its share of the commands in flight.

    They begin together, when all of them have connected.
    """
    plan = {
        "database_url": settings.database_url,
        "key_file": str(settings.key_file),
        "data_dir": str(settings.data_dir),
        "seconds": seconds,
        "warm_up": warm_up,
        "concurrency": max(1, concurrency // processes),
    }
    started = [await _start(plan) for _ in range(processes)]
    try:
        for process in started:
            assert process.stdout is not None
            if (await process.stdout.readline()).decode().strip() != READY:
                message = f"a writing process ended with status {await process.wait()}"
                raise MeasurementError(message)
        outputs = await asyncio.gather(*(process.communicate(b"\n") for process in started))
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if any(process.returncode for process in started):
        message = f"writing processes ended with statuses {[process.returncode for process in started]}"
        raise MeasurementError(message)
    return [Share(*json.loads(output)) for output, _ in outputs]


async def _start(plan: dict[str, Any]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.writers", json.dumps(plan),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=project_root(),
    )  # fmt: skip


async def _run(plan: dict[str, Any]) -> Share:
    settings = Settings(
        data_dir=Path(plan["data_dir"]), key_file=Path(plan["key_file"]), database_url=plan["database_url"]
    )
    async with await Database.open(settings) as database:
        log = (await database.workspace(WORKSPACE)).log
        await log.head()
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        return await append_for(log, plan["seconds"], plan["warm_up"], plan["concurrency"])


def main() -> None:
    """Append as the plan in the first argument says, and print how much that was."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        share = runner.run(_run(json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(share) + "\n")


if __name__ == "__main__":
    main()
