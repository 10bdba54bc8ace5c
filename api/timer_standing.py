"""How the timer stands in a workspace: how late it is, and how far what was adopted has come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from api.timer import SETTLE
from commands.timer.rollout import Rollout, rollout
from domain.service_levels import SERVICE_LEVELS_ID
from projections.timetable import Timetable
from storage.codec import decode

if TYPE_CHECKING:
    from storage.database import Workspace


class Adoption(NamedTuple):
    """What was adopted or retired, when, and whether open tickets were to move."""

    version: int
    what: str
    at: datetime
    moves: bool


class TimerStanding(NamedTuple):
    """How the timer stands. Without a queue, nobody knows what falls due: `due_at` is None and `watching` False."""

    watching: bool
    next_at: datetime | None
    lag_seconds: float
    rollout: Rollout
    adopted: int

    @classmethod
    async def of(cls, workspace: Workspace) -> TimerStanding:
        """Look."""
        found = (await Timetable(SERVICE_LEVELS_ID).outlook([workspace])).get(workspace.name)
        state = await rollout(workspace)
        if found is None:
            return cls(False, None, 0.0, state, 0)  # noqa: FBT003 - a column
        late = 0.0
        if found.next_at is not None:
            late = max((datetime.now(UTC) - SETTLE - found.next_at).total_seconds(), 0.0)
        return cls(True, found.next_at, late, state, found.adopted)  # noqa: FBT003

    def progress_of(self, adoption: Adoption) -> str:
        """Say how far an adoption has been carried to open tickets."""
        if not adoption.moves:
            return "open tickets keep theirs"
        if adoption.version <= self.rollout.done_upto:
            return "carried to open tickets"
        if self.rollout.upto is None or adoption.version > self.rollout.upto:
            return "waits"
        done, total = self.rollout.looked_at, self.rollout.total
        return f"{done:,} of {total:,} open tickets looked at, {self.rollout.moved:,} moved"


async def adoptions(workspace: Workspace) -> list[Adoption]:
    """Give what was ever adopted or retired, in order."""
    found = []
    for row in await workspace.log.stream(SERVICE_LEVELS_ID):
        event = decode(row).event
        kind = event.TOPIC.partition(".")[2].replace("_", " ")
        version = f" version {event.version}" if hasattr(event, "version") else ""
        found.append(
            Adoption(row.version, f"{kind}: {event.name}{version}", event.timestamp, event.open_tickets == "move")
        )
    return found
