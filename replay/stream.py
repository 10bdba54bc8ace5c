"""One stream read back from the log, whole and in order, or a named reason why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.codec import decode

if TYPE_CHECKING:
    from uuid import UUID

    from storage.codec import Recorded
    from storage.database import Workspace


class ReplayError(Exception):
    """The past cannot be told as asked; the message says why."""


class NoSuchStream(ReplayError):
    """Nothing of that kind was ever recorded under the id."""

    def __init__(self, kind: str, stream: UUID) -> None:
        super().__init__(f"there is no {kind} {stream}")
        self.kind = kind
        self.stream = stream


class BrokenStream(ReplayError):
    """Events of the stream are missing from the log or stand out of order: something took them away."""

    def __init__(self, stream: UUID, expected: int, found: int, position: int) -> None:
        super().__init__(
            f"stream {stream} is broken: version {expected} is missing before version {found} at position {position}"
        )
        self.stream = stream
        self.expected = expected
        self.found = found
        self.position = position


async def recorded(workspace: Workspace, stream: UUID, *, upto: int | None = None) -> list[Recorded]:
    """Read the events of a stream, up to a version, personal values opened (`[erased]` where they are gone).

    Empty when there is no such stream. Raises BrokenStream, and storage.codec's UnknownTopic or UndecodableState
    for an event that cannot be read.
    """
    rows = await workspace.log.stream(stream, upto=upto)
    before = 0
    for row in rows:
        if row.version != before + 1 or (row is not rows[0] and row.position <= rows[0].position):
            raise BrokenStream(stream, before + 1, row.version, row.position)
        before = row.version
    await workspace.keyring.load(rows)
    return [decode(row, workspace.keyring) for row in rows]
