"""Which rows of a view are asked for, and in what order, so put that indexes can give them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projections.view import View

MOST_BRANCHES: Final = 64  # each takes the server some ten microseconds; where they would be more, rows are sorted
SHAPES_HELD: Final = 2_000


@dataclass(frozen=True)
class Sort:
    """An order of rows; the last column makes it total. All columns go the same way, so that a row comparison pages.

    `none_last` is a column of instants that may be None, of which None counts as later than all; indexes for the order
    have `coalesce(column, 'infinity')` in its place. No other column may be None.
    """

    columns: tuple[str, ...]
    descending: bool = False
    none_last: str | None = None

    def by(self, table: str = "") -> Composed:
        """Give what comes after ORDER BY for the rows of a table."""
        direction = SQL(" DESC") if self.descending else SQL("")
        place = [table] if table else []
        return SQL(", ").join(
            self.comparable(column, Identifier(*place, column)) + direction for column in self.columns
        )

    def after(self, view: View) -> Composed:
        """Require rows after the one whose values of the columns are the parameters `last_0`, `last_1` and so on."""
        types = {column.name: column.type for column in view.table.columns}
        columns = SQL(", ").join(self.comparable(column, Identifier(column)) for column in self.columns)
        values = SQL(", ").join(
            self.comparable(column, SQL(f"%(last_{place})s::{types[column]}"))
            for place, column in enumerate(self.columns)
        )
        return SQL("({}) {} ({})").format(columns, SQL("<" if self.descending else ">"), values)

    def comparable(self, column: str, value: Composable) -> Composable:
        """Give a value of a column such that it can be compared with any other."""
        return SQL("coalesce({}, 'infinity')").format(value) if column == self.none_last else value


class Choice(NamedTuple):
    """A column that indexes begin with, and the values, as SQL, of which a row is to have one."""

    column: str
    values: tuple[str, ...]


@dataclass
class Where:
    """Conditions on rows, each with its parameters; lists and counts are given the same."""

    conditions: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)

    def add(self, condition: str, **parameters: Any) -> None:
        """Require a condition, given as SQL with named placeholders."""
        self.conditions.append(condition)
        self.parameters.update(parameters)

    def one_of(self, column: str, values: Iterable[Any], *, known: bool = False) -> None:
        """Require one of some values of a column that indexes begin with.

        A list is put together from the lists of every value, in each of which an index gives the order. `known` values
        are few and always the same, as statuses are: they stand in the statement itself, where the planner sees how
        many rows have each, and which partial indexes have them all.
        """
        distinct = list(dict.fromkeys(values))
        if known:
            self.choices.append(Choice(column, tuple(sorted(_literal(str(value)) for value in distinct))))
            return
        names = [f"{column}_{place}" for place in range(len(distinct))]
        self.choices.append(Choice(column, tuple(f"%({name})s" for name in names)))
        self.parameters.update(zip(names, distinct, strict=True))

    def sql(self, *more: Composable) -> Composed:
        """Give everything required."""
        return SQL(" AND ").join([SQL(_everything(self._shape)), *more])

    def select(self, view: View, schema: str, columns: tuple[str, ...], sort: Sort, limit: int, *, pinned: bool) -> str:
        """Give the statement for the first rows in order.

        Where `pinned`, for those after the parameters `last_0` and so on, as they stood at the parameter `position`.
        The limit stands in the statement itself: of one that it does not know the planner believes that it is large.
        """
        return _select(view, schema, columns, self._shape, sort, limit, pinned=pinned)

    def digest(self, name: str) -> str:
        """Give a short hash by which a cursor knows its filters and sort again."""
        text = to_json([name, self._shape, sorted(self.parameters.items())], fallback=str)
        return hashlib.sha256(text).hexdigest()[:16]

    @property
    def _shape(self) -> tuple[tuple[str, ...], tuple[Choice, ...]]:
        return tuple(self.conditions), tuple(self.choices)


Shape = tuple[tuple[str, ...], tuple[Choice, ...]]


@lru_cache(maxsize=200)
def _literal(value: str) -> str:
    return Literal(value).as_string()


@lru_cache(maxsize=SHAPES_HELD)
def _everything(shape: Shape) -> str:
    conditions, choices = shape
    return " AND ".join([*(_among(choice) for choice in choices), *conditions, "true"])


def _among(choice: Choice) -> str:
    column, values = choice
    if len(values) == 1:
        return f'"{column}" = {values[0]}'
    return f'"{column}" IN ({", ".join(values)})' if values else "false"


def _branches(shape: Shape) -> list[str]:
    """Give conditions that between them, each row once, let through what is asked for: one for each combination."""
    conditions, choices = shape
    if not 1 < prod(len(choice.values) for choice in choices) <= MOST_BRANCHES:
        return [_everything(shape)]
    return [
        _everything(
            (conditions, tuple(Choice(choice.column, (value,)) for choice, value in zip(choices, one, strict=True)))
        )
        for one in product(*(choice.values for choice in choices))
    ]


@lru_cache(maxsize=SHAPES_HELD)
def _select(
    view: View, schema: str, columns: tuple[str, ...], shape: Shape, sort: Sort, limit: int, *, pinned: bool
) -> str:
    shelf = view.shelf(schema)
    place = shelf.place.as_string()
    listed = ", ".join(f'"{name}"' for name in columns)
    order = sort.by().as_string()
    sources = [(place, branch) for branch in _branches(shape)]
    if pinned:
        since = Identifier(view.table.since).as_string()
        known = f"{sort.after(view).as_string()} AND {since} <= %(position)s"
        sources = [(place, f"{branch} AND {known}") for _, branch in sources]
        if view.table.keeps_past:
            sources.append((shelf.past.as_string(), f"{_everything(shape)} AND {known} AND until > %(position)s"))
    if len(sources) == 1:
        ((table, condition),) = sources
        return f"SELECT {listed} FROM {table} WHERE {condition} ORDER BY {order} LIMIT {limit}"
    # What is ordered by has to be among what the parts give, or they would be sorted again.
    keys = {column: f"key_{number}" for number, column in enumerate(sort.columns)}
    given = ", ".join(
        [listed, *(f"{sort.comparable(name, Identifier(name)).as_string()} AS {key}" for name, key in keys.items())]
    )
    parts = " UNION ALL ".join(
        f"(SELECT {given} FROM {table} WHERE {condition} ORDER BY {order} LIMIT {limit})"
        for table, condition in sources
    )
    direction = " DESC" if sort.descending else ""
    merged = ", ".join(f"{key}{direction}" for key in keys.values())
    return f"SELECT {listed} FROM ({parts}) u ORDER BY {merged} LIMIT {limit}"
