"""Views follow their logs exactly once, whoever is killed, late or mistaken."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from projections import bookkeeping, lease, runner
from projections.bookkeeping import FAILED, LIVE, LostOwnership, view_status
from projections.page import Page
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner, take_in
from projections.together import Connections, Memory, write_together
from projections.waiting import NotReached, wait_for
from replay.rebuild import rebuild
from storage.append import NewEvent, Submission
from storage.migrations import create_workspace
from tests.projections.desk_days import DeskDays, as_recorded, record, rows_of
from tests.projections.test_folds import folded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from projections.table import Rows
    from projections.view import View
    from storage.codec import Recorded
    from storage.database import Database, Workspace
    from storage.log_reader import StoredRow
    from storage.settings import Settings

QUEUE = BY_NAME["ticket_queue"]
TRAIL = BY_NAME["audit_trail"]


@asynccontextmanager
async def running(*runners: Runner) -> AsyncIterator[None]:
    """Let runners run for a while."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(one.run(stop)) for one in runners]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def checkpoints(workspace: Workspace) -> dict[str, int]:
    return {status.name: status.position for status in await view_status(workspace, VIEWS)}


async def shown(workspace: Workspace, view: View, *names: str) -> set[tuple[Any, ...]]:
    """Give some columns of every row of a view."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            f'SELECT {", ".join(names)} FROM "{workspace.schema}"."{view.label}"'.encode()
        )
        return {tuple(row) for row in await cursor.fetchall()}


def failing_at(view: View, position: int) -> View:
    """Give a view whose fold cannot take one event in."""

    def fold(rows: Rows, recorded: Iterable[Recorded], *told: Any) -> Rows:
        page = list(recorded)
        for one in page:
            if one.position == position:
                message = "I will not have this"
                raise RuntimeError(message)
        return view.fold(rows, page, *told)

    return dataclasses.replace(view, fold=fold, follow=None)


async def test_views_of_both_workspaces_follow_their_own_logs(
    database: Database, alpha: Workspace, beta: Workspace
) -> None:
    here, there = DeskDays(1), DeskDays(2)
    async with running(Runner(database, VIEWS)):
        in_alpha, in_beta = [*here.first(), *here.more(150)], [*there.first(), *there.more(90)]
        for workspace, events in ((alpha, in_alpha), (beta, in_beta)):
            head = await record(workspace, events)
            for view in VIEWS:
                await asyncio.wait_for(_exists(workspace, view), 10)
                assert await wait_for(workspace, view, head, 10) == head
    names = ("ticket_id", "since", "status", "agent_id", "updated_at")
    for workspace, events in ((alpha, in_alpha), (beta, in_beta)):
        expected = {tuple(row[name] for name in names) for row in folded(QUEUE, as_recorded(events)).values()}
        assert await shown(workspace, QUEUE, *names) == expected
        assert all(status.lag_events == 0 and status.state == LIVE for status in await view_status(workspace, VIEWS))


async def _exists(workspace: Workspace, view: View) -> None:
    while True:
        try:
            await bookkeeping.reached(workspace, view)
        except bookkeeping.ViewsNotReady:
            await asyncio.sleep(0.02)
        else:
            return


async def test_a_workspace_made_later_is_found(database: Database, alpha: Workspace, settings: Settings) -> None:
    async with running(Runner(database, VIEWS)):
        await asyncio.wait_for(_exists(alpha, QUEUE), 10)
        await create_workspace(settings, "gamma")
        gamma = await database.workspace("gamma")
        head = await record(gamma, DeskDays(5).first())
        await asyncio.wait_for(_exists(gamma, QUEUE), 10)
        assert await wait_for(gamma, QUEUE, head, 10) == head


async def test_the_checkpoint_moves_past_events_that_a_view_does_not_fold(database: Database, alpha: Workspace) -> None:
    head = await record(alpha, DeskDays(1).first())
    await Runner(database, VIEWS).catch_up(alpha)
    assert await checkpoints(alpha) == {view.name: head for view in VIEWS}
    assert await rows_of(alpha, QUEUE.label) == []


async def test_any_sizes_of_page_give_the_same_rows(
    database: Database, alpha: Workspace, beta: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = DeskDays(11)
    events = [*desk.first(), *desk.more(160)]
    await record(alpha, events)
    await record(beta, events)
    await Runner(database, VIEWS).catch_up(alpha)
    monkeypatch.setattr(runner, "FIRST_PAGE", 1)
    monkeypatch.setattr(runner, "LARGEST_PAGE", 7)
    await Runner(database, VIEWS).catch_up(beta)
    for view in VIEWS:
        # Seals and recorded times differ from one log to the other.
        names = [name for name in view.table.names if not name.endswith("_sealed") and name != "recorded_at"]
        columns = [f'"{name}"::text' for name in names]
        assert await shown(alpha, view, *columns) == await shown(beta, view, *columns)


@pytest.mark.parametrize(
    ("first", "quick", "slow", "limits"),
    [
        (1, 1e9, 1e9, [1, 2, 4, 8, 8]),  # full and quick: twice as many, up to the largest
        (8, -1.0, 1e9, [8, 8]),  # neither quick nor slow: as many
        (8, -1.0, -1.0, [8, 4, 2, 1, 1]),  # slow: half as many, down to one
    ],
)
async def test_pages_are_as_large_as_can_be_taken_in_quickly(
    database: Database,
    alpha: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
    quick: float,
    slow: float,
    limits: list[int],
) -> None:
    for name, value in (("FIRST_PAGE", first), ("LARGEST_PAGE", 8), ("QUICK_SECONDS", quick), ("SLOW_SECONDS", slow)):
        monkeypatch.setattr(runner, name, value)
    monkeypatch.setattr(runner, "TOGETHER", 0)
    desk = DeskDays(1)
    await record(alpha, [*desk.first(), *desk.more(30)])
    read = alpha.log.page
    asked: list[int] = []

    async def page(after: int, limit: int, **more: Any) -> Sequence[StoredRow]:
        asked.append(limit)
        return await read(after, limit, **more)

    monkeypatch.setattr(alpha.log, "page", page)
    await Runner(database, [QUEUE]).catch_up(alpha)
    assert asked[: len(limits)] == limits
    assert (await bookkeeping.reached(alpha, QUEUE))[0] == (await alpha.log.head()).position


async def test_two_runners_share_the_work_without_doing_any_of_it_twice(
    database: Database, alpha: Workspace, beta: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Leases that run out at once: ownership is fought over all the time, and only the fence keeps order.
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0)
    monkeypatch.setattr(bookkeeping, "LEASE_SECONDS", 0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(runner, "DISCOVER_SECONDS", 0.0)
    monkeypatch.setattr(runner, "FIRST_PAGE", 20)
    desk = DeskDays(21)
    events = [*desk.first(), *desk.more(300)]
    async with running(*(Runner(database, VIEWS) for _ in range(2))):
        await asyncio.wait_for(_exists(alpha, QUEUE), 10)
        head = 0
        for start in range(0, len(events), 40):
            head = await record(alpha, events[start : start + 40])
        for view in VIEWS:
            await wait_for(alpha, view, head, 20)
    expected = {(row["position"], row["topic"]) for row in folded(TRAIL, as_recorded(events)).values()}
    assert await shown(alpha, TRAIL, "position", "topic") == expected
    assert await shown(alpha, QUEUE, "ticket_id", "since") == {
        (row["ticket_id"], row["since"]) for row in folded(QUEUE, as_recorded(events)).values()
    }
    assert await rows_of(beta, QUEUE.label) == []


async def test_a_runner_that_lost_a_view_writes_nothing(database: Database, alpha: Workspace) -> None:
    desk = DeskDays(3)
    await record(alpha, [*desk.first(), *desk.more(20)])
    late = Runner(database, [QUEUE])
    await late.catch_up(alpha)
    old, _ = await bookkeeping.reached(alpha, QUEUE)
    head = await record(alpha, desk.more(40))
    page = Page(await alpha.log.page(old, 1_000))
    # Another process takes the view over while the late one has its page in hand.
    await late.release()
    await Runner(database, [QUEUE]).catch_up(alpha)
    before = await rows_of(alpha, QUEUE.label)
    with pytest.raises(LostOwnership):
        await take_in(alpha, QUEUE, page, 0, len(page), owner=late.owner_id, old=old)
    assert await rows_of(alpha, QUEUE.label) == before
    assert (await bookkeeping.reached(alpha, QUEUE))[0] == head


async def test_a_runner_that_lost_a_view_where_it_stands_writes_nothing_either(
    database: Database, alpha: Workspace
) -> None:
    desk = DeskDays(3)
    await record(alpha, [*desk.first(), *desk.more(20)])
    late = Runner(database, [QUEUE])
    await late.catch_up(alpha)
    old, _ = await bookkeeping.reached(alpha, QUEUE)
    await late.release()
    await Runner(database, [QUEUE]).catch_up(alpha)
    await record(alpha, desk.more(40))
    page = Page(await alpha.log.page(old, 1_000))
    with pytest.raises(LostOwnership):
        await take_in(alpha, QUEUE, page, 0, len(page), owner=late.owner_id, old=old)
    with pytest.raises(LostOwnership):
        await bookkeeping.stop(
            alpha, QUEUE, owner=late.owner_id, at=old, position=old + 1, topic="ticket.opened", error="no"
        )
    assert (await bookkeeping.reached(alpha, QUEUE)) == (old, LIVE)


async def test_a_page_is_not_taken_in_twice_by_its_owner(database: Database, alpha: Workspace) -> None:
    desk = DeskDays(3)
    await record(alpha, [*desk.first(), *desk.more(20)])
    one = Runner(database, [QUEUE])
    await one.catch_up(alpha)
    page = Page(await alpha.log.page(0, 1_000))
    past = await rows_of(alpha, f"{QUEUE.label}_past")
    with pytest.raises(LostOwnership):
        await take_in(alpha, QUEUE, page, 0, len(page), owner=one.owner_id, old=0)
    assert await rows_of(alpha, f"{QUEUE.label}_past") == past


async def test_rows_and_checkpoint_are_committed_together(
    database: Database, alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between the rows and the end of the transaction has done neither."""
    desk = DeskDays(4)
    head = await record(alpha, [*desk.first(), *desk.more(60)])
    one = Runner(database, [QUEUE])
    await bookkeeping.prepare(alpha, [QUEUE])
    monkeypatch.setattr(runner, "TOGETHER", 0)
    shelf = QUEUE.shelf(alpha.schema)
    store = shelf.store

    class Killed(BaseException):
        pass

    async def dying(*args: Any, **kwargs: Any) -> None:
        await store(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(shelf, "store", dying)
    with pytest.raises(Killed):
        await one.catch_up(alpha)
    assert await rows_of(alpha, QUEUE.label) == []
    assert (await bookkeeping.reached(alpha, QUEUE))[0] == 0
    monkeypatch.setattr(shelf, "store", store)
    await one.catch_up(alpha)
    assert (await bookkeeping.reached(alpha, QUEUE))[0] == head
    assert await rows_of(alpha, f"{QUEUE.label}_past") == []


async def test_several_views_take_in_a_page_together_or_not_at_all(database: Database, alpha: Workspace) -> None:
    desk = DeskDays(4)
    await Runner(database, VIEWS, "us").catch_up(alpha)
    head = await record(alpha, [*desk.first(), *desk.more(60)])
    page = Page(await alpha.log.page(0, head))
    memory, connections = Memory(), Connections(database)
    async with alpha.database.pool.connection() as connection:
        await connection.execute(f"ALTER TABLE {alpha.schema}.{QUEUE.label} ADD CHECK (number < 20)".encode())
    with pytest.raises(psycopg.errors.CheckViolation):
        await write_together(alpha, VIEWS, page, memory, connections, owner="us", old=0)
    assert {status.position for status in await view_status(alpha, VIEWS)} == {0}
    assert await rows_of(alpha, TRAIL.label) == []
    assert memory.held == 0
    # One view of them is somebody else's by now: the others are written, and it is not.
    async with alpha.database.pool.connection() as connection:
        await connection.execute(
            f"UPDATE {alpha.schema}.views SET owner = 'them' WHERE name = %s".encode(), (QUEUE.name,)
        )
    others = [view for view in VIEWS if view is not QUEUE]
    assert await write_together(alpha, VIEWS, page, memory, connections, owner="us", old=0) == others
    assert {status.name: status.position for status in await view_status(alpha, VIEWS)} == {
        view.name: 0 if view is QUEUE else head for view in VIEWS
    }
    assert await rows_of(alpha, QUEUE.label) == []
    assert len(await rows_of(alpha, TRAIL.label)) == head
    await connections.close()


async def test_rows_remembered_are_those_of_the_table_however_few_are_remembered(
    database: Database, alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FIRST_PAGE", 3)
    monkeypatch.setattr(runner, "LARGEST_PAGE", 3)
    desk = DeskDays(8)
    events = [*desk.first(), *desk.more(150)]
    await record(alpha, events)
    one = Runner(database, VIEWS)
    one._memory = Memory(most=7)
    await one.catch_up(alpha)
    assert 0 < one._memory.held <= 7
    assert await shown(alpha, QUEUE, "ticket_id", "since", "status") == {
        (row["ticket_id"], row["since"], row["status"]) for row in folded(QUEUE, as_recorded(events)).values()
    }


async def test_rows_that_a_rebuild_mended_are_not_taken_from_memory(database: Database, alpha: Workspace) -> None:
    desk = DeskDays(5)
    events = [*desk.first(), *desk.more(40)]
    await record(alpha, events)
    one = Runner(database, VIEWS)
    await one.catch_up(alpha)
    async with alpha.database.pool.connection() as connection:
        await connection.execute(f"UPDATE {alpha.schema}.{QUEUE.label} SET category = 'spoilt'".encode())
    await one.release()
    restarted = Runner(database, VIEWS)
    await restarted.catch_up(alpha)
    more = desk.more(60)
    await record(alpha, more[:30])
    await restarted.catch_up(alpha)  # remembers spoilt rows
    await rebuild(alpha, QUEUE)
    await record(alpha, more[30:])
    await restarted.catch_up(alpha)
    again = {event.originator_id for event in more[:30]} & {event.originator_id for event in more[30:]}
    assert again & {event.originator_id for event in events if event.TOPIC == "ticket.opened"}
    assert await shown(alpha, QUEUE, "ticket_id", "category") == {
        (row["ticket_id"], row["category"]) for row in folded(QUEUE, as_recorded([*events, *more])).values()
    }


async def test_a_view_whose_owner_died_is_taken_over_when_the_lease_runs_out(
    database: Database, alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1)
    await Runner(database, VIEWS, "the one that died").catch_up(alpha)
    head = await record(alpha, DeskDays(1).first())
    async with running(Runner(database, VIEWS, "the next")):
        with pytest.raises(NotReached):
            await wait_for(alpha, QUEUE, head, 0.3)
        assert await wait_for(alpha, QUEUE, head, 10) == head
        assert {status.owner for status in await view_status(alpha, VIEWS)} == {"the next"}


async def test_an_event_that_a_view_cannot_take_in_stops_that_view_just_before_it(
    database: Database, alpha: Workspace, beta: Workspace
) -> None:
    desk = DeskDays(6)
    events = [*desk.first(), *desk.more(80)]
    head = await record(alpha, events)
    await record(beta, events)
    tickets = [position for position, event in enumerate(events, 1) if event.TOPIC.startswith("ticket.")]
    culprit = tickets[len(tickets) // 2]
    views = [failing_at(QUEUE, culprit) if view is QUEUE else view for view in VIEWS]
    await Runner(database, views, "first").catch_up(alpha)

    stopped = {status.name: status for status in await view_status(alpha, VIEWS)}
    failure = stopped["ticket_queue"].failure
    assert failure is not None
    assert (failure.position, failure.topic) == (culprit, events[culprit - 1].TOPIC)
    assert "I will not have this" in failure.error
    assert stopped["ticket_queue"].state == FAILED
    assert stopped["ticket_queue"].position == culprit - 1
    assert stopped["ticket_queue"].lag_events == head - culprit + 1
    assert all(status.position == head for name, status in stopped.items() if name != "ticket_queue")
    assert await shown(alpha, QUEUE, "ticket_id", "since") == {
        (row["ticket_id"], row["since"]) for row in folded(QUEUE, as_recorded(events[: culprit - 1])).values()
    }
    # The other workspace's view of the same name knows nothing of it.
    await Runner(database, VIEWS).catch_up(beta)
    assert all(status.state == LIVE for status in await view_status(beta, VIEWS))

    with pytest.raises(NotReached) as refused:
        await wait_for(alpha, QUEUE, head, 30)  # at once: it will not come
    assert (refused.value.reached, refused.value.state) == (culprit - 1, FAILED)

    mended = Runner(database, VIEWS, "first")
    await mended.catch_up(alpha)
    assert (await bookkeeping.reached(alpha, QUEUE)) == (culprit - 1, FAILED)
    assert await bookkeeping.retry(alpha, QUEUE)
    assert not await bookkeeping.retry(beta, QUEUE)
    await mended.catch_up(alpha)
    assert (await bookkeeping.reached(alpha, QUEUE)) == (head, LIVE)


async def test_an_event_of_an_unknown_type_stops_every_view(database: Database, alpha: Workspace) -> None:
    desk = DeskDays(8)
    last = await record(alpha, [*desk.first(), *desk.more(30)])
    strange = NewEvent(desk.new_id(), 1, "ticket.enchanted", b"{}", None)
    await alpha.log.append(Submission(events=[strange]))
    await record(alpha, desk.more(30))
    await Runner(database, VIEWS).catch_up(alpha)
    for status in await view_status(alpha, VIEWS):
        assert status.failure is not None
        assert (status.position, status.failure.topic) == (last, "ticket.enchanted")


async def test_a_state_that_cannot_be_read_stops_the_views_that_fold_it(database: Database, alpha: Workspace) -> None:
    desk = DeskDays(8)
    last = await record(alpha, desk.first())
    broken = NewEvent(desk.new_id(), 1, "ticket.opened", b'{"timestamp":"yesterday"}', None)
    await alpha.log.append(Submission(events=[broken]))
    await Runner(database, VIEWS).catch_up(alpha)
    reached = await checkpoints(alpha)
    assert reached["ticket_queue"] == reached["sla_clock"] == reached["audit_trail"] == last
    assert reached["directory"] == last + 1


async def test_the_lag_is_the_age_of_the_oldest_event_not_taken_in(database: Database, alpha: Workspace) -> None:
    await bookkeeping.prepare(alpha, VIEWS)
    await record(alpha, DeskDays(1).first())
    await asyncio.sleep(0.05)
    (behind,) = await view_status(alpha, [QUEUE])
    assert behind.lag_events == behind.head > 0
    assert 0.05 <= behind.lag_seconds < 30
    await Runner(database, [QUEUE]).catch_up(alpha)
    (level,) = await view_status(alpha, [QUEUE])
    assert (level.lag_events, level.lag_seconds) == (0, 0.0)


async def test_waiting_ends_with_the_position_reached(database: Database, alpha: Workspace) -> None:
    head = await record(alpha, DeskDays(1).first())
    await Runner(database, [QUEUE]).catch_up(alpha)
    assert await wait_for(alpha, QUEUE, head, 0) == head
    with pytest.raises(NotReached) as late:
        await wait_for(alpha, QUEUE, head + 1, 0.1)
    assert (late.value.view, late.value.wanted, late.value.reached) == ("ticket_queue", head + 1, head)


async def test_tables_can_be_made_by_many_processes_at_once(alpha: Workspace) -> None:
    await asyncio.gather(*(bookkeeping.prepare(alpha, VIEWS) for _ in range(4)))
    assert await checkpoints(alpha) == {view.name: 0 for view in VIEWS}
