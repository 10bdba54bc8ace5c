"""A ticket, customer, agent or team as it stood at a version, an instant or a position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from domain.event import Aggregate
from replay.stream import NoSuchStream, ReplayError, recorded
from storage.codec import UnfitEvent
from storage.log_reader import StoredRow

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from storage.codec import Recorded
    from storage.database import Workspace

A = TypeVar("A", bound=Aggregate)


class NoSuchMoment(ReplayError):
    """The stream has not come to that version, or the log not to that position."""


class BeforeItExisted(ReplayError):
    """The first event of the stream was recorded later than the moment asked for."""

    def __init__(self, kind: str, stream: UUID, first: Recorded) -> None:
        super().__init__(
            f"{kind} {stream} was first recorded at position {first.position}, {first.recorded_at.isoformat()}"
        )
        self.kind = kind
        self.stream = stream
        self.first_position = first.position
        self.first_recorded_at = first.recorded_at


@dataclass(frozen=True, slots=True)
class AsOf(Generic[A]):
    """What stood then. `position` is the position the answer stands for; `last` the event that made it so.

    `provisional` where the instant may still gain events: nothing later than it has been recorded yet.
    """

    aggregate: A
    position: int
    provisional: bool
    last: Recorded


async def as_of(
    workspace: Workspace,
    kind: type[A],
    stream: UUID,
    *,
    version: int | None = None,
    instant: datetime | None = None,
    position: int | None = None,
) -> AsOf[A]:
    """Fold a stream up to a version, to what was recorded at an instant, or to a position; with none, up to now.

    An instant is recorded time: what the desk knew then, not what had happened at the source. At most one moment
    may be given (ValueError). What came after the moment is left unread. Raises NoSuchStream, NoSuchMoment,
    BeforeItExisted, UnreadableEvent.
    """
    if sum(moment is not None for moment in (version, instant, position)) > 1:
        message = "give a version, an instant or a position, not several"
        raise ValueError(message)
    name = str(getattr(kind, "TOPIC", kind.__name__.lower()))
    if version is not None and version < 1:
        message = f"the versions of a {name} begin at 1; there is no {version}"
        raise NoSuchMoment(message)
    moment = position if instant is None else instant
    ceiling, provisional = (None, False) if moment is None else await position_of(workspace, moment)
    events = await recorded(workspace, stream, upto=version, ceiling=ceiling)
    if not events:
        raise NoSuchStream(name, stream)
    if version is not None and version > events[-1].event.originator_version:
        message = f"{name} {stream} has come to version {events[-1].event.originator_version}, not {version}"
        raise NoSuchMoment(message)
    if ceiling is not None and events[0].position > ceiling:
        raise BeforeItExisted(name, stream, events[0])
    aggregate = fold(events)
    if not isinstance(aggregate, kind):
        raise NoSuchStream(name, stream)
    last = events[-1]
    return AsOf(aggregate, last.position if ceiling is None else ceiling, provisional, last)


async def position_of(workspace: Workspace, moment: datetime | int) -> tuple[int, bool]:
    """Give the last position to count for an instant or a position, and whether that may still move.

    Raises NoSuchMoment for a position beyond the log's end, ValueError for an instant without a zone.
    """
    if not isinstance(moment, int):
        return await workspace.log.position_at(zoned(moment))
    head = await workspace.log.head()
    if not 0 <= moment <= head.position:
        message = f"the log has positions 1 to {head.position}, not {moment}"
        raise NoSuchMoment(message)
    return moment, False


def zoned(instant: datetime) -> datetime:
    """Give an instant that has a zone. Raises ValueError for one that has none."""
    if instant.utcoffset() is None:
        message = f"an instant needs a zone: {instant.isoformat()}"
        raise ValueError(message)
    return instant


def fold(events: list[Recorded]) -> Aggregate | None:
    """Apply events in order, from nothing. Raises UnfitEvent."""
    aggregate: Aggregate | None = None
    for event, position, at in events:
        try:
            aggregate = event.mutate(aggregate)
        except Exception as error:
            row = StoredRow(position, event.originator_id, event.originator_version, event.TOPIC, b"", None, at)
            raise UnfitEvent(row, error) from error
    return aggregate
