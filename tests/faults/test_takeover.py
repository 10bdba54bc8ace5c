"""Processes that keep views up are killed or stand still: another goes on, and nothing is written twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from domain.sla_policy import Step
from projections import bookkeeping
from projections.bookkeeping import view_status
from projections.lease import keeper
from projections.registry import VIEWS
from projections.waiting import wait_for
from tests.commands.timed_desk import TimedDesk, replies_within
from tests.faults.views_from_zero import check_views
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from storage.database import Database, Workspace

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds


@pytest.fixture
def projecting(environment: dict[str, str]) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """Run two processes that keep views up, and nothing else; give them by process id."""
    # The days told here are long past, so that every deadline in them is.
    with two_processes(environment | {"DESK_TIMER": "off"}) as started:
        yield started


@pytest.fixture
def timing(environment: dict[str, str]) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """Run two processes that keep views up and see to what falls due; give them by process id."""
    with two_processes(environment) as started:
        yield started


@contextlib.contextmanager
def two_processes(environment: dict[str, str]) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    started = [
        subprocess.Popen([sys.executable, "-m", "api.cli", "project"], env=environment, cwd=ROOT) for _ in range(2)
    ]
    try:
        yield {process.pid: process for process in started}
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in started:
            process.wait(PATIENCE)


async def owner(workspace: Workspace, *, of: set[int]) -> int:
    """Wait until these processes and no others live, and all views are with the one that is to keep them; give it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with workspace.database.pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT name, views FROM ledgerdesk.runners WHERE leased_until > now()"
                )
                living = {name: frozenset(views) for name, views in await cursor.fetchall()}
            owners = {one.owner for one in await view_status(workspace, VIEWS)}
            if {process_of(name) for name in living} == of and owners == {keeper(workspace.name, VIEWS[0], living)}:
                return process_of(str(owners.pop()))
            await asyncio.sleep(0.02)


def process_of(name: str) -> int:
    return int(name.split(":")[1])


async def follow(workspace: Workspace, head: int) -> None:
    for view in VIEWS:
        assert await wait_for(workspace, view, head, PATIENCE) >= head


async def test_when_the_owner_is_killed_another_goes_on(
    database: Database, alpha: Workspace, projecting: dict[int, subprocess.Popen[bytes]]
) -> None:
    desk = DeskDays(1)
    await record(alpha, desk.first())
    first = await owner(alpha, of=set(projecting))
    await follow(alpha, (await alpha.log.head()).position)
    os.kill(first, signal.SIGKILL)
    killed_at = time.monotonic()
    head = await record(alpha, desk.more(40))
    await follow(alpha, head)
    print(f"taken over and caught up {time.monotonic() - killed_at:.2f} s after the kill")  # noqa: T201 - a figure
    (other,) = set(projecting) - {first}
    assert await owner(alpha, of={other}) == other
    assert await asyncio.to_thread(check_views, database.conninfo, alpha.schema) == []


async def test_an_owner_that_stood_still_while_another_went_on_writes_nothing_when_it_wakes_up(
    database: Database, alpha: Workspace, projecting: dict[int, subprocess.Popen[bytes]]
) -> None:
    desk = DeskDays(2)
    await record(alpha, desk.first())
    first = await owner(alpha, of=set(projecting))
    (other,) = set(projecting) - {first}
    async with commands(alpha, desk):  # so that it stands still wherever it happens to be
        await asyncio.sleep(0.2)
        os.kill(first, signal.SIGSTOP)
        assert await owner(alpha, of={other}) == other
        gone_on = (await bookkeeping.reached(alpha, VIEWS[0]))[0]
        await follow(alpha, (await alpha.log.head()).position)
        os.kill(first, signal.SIGCONT)
        assert await wait_for(alpha, VIEWS[0], gone_on + 50, PATIENCE) >= gone_on + 50
    await follow(alpha, (await alpha.log.head()).position)
    assert all(one.failure is None for one in await view_status(alpha, VIEWS))
    assert await asyncio.to_thread(check_views, database.conninfo, alpha.schema) == []


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
async def test_deadlines_are_announced_once_whatever_becomes_of_the_timer(
    ending: signal.Signals, database: Database, alpha: Workspace, timing: dict[int, subprocess.Popen[bytes]]
) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60, Step(offset_seconds=60, action="notify", note="Please call.")))
    first = await owner(alpha, of=set(timing))
    (other,) = set(timing) - {first}
    tickets = [desk.opening() for _ in range(400)]
    await desk.keep(*tickets)
    await announced(alpha, at_least=1)
    os.kill(first, ending)
    assert await owner(alpha, of={other}) == other
    await announced(alpha, at_least=len(tickets))
    if ending is signal.SIGSTOP:
        os.kill(first, signal.SIGCONT)
        await owner(alpha, of=set(timing))
    told = Counter([tuple(what for what, _ in await desk.told(ticket)) for ticket in tickets])
    assert told == {("sla_breached", "sla_escalated", "note_added"): len(tickets)}
    await follow(alpha, (await alpha.log.head()).position)
    assert await asyncio.to_thread(check_views, database.conninfo, alpha.schema) == []


async def announced(workspace: Workspace, *, at_least: int) -> None:
    """Wait until so many breaches are on record."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with workspace.database.pool.connection() as connection:
                cursor = await connection.execute(
                    f"SELECT count(*) FROM {workspace.schema}.events WHERE topic = 'ticket.sla_breached'".encode()
                )
                row = await cursor.fetchone()
            if row is not None and row[0] >= at_least:
                return
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def commands(workspace: Workspace, desk: DeskDays) -> AsyncIterator[None]:
    """Let events come, a few at a time."""
    stop = asyncio.Event()

    async def come() -> None:
        while not stop.is_set():
            if events := desk.more(3):
                await record(workspace, events)
            await asyncio.sleep(0.01)

    coming = asyncio.create_task(come())
    try:
        yield
    finally:
        stop.set()
        await coming
