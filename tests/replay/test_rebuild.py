"""A view rebuilt from the log is the live one row for row, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from projections import bookkeeping
from projections.bookkeeping import FAILED, LIVE, reached, view_status
from projections.listing import CursorExpired
from projections.page import Page
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner, take_in
from projections.ticket_queue import list_tickets
from projections.waiting import wait_for
from replay import building, builds, rebuild_lane
from replay.rebuild import Progress, RebuildFailed, RebuildRunning, rebuild
from replay.swapping import Swap
from storage.append import NewEvent, Submission
from tests.projections.desk_days import DeskDays, record, rows_of
from tests.projections.test_runner import failing_at, running

if TYPE_CHECKING:
    from projections.view import View
    from storage.database import Database, Workspace

QUEUE = BY_NAME["ticket_queue"]
EACH_VIEW = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_lane, "PAGE_EVENTS", 37)
    monkeypatch.setattr(rebuild_lane, "HELD_ROWS", 1)
    monkeypatch.setattr(building, "NEAR_EVENTS", 20)


async def desk_in(workspace: Workspace, seed: int, steps: int = 300) -> DeskDays:
    desk = DeskDays(seed, tickets=25)
    await record(workspace, [*desk.first(), *desk.more(steps)])
    await Runner(workspace.database, VIEWS, "live").catch_up(workspace)
    return desk


async def relations(workspace: Workspace) -> set[str]:
    """Name the tables in a workspace's schema."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (workspace.schema,))
        return {row[0] for row in await cursor.fetchall()}


async def indexes(workspace: Workspace, view: View) -> list[str]:
    """List the definitions of a view's indexes, without their names."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = %s AND tablename = %s", (workspace.schema, view.label)
        )
        return sorted(row[0].partition(" USING ")[2] for row in await cursor.fetchall())


@EACH_VIEW
@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_a_rebuilt_view_equals_the_live_one_row_for_row(
    alpha: Workspace, beta: Workspace, view: View, workers: int
) -> None:
    await desk_in(alpha, 1)
    await desk_in(beta, 2, steps=60)
    live, other, tables = await rows_of(alpha, view.label), await rows_of(beta, view.label), await relations(alpha)
    defined = await indexes(alpha, view)
    told: list[Progress] = []
    report = await rebuild(alpha, view, told.append, workers=workers)
    head = (await alpha.log.head()).position
    assert await rows_of(alpha, view.label) == live
    assert (report.rows, report.position, report.resumed_at) == (len(live), head, 0)
    assert live
    assert await indexes(alpha, view) == defined
    assert await relations(alpha) == {*tables, f"{view.label}_kept"}
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert (told[-1].done, told[-1].total) == (head, head)
    assert len(told) > head // 37
    assert await rows_of(beta, view.label) == other
    # And it goes on from there.
    await Runner(alpha.database, VIEWS, "live").catch_up(alpha)
    assert await rows_of(alpha, view.label) == live


@EACH_VIEW
async def test_a_rebuild_that_was_killed_is_gone_on_with(
    alpha: Workspace, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 3)
    live, tables = await rows_of(alpha, view.label), await relations(alpha)
    monkeypatch.setattr(builds, "LEASE_SECONDS", 0.4)
    monkeypatch.setattr(builds, "RENEW_SECONDS", 0.1)
    # Nothing is cleared away by a process that is killed.
    monkeypatch.setattr(builds, "_RELEASE", "SELECT")
    killed_at = await _killed_after(alpha, view, 3)
    assert await rows_of(alpha, view.label) == live  # nobody saw anything of it
    report = await rebuild(alpha, view)
    assert report.resumed_at >= killed_at > 0
    assert await rows_of(alpha, view.label) == live
    assert await relations(alpha) == {*tables, f"{view.label}_kept"}


async def _killed_after(workspace: Workspace, view: View, pages: int) -> int:
    """Run a rebuild and end it after some pages, wherever it then is; gives the position told last."""

    class Killed(BaseException):
        pass

    told: list[int] = []

    def tell(progress: Progress) -> None:
        told.append(progress.done)
        if len(told) == pages:
            raise Killed

    with pytest.raises(Killed):
        await rebuild(workspace, view, tell)
    return told[-1]


async def test_a_rebuild_killed_before_the_swap_makes_no_index_twice(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 3)
    defined, live = await indexes(alpha, QUEUE), await rows_of(alpha, QUEUE.label)

    class Killed(BaseException):
        pass

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Swap, "put_in_place", killed)
        with pytest.raises(Killed):
            await rebuild(alpha, QUEUE)
    await rebuild(alpha, QUEUE)
    assert await indexes(alpha, QUEUE) == defined
    assert await rows_of(alpha, QUEUE.label) == live


async def test_a_build_of_other_code_is_begun_anew(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk_in(alpha, 3)
    await _killed_after(alpha, QUEUE, 3)
    monkeypatch.setattr(building, "recipe_of", lambda *_: "another")
    assert (await rebuild(alpha, QUEUE)).resumed_at == 0


@EACH_VIEW
async def test_commands_go_on_during_a_rebuild_and_none_is_lost(
    database: Database, alpha: Workspace, beta: Workspace, view: View
) -> None:
    desk = await desk_in(alpha, 4)
    busy = True

    async def commands() -> int:
        head = 0
        while busy:
            events = desk.more(10)
            if events:
                head = await record(alpha, events)
            await list_tickets(alpha, limit=5)
        return head

    await Runner(database, VIEWS, "live").release()
    await Runner(database, VIEWS, "live").catch_up(beta)
    async with running(Runner(database, VIEWS, "live")):
        writing = asyncio.create_task(commands())
        for _ in range(3):
            await rebuild(alpha, view)
        busy = False
        head = await writing
        for each in VIEWS:
            assert await wait_for(alpha, each, head, 20) == head
    seen = await rows_of(alpha, view.label)
    await rebuild(alpha, view)
    assert await rows_of(alpha, view.label) == seen
    assert all(status.state == LIVE for status in await view_status(alpha, VIEWS))


async def test_the_live_projection_cannot_write_into_a_view_that_was_swapped_ahead_of_it(alpha: Workspace) -> None:
    desk = await desk_in(alpha, 5)
    old, _ = await reached(alpha, QUEUE)
    await record(alpha, desk.more(60))
    page = Page(await alpha.log.page(old, 1_000))
    await bookkeeping.release(alpha, "live")  # nobody keeps it up, so that the rebuild goes to the end of the log
    await rebuild(alpha, QUEUE)
    rebuilt = await rows_of(alpha, QUEUE.label)
    with pytest.raises(bookkeeping.LostOwnership):
        await take_in(alpha, QUEUE, page, 0, len(page), owner="live", old=old)
    assert await rows_of(alpha, QUEUE.label) == rebuilt
    await Runner(alpha.database, VIEWS, "next").catch_up(alpha)
    assert await rows_of(alpha, QUEUE.label) == rebuilt


async def test_a_list_begun_before_a_rebuild_goes_on_after_it(alpha: Workspace) -> None:
    desk = await desk_in(alpha, 6)
    whole = (await list_tickets(alpha, limit=100)).items
    page = await list_tickets(alpha, limit=3)
    await record(alpha, desk.more(60))
    await Runner(alpha.database, VIEWS, "live").catch_up(alpha)
    await rebuild(alpha, QUEUE)
    rest = await list_tickets(alpha, limit=100, cursor=page.cursor)
    assert page.items + rest.items == whole


async def test_a_list_begun_on_a_view_far_behind_is_refused_after_its_rebuild(alpha: Workspace) -> None:
    desk = await desk_in(alpha, 6)
    page = await list_tickets(alpha, limit=3)
    await record(alpha, desk.more(60))
    await bookkeeping.release(alpha, "live")
    await rebuild(alpha, QUEUE)
    with pytest.raises(CursorExpired):
        await list_tickets(alpha, limit=3, cursor=page.cursor)


async def test_two_rebuilds_of_a_view_at_once_are_refused(
    alpha: Workspace, beta: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 7)
    await desk_in(beta, 7)
    monkeypatch.setattr(builds, "RENEW_SECONDS", 0.05)
    hold, held = asyncio.Event(), asyncio.Event()
    put_in_place = Swap.put_in_place

    async def waiting(self: Any, *arguments: Any) -> None:
        held.set()
        await hold.wait()
        await put_in_place(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Swap, "put_in_place", waiting)
        first = asyncio.create_task(rebuild(alpha, QUEUE))
        await held.wait()
    with pytest.raises(RebuildRunning):
        await rebuild(alpha, QUEUE)
    await rebuild(alpha, BY_NAME["sla_clock"])
    await rebuild(beta, QUEUE)
    hold.set()
    assert (await first).rows == 25


@pytest.mark.spoils_views  # the thief is at it to the end
@pytest.mark.parametrize("step", ["_write", "put_in_place"])
async def test_a_rebuild_taken_over_by_another_writes_nothing_more(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await desk_in(alpha, 8)
    live = await rows_of(alpha, QUEUE.label)
    monkeypatch.setattr(builds, "RENEW_SECONDS", 60.0)  # a process that stood still for long
    shadow = f"{QUEUE.label}_build"
    stage: Any = rebuild_lane.Lane if step == "_write" else Swap
    done = getattr(stage, step)

    async def robbed(self: Any, *arguments: Any) -> None:
        async with alpha.database.pool.connection() as connection:
            await connection.execute(f"UPDATE {alpha.schema}.view_builds SET owner = 'thief'".encode())
        before = await rows_of(alpha, shadow)
        try:
            await done(self, *arguments)
        finally:
            assert await rows_of(alpha, shadow) == before

    monkeypatch.setattr(stage, step, robbed)
    with pytest.raises(RebuildRunning):
        await rebuild(alpha, QUEUE)
    assert await rows_of(alpha, QUEUE.label) == live


async def test_a_rebuild_sets_a_stopped_view_going_again(alpha: Workspace) -> None:
    desk = DeskDays(9)
    events = [*desk.first(), *desk.more(100)]
    head = await record(alpha, events)
    culprit = 1 + max(place for place, event in enumerate(events) if event.TOPIC.startswith("ticket."))
    await Runner(alpha.database, [failing_at(QUEUE, culprit)], "live").catch_up(alpha)
    assert (await reached(alpha, QUEUE)) == (culprit - 1, FAILED)
    await rebuild(alpha, QUEUE)
    assert (await reached(alpha, QUEUE)) == (head, LIVE)
    with pytest.raises(RebuildFailed) as failed:
        await rebuild(alpha, failing_at(QUEUE, culprit))
    assert (failed.value.position, failed.value.topic) == (culprit, events[culprit - 1].TOPIC)
    assert (await reached(alpha, QUEUE)) == (head, LIVE)


@pytest.mark.parametrize("topic", ["ticket.enchanted", "ticket.opened"])
async def test_a_rebuild_names_the_event_it_cannot_read(alpha: Workspace, topic: str) -> None:
    desk = await desk_in(alpha, 10, steps=50)
    live = await rows_of(alpha, QUEUE.label)
    broken = NewEvent(desk.new_id(), 1, topic, b'{"timestamp":"yesterday"}', None)
    position = (await alpha.log.append(Submission(events=[broken]))).position
    await bookkeeping.release(alpha, "live")
    with pytest.raises(RebuildFailed) as failed:
        await rebuild(alpha, QUEUE)
    assert (failed.value.position, failed.value.topic) == (position, topic)
    assert await rows_of(alpha, QUEUE.label) == live


async def test_the_swap_waits_for_readers_without_holding_up_the_projection(
    alpha: Workspace, database: Database
) -> None:
    desk = await desk_in(alpha, 11)
    reader = await database.connect("a long report")
    try:
        async with reader.transaction():
            await reader.execute(f"SELECT count(*) FROM {alpha.schema}.{QUEUE.label}".encode())
            swapping = asyncio.create_task(rebuild(alpha, QUEUE))
            live = Runner(database, [QUEUE], "live")
            for _ in range(5):
                head = await record(alpha, desk.more(20))
                await asyncio.wait_for(live.catch_up(alpha), 10)
                assert (await reached(alpha, QUEUE))[0] == head
            assert not swapping.done()
        report = await asyncio.wait_for(swapping, 20)
    finally:
        await reader.close()
    assert report.rows == 25
    assert (await reached(alpha, QUEUE))[0] == (await alpha.log.head()).position


async def test_what_a_swap_that_was_undone_had_taken_in_is_not_missing(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await desk_in(alpha, 11)
    swap, attempts = Swap._swap, 0

    async def undone(self: Any, connection: Any) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await record(alpha, desk.more(20))
            await Runner(alpha.database, [QUEUE], "live").catch_up(alpha)
        before = self._lane.position
        await swap(self, connection)
        if attempts == 1:
            assert self._lane.position > before
            raise psycopg.errors.LockNotAvailable

    monkeypatch.setattr(Swap, "_swap", undone)
    await rebuild(alpha, QUEUE)
    assert attempts == 2
    rebuilt = await rows_of(alpha, QUEUE.label)
    await rebuild(alpha, QUEUE)
    assert await rows_of(alpha, QUEUE.label) == rebuilt


async def test_the_reader_role_may_read_a_rebuilt_view(alpha: Workspace, database: Database) -> None:
    await desk_in(alpha, 12, steps=20)
    await rebuild(alpha, QUEUE)
    async with database.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT has_table_privilege('ledgerdesk_reader', %s, 'SELECT')", (f"{alpha.schema}.{QUEUE.label}",)
        )
        assert await cursor.fetchone() == (True,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(f"DELETE FROM {alpha.schema}.events".encode())
