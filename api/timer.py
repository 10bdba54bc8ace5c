"""The desk's sense of time: notices what has fallen due in the workspaces that are ours, and sees to it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from api.timer_walk import Walk
from commands.timer import rollout
from commands.timer.noticing import Noticing
from domain.service_levels import SERVICE_LEVELS_ID
from projections.bookkeeping import ViewsNotReady
from projections.runner import is_passing
from projections.timetable import Timetable
from storage.append import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from commands.timer.noticing import Batch, Noticed
    from projections.timetable import Entry, Outlook
    from storage.database import Workspace

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0  # how late may be noticed what falls due soon after a change, and what was adopted
SETTLE: Final = timedelta(seconds=1)  # how long a reply given just in time may be on its way
WORK_SECONDS: Final = 1.0  # at one workspace, before others have their turn again
BATCH_TICKETS: Final = 250
BATCH_EVENTS: Final = 10_000  # read at once; a ticket with more is looked at alone
WORKSPACES_AT_ONCE: Final = 4
ATTEMPTS: Final = 5  # at tickets that others are at, before they are left for the next round


class Timer:
    """Looks after deadlines, waits and adoptions in the workspaces that `keeping` gives, which are ours for now.

    `clock` tells the time; what has fallen due is noticed SETTLE after it.
    """

    def __init__(
        self, keeping: Callable[[], Sequence[Workspace]], clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._keeping = keeping
        self._clock = clock
        self._timetable = Timetable(SERVICE_LEVELS_ID)
        self._keepers: dict[str, Keeper] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Keep at it until `stop` is set. Outages of the database are waited out."""
        while not stop.is_set():
            try:
                pause = await self.round()
            except Exception as error:
                if is_passing(error) or isinstance(error, LogUnavailable):
                    logger.warning("the timer waits for the database: %s", error)
                else:
                    logger.exception("the timer could not look")
                pause = POLL_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def round(self) -> float:
        """Look once at every workspace, and see to what has fallen due; gives the seconds until the next look."""
        workspaces = self._keeping()
        self._keepers = {
            workspace.name: self._keepers.get(workspace.name) or Keeper(workspace, self._timetable)
            for workspace in workspaces
        }
        if not workspaces:
            return POLL_SECONDS
        outlooks = await self._timetable.outlook(workspaces)
        now = self._clock()
        until = now - SETTLE
        gate = asyncio.Semaphore(WORKSPACES_AT_ONCE)

        async def work(name: str, outlook: Outlook) -> bool:
            async with gate:
                return await self._keepers[name].work(until, now, outlook)

        busy = {name: outlook for name, outlook in outlooks.items() if outlook.calls(until)}
        done = await asyncio.gather(*(work(name, outlook) for name, outlook in busy.items()), return_exceptions=True)
        for one in done:
            if isinstance(one, BaseException):
                raise one
        if any(done):
            return 0
        coming = [outlook.next_at for name, outlook in outlooks.items() if outlook.next_at and name not in busy]
        return min(
            max((min(coming, default=datetime.max.replace(tzinfo=UTC)) - until).total_seconds(), 0), POLL_SECONDS
        )


class Keeper:
    """Sees to one workspace. What it remembers only saves work."""

    def __init__(self, workspace: Workspace, timetable: Timetable) -> None:
        self._workspace = workspace
        self._timetable = timetable
        self._noticing = Noticing(workspace)
        self._walk = Walk(workspace, timetable)

    async def work(self, until: datetime, now: datetime, outlook: Outlook) -> bool:
        """See to what has fallen due by an instant, and to what was adopted; tells whether there is more to do."""
        ends_at = time.monotonic() + WORK_SECONDS
        carried = outlook.carried
        to_carry = outlook.adopted > carried
        to_walk = outlook.next_at is not None and outlook.next_at <= until
        self._walk.begin()
        under_way: Batch | None = None
        try:
            while (to_walk or to_carry) and time.monotonic() < ends_at:
                if to_walk:
                    entries = await self._walk.next(until)
                    to_walk = entries is not None
                    for part in _parts(entries or ()):
                        # The server records one batch while another is decided here.
                        before = under_way
                        under_way = await self._noticing.notice(part, until, now=now, carried=carried)
                        await self._settle(before, until)
                if to_carry:
                    to_carry = await self._carry_on(until, now, carried)
        finally:
            await self._settle(under_way, until)
        return to_walk or to_carry

    async def _settle(self, batch: Batch | None, until: datetime) -> list[Noticed]:
        """Wait until a batch is recorded, and remember what was seen."""
        found = [] if batch is None else await batch.settled()
        self._walk.note(found, until)
        return found

    async def _carry_on(self, until: datetime, now: datetime, carried: int) -> bool:
        """Carry what was adopted to some more of the open tickets; False when there is nothing to do for now."""
        levels, workspace = self._noticing.levels, self._workspace
        state = await rollout.rollout(workspace)
        await levels.catch_up(carried_upto=carried)
        upto = levels.version if state.upto is None else state.upto
        last = max((move.position for move in levels.moves if move.version <= upto), default=None)
        if last is None:
            return not await rollout.finish(workspace, upto=upto)
        if state.upto is None:
            return await self._begin(upto, last)
        entries = await self._timetable.open_tickets(
            workspace, after=state.after_number, before=last, limit=BATCH_TICKETS
        )
        if not entries:
            return not await rollout.finish(workspace, upto=upto)
        moved, to_look = 0, entries
        for _ in range(ATTEMPTS):
            conflicts = set()
            for part in _parts(to_look):
                batch = await self._noticing.notice(part, until, now=now, carried=carried)
                for one in await self._settle(batch, until):
                    moved += one.moved
                    if one.conflict:
                        conflicts.add(one.ticket_id)
            to_look = [entry for entry in to_look if entry.ticket_id in conflicts]
            if not to_look:
                return await rollout.advance(
                    workspace, old=state.after_number, new=entries[-1].number, looked_at=len(entries), moved=moved
                )
        return False  # somebody is at one of them all the time; the next round goes on here

    async def _begin(self, upto: int, last: int) -> bool:
        """Begin to walk through the tickets opened before a position; False while the view may not have all of them."""
        try:
            if await self._timetable.reached(self._workspace) < last:
                return False
        except ViewsNotReady:
            return False
        total = await self._timetable.count_open(self._workspace, before=last)
        return await rollout.begin(self._workspace, upto=upto, total=total)


def _parts(entries: Sequence[Entry]) -> Iterator[list[UUID]]:
    """Divide tickets so that no more events are read at once than may be."""
    part: list[UUID] = []
    events = 0
    for entry in entries:
        if part and events + entry.version > BATCH_EVENTS:
            yield part
            part, events = [], 0
        part.append(entry.ticket_id)
        events += entry.version
    if part:
        yield part
