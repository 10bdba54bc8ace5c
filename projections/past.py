"""The past of a view: every state its rows went through, one row a stretch of them, so that any moment can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from projections.table import Column, Key, Row, Rows, Table
from projections.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from storage.codec import Recorded

GENERATION: Final = 1  # of these tables and of LONGEST; one more makes every past a new version of its view
# States a stretch has. A page of a moment folds so many events a ticket at most; with twice as many it took a third
# more processor time, and a fortieth less space. A row stays under the 2 kB beyond which PostgreSQL stores it aside.
LONGEST: Final = 16
OPEN: Final = 0  # `sealed_at` of the stretch that goes on

_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, eq=False)
class Past:
    """Keeps what a view's rows were, in a view of its own that has its own checkpoint and its own rebuild.

    Each row of `view` belongs to one stream and has `since`. A row here is a stretch of its life: the view's columns as
    they are at its end, and for each column of `asked`, by which people filter, group or sort, what it was before, and
    until which position. A stretch goes on until it has LONGEST states; then it is sealed, never to change again, and
    the next begins where it ended.

    `fixed` are columns that never change and are asked for as well. `changed` is the column with the instant of the
    source's time at which the row last changed, which never steps back. Every event that the view folds moves `since`.

    Rows of which the column `settled_by` is one of `settled` will hardly change again. They are the many, and have the
    indexes `settled_indexes`, which all begin with that column; the few others are looked through with `moving_index`.

    `step` folds as the view does, where rows that are taken event by event can be had for less, and `finish` makes of such
    rows what is kept.
    """

    name: str
    view: View
    asked: tuple[str, ...]
    fixed: tuple[str, ...]
    changed: str
    settled_by: str
    settled: tuple[str, ...]
    settled_indexes: tuple[str, ...]
    moving_index: str
    step: Callable[..., Rows] | None = None
    finish: Callable[[Row], None] = lambda _: None

    @cached_property
    def history(self) -> View:
        """The view in which the past is kept."""
        return View(
            name=self.name,
            # Both only ever grow, so that a change of either gives a version that has not been before.
            version=GENERATION - 1 + self.view.version,
            table=self._table,
            fold=self.fold,
            topics=self.view.topics,
            reads=self.view.reads,
            stream_local=True,
            at_leisure=True,
            reference=self.view.reference,
        )

    @cached_property
    def types(self) -> dict[str, str]:
        """The type of each column of the view."""
        return {column.name: column.type for column in self.view.table.columns}

    @cached_property
    def _table(self) -> Table:
        (key,) = self.view.table.key
        was = [column for name in self.asked for column in _was(name, self.types[name])]
        return Table(
            columns=(
                *self.view.table.columns,
                # 0 where the stretch goes on, else the position from which on the next one tells.
                Column("sealed_at", "bigint", null=False),
                # The first state: since which position, and its instant of the source's time.
                Column("first_since", "bigint", null=False),
                Column("first_changed", "timestamptz", null=False),
                Column("states", "smallint", null=False),
                # Where the stretch is found: see `_fork`.
                Column("node", "bigint"),
                Column("time_node", "bigint"),
                # Whether the row claims to have changed later than it was recorded.
                Column("ahead", "boolean", null=False),
                *was,
            ),
            key=(key, "sealed_at"),
            loaded=("sealed_at", OPEN),
            indexes=(
                "(node, since)",
                "(node, first_since)",
                f"(time_node, {self.changed})",
                "(time_node, first_changed)",
                f"({self.changed}) WHERE sealed_at = 0 AND ahead",
                *(f"({self.settled_by}, {columns}) WHERE {self.is_settled}" for columns in self.settled_indexes),
                f"({self.moving_index}) WHERE {self.is_moving}",
            ),
        )

    @cached_property
    def is_settled(self) -> str:
        """The condition on rows that go on and are settled."""
        return f"sealed_at = 0 AND {self.settled_by} IN ({self._values})"

    @cached_property
    def is_moving(self) -> str:
        """The condition on rows that go on and are not settled."""
        return f"sealed_at = 0 AND {self.settled_by} NOT IN ({self._values})"

    @cached_property
    def _values(self) -> str:
        return ", ".join(f"'{value}'" for value in self.settled)

    def fold(self, rows: Rows, recorded: Iterable[Recorded], *told: Any) -> Rows:
        """Follow the rows of the view event by event, and note of each column asked for what it was before.

        `told` is what the view looks up, if it does.
        """
        folding = _Folding(self, rows, told)
        some: list[Recorded] = []
        streams: set[int] = set()
        # The view's own fold gives the last state of each row alone: it is given no stream twice.
        for one in recorded:
            stream = one.event.originator_id.int
            if stream in streams:
                folding.take_in(some)
                some.clear()
                streams.clear()
            some.append(one)
            streams.add(stream)
        folding.take_in(some)
        return folding.changed()


class _Folding:
    """One page being folded: the open stretches as they stand by now, and those that were sealed."""

    def __init__(self, past: Past, rows: Rows, told: tuple[Any, ...]) -> None:
        self._past = past
        self._told = told
        self._fold = past.step or past.view.fold
        self._was = [(name, f"{name}_until", f"{name}_was", past.types[name].endswith("[]")) for name in past.asked]
        self._given = rows
        self._open: Rows = {}
        self._sealed: Rows = {}

    def take_in(self, recorded: Sequence[Recorded]) -> None:
        """Take in events that are all of different streams."""
        standing, given = self._open, self._given
        before: Rows = {}
        found: list[tuple[Key, Row | None]] = []
        for one in recorded:
            stream = one.event.originator_id
            key = (stream,)
            row = standing.get(key)
            if row is None:
                row = given.get((stream, OPEN))
            if row is not None:
                before[key] = row
            found.append((key, row))
        after = self._fold(before, recorded, *self._told)
        changed = self._past.changed
        for (key, old), (_, _, recorded_at) in zip(found, recorded, strict=True):
            new = after.get(key)
            if new is None:
                continue
            if old is None:
                self._begin(new)
            else:
                self._go_on(key, old, new)
            new["ahead"] = new[changed] > recorded_at
            standing[key] = new

    def changed(self) -> Rows:
        """Give the rows that changed, with the nodes at which they are to be found."""
        rows = {(*key, OPEN): row for key, row in self._open.items()}
        rows.update(self._sealed)
        changed = self._past.changed
        for row in rows.values():
            self._past.finish(row)
            row["node"] = _fork(row["first_since"], row["since"])
            row["time_node"] = None
            if row["first_changed"] != row[changed]:
                row["time_node"] = _fork(ticks(row["first_changed"]), ticks(row[changed]))
        return rows

    def _begin(self, row: Row) -> None:
        row["sealed_at"] = OPEN
        row["first_since"] = row["since"]
        row["first_changed"] = row[self._past.changed]
        row["states"] = 1
        for _, until, was, _ in self._was:
            row[until] = row[was] = None

    def _go_on(self, key: Key, old: Row, new: Row) -> None:
        """Note what the last event changed, and seal the stretch where it has become long."""
        since = new["since"]
        for name, until, was, many in self._was:
            before, now = old[name], new[name]
            # The fold copies rows, so that what it leaves as it is is the very same: comparing ids in full takes long.
            if now is not before and now != before:
                # The fold has copied the row, but not the lists in it: they are not to be changed.
                new[until] = [*(new[until] or ()), since]
                new[was] = [*(new[was] or ()), to_json(before).decode() if many else before]
        new["states"] += 1
        if new["states"] > LONGEST:
            self._sealed[(*key, since)] = {**new, "sealed_at": since, "ahead": False}
            self._begin(new)


def _was(name: str, of: str) -> tuple[Column, Column]:
    """Give the columns with the positions until which, and with what, a column was. A list of lists is one of JSON."""
    return Column(f"{name}_until", "bigint[]"), Column(f"{name}_was", of if of.endswith("[]") else f"{of}[]")


def ticks(instant: datetime) -> int:
    """Give an instant as a whole number of microseconds, never negative, for `path` and the nodes."""
    return (instant - _BEGINNING) // _MICROSECOND


def _fork(first: int, end: int) -> int | None:
    """Give the node of an interval first ≤ x < end in the virtual tree over all whole numbers; None of an empty one.

    Relational interval trees: Kriegel, Pötke, Seidl, "Managing Intervals Efficiently in Object-Relational Databases",
    VLDB 2000. The node is the number in the interval that lies highest in the tree: the one with which the path from
    the root to the interval's first number parts from that to its last.
    """
    last = end - 1
    if last < first:
        return None
    height = max((first ^ last).bit_length() - 1, 0)
    return last >> height << height


def path(place: int) -> tuple[list[int], list[int]]:
    """Give the nodes at which intervals that hold a number can be: those up to it, and those above it.

    An interval at one of the first holds it if it ends above it, one at one of the others if it begins no later than it.
    """
    upto, above = {place}, set()
    for height in range(63):
        upto.add(place >> height << height)
        node = (place >> height | 1) << height
        if place < node < 2**62:
            above.add(node)
    return sorted(upto), sorted(above)
