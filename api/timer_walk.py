"""How the timer goes through what the queue says is due: what is new at once, the rest again and again, nothing in vain."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from projections.timetable import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from commands.timer.noticing import Noticed
    from projections.timetable import Timetable
    from storage.database import Workspace

PAGE_TICKETS: Final = 250
IDLE_PAGES: Final = (
    4  # gone through a round without finding anybody to look at; while the queue is behind there are many
)
AGAIN: Final = timedelta(minutes=1)  # when a ticket is looked at again that the queue goes on to call due
REMEMBERED: Final = 100_000  # tickets
LAST_NUMBER: Final = 2**63 - 1


class _Seen(NamedTuple):
    """Up to which version a ticket was looked at, and when that is worth doing again."""

    version: int
    not_before: datetime | None


class Walk:
    """Gives the tickets of a workspace that are to be looked at. What it remembers only saves work.

    What has been seen to stays in the queue's index until the queue has followed: with a hundred thousand such tickets,
    what falls due next must not wait until all of them have been passed by.
    """

    def __init__(self, workspace: Workspace, timetable: Timetable) -> None:
        self._workspace = workspace
        self._timetable = timetable
        self._front: Entry | None = None  # up to which everything was looked at that had fallen due by then
        self._rear: Entry | None = None  # how far it has been gone through once more
        self._at_the_end = self._round = False
        self._idle = 0
        self._seen: dict[UUID, _Seen] = {}

    def begin(self) -> None:
        """Begin a round."""
        self._at_the_end = self._round = False
        self._idle = 0
        if len(self._seen) > REMEMBERED:
            self._seen.clear()

    async def next(self, until: datetime) -> list[Entry] | None:
        """Give some tickets of which something has fallen due by an instant; None where that is all for this round."""
        while not self._at_the_end:
            entries = await self._timetable.due(self._workspace, until, after=self._front, limit=PAGE_TICKETS)
            self._at_the_end = len(entries) < PAGE_TICKETS
            self._front = Entry(UUID(int=0), LAST_NUMBER, 0, until) if self._at_the_end else entries[-1]
            if found := self._to_look(entries, until):
                return found
        while not self._round and self._idle < IDLE_PAGES:
            # What is learnt late falls due in the past.
            entries = await self._timetable.due(self._workspace, until, after=self._rear, limit=PAGE_TICKETS)
            self._round = len(entries) < PAGE_TICKETS
            self._rear = None if self._round else entries[-1]
            if found := self._to_look(entries, until):
                self._idle = 0
                return found
            self._idle += 1
        return None

    def note(self, noticed: Iterable[Noticed], until: datetime) -> None:
        """Remember what came of looks."""
        for one in noticed:
            if not one.conflict:
                # A queue that has stopped never has them.
                late = one.events or (one.next_at is not None and one.next_at <= until)
                again = until + AGAIN if late else one.next_at
                self._seen[one.ticket_id] = _Seen(one.version, again)

    def _to_look(self, entries: Iterable[Entry], until: datetime) -> list[Entry]:
        found = []
        for entry in entries:
            seen = self._seen.get(entry.ticket_id)
            # The queue is behind, or there was nothing.
            waits = (
                seen is not None
                and entry.version <= seen.version
                and (seen.not_before is None or seen.not_before > until)
            )
            if not waits:
                found.append(entry)
        return found
