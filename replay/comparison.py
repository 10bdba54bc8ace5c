"""What a change of a view's code makes of its rows: two tables compared by key, with samples of what differs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.sql import SQL, Composed, Identifier

from projections.view import ViewError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from psycopg import AsyncConnection

SAMPLES: Final = 5  # of each kind of difference
MEMORY: Final = "64MB"  # of the server, so that the keys and hashes of a million rows are joined without the disk
LONGEST_SHOWN: Final = 200  # characters of a sampled value; what is longer is cut

ASIDE: Final = Identifier("pg_temp", "rows_that_differ")

# Types whose equal values have equal hashes; the values of others are compared as text.
HASHED: Final = frozenset(
    {
        "bigint",
        "boolean",
        "bytea",
        "date",
        "double precision",
        "integer",
        "interval",
        "jsonb",
        "numeric",
        "real",
        "smallint",
        "text",
        "timestamp with time zone",
        "timestamp without time zone",
        "uuid",
    }
)


class Sample(NamedTuple):
    """One row in which a column differs: the values of its key, and the column's in the one and the other table."""

    key: list[Any]
    old: Any
    new: Any


class ColumnDifference(NamedTuple):
    """A column that both tables have, and in how many rows it differs."""

    name: str
    rows: int
    samples: list[Sample]


@dataclass(frozen=True)
class Comparison:
    """What the table `new` has otherwise than the table `old`, both as of `position`.

    Rows are told apart by their key. Personal values are compared, and shown, as they lie there: sealed.
    """

    old: str
    new: str
    position: int
    equal: int
    changed: int
    only_old: int
    only_new: int
    columns: tuple[ColumnDifference, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    """Columns that only the new table has, and those that only the old one has."""
    only_old_keys: tuple[list[Any], ...]
    only_new_keys: tuple[list[Any], ...]
    """Samples of them."""
    seconds: float

    @property
    def same(self) -> bool:
        """Whether there is no difference at all."""
        return not (self.changed or self.only_old or self.only_new or self.added or self.removed)

    def unexpected(self, expected: Collection[str]) -> list[str]:
        """Say which differences lie elsewhere than in the columns named."""
        found = [f"{one.name} differs in {_rows_of(one.rows)}" for one in self.columns if one.name not in expected]
        found += [f"{name} was added" for name in self.added if name not in expected]
        found += [f"{name} was removed" for name in self.removed if name not in expected]
        if self.only_old:
            found.append(f"{_rows_of(self.only_old)} missing")
        if self.only_new:
            found.append(f"{_rows_of(self.only_new)} more")
        return found

    def as_json(self) -> dict[str, Any]:
        """Give it for a machine."""
        return {
            "old": self.old,
            "new": self.new,
            "position": self.position,
            "same": self.same,
            "rows": {
                "equal": self.equal,
                "changed": self.changed,
                "only_old": self.only_old,
                "only_new": self.only_new,
            },
            "columns": {
                "added": list(self.added),
                "removed": list(self.removed),
                "changed": [
                    {
                        "name": column.name,
                        "rows": column.rows,
                        "samples": [sample._asdict() for sample in column.samples],
                    }
                    for column in self.columns
                ],
            },
            "only_old_keys": list(self.only_old_keys),
            "only_new_keys": list(self.only_new_keys),
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Comparison:
        """Read one back that `as_json` gave."""
        rows, columns = told["rows"], told["columns"]
        return cls(
            told["old"],
            told["new"],
            told["position"],
            rows["equal"],
            rows["changed"],
            rows["only_old"],
            rows["only_new"],
            tuple(
                ColumnDifference(one["name"], one["rows"], [Sample(**sample) for sample in one["samples"]])
                for one in columns["changed"]
            ),
            tuple(columns["added"]),
            tuple(columns["removed"]),
            tuple(told["only_old_keys"]),
            tuple(told["only_new_keys"]),
            told["seconds"],
        )


class _Shape(NamedTuple):
    """The columns of a table with their types, and its key."""

    types: dict[str, str]
    key: tuple[str, ...]


class NotComparable(ViewError):
    """The tables have different keys, so that no row of one answers to one of the other, or no position in common."""


async def compare(connection: AsyncConnection[Any], schema: str, old: str, new: str, *, position: int) -> Comparison:
    """Compare two tables of a schema as the transaction under way sees them.

    The server joins keys and hashes of rows, once through either table. Raises NotComparable.
    """
    began = time.perf_counter()
    await connection.execute(_SETTINGS.encode())
    before, after = await _shape(connection, schema, old), await _shape(connection, schema, new)
    if set(before.key) != set(after.key):
        message = f"{old} has the key ({', '.join(before.key)}), {new} has ({', '.join(after.key)})"
        raise NotComparable(message)
    pair = _Pair(schema, old, new, before, after)
    # The keys of all rows that differ are put aside, so that the tables are gone through whole no second time.
    await connection.execute(pair.put_aside())
    await connection.execute(SQL("ANALYZE {}").format(ASIDE))
    equal, changed, only_old, only_new = (await _rows(connection, pair.counts()))[0]
    columns = []
    if changed:
        shared = [name for name in pair.shared if name not in pair.key]
        numbers = (await _rows(connection, pair.column_counts(shared)))[0]
        for name, number in zip(shared, numbers, strict=True):
            if number:
                found = await _rows(connection, pair.column_samples(name))
                samples = [Sample(key, _cut(one), _cut(other)) for key, one, other in found]
                columns.append(ColumnDifference(name, number, samples))
    return Comparison(
        old,
        new,
        position,
        equal,
        changed,
        only_old,
        only_new,
        tuple(sorted(columns, key=lambda column: (-column.rows, column.name))),
        tuple(name for name in after.types if name not in before.types),
        tuple(name for name in before.types if name not in after.types),
        tuple([key for (key,) in await _rows(connection, pair.missing("in_new"))] if only_old else ()),
        tuple([key for (key,) in await _rows(connection, pair.missing("in_old"))] if only_new else ()),
        time.perf_counter() - began,
    )


async def columns_of(connection: AsyncConnection[Any], schema: str, table: str) -> list[str]:
    """Name the columns of a table."""
    return list((await _shape(connection, schema, table)).types)


class _Pair:
    """The statements that compare two tables: `o` is the old one, `n` the new one."""

    def __init__(self, schema: str, old: str, new: str, before: _Shape, after: _Shape) -> None:
        self.key = after.key
        self.shared = [name for name in after.types if name in before.types]
        self._tables = {"o": Identifier(schema, old), "n": Identifier(schema, new)}
        self._as_text = {
            name
            for name in self.shared
            if before.types[name] != after.types[name] or after.types[name].removesuffix("[]") not in HASHED
        }

    def put_aside(self) -> Composed:
        """Put aside the key of each row that differs or that one table lacks, with which of them have it."""
        sides = {
            side: SQL("SELECT {}, hash_record_extended(ROW({}), 0) AS h FROM {} AS {}").format(
                SQL(", ").join(SQL("{} AS {}").format(self._value(side, name), Identifier(name)) for name in self.key),
                SQL(", ").join(self._value(side, name) for name in self.shared),
                table,
                Identifier(side),
            )
            for side, table in self._tables.items()
        }
        keys = SQL(", ").join(SQL("coalesce(o.{0}, n.{0}) AS {0}").format(Identifier(name)) for name in self.key)
        same_key = SQL(" AND ").join(SQL("o.{0} = n.{0}").format(Identifier(name)) for name in self.key)
        return SQL(
            "CREATE TEMPORARY TABLE {aside} ON COMMIT DROP AS"
            " SELECT {keys}, o.h IS NOT NULL AS in_old, n.h IS NOT NULL AS in_new"
            " FROM ({o}) o FULL JOIN ({n}) n ON {same_key} WHERE o.h IS DISTINCT FROM n.h"
        ).format(aside=ASIDE, keys=keys, **sides, same_key=same_key)

    def counts(self) -> Composed:
        """Count rows that are equal, changed, only old and only new."""
        return SQL(
            "SELECT (SELECT count(*) FROM {o}) - count(*) FILTER (WHERE in_old), count(*) FILTER (WHERE in_old AND in_new),"
            " count(*) FILTER (WHERE NOT in_new), count(*) FILTER (WHERE NOT in_old) FROM {aside}"
        ).format(o=self._tables["o"], aside=ASIDE)

    def column_counts(self, names: Sequence[str]) -> Composed:
        """Count for each column the rows in which it differs."""
        numbers = SQL(", ").join(SQL("count(*) FILTER (WHERE {})").format(self._differs(name)) for name in names)
        return SQL("SELECT {} FROM {}").format(numbers, self._changed())

    def column_samples(self, name: str) -> Composed:
        """Give some rows in which a column differs, always the same ones."""
        return SQL("SELECT {}, to_jsonb(o.{}), to_jsonb(n.{}) FROM {} WHERE {} ORDER BY {} LIMIT {}").format(
            self._keys("n"),
            Identifier(name),
            Identifier(name),
            self._changed(),
            self._differs(name),
            self._order("n"),
            SAMPLES,
        )

    def missing(self, flag: str) -> Composed:
        """Give some keys that one of the tables lacks."""
        return SQL("SELECT {} FROM {} a WHERE NOT {} ORDER BY {} LIMIT {}").format(
            self._keys("a"), ASIDE, Identifier("a", flag), self._order("a"), SAMPLES
        )

    def _changed(self) -> Composed:
        """Join the rows that both tables have and that differ."""
        return SQL("{} a JOIN {} o ON a.in_old AND a.in_new AND {} JOIN {} n ON {}").format(
            ASIDE, self._tables["o"], self._same_key("o"), self._tables["n"], self._same_key("n")
        )

    def _value(self, side: str, name: str) -> Composed:
        column = SQL("{}").format(Identifier(side, name))
        return SQL("{}::text").format(column) if name in self._as_text else column

    def _same_key(self, side: str) -> Composed:
        return SQL(" AND ").join(
            SQL("{} = {}").format(Identifier("a", name), self._value(side, name)) for name in self.key
        )

    def _differs(self, name: str) -> Composed:
        return SQL("{} IS DISTINCT FROM {}").format(self._value("o", name), self._value("n", name))

    def _keys(self, side: str) -> Composed:
        return SQL("jsonb_build_array({})").format(SQL(", ").join(Identifier(side, name) for name in self.key))

    def _order(self, side: str) -> Composed:
        return SQL(", ").join(Identifier(side, name) for name in self.key)


def _rows_of(number: int) -> str:
    return f"{number:,} row" if number == 1 else f"{number:,} rows"


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return value[:LONGEST_SHOWN] + "…"
    return value


async def _shape(connection: AsyncConnection[Any], schema: str, table: str) -> _Shape:
    place = Identifier(schema, table).as_string(connection)
    found = await _rows(connection, SQL(_COLUMNS).format(place))
    return _Shape(
        {name: type_ for name, type_, _ in found},
        tuple(name for _, name in sorted((place, name) for name, _, place in found if place is not None)),
    )


async def _rows(connection: AsyncConnection[Any], statement: Composed) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement)).fetchall()


# The tables are gone through once each, by a hash of all of one: never by an index, row by row. One processor is enough:
# the others are the queries'. Compiling costs more than it saves where a statement runs once.
_SETTINGS = f"""
SET LOCAL work_mem = '{MEMORY}'; SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off;
SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off
"""

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), array_position(i.indkey::int2[], a.attnum)
FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
