"""Lists of a view's rows in pages, each true of the position at which the list was begun."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier
from pydantic_core import from_json, to_json

from projections.bookkeeping import ViewsNotReady
from projections.selection import SHAPES_HELD, Sort, Where
from projections.view import ViewError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from projections.table import Row, Shelf
    from projections.view import View
    from storage.database import Workspace

Item = TypeVar("Item")

LONGEST_CURSOR: Final = 2_000  # characters; ours have under 400


class CursorInvalid(ViewError):
    """The cursor is not one of this list: it is garbled, or belongs to other filters, another sort or view."""


class CursorExpired(ViewError):
    """The list cannot be continued as it was: begin it again."""


class Listing(NamedTuple, Generic[Item]):
    """A page of a list: what it holds, the position of the log that it is true of, and where it goes on.

    `recorded_at` is that of the position, on the first page; `now` the instant that states of clocks are as of.
    """

    items: list[Item]
    position: int
    recorded_at: datetime | None
    cursor: str | None
    now: datetime | None = None


class Counts(NamedTuple):
    """Number of rows by value, None where there is none, with the position of the log that they are true of."""

    counts: dict[Any, int]
    position: int
    recorded_at: datetime | None


class Summary(NamedTuple):
    """What a question about many rows came to, with the position of the log that it is true of."""

    rows: list[tuple[Any, ...]]
    position: int
    recorded_at: datetime | None


class Cursor(NamedTuple):
    """Where a list goes on: after the row with key `last`, as things stood at `position`."""

    view: str
    epoch: str
    position: int
    digest: str
    last: list[Any]
    now: datetime | None

    def text(self) -> str:
        """Write it down, safe for addresses."""
        return urlsafe_b64encode(to_json(list(self))).decode().rstrip("=")

    @classmethod
    async def held(cls, text: str, workspace: Workspace, view: View, digest: str, sort: Sort) -> Cursor:
        """Read one back as `read` does, and raise CursorExpired where the log has lost what it stands on, too."""
        cursor = cls.read(text, view, digest, sort)
        if not await workspace.log.epochs.hold(cursor.position, cursor.epoch):
            raise CursorExpired("the log has lost what the list was begun on; begin it again")  # noqa: EM101, TRY003
        return cursor

    @classmethod
    def read(cls, text: str, view: View, digest: str, sort: Sort) -> Cursor:
        """Read one back. Raises CursorInvalid, and CursorExpired for one of another version of the view."""
        label, its_epoch, position, its_digest, last, now = cls._parts(text)
        well_formed = isinstance(label, str) and isinstance(its_epoch, str) and type(position) is int
        if not well_formed or not 0 <= position < MAX_POSITION or not isinstance(last, list):
            raise CursorInvalid(NOT_A_CURSOR)
        if label != view.label:
            if label.rpartition("_v")[0] != view.name:
                message = f"the cursor is of {label}, not of {view.name}"
                raise CursorInvalid(message)
            message = "the list was begun on an earlier version of the view; begin it again"
            raise CursorExpired(message)
        if its_digest != digest or len(last) != len(sort.columns):
            message = "the cursor belongs to other filters or another order"
            raise CursorInvalid(message)
        types = {column.name: column.type for column in view.table.columns}
        try:
            key = [
                None if value is None and name == sort.none_last else _READ[types[name]](value)
                for name, value in zip(sort.columns, last, strict=True)
            ]
            instant = None if now is None else _instant(now)
        except (ValueError, TypeError, OverflowError):
            raise CursorInvalid(NOT_A_CURSOR) from None
        return cls(label, its_epoch, position, its_digest, key, instant)

    @classmethod
    def kind(cls, text: str) -> tuple[str, str]:
        """Tell of what view a cursor is, and its digest, as it says itself. Raises CursorInvalid."""
        label, _, _, digest, _, _ = cls._parts(text)
        if not isinstance(label, str) or not isinstance(digest, str):
            raise CursorInvalid(NOT_A_CURSOR)
        return label, digest

    @staticmethod
    def _parts(text: str) -> list[Any]:
        if len(text) > LONGEST_CURSOR:
            raise CursorInvalid(NOT_A_CURSOR)
        try:
            parts = from_json(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, TypeError):
            raise CursorInvalid(NOT_A_CURSOR) from None
        if not isinstance(parts, list) or len(parts) != len(Cursor._fields):
            raise CursorInvalid(NOT_A_CURSOR)
        return parts


MAX_POSITION: Final = 2**63 - 1
NOT_A_CURSOR: Final = "this is not a cursor"


def _integer(value: Any) -> int:
    if type(value) is not int or not -MAX_POSITION <= value <= MAX_POSITION:
        raise ValueError
    return value


def _instant(value: Any) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError
    return instant


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return value


_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "bigint": _integer,
    "integer": _integer,
    "smallint": _integer,
    "timestamptz": _instant,
    "uuid": UUID,
    "text": _text,
}


async def list_rows(
    workspace: Workspace,
    view: View,
    where: Where,
    sort: Sort,
    *,
    name: str,
    limit: int,
    cursor: str | None,
    now: datetime | None = None,
    columns: tuple[str, ...] | None = None,
    names: tuple[str, ...] | None = None,
) -> Listing[Row]:
    """Give a page of rows; a cursor continues a list at the position, and the instant `now`, it was begun at.

    `columns`, all if unsaid, have those of the sort among them; `names` are what others are called in the rows. Raises CursorInvalid, CursorExpired, ViewsNotReady.
    """
    digest = where.digest(name)
    start = await Cursor.held(cursor, workspace, view, digest, sort) if cursor is not None else None
    epoch = await workspace.log.epoch()
    now = now if start is None else start.now
    parameters = {**where.parameters, "now": now}
    if start is not None:
        parameters |= {"position": start.position} | {f"last_{i}": value for i, value in enumerate(start.last)}
    columns = view.table.names if columns is None else columns
    names = columns if names is None else names
    source = where.select(view, workspace.schema, columns, sort, limit + 1, pinned=start is not None)
    rows = await _with_position(workspace, view, source, parameters)
    position, recorded_at, kept_from = rows[0][:3]
    if start is not None:
        if start.position > position:
            raise CursorExpired("the view was set back since the list was begun; begin it again")  # noqa: EM101, TRY003
        if start.position < kept_from:
            raise CursorExpired("the list was begun too long ago; begin it again")  # noqa: EM101, TRY003
        position = start.position
    items = [dict(zip(names, row[4:], strict=True)) for row in rows if row[3]]
    further = None
    if len(items) > limit:
        del items[limit:]
        last = [items[-1][column] for column in sort.columns]
        further = Cursor(view.label, epoch, position, digest, last, now).text()
    return Listing(items, position, recorded_at if start is None else None, further, now)


async def count_rows(
    workspace: Workspace,
    view: View,
    where: Where,
    *,
    by: Composable,
    at: int | None = None,
    now: datetime | None = None,
) -> Counts:
    """Count rows by the value of an expression; `at` is a position that a list is pinned to.

    Raises CursorExpired, ViewsNotReady.
    """
    shelf = view.shelf(workspace.schema)
    if at is None:
        values = SQL("SELECT {} AS value FROM {} WHERE {}").format(by, shelf.place, where.sql())
    else:
        values = _pinned(
            shelf, lambda table, pin: SQL("SELECT {} AS value FROM {} WHERE {}").format(by, table, where.sql(pin))
        )
    source = SQL("SELECT value, count(*) AS number FROM ({}) u GROUP BY value").format(values)
    rows = await _with_position(workspace, view, source.as_string(), {**where.parameters, "position": at, "now": now})
    position, recorded_at, kept_from = rows[0][:3]
    if at is not None and not kept_from <= at <= position:
        raise CursorExpired("the counts of that position are not kept any more")  # noqa: EM101, TRY003
    counts = {row[4]: row[5] for row in rows if row[3]}
    return Counts(counts, position if at is None else at, recorded_at if at is None else None)


async def summarise(
    workspace: Workspace, view: View, select: str, where: Where, names: Mapping[str, Composable] | None = None
) -> Summary:
    """Ask about a view's rows with a SELECT that has {place}, {columns}, {where} or other `names` to be filled in.

    The rows come in no order. Raises ViewsNotReady.
    """
    shelf = view.shelf(workspace.schema)
    known = {"place": shelf.place, "columns": shelf.columns, "where": where.sql()}
    source = SQL(select).format(**{**known, **(names or {})})
    rows = await _with_position(workspace, view, source.as_string(), where.parameters)
    return Summary([row[4:] for row in rows if row[3]], rows[0][0], rows[0][1])


async def find_row(workspace: Workspace, view: View, where: Where) -> tuple[Row | None, int]:
    """Give the first row that fits, or None, with the position it is true of. Raises ViewsNotReady."""
    shelf = view.shelf(workspace.schema)
    source = SQL("SELECT {} FROM {} WHERE {} LIMIT 1").format(shelf.columns, shelf.place, where.sql())
    row = (await _with_position(workspace, view, source.as_string(), where.parameters))[0]
    return (dict(zip(view.table.names, row[4:], strict=True)) if row[3] else None), row[0]


def _pinned(shelf: Shelf, select: Callable[[Identifier, Composable], Composed]) -> Composed:
    """Select from the rows as they stood at a position: those unchanged since, and those kept when they changed."""
    known = SQL("{} <= %(position)s").format(Identifier(shelf.table.since))
    parts = [select(shelf.place, known)]
    if shelf.table.keeps_past:
        parts.append(select(shelf.past, known + SQL(" AND until > %(position)s")))
    return SQL(" UNION ALL ").join(parts)


async def _with_position(
    workspace: Workspace, view: View, source: str, parameters: dict[str, Any]
) -> list[tuple[Any, ...]]:
    """Run a query in one statement, and so one snapshot, with the view's checkpoint: position, time, kept_from, found.

    The rows come in the query's order.
    """
    parameters = {**parameters, "view_name": view.name, "view_version": view.version}
    try:
        async with workspace.database.pool.connection() as connection:
            cursor = await connection.execute(_positioned(workspace.schema, source), parameters, binary=True)
            rows = await cursor.fetchall()
    except psycopg.errors.UndefinedTable:
        rows = []
    if not rows:
        raise ViewsNotReady(view.name)
    return rows


@lru_cache(maxsize=SHAPES_HELD)
def _positioned(schema: str, source: str) -> bytes:
    return _WITH_POSITION.format(schema=Identifier(schema).as_string(), source=source).encode()


# One row at least, so that an empty list has its position too. The one row of the bookkeeping is joined with those of
# the query as they come, so that they need not be sorted again.
_WITH_POSITION = """
SELECT v.position, v.recorded_at, v.kept_from, r.*
FROM {schema}.views v LEFT JOIN LATERAL (SELECT true AS found, s.* FROM ({source}) s) r ON true
WHERE v.name = %(view_name)s AND v.version = %(view_version)s
"""
