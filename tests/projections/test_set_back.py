"""Views of a log that was set back: nothing that is lost is written, and a view that is ahead says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from projections import bookkeeping, ticket_queue
from projections.bookkeeping import LostOwnership, view_status
from projections.page import Page
from projections.registry import VIEWS
from projections.runner import Runner, take_in
from replay.rebuild import rebuild
from tests.commands.sending import Sender
from tests.storage.test_epochs import execute, set_back

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from storage.database import Database, Workspace
    from storage.settings import Settings

PATIENCE = 30.0


async def ticking() -> AsyncIterator[None]:
    while True:
        yield
        await asyncio.sleep(0.02)


async def test_a_page_read_from_a_log_that_is_lost_is_not_written(
    settings: Settings, database: Database, alpha: Workspace
) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    runner = Runner(database, VIEWS, owner_id="we")
    await runner.catch_up(alpha)
    old = (await alpha.log.head()).position
    await sender.send("ticket", "add-note", ticket, text="lost")
    page = Page(await alpha.log.page(old, 10))
    set_back(settings, old)
    await Sender.at(alpha).send("ticket", "add-note", ticket, text="in its place")
    with pytest.raises(LostOwnership):
        await take_in(alpha, ticket_queue.VIEW, page, 0, 1, owner="we", old=old)
    assert await bookkeeping.reached(alpha, ticket_queue.VIEW) == (old, "live")
    await runner.catch_up(alpha)
    assert await bookkeeping.reached(alpha, ticket_queue.VIEW) == (old + 1, "live")


@pytest.mark.spoils_views
async def test_a_view_ahead_of_its_log_stops_and_a_rebuild_mends_it(
    settings: Settings, database: Database, alpha: Workspace
) -> None:
    await Sender.at(alpha).ticket()
    runner = Runner(database, VIEWS)
    await runner.catch_up(alpha)
    head = (await alpha.log.head()).position
    execute(settings, "DELETE FROM ws_alpha.events WHERE notification_id = %s", head)
    stop = asyncio.Event()
    running = asyncio.create_task(runner.run(stop))
    try:
        async with asyncio.timeout(PATIENCE):
            async for _ in ticking():
                if all(one.state == "failed" for one in await view_status(alpha, VIEWS)):
                    break
    finally:
        stop.set()
        await running
    for one in await view_status(alpha, VIEWS):
        assert one.failure is not None
        assert one.failure.error == (
            f"the view has taken in position {head} and the log ends at {head - 1}; rebuild the view"
        )
    await rebuild(alpha, ticket_queue.VIEW, lambda _: None, workers=1)
    assert await bookkeeping.reached(alpha, ticket_queue.VIEW) == (head - 1, "live")


async def test_views_that_a_failover_took_away_are_made_again(
    settings: Settings, database: Database, alpha: Workspace
) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(Runner(database, VIEWS).run(stop))
    try:
        ticket = await Sender.at(alpha).ticket()
        await reached_by_all(alpha, 2)
        names = ", ".join(f"ws_alpha.{view.label}" for view in VIEWS)
        pasts = ", ".join(f"ws_alpha.{view.label}_past" for view in VIEWS if view.table.keeps_past)
        execute(settings, f"DROP TABLE ws_alpha.views, {names}, {pasts}")
        await Sender.at(alpha).send("ticket", "add-note", ticket, text="seen by the views")
        await reached_by_all(alpha, 3)
    finally:
        stop.set()
        await running


async def reached_by_all(workspace: Workspace, position: int) -> None:
    async with asyncio.timeout(PATIENCE):
        async for _ in ticking():
            if all(one.position >= position for one in await view_status(workspace, VIEWS)):
                break
