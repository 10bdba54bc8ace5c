"""Lists and counts of a view's rows as they were at a moment, each row exactly the fold of the log up to it."""

from __future__ import annotations

from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from projections.bookkeeping import ViewsNotReady
from projections.extract import Extract
from projections.past import LONGEST, path, ticks
from projections.reference import folded, told
from projections.view import ViewError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from projections.past import Past
    from projections.selection import Sort, Where
    from projections.table import Row, Rows
    from projections.view import View
    from storage.database import Workspace


class NotYetKept(ViewError):
    """The view that keeps the past has not come to the position yet."""

    def __init__(self, view: View, wanted: int, reached: int) -> None:
        super().__init__(f"{view.name} has reached position {reached}, not {wanted}")
        self.view = view.name
        self.wanted = wanted
        self.reached = reached


class Instant(NamedTuple):
    """A moment to look back at: all that is recorded up to a position, which was recorded at `recorded_at`.

    With `occurred_at`, of that what had happened at the source by then: the events of each row up to the first that
    had not.
    """

    position: int
    recorded_at: datetime | None
    occurred_at: datetime | None = None


class Asked(NamedTuple):
    """Which rows: conditions on the columns that are asked for, and, to save looking, the values that they leave.

    `among` are the only values of the column that says what is settled that fulfil `where`; None is any.
    """

    where: Where
    among: Collection[str] | None = None


async def list_rows_at(
    workspace: Workspace,
    past: Past,
    asked: Asked,
    at: Instant,
    sort: Sort,
    *,
    limit: int,
    after: Sequence[Any] | None = None,
) -> list[Row]:
    """Give rows as they were, in order, from the first or after the one whose values of the sort's columns are given.

    Raises NotYetKept, ViewsNotReady.
    """
    if at.recorded_at is None:
        return []
    more = [] if after is None else [sort.after(past.view)]
    columns = SQL(", ").join(map(Identifier, (past.view.table.key[0], *sort.columns)))
    place = past.history.shelf(workspace.schema).place
    parts = [
        SQL("(SELECT {}, base, upto FROM {} WHERE {} ORDER BY {} LIMIT %(limit)s)").format(
            columns, rows, asked.where.sql(*more, *conditions), sort.by()
        )
        for rows, conditions in _sources(past, place, asked, at, sort)
    ]
    statement = SQL(_LIST).format(
        chosen=SQL(" UNION ALL ").join(parts),
        order=sort.by(),
        place=place,
        columns=SQL(", ").join(Identifier("b", name) for name in past.view.table.names),
        key=Identifier(past.view.table.key[0]),
    )
    parameters = {f"last_{place}": value for place, value in enumerate(after or ())} | {"limit": limit}
    found = await _asked(workspace, past, asked, at, statement, parameters)
    return await _folded(workspace, past.view, sorted(found, key=itemgetter(0)), at)


async def count_rows_at(workspace: Workspace, past: Past, asked: Asked, at: Instant, by: Composable) -> dict[Any, int]:
    """Count rows as they were by the value of an expression. Raises NotYetKept, ViewsNotReady."""
    if at.recorded_at is None:
        return {}
    place = past.history.shelf(workspace.schema).place
    parts = [
        SQL("SELECT {} AS value FROM {} WHERE {}").format(by, rows, asked.where.sql(*conditions))
        for rows, conditions in _sources(past, place, asked, at, None)
    ]
    statement = SQL("SELECT value, count(*) FROM ({}) u GROUP BY value").format(SQL(" UNION ALL ").join(parts))
    return dict(await _asked(workspace, past, asked, at, statement, {}))


def _sources(
    past: Past, place: Composable, asked: Asked, at: Instant, sort: Sort | None
) -> list[tuple[Composable, list[Composable]]]:
    """Give the tables in which the rows are to be looked for, and the conditions there.

    Beside the columns asked for they have two: the row to begin folding from, and the position up to which. First what has not changed since the moment: the settled, by an index in the order asked for, and the others. Then
    what has, which lies in the stretches that hold the moment.
    """
    now = SQL("(SELECT *, 0::bigint AS base, NULL::bigint AS upto FROM {}) n").format(place)
    unchanged: list[Composable] = [SQL("since <= %(position)s")]
    changed = Identifier(past.changed)
    if at.occurred_at is not None:
        unchanged.append(SQL("{} <= %(occurred_at)s").format(changed))
    found: list[tuple[Composable, list[Composable]]] = []
    for value in past.settled:
        if asked.among is not None and value not in asked.among:
            continue
        settled = [
            *unchanged,
            SQL(past.is_settled),
            SQL("{} = {}").format(Identifier(past.settled_by), Literal(value)),
        ]
        if sort is not None and sort.descending and sort.columns[0] == past.changed:
            # From the newest of then, not of now. What claims to be of a later time than it was recorded at is apart.
            found.append((now, [*settled, SQL("{} <= %(recorded_at)s").format(changed)]))
            found.append((now, [*settled, SQL("ahead AND {} > %(recorded_at)s").format(changed)]))
        else:
            found.append((now, settled))
    if asked.among is None or set(asked.among) - set(past.settled):
        found.append((now, [*unchanged, SQL(past.is_moving)]))
    found.append((_stretches(past, place, at), []))
    return found


def _stretches(past: Past, place: Composable, at: Instant) -> Composed:
    """Select from the stretches that hold the moment, with the columns as they were at it."""
    changed = past.changed
    shown: list[Composable] = [SQL("s.{}").format(Identifier(name)) for name in past.fixed]
    for name in past.asked:
        many = past.types[name].endswith("[]")
        was = SQL(_LIST_THEN if many else _VALUE_THEN).format(
            until=Identifier("s", f"{name}_until"),
            was=Identifier("s", f"{name}_was"),
            now=Identifier("s", name),
        )
        shown.append(SQL("{} AS {}").format(was, Identifier(name)))
    if at.occurred_at is None:
        holding, upto = _HOLDING, "%(position)s::bigint"
    else:
        holding, upto = _HOLDING_OF_BOTH, _UPTO
    parts: dict[str, Composable] = {
        "place": place,
        "changed": Identifier(changed),
        "changed_until": Identifier(f"{changed}_until"),
        "changed_was": Identifier(f"{changed}_was"),
    }
    return SQL(_STRETCHES).format(
        shown=SQL(", ").join(shown), holding=SQL(holding).format(**parts), upto=SQL(upto).format(**parts)
    )


async def _asked(
    workspace: Workspace, past: Past, asked: Asked, at: Instant, source: Composed, more: dict[str, Any]
) -> list[tuple[Any, ...]]:
    """Run a query in one statement with the view's checkpoint. Raises NotYetKept, ViewsNotReady."""
    history = past.history
    upto, above = path(at.position)
    parameters = {
        **asked.where.parameters,
        **more,
        **at._asdict(),
        "now": at.occurred_at or at.recorded_at,
        "nodes_upto": upto,
        "nodes_above": above,
        "view_name": history.name,
        "view_version": history.version,
    }
    if at.occurred_at is not None:
        parameters["time_nodes_upto"], parameters["time_nodes_above"] = path(ticks(at.occurred_at))
    statement = SQL(_WITH_POSITION).format(schema=Identifier(workspace.schema), source=source)
    try:
        async with (
            workspace.database.pool.connection() as connection,
            connection.pipeline(),
            connection.transaction(),
        ):
            # To begin another process takes longer than what it would do.
            await connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
            # Planned anew each time: which way is short depends on the moment, and on what the tables hold by now.
            cursor = await connection.execute(statement, parameters, prepare=False, binary=True)
            rows = await cursor.fetchall()
    except psycopg.errors.UndefinedTable:
        rows = []
    if not rows:
        raise ViewsNotReady(history.name)
    if rows[0][0] < at.position:
        raise NotYetKept(history, at.position, rows[0][0])
    return [row[2:] for row in rows if row[1]]


async def _folded(workspace: Workspace, view: View, found: list[tuple[Any, ...]], at: Instant) -> list[Row]:
    """Fold what happened to each row since the state that it is told from; most have not changed since the moment."""
    names = view.table.names
    began: Rows = {}
    wanted: list[tuple[Any, int, int]] = []
    for _, stream, upto, *values in found:
        row = dict(zip(names, values, strict=True)) if values[0] is not None else None
        if row is not None:
            began[stream,] = row
        if upto is not None:
            wanted.append((stream, 0 if row is None else row["version"], upto))
    if wanted:
        extract = _extract(view)
        events = await workspace.log.parts_of(wanted, most=LONGEST, bare=extract.bare)
        known = None if view.reference is None else await told(workspace, view.reference, at.position)
        began |= folded(view, began, extract.recorded(events), known)
    return [began[stream,] for _, stream, *_ in found]


@cache
def _extract(view: View) -> Extract:
    return Extract(view)


_VALUE_THEN: Final = """
CASE WHEN {until}[cardinality({until})] > s.upto THEN {was}[width_bucket(s.upto, {until}) + 1] ELSE {now} END"""

_LIST_THEN: Final = """
CASE WHEN {until}[cardinality({until})] > s.upto THEN ARRAY(
    SELECT jsonb_array_elements_text({was}[width_bucket(s.upto, {until}) + 1]::jsonb)
) ELSE {now} END"""

# A stretch is at one node, and those that hold a position are at one of its path: each part is a few dozen short looks
# into an index. Apart from the nodes, one comparison says for all stretches at them whether they hold it.
_HOLDING: Final = """
SELECT * FROM {place} WHERE node = ANY (%(nodes_upto)s::bigint[]) AND since > %(position)s
UNION ALL
SELECT * FROM {place} WHERE node = ANY (%(nodes_above)s::bigint[]) AND first_since <= %(position)s"""

_HOLDING_OF_BOTH: Final = """
SELECT * FROM {place} WHERE node = ANY (%(nodes_upto)s::bigint[]) AND since > %(position)s
    AND first_changed <= %(occurred_at)s
UNION ALL
SELECT * FROM {place} WHERE node = ANY (%(nodes_above)s::bigint[]) AND first_since <= %(position)s
    AND first_changed <= %(occurred_at)s
UNION ALL
SELECT * FROM {place} WHERE time_node = ANY (%(time_nodes_upto)s::bigint[]) AND {changed} > %(occurred_at)s
    AND since <= %(position)s
UNION ALL
SELECT * FROM {place} WHERE time_node = ANY (%(time_nodes_above)s::bigint[]) AND first_changed <= %(occurred_at)s
    AND since <= %(position)s"""

# The last state that had been reached by then at the source: it ended just before the position that moved the time on.
_UPTO: Final = """
CASE WHEN h.{changed} > %(occurred_at)s
    THEN least(%(position)s, h.{changed_until}[width_bucket(%(occurred_at)s::timestamptz, h.{changed_was})] - 1)
    ELSE %(position)s END::bigint"""

_STRETCHES: Final = """(
    SELECT {shown}, s.first_since AS base, s.upto
    FROM (SELECT h.*, {upto} AS upto FROM ({holding}) h OFFSET 0) s
) r"""

# The state to begin from: the row as it is, or the sealed stretch before the one that holds the moment.
_LIST: Final = """
SELECT c.ordinal, c.{key}, c.upto, {columns}
FROM (SELECT *, row_number() OVER (ORDER BY {order}) AS ordinal FROM ({chosen}) u ORDER BY {order} LIMIT %(limit)s) c
LEFT JOIN LATERAL (SELECT * FROM {place} WHERE {key} = c.{key} AND sealed_at = c.base OFFSET 0) b ON true"""

# One row at least, so that what holds nothing is known to be complete too.
_WITH_POSITION: Final = """
SELECT v.position, r.*
FROM {schema}.views v LEFT JOIN LATERAL (SELECT true AS found, q.* FROM ({source}) q) r ON true
WHERE v.name = %(view_name)s AND v.version = %(view_version)s"""
