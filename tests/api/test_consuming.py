"""`desk consume` as it is run: events go to a program, and nothing is left out when it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from domain.event import Channel
from projections.consumer_register import consumer_named, remove
from tests.api.test_metrics import scrape
from tests.api.test_server import PATIENCE, ROOT
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.database import Workspace
    from tests.api.conftest import DeskOverHttp

# Notes each line, and takes the event unless the file `full` is there; `slow` holds it in hand for ever.
PROGRAM = """
import os, pathlib, sys, time
here = pathlib.Path(sys.argv[1])
with (here / "seen").open("a") as seen:
    seen.write(sys.stdin.readline())
while (here / "slow").exists():
    time.sleep(0.01)
sys.exit((here / "full").exists())
"""


@contextmanager
def consuming(environment: dict[str, str], here: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `desk consume relay` with the program."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "consume", "relay", *options, "--", sys.executable, "-c", PROGRAM, str(here)],
        env=environment,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)


def seen(here: Path) -> list[dict[str, Any]]:
    path = here / "seen"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until_seen(here: Path, events: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(seen(here)) < events:
        assert time.monotonic() < deadline, seen(here)
        await asyncio.sleep(0.02)


async def test_what_was_in_hand_when_the_process_was_killed_comes_again_and_nothing_is_left_out(
    alpha: Workspace, environment: dict[str, str], tmp_path: Path
) -> None:
    events = DeskDays(1).first()
    head = await record(alpha, events)
    (tmp_path / "slow").touch()
    with consuming(environment, tmp_path, "--from-start") as process:
        await until_seen(tmp_path, 1)
        os.kill(process.pid, signal.SIGKILL)
    (tmp_path / "slow").unlink()
    assert (await consumer_named(alpha, "relay")).position == 0
    with consuming(environment, tmp_path, "--from-start", "--open") as process:
        await until_seen(tmp_path, head + 1)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    lines = seen(tmp_path)
    assert [line["position"] for line in lines] == [1, *range(1, head + 1)]
    assert lines[0]["delivery"] == lines[1]["delivery"]
    assert len({line["delivery"] for line in lines}) == head
    assert [line["topic"] for line in lines[1:]] == [event.TOPIC for event in events]
    assert lines[0]["withheld"]
    assert not lines[0]["fields"].keys() & set(lines[0]["withheld"])
    assert set(lines[0]["withheld"]) <= lines[1]["fields"].keys()
    assert all(line["withheld"] == [] for line in lines[1:])
    status = await consumer_named(alpha, "relay")
    assert (status.position, status.owner) == (head, None)


async def test_the_past_of_another_desk_is_handed_on_only_where_it_is_asked_for(
    alpha: Workspace, environment: dict[str, str], tmp_path: Path
) -> None:
    events = DeskDays(1).first()
    by_import = {"by": events[0].by.model_copy(update={"channel": Channel.IMPORT})}
    head = await record(
        alpha, [event.model_copy(update=by_import) if at % 2 else event for at, event in enumerate(events)]
    )
    here = list(range(1, head + 1, 2))
    with consuming(environment, tmp_path, "--from-start") as process:
        await until_seen(tmp_path, len(here))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    assert [line["position"] for line in seen(tmp_path)] == here
    (tmp_path / "seen").unlink()
    await remove(alpha, "relay")
    with consuming(environment, tmp_path, "--from-start", "--imported"):
        await until_seen(tmp_path, head)
    assert [line["position"] for line in seen(tmp_path)] == list(range(1, head + 1))


async def test_a_program_that_does_not_take_an_event_stops_the_consumer_and_that_is_seen_everywhere(
    desk: DeskOverHttp, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "full").touch()
    with consuming(environment, tmp_path, "--from-start", "--attempts", "1"):
        deadline = time.monotonic() + PATIENCE
        while not (told := (await desk.get("/views")).json()["consumers"]) or told[0]["state"] != "failed":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    assert (told[0]["name"], told[0]["position"], told[0]["failure"]["position"]) == ("relay", 0, 1)
    assert "ended with status 1" in told[0]["failure"]["error"]
    metrics = await scrape(desk)
    place = {"workspace": "alpha", "consumer": "relay"}
    assert metrics("desk_consumer_stopped", **place) == metrics("desk_consumer_attempts", **place) == 1
    assert metrics("desk_consumer_lag_events", **place) == await desk.head()
