"""Hands events on to the world outside, each at least once and in order, by a checkpoint that no rebuild touches."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from projections.bookkeeping import FAILED, new_owner
from projections.runner import is_passing
from projections.view import ViewError
from storage.ending import end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storage.database import Workspace
    from storage.epochs import Epoch
    from storage.log_reader import StoredRow

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 3.0  # how long the events of a process that was killed wait for another
RENEW_SECONDS: Final = 1.0
PAGE_EVENTS: Final = 100
FIRST_PAUSE: Final = 1.0  # seconds before an event is tried again; twice as long after each time
LONGEST_PAUSE: Final = 60.0


class NoSuchConsumer(ViewError):
    """There is no consumer of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no consumer {name!r}")


class Delivery(NamedTuple):
    """An event to be handed on.

    `id` is the same each time that the same event is handed to the same consumer, and never that of another event, also
    where a log lost its end and other events took those positions: whoever receives it can leave out what it has seen.
    """

    id: str
    row: StoredRow


class _Standing(NamedTuple):
    """Where a consumer stands, and in how many seconds its event may be tried again."""

    position: int
    state: str
    pause: float
    ours: bool


class Consumer:
    """Hands the events after a consumer's checkpoint to `handle`, one by one, while no other process does.

    The checkpoint moves when the handler has returned. One that raises, or takes longer than `timeout` seconds and is
    cancelled, is called again with the same event after growing pauses; after `attempts` times the consumer stops, until
    it is told to retry or to skip the event. A process that dies in between leaves it to the next to call again.
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        handle: Callable[[Delivery], Awaitable[None]],
        *,
        timeout: float = 30.0,
        attempts: int = 10,
    ) -> None:
        self.name = name
        self._workspace = workspace
        self._handle = handle
        self._timeout = timeout
        self._attempts = attempts
        self._owner = new_owner()
        self._names = {"schema": Identifier(workspace.schema)}
        self._woken = asyncio.Event()
        self._epochs: list[Epoch] = []
        self._epoch: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Hand events on until `stop` is set and the event in hand is through; outages of the database are waited out.

        Raises NoSuchConsumer where it is not registered, or not any more.
        """
        helping = [asyncio.create_task(self._listen()), asyncio.create_task(self._wake_on(stop))]
        try:
            while not stop.is_set():
                try:
                    if await self._take():
                        await self._hold_and_work(stop)
                    else:
                        await self._rest(RENEW_SECONDS)
                except Exception as error:
                    if not is_passing(error):
                        raise
                    logger.warning("%s waits for the database: %s", self.name, error)
                    await self._rest(RENEW_SECONDS)
        finally:
            for task in helping:
                await end(task)
            with suppress(psycopg.Error):
                await self._execute(_RELEASE)

    async def _hold_and_work(self, stop: asyncio.Event) -> None:
        """Work for as long as the consumer is ours: whoever has lost it drops what it has in hand."""
        tasks = [asyncio.create_task(self._hold()), asyncio.create_task(self._work(stop))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                if not task.done():
                    await end(task)
        for task in done:
            task.result()

    async def _hold(self) -> None:
        renewed_at = time.monotonic()
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if await self._execute(_RENEW, {"lease": LEASE_SECONDS}) != 1:
                    break
            except Exception as error:
                # What is in hand is not dropped for a moment's outage.
                if not is_passing(error) or time.monotonic() - renewed_at > LEASE_SECONDS:
                    raise
            else:
                renewed_at = time.monotonic()
        logger.warning("%s is handed on by another process", self.name)

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._woken.clear()
            position, state, pause, ours = await self._standing()
            if not ours:
                return
            if state == FAILED:
                await self._rest(RENEW_SECONDS)
            elif pause > 0:
                await self._rest(pause)
            elif rows := await self._workspace.log.page(position, PAGE_EVENTS):
                for row in rows:
                    if stop.is_set() or not await self._hand_on(row):
                        break
            elif position > (head := (await self._workspace.log.head()).position):
                message = f"it has handed on position {position} and the log ends at {head}"
                await self._fail(position, position, "", message, attempts=1)
            else:
                await self._rest(RENEW_SECONDS)

    async def _hand_on(self, row: StoredRow) -> bool:
        """Hand one event on, and move the checkpoint; False when it was refused or the consumer is not ours any more."""
        delivery = Delivery(await self._id(row.position), row)
        try:
            async with asyncio.timeout(self._timeout):
                await self._handle(delivery)
        except TimeoutError:
            error = f"took longer than {self._timeout:g} s"
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is recorded, and the event tried again
            error = str(raised) or type(raised).__name__
        else:
            return await self._execute(_ADVANCE, {"position": row.position, "recorded_at": row.recorded_at}) == 1
        logger.warning("%s: event %d (%s): %s", self.name, row.position, row.topic, error)
        await self._fail(row.position - 1, row.position, row.topic, error, attempts=self._attempts)
        return False

    async def _fail(self, old: int, position: int, topic: str, error: str, *, attempts: int) -> None:
        """Record a failure; the event is tried again later unless it was tried often enough."""
        await self._execute(
            _FAIL,
            {
                "old": old,
                "position": position,
                "topic": topic,
                "error": error[:4000],
                "attempts": attempts,
                "first": FIRST_PAUSE,
                "longest": LONGEST_PAUSE,
            },
        )

    async def _id(self, position: int) -> str:
        """Name an event for this consumer: by position, and the epoch in which the log got it."""
        epoch = await self._workspace.log.epoch()
        if epoch != self._epoch:
            self._epochs, self._epoch = await self._workspace.log.epochs.all(), epoch
        written = next((one.epoch for one in reversed(self._epochs) if one.after_position < position), epoch)
        return f"{self.name}:{position}.{written}"

    async def _take(self) -> bool:
        await self._execute(_TAKE, {"lease": LEASE_SECONDS})
        return (await self._standing()).ours

    async def _standing(self) -> _Standing:
        """Look where it stands. Raises NoSuchConsumer."""
        async with self._workspace.database.pool.connection() as connection:
            cursor = await connection.execute(
                SQL(_STANDING).format(**self._names), {"name": self.name, "owner": self._owner}, prepare=True
            )
            row = await cursor.fetchone()
        if row is None:
            raise NoSuchConsumer(self.name)
        return _Standing(*row)

    async def _execute(self, statement: str, more: dict[str, Any] | None = None) -> int:
        parameters = {"name": self.name, "owner": self._owner} | (more or {})
        async with self._workspace.database.pool.connection() as connection:
            cursor = await connection.execute(SQL(statement).format(**self._names), parameters, prepare=True)
            return cursor.rowcount

    async def _rest(self, seconds: float) -> None:
        """Wait for news of the log or the end, so many seconds at most."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    async def _listen(self) -> None:
        async for names in self._workspace.database.listen():
            if self._workspace.name in names:
                self._woken.set()

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._woken.set()


_TAKE = """
UPDATE {schema}.consumers SET owner = %(owner)s, leased_until = now() + %(lease)s * interval '1 second'
WHERE name = %(name)s AND (owner IS NULL OR owner = %(owner)s OR leased_until < now())
"""

_RENEW = """
UPDATE {schema}.consumers SET leased_until = now() + %(lease)s * interval '1 second'
WHERE name = %(name)s AND owner = %(owner)s
"""

_RELEASE = "UPDATE {schema}.consumers SET owner = NULL, leased_until = NULL WHERE name = %(name)s AND owner = %(owner)s"

_STANDING = """
SELECT position, state, coalesce(extract(epoch FROM next_attempt_at - now()), 0)::float8,
       coalesce(owner = %(owner)s AND leased_until > now(), false)
FROM {schema}.consumers WHERE name = %(name)s
"""

# The fence: nobody but the owner, in order, and only an event that is in this server's log: one that was read from a
# primary that is lost was handed on in vain, and whatever took its position has its turn.
_ADVANCE = """
UPDATE {schema}.consumers
SET position = %(position)s, attempts = 0, next_attempt_at = NULL,
    failed_position = NULL, failed_topic = NULL, error = NULL, failed_at = NULL
WHERE name = %(name)s AND owner = %(owner)s AND position = %(position)s - 1 AND state = 'live'
  AND EXISTS (SELECT FROM {schema}.events WHERE notification_id = %(position)s AND recorded_at = %(recorded_at)s)
"""

_FAIL = """
UPDATE {schema}.consumers
SET attempts = attempts + 1, failed_position = %(position)s, failed_topic = %(topic)s, error = %(error)s,
    failed_at = now(), state = CASE WHEN attempts + 1 >= %(attempts)s THEN 'failed' ELSE 'live' END,
    next_attempt_at = now() + least(%(first)s * 2 ^ least(attempts, 30), %(longest)s) * interval '1 second'
WHERE name = %(name)s AND owner = %(owner)s AND position = %(old)s AND state = 'live'
"""
