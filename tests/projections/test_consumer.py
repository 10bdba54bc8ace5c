"""Events are handed to consumers at least once, in order, by one process at a time, and never again by a rebuild."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from projections import consumer
from projections.consumer import Consumer, Delivery, NoSuchConsumer
from projections.consumer_register import (
    ConsumerRunning,
    consumer_named,
    consumer_skips,
    consumer_status,
    register,
    remove,
    retry_consumer,
    skip_delivery,
)
from projections.registry import VIEWS
from projections.runner import Runner
from projections.skipping import SkipRefused
from replay.delivery import told
from replay.rebuild import rebuild
from storage import epochs
from storage.database import Database
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from storage.database import Workspace
    from storage.settings import Settings

PATIENCE = 30.0  # seconds
NAME = "relay"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FIRST_PAUSE", 0.01), ("RENEW_SECONDS", 0.05), ("LEASE_SECONDS", 0.5)):
        monkeypatch.setattr(consumer, name, seconds)


class Receiver:
    """Somebody outside, who notes what was handed on, and refuses some of it."""

    def __init__(self, *refused: int) -> None:
        self.seen: list[Delivery] = []
        self.refused = list(refused)

    async def __call__(self, delivery: Delivery) -> None:
        self.seen.append(delivery)
        if delivery.row.position in self.refused:
            self.refused.remove(delivery.row.position)
            message = "not today"
            raise RuntimeError(message)

    @property
    def positions(self) -> list[int]:
        return [delivery.row.position for delivery in self.seen]


@asynccontextmanager
async def handing_on(*consumers: Consumer) -> AsyncIterator[None]:
    """Let consumers run for a while."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(one.run(stop)) for one in consumers]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


async def reaches(workspace: Workspace, position: int) -> None:
    async def there() -> bool:
        return (await consumer_named(workspace, NAME)).position >= position

    await until(there)


async def stops(workspace: Workspace) -> None:
    async def stopped() -> bool:
        return (await consumer_named(workspace, NAME)).state == "failed"

    await until(stopped)


async def test_a_consumer_begins_with_the_next_event_or_with_the_first(alpha: Workspace, beta: Workspace) -> None:
    desk = DeskDays(1)
    before = await record(alpha, desk.first())
    assert await register(alpha, NAME)
    assert await register(alpha, "from-start", from_start=True)
    assert not await register(alpha, NAME, from_start=True)  # it is there, and stays where it is
    late, early = Receiver(), Receiver()
    head = await record(alpha, desk.more(20))
    async with handing_on(Consumer(alpha, NAME, late), Consumer(alpha, "from-start", early)):
        await reaches(alpha, head)
        head = await record(alpha, desk.more(20))
        await reaches(alpha, head)
    async with handing_on(Consumer(alpha, "from-start", early)):

        async def there() -> bool:
            return (await consumer_named(alpha, "from-start")).position == head

        await until(there)
    assert late.positions == list(range(before + 1, head + 1))
    assert early.positions == list(range(1, head + 1))
    assert len({delivery.id for delivery in early.seen}) == head
    assert [one.name for one in await consumer_status(alpha)] == ["from-start", NAME]
    assert await consumer_status(beta) == []


async def test_an_event_that_is_refused_comes_again_under_the_same_id_before_any_other(alpha: Workspace) -> None:
    head = await record(alpha, DeskDays(1).first())
    await register(alpha, NAME, from_start=True)
    receiver = Receiver(2, 2, 4)
    async with handing_on(Consumer(alpha, NAME, receiver)):
        await reaches(alpha, head)
    assert receiver.positions == [1, 2, 2, 2, 3, 4, 4, *range(5, head + 1)]
    assert len({delivery.id for delivery in receiver.seen}) == head
    status = await consumer_named(alpha, NAME)
    assert (status.state, status.attempts, status.failure, status.lag_events) == ("live", 0, None, 0)


async def test_a_consumer_stops_after_so_many_attempts_and_goes_on_when_told(alpha: Workspace) -> None:
    head = await record(alpha, DeskDays(1).first())
    await register(alpha, NAME, from_start=True)
    receiver = Receiver(3, 3, 3)
    async with handing_on(Consumer(alpha, NAME, receiver, attempts=3)):
        await stops(alpha)
        status = await consumer_named(alpha, NAME)
        assert status.failure is not None
        assert (status.position, status.attempts, status.failure.position) == (2, 3, 3)
        assert (status.failure.error, status.lag_events) == ("not today", head - 2)
        assert receiver.positions == [1, 2, 3, 3, 3]
        assert await retry_consumer(alpha, NAME)
        await reaches(alpha, head)
    assert receiver.positions == [1, 2, 3, 3, 3, *range(3, head + 1)]
    assert not await retry_consumer(alpha, NAME)


async def test_only_the_event_at_which_a_consumer_stopped_is_passed_over_and_that_is_recorded(alpha: Workspace) -> None:
    head = await record(alpha, DeskDays(1).first())
    await register(alpha, NAME, from_start=True)
    receiver = Receiver(3)
    with pytest.raises(SkipRefused, match="has not stopped"):
        await skip_delivery(alpha, NAME, position=1, reason="because", by="ann")
    async with handing_on(Consumer(alpha, NAME, receiver, attempts=1)):
        await stops(alpha)
        with pytest.raises(SkipRefused, match="stopped at event 3, not at 4"):
            await skip_delivery(alpha, NAME, position=4, reason="because", by="ann")
        with pytest.raises(ValueError, match="1 to 500"):
            await skip_delivery(alpha, NAME, position=3, reason=" ", by="ann")
        assert await consumer_skips(alpha) == []
        await skip_delivery(alpha, NAME, position=3, reason="Sent by hand.", by="ann")
        await reaches(alpha, head)
    assert receiver.positions == list(range(1, head + 1))
    (noted,) = await consumer_skips(alpha)
    assert noted[:2] == (NAME, 3)
    assert (noted.error, noted.reason, noted.skipped_by) == ("not today", "Sent by hand.", "ann")


async def test_a_handler_that_takes_too_long_is_cancelled_and_called_again(alpha: Workspace) -> None:
    await record(alpha, DeskDays(1).first())
    await register(alpha, NAME, from_start=True)
    cancelled = 0

    async def hang(_delivery: Delivery) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    async with handing_on(Consumer(alpha, NAME, hang, timeout=0.05, attempts=2)):
        await stops(alpha)
    assert cancelled == 2
    failure = (await consumer_named(alpha, NAME)).failure
    assert failure is not None
    assert (failure.position, failure.error) == (1, "took longer than 0.05 s")


async def test_of_many_processes_one_hands_on_at_a_time(alpha: Workspace) -> None:
    head = await record(alpha, [*(desk := DeskDays(1)).first(), *desk.more(60)])
    await register(alpha, NAME, from_start=True)
    busy = 0
    seen: list[int] = []

    async def take(delivery: Delivery) -> None:
        nonlocal busy
        assert busy == 0
        busy += 1
        await asyncio.sleep(0)
        seen.append(delivery.row.position)
        busy -= 1

    async with handing_on(*(Consumer(alpha, NAME, take) for _ in range(3))):
        await reaches(alpha, head)
    assert seen == list(range(1, head + 1))


async def test_whoever_has_lost_the_consumer_drops_what_it_has_in_hand_and_moves_nothing(
    database: Database, alpha: Workspace
) -> None:
    head = await record(alpha, DeskDays(1).first())
    await register(alpha, NAME, from_start=True)
    in_hand, dropped = asyncio.Event(), asyncio.Event()

    async def hang(_delivery: Delivery) -> None:
        in_hand.set()
        try:
            await asyncio.Event().wait()
        finally:
            dropped.set()

    async with handing_on(Consumer(alpha, NAME, hang)):
        await asyncio.wait_for(in_hand.wait(), PATIENCE)
        async with database.pool.connection() as connection:
            await connection.execute(
                "UPDATE ws_alpha.consumers SET owner = 'another', leased_until = now() + interval '1 hour'"
            )
        await asyncio.wait_for(dropped.wait(), PATIENCE)
        assert (await consumer_named(alpha, NAME)).position == 0
    async with database.pool.connection() as connection:
        await connection.execute("UPDATE ws_alpha.consumers SET leased_until = now()")
    receiver = Receiver()
    async with handing_on(Consumer(alpha, NAME, receiver)):
        await reaches(alpha, head)
    assert receiver.positions == list(range(1, head + 1))


async def test_a_late_owner_does_not_move_the_checkpoint_for_an_event_it_had_in_hand(
    database: Database, alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(alpha, DeskDays(1).first())
    await register(alpha, NAME, from_start=True)
    monkeypatch.setattr(consumer, "RENEW_SECONDS", 60.0)  # it stood still, and has not looked

    async def take(_delivery: Delivery) -> None:
        async with database.pool.connection() as connection:
            await connection.execute(
                "UPDATE ws_alpha.consumers SET owner = 'another', leased_until = now() + interval '1 hour'"
            )
        done.set()

    done, stop = asyncio.Event(), asyncio.Event()
    late = asyncio.create_task(Consumer(alpha, NAME, take).run(stop))
    await asyncio.wait_for(done.wait(), PATIENCE)
    stop.set()
    await late
    status = await consumer_named(alpha, NAME)
    assert (status.position, status.owner) == (0, "another")


async def test_a_rebuild_hands_nothing_on_again(database: Database, alpha: Workspace) -> None:
    desk = DeskDays(1)
    head = await record(alpha, [*desk.first(), *desk.more(30)])
    await register(alpha, NAME, from_start=True)
    receiver = Receiver()
    async with handing_on(Consumer(alpha, NAME, receiver)):
        await reaches(alpha, head)
        await Runner(database, VIEWS, "runner").catch_up(alpha)
        for view in VIEWS:
            await rebuild(alpha, view)
        head = await record(alpha, desk.more(5))
        await reaches(alpha, head)
    assert receiver.positions == list(range(1, head + 1))


async def test_an_event_keeps_its_delivery_id_in_later_epochs_and_no_other_event_gets_it(
    settings: Settings, alpha: Workspace
) -> None:
    desk = DeskDays(1)
    old = await record(alpha, desk.first())
    await register(alpha, NAME, from_start=True)
    first = Receiver()
    async with handing_on(Consumer(alpha, NAME, first)):
        await reaches(alpha, old)
    async with await Database.open(settings, role="owner") as owner:
        await epochs.renew(await owner.workspace("alpha"), "put back", trusted=old - 1)
    # By connections of its own: all that there were have been ended.
    async with await Database.open(settings) as database:
        workspace = await database.workspace("alpha")
        head = await record(workspace, desk.more(5))
        await register(workspace, "again", from_start=True)
        again = Receiver()
        async with handing_on(Consumer(workspace, "again", again)):

            async def there() -> bool:
                return (await consumer_named(workspace, "again")).position == head

            await until(there)
    before = [delivery.id.removeprefix("relay:") for delivery in first.seen]
    after = [delivery.id.removeprefix("again:") for delivery in again.seen]
    assert after[: old - 1] == before[: old - 1]
    assert not set(after[old - 1 :]) & set(before)  # what the position stood for is not trusted any more


async def test_a_consumer_is_removed_only_while_nobody_hands_on(alpha: Workspace) -> None:
    head = await record(alpha, DeskDays(1).first())
    await register(alpha, NAME, from_start=True)
    async with handing_on(Consumer(alpha, NAME, Receiver())):
        await reaches(alpha, head)
        with pytest.raises(ConsumerRunning):
            await remove(alpha, NAME)
    await remove(alpha, NAME)
    for attempt in (remove(alpha, NAME), retry_consumer(alpha, NAME)):
        with pytest.raises(NoSuchConsumer):
            await attempt
    with pytest.raises(NoSuchConsumer):
        await Consumer(alpha, NAME, Receiver()).run(asyncio.Event())
    for name in ("", "Relay", "1st", "a b", "x" * 41):
        with pytest.raises(ValueError, match="name"):
            await register(alpha, name)


async def test_personal_values_are_handed_on_only_where_they_are_wanted(alpha: Workspace) -> None:
    head = await record(alpha, [*(desk := DeskDays(1)).first(), *desk.more(40)])
    rows = await alpha.log.page(0, head)
    names = set()
    everything = {True: "", False: ""}
    for row in rows:
        closed = await told(alpha, Delivery("x", row))
        opened = await told(alpha, Delivery("x", row), opened=True)
        assert opened["withheld"] == []
        assert closed["fields"].keys() == opened["fields"].keys() - set(closed["withheld"])
        assert closed["withheld"] == sorted(opened["fields"].keys() - closed["fields"].keys())
        assert {**closed, "fields": 0, "withheld": 0} == {**opened, "fields": 0, "withheld": 0}
        names.update(closed["withheld"])
        everything[True] += str(opened)
        everything[False] += str(closed)
    assert {"name", "email", "subject", "reason"} <= names
    assert "客户" in everything[True]
    assert "客户" not in everything[False]
