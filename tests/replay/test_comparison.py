"""Two tables are compared row by row as the server has them, whatever types their columns are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from replay.comparison import SAMPLES, Comparison, NotComparable, compare

if TYPE_CHECKING:
    from storage.database import Workspace

BEFORE = """
CREATE TABLE {schema}.o (
    id uuid, part text COLLATE "C", tags text[], told jsonb, at timestamptz, level smallint, gone text, ids uuid[],
    flag boolean, PRIMARY KEY (id, part));
CREATE TABLE {schema}.n (
    id uuid, part text COLLATE "C", told jsonb, tags text[], at timestamptz, level bigint, come text, ids uuid[],
    flag boolean, PRIMARY KEY (part, id));
"""
FIRST = "00000000-0000-4000-8000-000000000001"
SECOND = "00000000-0000-4000-8000-000000000002"
ROW: dict[str, Any] = {
    "id": FIRST,
    "part": "a",
    "tags": ["vip", "会议室", None],
    "told": '{"a": [1, null], "b": "x"}',
    "at": "2026-03-02T12:00:00+00:00",
    "level": 2,
    "ids": [SECOND],
    "flag": None,
}


async def compared(workspace: Workspace, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Comparison:
    async with workspace.database.pool.connection() as connection, connection.transaction():
        await connection.execute(BEFORE.format(schema=workspace.schema).encode())
        for table, rows in (("o", old), ("n", new)):
            for row in rows:
                await connection.execute(
                    f"INSERT INTO {workspace.schema}.{table} ({', '.join(row)})"
                    f" VALUES ({', '.join(['%s'] * len(row))})".encode(),
                    list(row.values()),
                )
        found = await compare(connection, workspace.schema, "o", "n", position=7)
        await connection.execute(f"DROP TABLE {workspace.schema}.o, {workspace.schema}.n".encode())
    assert Comparison.from_json(found.as_json()).as_json() == found.as_json()
    return found


async def test_equal_values_written_otherwise_are_equal(alpha: Workspace) -> None:
    other = ROW | {"told": '{"b": "x", "a": [1.0, null]}', "at": "2026-03-02T13:00:00+01:00"}
    found = await compared(alpha, [ROW, ROW | {"part": "b"}], [other, other | {"part": "b"}])
    assert (found.equal, found.changed, found.only_old, found.only_new) == (2, 0, 0, 0)
    assert (found.added, found.removed) == (("come",), ("gone",))
    assert not found.same
    assert found.unexpected({"come", "gone"}) == []
    assert found.unexpected({"come"}) == ["gone was removed"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("tags", ["vip", "会议室"]),
        ("tags", None),
        ("told", '{"a": [1], "b": "x"}'),
        ("told", None),
        ("at", "2026-03-02T12:00:00.000001+00:00"),
        ("level", 3),
        ("level", None),
        ("ids", []),
        ("flag", False),
    ],
)
async def test_a_value_that_differs_is_found_with_its_key(alpha: Workspace, column: str, value: Any) -> None:
    found = await compared(alpha, [ROW, ROW | {"id": SECOND}], [ROW, ROW | {"id": SECOND, column: value}])
    assert (found.equal, found.changed, found.only_old, found.only_new) == (1, 1, 0, 0)
    (difference,) = found.columns
    assert (difference.name, difference.rows) == (column, 1)
    (sample,) = difference.samples
    assert sorted(sample.key) == sorted(["a", SECOND])
    assert sample.old != sample.new
    assert found.unexpected({"come", "gone", column}) == []
    assert found.unexpected({"come", "gone"}) == [f"{column} differs in 1 row"]


async def test_rows_that_one_table_lacks_are_counted_and_no_column_excuses_them(alpha: Workspace) -> None:
    old = [ROW | {"part": part} for part in "abc"]
    new = [ROW | {"part": part} for part in "bcdefghij"]
    found = await compared(alpha, old, new)
    assert (found.equal, found.changed, found.only_old, found.only_new) == (2, 0, 1, 7)
    assert [sorted(key) for key in found.only_old_keys] == [sorted(["a", FIRST])]
    assert len(found.only_new_keys) == SAMPLES
    assert len(found.unexpected(ROW.keys() | {"come", "gone"})) == 2


async def test_as_many_samples_are_shown_as_are_looked_at(alpha: Workspace) -> None:
    old = [ROW | {"part": str(number), "level": number} for number in range(20)]
    new = [row | {"level": row["level"] + 1, "flag": row["level"] == 3} for row in old]
    found = await compared(alpha, old, new)
    assert (found.equal, found.changed) == (0, 20)
    assert {column.name: (column.rows, len(column.samples)) for column in found.columns} == {
        "level": (20, SAMPLES),
        "flag": (20, SAMPLES),
    }


async def test_two_empty_tables_are_equal(alpha: Workspace) -> None:
    found = await compared(alpha, [], [])
    assert (found.equal, found.changed, found.only_old, found.only_new) == (0, 0, 0, 0)


async def test_a_long_value_is_shown_in_part(alpha: Workspace) -> None:
    found = await compared(alpha, [ROW | {"told": f'"{"x" * 1000}"'}], [ROW])
    assert len(found.columns[0].samples[0].old) < 250


async def test_tables_with_other_keys_are_not_compared(alpha: Workspace) -> None:
    async with alpha.database.pool.connection() as connection, connection.transaction():
        await connection.execute(
            f"CREATE TABLE {alpha.schema}.o (a int PRIMARY KEY, b int);"
            f"CREATE TABLE {alpha.schema}.n (a int, b int, PRIMARY KEY (a, b))".encode()
        )
        with pytest.raises(NotComparable, match=r"o has the key \(a\), n has \(a, b\)"):
            await compare(connection, alpha.schema, "o", "n", position=7)
