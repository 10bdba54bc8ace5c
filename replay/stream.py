"""One stream read back from the log, whole and in order, or a named reason why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.codec import BrokenStream, UnfitEvent, UnreadableEvent, decode, in_order

if TYPE_CHECKING:
    from uuid import UUID

    from storage.codec import Recorded
    from storage.database import Workspace
    from storage.log_reader import StoredRow


class ReplayError(Exception):
    """The past cannot be told as asked; the message says why."""


class NoSuchStream(ReplayError):
    """Nothing of that kind was ever recorded under the id."""

    def __init__(self, kind: str, stream: UUID) -> None:
        super().__init__(f"there is no {kind} {stream}")
        self.kind = kind
        self.stream = stream


async def recorded(
    workspace: Workspace, stream: UUID, *, upto: int | None = None, ceiling: int | None = None
) -> list[Recorded]:
    """Read the events of a stream, up to a version or a position, personal values opened (`[erased]` where gone).

    The first event is given wherever it lies; empty when there is no such stream. Raises UnreadableEvent; what comes
    later than asked for is left alone.
    """
    rows = await workspace.log.stream(stream, upto=upto)
    if ceiling is not None:
        rows = [row for row in rows if row.position <= ceiling or row is rows[0]]
    in_order(rows)
    await workspace.keyring.load(rows)
    return [decode(row, workspace.keyring) for row in rows]


async def legible(workspace: Workspace, rows: list[StoredRow]) -> tuple[list[Recorded], list[UnreadableEvent]]:
    """Read all that can be read of a stream's rows, and name what cannot, does not fit or is missing, in order."""
    await workspace.keyring.load(rows)
    found: list[Recorded] = []
    unreadable: list[UnreadableEvent] = []
    before, position = 0, 0
    standing = None
    for row in rows:
        if row.version != before + 1 or row.position <= position:
            unreadable.append(BrokenStream(row, before + 1))
        before, position = row.version, row.position
        try:
            read = decode(row, workspace.keyring)
        except UnreadableEvent as error:
            unreadable.append(error)
            continue
        found.append(read)
        if not unreadable:  # beyond the first gap nothing can be said to fit
            try:
                standing = read.event.mutate(standing)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this event that does not fit
                unreadable.append(UnfitEvent(row, error))
    return found, unreadable
