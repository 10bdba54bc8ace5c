"""What a rebuild holds in memory is bounded, and where it is written makes no difference to the rows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from replay import rebuild_lane
from replay.held_rows import Held
from replay.rebuild import rebuild
from tests.projections.desk_days import DeskDays, record, rows_of

if TYPE_CHECKING:
    from projections.bookkeeping import Mark
    from projections.table import Rows
    from projections.view import View
    from storage.database import Workspace

QUEUE = BY_NAME["ticket_queue"]
EACH_VIEW = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
PAGE = 30


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_lane, "PAGE_EVENTS", PAGE)


async def desk_in(workspace: Workspace, seed: int) -> None:
    desk = DeskDays(seed, tickets=60)
    await record(workspace, [*desk.first(), *desk.more(600)])
    await Runner(workspace.database, VIEWS, "live").catch_up(workspace)


@EACH_VIEW
@pytest.mark.parametrize("held", [1, 7, 40, 10_000])
async def test_wherever_rows_are_written_they_end_the_same(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, view: View, held: int
) -> None:
    await desk_in(alpha, 31)
    live = await rows_of(alpha, view.label)
    monkeypatch.setattr(rebuild_lane, "HELD_ROWS", held)
    await rebuild(alpha, view, workers=1)
    assert await rows_of(alpha, view.label) == live


async def test_rows_that_are_being_written_while_the_next_pages_change_them_again_lose_nothing(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 32)
    live = await rows_of(alpha, QUEUE.label)
    monkeypatch.setattr(rebuild_lane, "HELD_ROWS", 5)
    write, folded, move = rebuild_lane.Lane._write, rebuild_lane.Lane.folded, Held.move
    next_folded = asyncio.Event()
    moved = 0

    async def slowly(self: Any, ceiling: Mark, before: Rows, changed: Rows) -> None:
        next_folded.clear()
        if ceiling.position < target:
            await next_folded.wait()  # which does not wait for this
        await write(self, ceiling, before, changed)

    async def counted(self: Any, page: Any, rows: Rows, **how: Any) -> Rows:
        next_folded.set()
        return await folded(self, page, rows, **how)

    def watched(self: Held, others: Held, streams: Any) -> None:
        nonlocal moved
        moved += len(streams)
        move(self, others, streams)

    target = (await alpha.log.head()).position
    monkeypatch.setattr(rebuild_lane.Lane, "_write", slowly)
    monkeypatch.setattr(rebuild_lane.Lane, "folded", counted)
    monkeypatch.setattr(Held, "move", watched)
    await asyncio.wait_for(rebuild(alpha, QUEUE, workers=1), 60)
    assert moved > 0
    assert await rows_of(alpha, QUEUE.label) == live


@EACH_VIEW
async def test_no_more_rows_are_held_than_allowed_and_those_of_a_page(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, view: View
) -> None:
    await desk_in(alpha, 33)
    monkeypatch.setattr(rebuild_lane, "HELD_ROWS", 50)
    move = Held.move
    before_a_page: list[int] = []

    def moved(self: Held, others: Held, streams: Any) -> None:
        before_a_page.append(len(self.rows))
        move(self, others, streams)

    monkeypatch.setattr(Held, "move", moved)
    await rebuild(alpha, view, workers=1)
    assert len(before_a_page) > 10
    assert max(before_a_page) < 50


async def test_what_changes_few_rows_is_written_every_so_many_pages(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 34)
    monkeypatch.setattr(rebuild_lane, "HELD_PAGES", 3)
    write = rebuild_lane.Lane._write
    ceilings: list[int] = []

    async def watched(self: Any, ceiling: Mark, before: Rows, changed: Rows) -> None:
        ceilings.append(ceiling.position)
        await write(self, ceiling, before, changed)

    monkeypatch.setattr(rebuild_lane.Lane, "_write", watched)
    await rebuild(alpha, BY_NAME["directory"], workers=1)
    head = (await alpha.log.head()).position
    assert ceilings == [*range(3 * PAGE, head, 3 * PAGE), head]


async def test_most_rows_are_written_once(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk_in(alpha, 35)
    write = rebuild_lane.Lane._write
    written: list[int] = []

    async def watched(self: Any, ceiling: Mark, before: Rows, changed: Rows) -> None:
        written.append(len(changed))
        await write(self, ceiling, before, changed)

    monkeypatch.setattr(rebuild_lane.Lane, "_write", watched)
    report = await rebuild(alpha, QUEUE, workers=1)
    assert written == [report.rows]
