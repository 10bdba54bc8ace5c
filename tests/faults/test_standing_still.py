"""A process that stands still in the middle of something, as a suspended machine does, does not hold up the others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from projections import bookkeeping
from projections.page import Page
from projections.registry import BY_NAME
from projections.runner import Runner, is_passing, take_in
from projections.waiting import wait_for
from storage import log
from storage.append import NewEvent, Submission
from storage.log import Log
from tests.projections.desk_days import DeskDays, as_recorded, record
from tests.projections.test_folds import folded
from tests.projections.test_runner import running, shown

if TYPE_CHECKING:
    from storage.database import Database, Workspace

PATIENCE = 20.0  # seconds
QUEUE = BY_NAME["ticket_queue"]


async def test_a_view_whose_owner_stands_still_while_writing_is_taken_over(
    database: Database, alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookkeeping, "STILL_SECONDS", 1)
    desk = DeskDays(9)
    events = [*desk.first(), *desk.more(60)]
    one = Runner(database, [QUEUE])
    await one.catch_up(alpha)
    head = await record(alpha, events)
    shelf = QUEUE.shelf(alpha.schema)
    store = shelf.store
    stands, goes_on = asyncio.Event(), asyncio.Event()

    async def stand_still(*arguments: Any, **more: Any) -> None:
        if not stands.is_set():
            stands.set()
            await goes_on.wait()
        await store(*arguments, **more)

    monkeypatch.setattr(shelf, "store", stand_still)
    page = Page(await alpha.log.page(0, 1_000))
    late = asyncio.create_task(take_in(alpha, QUEUE, page, 0, len(page), owner=one.owner_id, old=0))
    await stands.wait()
    async with running(Runner(database, [QUEUE])):
        try:
            assert await wait_for(alpha, QUEUE, head, PATIENCE) == head
        finally:
            goes_on.set()
            (ended,) = await asyncio.gather(late, return_exceptions=True)
    assert isinstance(ended, psycopg.Error)
    assert is_passing(ended)
    expected = {(row["ticket_id"], row["since"]) for row in folded(QUEUE, as_recorded(events)).values()}
    assert await shown(alpha, QUEUE, "ticket_id", "since") == expected


async def test_views_that_nobody_writes_are_taken_while_another_is_locked(database: Database, alpha: Workspace) -> None:
    trail = BY_NAME["audit_trail"]
    await bookkeeping.prepare(alpha, [QUEUE, trail])
    head = await record(alpha, DeskDays(9).first())
    stranger = await database.connect("stranger")
    await stranger.set_autocommit(False)
    await stranger.execute("SELECT FROM ws_alpha.views WHERE name = 'ticket_queue' FOR UPDATE")
    async with running(Runner(database, [QUEUE, trail])):
        try:
            assert await wait_for(alpha, trail, head, PATIENCE) == head
            assert (await bookkeeping.reached(alpha, QUEUE))[0] == 0
        finally:
            await stranger.close()


async def test_the_log_is_not_kept_by_a_process_that_stands_still_with_it_to_itself(
    database: Database, alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "APPEND_TIMEOUT", 0.5)
    stands_still = Log(database, "alpha", alpha.schema)
    monkeypatch.undo()
    connection = await database.connect("stands still")
    with suppress(psycopg.Error):
        async with connection.transaction():
            await connection.execute(stands_still._sql_lock.encode())
            stream = uuid4()
            event = NewEvent(stream, 1, "test.happened", b"{}", None)
            await alpha.log.append(Submission([event], {stream: 0}))
            with pytest.raises(psycopg.Error):
                await connection.execute("SELECT")
    assert connection.closed
