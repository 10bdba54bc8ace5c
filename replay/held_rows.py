"""Rows of a view that a rebuild holds in memory, from when they are first met until they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from projections.bookkeeping import Mark
    from projections.table import Key, Rows
    from storage.codec import Recorded
    from storage.log_reader import RawRow


class Stretch(NamedTuple):
    """What a lane takes of the log up to a place, its ceiling; `recorded` where the rows are decoded already."""

    rows: Sequence[RawRow]
    ceiling: Mark
    recorded: Sequence[Recorded] | None = None


class Held:
    """Rows as they stand after the pages taken in since the last write; of the streams met since, all there are."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.loaded: Rows = {}
        """Rows that the table has, as it has them or is about to."""
        self.streams: set[UUID] = set()
        self.pages = 0
        self._keys: dict[Any, list[Key]] | None = None

    def load(self, rows: Rows) -> None:
        """Take in rows as the table has them."""
        self.loaded |= rows
        self.rows |= rows

    def move(self, others: Held, streams: Iterable[UUID]) -> None:
        """Take over the rows of streams from others, which are being written."""
        self.load({key: others.rows[key] for stream in streams for key in others._of(stream)})

    def take(self, streams: set[UUID], changed: Rows) -> None:
        """Take in what a page, which met these streams, changed."""
        self.rows |= changed
        self.streams |= streams
        self.pages += 1

    def changed(self) -> Rows:
        """Give the rows to be written."""
        loaded = self.loaded
        return {key: row for key, row in self.rows.items() if loaded.get(key) is not row}

    def _of(self, stream: UUID) -> Sequence[Key]:
        if self._keys is None:
            self._keys = {}
            for key in self.rows:
                self._keys.setdefault(key[0], []).append(key)
        return self._keys.get(stream, ())
