"""The table of a view: its columns, and the few statements that every view's rows are written and kept with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal, Placeholder
from psycopg.types.json import Jsonb
from pydantic_core import to_json

from storage.database import ROLE_NAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from psycopg import AsyncConnection, AsyncCursor

WORTH_COPYING: Final = 50  # new rows; for fewer the further round trips of COPY cost more than they save

_ALWAYS: Final = SQL("true")

Row = dict[str, Any]
"""Column → value of one row of a view."""

Key = tuple[Any, ...]
"""The values of a table's key columns, in their order."""

Rows = dict[Key, Row]
"""Rows of a view by key; what a fold is given and gives."""


class Column(NamedTuple):
    """One column; `type` as PostgreSQL names it. Text is compared by bytes, as no collation is the same everywhere.

    Where a row is kept as it was, the column is too unless `past` is false: no list shows it.
    """

    name: str
    type: str
    null: bool = True
    past: bool = True

    @property
    def definition(self) -> Composed:
        """The column as CREATE TABLE has it."""
        collation = ' COLLATE "C"' if self.type == "text" else ""
        null = "" if self.null else " NOT NULL"
        return SQL("{} " + self.type + collation + null).format(Identifier(self.name))


@dataclass(frozen=True, eq=False)
class Table:
    """What a view keeps. The first key column is the stream whose events change the row.

    With `keeps_past`, a row that changes is copied to a second table first, with the position at which it stopped
    being true, so that a list begun earlier goes on as it was. `since` is the column with the position of the last
    event that changed the row. Of the rows of a stream a fold is given those with the value in the
    key column that `loaded` names, all without it.
    """

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[str, ...] = ()
    keeps_past: bool = False
    since: str = "since"
    loaded: tuple[str, int] | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns' names in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def names_of_past(self) -> tuple[str, ...]:
        """The columns of rows as they were."""
        return tuple(column.name for column in self.columns if column.past)

    @cached_property
    def key_places(self) -> tuple[int, ...]:
        """Where the key columns stand among the columns."""
        return tuple(self.names.index(name) for name in self.key)

    def is_loaded(self, key: Key) -> bool:
        """Tell whether a fold is given the row with this key."""
        return self.loaded is None or key[self.key.index(self.loaded[0])] == self.loaded[1]

    @cached_property
    def json_places(self) -> tuple[int, ...]:
        """Where the JSON columns stand among the columns."""
        return tuple(place for place, column in enumerate(self.columns) if column.type == "jsonb")


class Shelf:
    """A view's table under a name in a workspace's schema, with the statements made for it."""

    def __init__(self, table: Table, schema: str, name: str) -> None:
        self.table = table
        self.schema = schema
        self.name = name
        self.place = Identifier(schema, name)
        self.past = Identifier(schema, f"{name}_past")
        columns = SQL(", ").join(map(Identifier, table.names))
        key = SQL(", ").join(map(Identifier, table.key))
        parts = {
            "place": self.place,
            "past": self.past,
            "columns": columns,
            "key": key,
            "since": Identifier(table.since),
            "loaded": _loaded(table.loaded),
            "first": Identifier(table.key[0]),
            "type": SQL(table.columns[table.key_places[0]].type),
            "changes": SQL(", ").join(
                SQL("{0} = excluded.{0}").format(Identifier(name)) for name in table.names if name not in table.key
            ),
            "same": SQL(" AND ").join(SQL("t.{0} = n.{0}").format(Identifier(name)) for name in table.key),
            "lasting": SQL(", ").join(map(Identifier, table.names_of_past)),
            "old": SQL(", ").join(SQL("t.{}").format(Identifier(name)) for name in table.names_of_past),
        }
        self.columns = columns
        self._sql_load = SQL(_LOAD).format(**parts).as_string()
        self._parts = parts
        self._sql_save = self.saving("rows").as_string()
        self._sql_update = self.saving("rows", past=False).as_string()
        self._sql_copy = SQL("COPY {place} ({columns}) FROM STDIN (FORMAT BINARY)").format(**parts).as_string()

    async def create(self, connection: AsyncConnection[Any]) -> None:
        """Make the table with its key; the other indexes are `create_indexes`'s, so that a rebuild can come first."""
        definitions = [column.definition for column in self.table.columns]
        definitions.append(SQL("PRIMARY KEY ({})").format(SQL(", ").join(map(Identifier, self.table.key))))
        await connection.execute(SQL("CREATE TABLE {} ({})").format(self.place, SQL(", ").join(definitions)))
        await self._let_read(connection, self.place)

    async def create_indexes(self, connection: AsyncConnection[Any]) -> None:
        """Make the indexes beside the key; PostgreSQL names them, so that a rebuilt table's do not clash."""
        for index in self.table.indexes:
            await connection.execute(SQL("CREATE INDEX ON {} " + index).format(self.place))

    async def create_past(self, connection: AsyncConnection[Any]) -> None:
        """Make the table of rows as they were, where the view keeps them."""
        if not self.table.keeps_past:
            return
        definitions = [column.definition for column in self.table.columns if column.past]
        await connection.execute(
            SQL("CREATE TABLE {} ({}, until bigint NOT NULL, replaced_at timestamptz NOT NULL)").format(
                self.past, SQL(", ").join(definitions)
            )
        )
        await connection.execute(SQL("CREATE INDEX ON {} (until)").format(self.past))
        await connection.execute(SQL("CREATE INDEX ON {} (replaced_at)").format(self.past))
        await self._let_read(connection, self.past)

    async def _let_read(self, connection: AsyncConnection[Any], table: Identifier) -> None:
        await connection.execute(SQL("GRANT SELECT ON {} TO {}").format(table, Identifier(ROLE_NAMES["reader"])))

    async def lock(self, connection: AsyncConnection[Any], mode: LiteralString) -> None:
        """Lock the view's tables until the transaction ends.

        Whoever writes a view locks its tables first and its row in the bookkeeping after them: so does the statement that
        does both at once, since the server locks all tables of a statement before it begins.
        """
        tables = [self.place, self.past] if self.table.keeps_past else [self.place]
        await connection.execute(SQL("LOCK TABLE {} IN " + mode + " MODE").format(SQL(", ").join(tables)))

    async def ask(self, connection: AsyncConnection[Any], streams: Collection[Any]) -> AsyncCursor[Any]:
        """Ask for the rows of these streams; `rows_of` gives them once the answer is there."""
        return await connection.execute(self._sql_load, (list(streams),), prepare=True, binary=True)

    async def rows_of(self, cursor: AsyncCursor[Any]) -> Rows:
        """Give the rows that were asked for, as they stand."""
        names, places = self.table.names, self.table.key_places
        return {
            tuple([values[place] for place in places]): dict(zip(names, values, strict=True))
            for values in await cursor.fetchall()
        }

    async def load(self, connection: AsyncConnection[Any], streams: Collection[Any]) -> Rows:
        """Give the rows of these streams as they stand."""
        return await self.rows_of(await self.ask(connection, streams)) if streams else {}

    async def store(self, connection: AsyncConnection[Any], before: Rows, changed: Rows, *, past: bool = True) -> None:
        """Write what a fold of the rows `before` changed: new rows, where they are many, by COPY, the rest at once."""
        new = [row for key, row in changed.items() if key not in before]
        if len(new) < WORTH_COPYING:
            await self.save(connection, changed, past=past)
        else:
            await self.copy(connection, new)
            await self.save(connection, {key: row for key, row in changed.items() if key in before}, past=past)

    async def save(self, connection: AsyncConnection[Any], rows: Rows, *, past: bool = True) -> None:
        """Insert or replace rows in one statement, keeping what they were unless `past` is false."""
        if rows:
            statement = self._sql_save if past else self._sql_update
            await connection.execute(f"WITH {statement} SELECT", {"rows": document(rows)}, prepare=True)

    def saving(self, name: str, *, past: bool = True, only_if: Composable = _ALWAYS) -> Composed:
        """Give the parts of a WITH that insert or replace the rows in a parameter of that name, a `document`.

        Nothing is written where `only_if` does not hold. Rows are kept as they were unless `past` is false.
        """
        statement = _SAVING_WITH_PAST if past and self.table.keeps_past else _SAVING
        names = {
            "rows": Identifier(name),
            "replaced": Identifier(f"{name}_replaced"),
            "saved": Identifier(f"{name}_saved"),
        }
        return SQL(statement).format(**self._parts, **names, parameter=Placeholder(name), only_if=only_if)

    async def copy(self, connection: AsyncConnection[Any], rows: Iterable[Row]) -> None:
        """Add rows that are not there yet, by COPY."""
        values_of, json_places = itemgetter(*self.table.names), self.table.json_places
        async with connection.cursor() as cursor, cursor.copy(self._sql_copy) as copy:
            copy.set_types([column.type for column in self.table.columns])
            for row in rows:
                values = list(values_of(row))
                for place in json_places:
                    if values[place] is not None:
                        values[place] = Jsonb(values[place], to_json)
                await copy.write_row(values)


def _loaded(which: tuple[str, int] | None) -> Composed:
    if which is None:
        return SQL("true").format()
    return SQL("{} = {}").format(Identifier(which[0]), Literal(which[1]))


def document(rows: Rows) -> str:
    """Write rows down for a statement that saves them."""
    return to_json(list(rows.values())).decode()


@cache
def shelf(table: Table, schema: str, name: str) -> Shelf:
    """Give a table's place; its statements are composed once a process."""
    return Shelf(table, schema, name)


# By the primary key, whose first column is the stream: one look each, whatever the planner thinks of the table. A plan
# made while it was empty is kept, and joined or matched in any other way it would walk through all that came since.
_LOAD = """
SELECT t.* FROM unnest(%s::{type}[]) u (value)
CROSS JOIN LATERAL (SELECT {columns} FROM {place} WHERE {first} = u.value AND {loaded} OFFSET 0) t
"""

# The rows travel as one JSON document: arrays of arrays (tags) do not unnest, and one parameter needs no typing.
_SAVING = """
{rows} AS MATERIALIZED (
    SELECT * FROM json_populate_recordset(NULL::{place}, {parameter}::text::json) WHERE {only_if}
),
{saved} AS (
    INSERT INTO {place} ({columns}) SELECT {columns} FROM {rows}
    ON CONFLICT ({key}) DO UPDATE SET {changes}
)
"""

# All parts of the statement see the table as it was before, so that the copy is of the rows about to be replaced. They
# are looked for one by one, as in _LOAD.
_SAVING_WITH_PAST = (
    _SAVING
    + """,
{replaced} AS (
    INSERT INTO {past} ({lasting}, until, replaced_at)
    SELECT {old}, n.{since}, now() FROM {rows} n
    CROSS JOIN LATERAL (SELECT * FROM {place} t WHERE {same} OFFSET 0) t
)
"""
)
