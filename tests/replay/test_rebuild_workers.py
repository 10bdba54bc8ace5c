"""A rebuild divided among processes ends the same whoever of them is killed, and says what went wrong in any of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from projections import bookkeeping
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from replay import building, builds, rebuild_lane
from replay.rebuild import RebuildFailed, RebuildRunning, RebuildStopped, rebuild
from storage.append import NewEvent, Submission
from tests.projections.desk_days import DeskDays, record, rows_of

if TYPE_CHECKING:
    from projections.bookkeeping import Mark
    from projections.table import Rows
    from storage.database import Workspace

QUEUE = BY_NAME["ticket_queue"]
SHADOW = f"{QUEUE.label}_build"
LANES = 2


@pytest.fixture(autouse=True)
def _small_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_lane, "PAGE_EVENTS", 20)
    monkeypatch.setattr(rebuild_lane, "HELD_ROWS", 1)
    monkeypatch.setattr(builds, "LEASE_SECONDS", 0.4)
    monkeypatch.setattr(builds, "RENEW_SECONDS", 0.1)


async def desk_in(workspace: Workspace, seed: int) -> DeskDays:
    desk = DeskDays(seed, tickets=40)
    await record(workspace, [*desk.first(), *desk.more(300)])
    await Runner(workspace.database, VIEWS, "live").catch_up(workspace)
    return desk


async def places(workspace: Workspace) -> list[int] | None:
    """Give where the lanes of the build stand."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            f"SELECT positions FROM {workspace.schema}.view_builds WHERE name = %s AND place = 'build'".encode(),
            (QUEUE.name,),
        )
        row = await cursor.fetchone()
    return row[0] if row is not None else None


def at_page(monkeypatch: pytest.MonkeyPatch, lane: int, page: int, act: Any) -> None:
    """Let something happen in a lane once it has written a page and not yet committed it."""
    store = rebuild_lane.Lane._write
    pages = 0

    async def write(self: Any, ceiling: Mark, rows: Rows, changed: Rows) -> None:
        nonlocal pages
        if self._cut.lane == lane and self._cut.lanes == LANES:
            pages += 1
            if pages == page:
                shadow = self._shadow
                async with self.connection.transaction():
                    await shadow.store(self.connection, rows, changed, past=False)
                    act()
        await store(self, ceiling, rows, changed)

    monkeypatch.setattr(rebuild_lane.Lane, "_write", write)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def test_a_rebuild_one_of_whose_processes_is_killed_says_so_and_is_gone_on_with(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 21)
    live = await rows_of(alpha, QUEUE.label)
    with monkeypatch.context() as patch:
        at_page(patch, 1, 3, killed)
        with pytest.raises(RebuildStopped, match="ended with status -9"):
            await rebuild(alpha, QUEUE, workers=LANES)
    assert await rows_of(alpha, QUEUE.label) == live
    stood = await places(alpha)
    assert stood is not None
    assert stood[1] == 2 * LANES * 20  # two pages; the third had not been committed
    report = await rebuild(alpha, QUEUE, workers=LANES)
    assert report.resumed_at == sum(stood) // LANES
    assert await rows_of(alpha, QUEUE.label) == live


async def test_a_build_divided_otherwise_than_asked_for_is_begun_anew(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 22)
    live = await rows_of(alpha, QUEUE.label)
    with monkeypatch.context() as patch:
        at_page(patch, 1, 2, killed)
        with pytest.raises(RebuildStopped):
            await rebuild(alpha, QUEUE, workers=LANES)
    async with alpha.database.pool.connection() as connection:  # whichever of them had come further
        await connection.execute(f"UPDATE {alpha.schema}.view_builds SET positions = '{{80, 40}}'".encode())
    assert (await rebuild(alpha, QUEUE, workers=3)).resumed_at == 0
    assert await rows_of(alpha, QUEUE.label) == live


PROGRAM = """
import asyncio, os
from projections.registry import BY_NAME
from replay import builds, rebuild as rebuilding, rebuild_lane
from storage.database import Database
from storage.settings import Settings

rebuild_lane.PAGE_EVENTS = 20
rebuild_lane.HELD_ROWS = 1
builds.LEASE_SECONDS = 0.4
write = rebuild_lane.Lane._write

async def slowly(self, *arguments):
    await write(self, *arguments)
    if self._cut.lanes == 2 and self.position >= 80:
        os.write(1, b"there\\n")
        await asyncio.sleep(60)

rebuild_lane.Lane._write = slowly

async def main():
    async with await Database.open(Settings.from_environment()) as database:
        workspace = await database.workspace("alpha")
        await rebuilding.rebuild(workspace, BY_NAME["ticket_queue"], workers=2)

asyncio.run(main())
"""


async def test_a_rebuild_killed_with_all_it_started_is_gone_on_with(
    alpha: Workspace, environment: dict[str, str]
) -> None:
    await desk_in(alpha, 23)
    live = await rows_of(alpha, QUEUE.label)
    root = Path(__file__).parents[2]
    with subprocess.Popen(  # noqa: ASYNC220 - there is nothing else to do meanwhile
        [sys.executable, "-c", PROGRAM], env=environment | {"PYTHONPATH": str(root)}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(LANES)]
        finally:
            process.kill()
        assert said == [b"there\n"] * LANES  # both have pages in
        assert process.stdout.read() == b""  # which ends when the last of its processes has
    stood = await places(alpha)
    assert stood is not None
    assert len(stood) == LANES
    assert min(stood) > 0
    report = await rebuild(alpha, QUEUE, workers=LANES)
    assert report.resumed_at > 0
    assert await rows_of(alpha, QUEUE.label) == live


@pytest.mark.parametrize("topic", ["ticket.enchanted", "ticket.opened"])
async def test_an_event_that_another_process_cannot_read_is_named(alpha: Workspace, topic: str) -> None:
    desk = await desk_in(alpha, 24)
    live = await rows_of(alpha, QUEUE.label)
    stream = next(one for one in iter(desk.new_id, None) if one.bytes[15] % LANES == 1)
    broken = NewEvent(stream, 1, topic, b'{"timestamp":"yesterday"}', None)
    position = (await alpha.log.append(Submission(events=[broken]))).position
    await bookkeeping.release(alpha, "live")
    with pytest.raises(RebuildFailed) as failed:
        await rebuild(alpha, QUEUE, workers=LANES)
    assert (failed.value.position, failed.value.topic) == (position, topic)
    assert str(failed.value).startswith(f"ticket_queue cannot take in event {position} ({topic}): ")
    assert await rows_of(alpha, QUEUE.label) == live


@pytest.mark.parametrize("lane", range(LANES))
async def test_lanes_whose_build_another_has_taken_over_write_nothing_more(
    alpha: Workspace, settings: Any, monkeypatch: pytest.MonkeyPatch, lane: int
) -> None:
    await desk_in(alpha, 25)
    live = await rows_of(alpha, QUEUE.label)
    monkeypatch.setattr(builds, "RENEW_SECONDS", 60.0)
    write = rebuild_lane.Lane._write

    async def robbed(self: Any, *arguments: Any) -> None:
        if self._cut.lane == lane and self.position >= LANES * 20 and not stolen.exists():
            stolen.write_text(str(self.position))
            await self._looking.execute(f"UPDATE {alpha.schema}.view_builds SET owner = 'thief'".encode())
        await write(self, *arguments)

    stolen = Path(settings.data_dir) / "stolen"
    monkeypatch.setattr(rebuild_lane.Lane, "_write", robbed)
    with pytest.raises(RebuildRunning):
        await rebuild(alpha, QUEUE, workers=LANES)
    assert await rows_of(alpha, QUEUE.label) == live
    stood = await places(alpha)
    assert stood is not None
    assert stolen.read_text() == str(stood[lane])


async def test_a_view_that_looks_at_other_streams_is_not_divided(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 26)

    def refuse(*_: object) -> None:
        pytest.fail("the streams were divided")

    monkeypatch.setattr(building, "reach_in_lanes", refuse)
    whole = replace(QUEUE, stream_local=False)
    await rebuild(alpha, whole, workers=LANES)
