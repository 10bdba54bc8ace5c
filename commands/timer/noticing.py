"""Puts on a ticket's record what time has done to it: decided from the ticket's own stream, all of it or nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg

from commands.desk import Desk
from commands.timer.levels import Levels
from commands.timer.looking import look
from commands.timer.taking import Moment, take
from domain.event import Aggregate
from storage.append import Conflict, EarlierEpoch, LogBusy, LogUnavailable, Submission
from storage.codec import encode
from storage.metrics import TimerMeter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from commands.timer.taking import Taken
    from storage.append import Appended
    from storage.database import Workspace

logger = logging.getLogger(__name__)

DECIDED_AT_ONCE: Final = 10  # tickets, some milliseconds; then others of this process have their turn


class Noticed(NamedTuple):
    """What came of a look at a ticket.

    `version` is its stream's afterwards, `next_at` when it is worth looking again where there were no events. In a `conflict` somebody else was
    first, and it has been left as it was.
    """

    ticket_id: UUID
    version: int
    next_at: datetime | None
    events: int = 0
    moved: bool = False
    conflict: bool = False


class Noticing:
    """Looks at tickets of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._desk = Desk(workspace)
        self._meter = TimerMeter(workspace.name)
        self.levels = Levels(workspace)

    async def notice(self, tickets: Sequence[UUID], until: datetime, *, now: datetime, carried: int) -> Batch:
        """Decide what has fallen due on some tickets by an instant, and submit it; the batch tells what comes of it.

        `carried` is the version of the service levels up to which moves have been made. Raises psycopg.Error where the
        database does not answer.
        """
        log, keyring = self._workspace.log, self._workspace.keyring
        epoch = await log.epoch()
        streams = await log.whole(tickets)
        # After the streams, so that every version that they name is known.
        await self.levels.catch_up(carried_upto=carried)
        moment = Moment(until, now, epoch)
        batch = Batch(self._desk, self._meter)
        for number, ticket_id in enumerate(tickets, start=1):
            rows = streams.get(ticket_id, [])
            try:
                taken = await take(self._desk, look(rows), self.levels, moment)
                if subjects := {subject for event in taken.events for subject in event.data_subjects()}:
                    await keyring.ensure(subjects)
                events = [encode(event, keyring) for event in taken.events]
                answer = log.submit(Submission(events, taken.guards, epoch=epoch)) if events else None
            except (LogBusy, psycopg.OperationalError):
                batch.add(Noticed(ticket_id, 0, None, conflict=True))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a ticket, the others must not wait for it
                self._meter.failed()
                logger.warning("%s: the timer leaves ticket %s: %s", self._workspace.name, ticket_id, error)
                batch.add(Noticed(ticket_id, rows[-1].version if rows else 0, until))
            else:
                batch.add(Noticed(ticket_id, taken.version, taken.next_at, len(events), taken.moved), taken, answer)
            if number % DECIDED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return batch


class Batch:
    """Looks of which some are still being recorded."""

    def __init__(self, desk: Desk, meter: TimerMeter) -> None:
        self._desk = desk
        self._meter = meter
        self._noticed: list[tuple[Noticed, Taken | None, asyncio.Future[Appended] | None]] = []

    def add(self, noticed: Noticed, taken: Taken | None = None, answer: asyncio.Future[Appended] | None = None) -> None:
        """Take in what came of one look."""
        self._noticed.append((noticed, taken, answer))

    async def settled(self) -> list[Noticed]:
        """Wait until all of it is recorded, or not; what nobody can tell of is looked at again as well."""
        answers = [answer for _, _, answer in self._noticed if answer is not None]
        outcomes = iter(await asyncio.gather(*answers, return_exceptions=True))
        found = []
        for noticed, taken, answer in self._noticed:
            outcome = None if answer is None else next(outcomes)
            if isinstance(outcome, Conflict | EarlierEpoch | LogUnavailable):
                self._meter.conflict()
                if isinstance(outcome, Conflict) and outcome.stream != noticed.ticket_id:
                    await self._desk.held(Aggregate, outcome.stream, fresh=True)
                found.append(Noticed(noticed.ticket_id, 0, None, conflict=True))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                for event in () if taken is None else taken.events:
                    self._meter.recorded(event.TOPIC)
                found.append(noticed)
        return found
