"""A page of the log as the views read it: each event is decoded at most once, whoever folds it."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from projections.bookkeeping import Mark
from projections.extract import Extract
from projections.reference import folded
from storage.codec import UnreadableEvent, decode, event_type

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from uuid import UUID

    from projections.reference import Told
    from projections.table import Rows
    from projections.view import Reference, View
    from storage.codec import Recorded
    from storage.log_reader import StoredRow


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector from looking through thousands of events again and again: there are no cycles in them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class Page:
    """Consecutive events of the log from one position to another, its ceiling."""

    def __init__(
        self, rows: Sequence[StoredRow], *, ceiling: Mark | None = None, views: Sequence[View] | None = None
    ) -> None:
        """Where only `views` fold the page, only what they look at is decoded."""
        self.rows = rows
        self._extract = None if views is None else _extract(*views)
        self.ceiling = ceiling or Mark(rows[-1].position, rows[-1].recorded_at)
        self.told: dict[Reference, Told] = {}
        """What views look up beside the page."""
        self._decoded: list[Recorded | UnreadableEvent | None] = [None] * len(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def mark(self, stop: int) -> Mark:
        """Give the place of the log that a checkpoint may stand at once the first `stop` events are folded."""
        if stop == len(self.rows):
            return self.ceiling
        row = self.rows[stop - 1]
        return Mark(row.position, row.recorded_at)

    def recorded(self, view: View, start: int, stop: int, skipped: Collection[int] = ()) -> list[Recorded]:
        """Give the events between two indexes that a view folds; it does not fold those at positions `skipped`.

        Raises UnknownTopic for an event of a type that nobody here knows: it may be one that the view should fold.
        Raises UndecodableState.
        """
        found = []
        wants = view.wants
        with uncollected():
            for index in range(start, stop):
                row = self.rows[index]
                if skipped and row.position in skipped:
                    continue
                if wants(row.topic):
                    found.append(self._decode(index))
                else:
                    event_type(row)
        return found

    def streams(self, view: View, start: int, stop: int, skipped: Collection[int] = ()) -> set[UUID]:
        """Give the streams whose rows a view needs to fold the events between two indexes. Raises as `recorded`."""
        needs = view.needs
        if needs is None:
            return {row.stream for row in self.rows[start:stop] if view.wants(row.topic)}
        return {stream for one in self.recorded(view, start, stop, skipped) if (stream := needs(one.event)) is not None}

    def has(self, stream: UUID) -> bool:
        """Tell whether there are events of a stream."""
        number = stream.int  # ids are compared in full by code that takes thrice as long
        return any(row.stream.int == number for row in self.rows)

    def folded(self, view: View, rows: Rows, recorded: Iterable[Recorded]) -> Rows:
        """Give the rows that some of the events change. Raises what `reference.folded` does."""
        return folded(view, rows, recorded, None if view.reference is None else self.told.get(view.reference))

    def _decode(self, index: int) -> Recorded:
        known = self._decoded[index]
        if known is None:
            try:
                row = self.rows[index]
                known = decode(row) if self._extract is None else next(self._extract.recorded([row]))
            except UnreadableEvent as error:
                known = error
            self._decoded[index] = known
        if isinstance(known, UnreadableEvent):
            raise known
        return known


@cache
def _extract(*views: View) -> Extract:
    return Extract(*views)
