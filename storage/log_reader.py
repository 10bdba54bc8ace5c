"""Reads the log of one workspace: streams, pages, its end, and what was true when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.sql import SQL, Identifier

from storage.append import LogError
from storage.epochs import Epochs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    import psycopg

    from storage.database import Database


class StoredRow(NamedTuple):
    """An event as it lies in the log."""

    position: int
    stream: UUID
    version: int
    topic: str
    state: bytes
    personal: bytes | None
    recorded_at: datetime


RawRow = tuple[int, "UUID", int, str, bytes, "bytes | None", "datetime"]
"""A StoredRow without its names, for readers that go through all of a log."""


class Cut(NamedTuple):
    """What somebody who reads through the whole log takes of it.

    That is: of `lanes` that divide the streams among them one, no event of the topics `without`, and of the topics
    `bare` no personal values.
    """

    lane: int = 0
    lanes: int = 1
    without: Sequence[str] = ()
    bare: Sequence[str] = ()


WHOLE: Final = Cut()


class Head(NamedTuple):
    """The end of the log; position 0 and no time when it is empty."""

    position: int
    recorded_at: datetime | None
    epoch: str


class LogReader:
    """What can be asked of a log."""

    def __init__(self, database: Database, workspace: str, schema: str) -> None:
        self._database = database
        self._workspace = workspace
        self.epochs = Epochs(database, schema)
        name = Identifier(schema)
        self._sql_stream = SQL(_STREAM).format(schema=name).as_string()
        self._sql_by_now = SQL(_STREAM_BY_NOW).format(schema=name).as_string()
        self._sql_parts = SQL(_PARTS).format(schema=name).as_string()
        self._sql_whole = SQL(_WHOLE).format(schema=name).as_string()
        self._sql_last_of = SQL(_LAST_OF).format(schema=name).as_string()
        self._sql_page = SQL(_PAGE).format(schema=name).as_string()
        self._sql_page_topics = SQL(_PAGE_OF_TOPICS).format(schema=name).as_string()
        self._sql_places = SQL(_PLACES).format(schema=name).as_string()
        self._sql_streams = SQL(_STREAMS_BETWEEN).format(schema=name).as_string()
        self._sql_range = SQL(_RANGE).format(schema=name).as_string()
        self._sql_heads = SQL(_HEADS).format(schema=name).as_string()
        self._sql_head = SQL(_HEAD).format(schema=name).as_string()
        self._sql_at = SQL(_POSITION_AT).format(schema=name).as_string()
        self._sql_owner = SQL(_OWNER).format(schema=name).as_string()

    async def stream(
        self, stream: UUID, *, after: int = 0, upto: int | None = None, limit: int | None = None
    ) -> list[StoredRow]:
        """Give the events of one stream with versions `after` < v ≤ `upto`, in order."""
        lowest = after if after > 0 else -1  # streams of the `eventsourcing` package start at version 0
        return await self._rows(self._sql_stream, (stream, lowest, upto, limit))

    async def stream_by_now(
        self, connection: psycopg.AsyncConnection[Any], stream: UUID, *, after: int
    ) -> tuple[list[StoredRow], int]:
        """Give the events of one stream after a version, and the position up to which there are no others."""
        cursor = await connection.execute(self._sql_by_now, (stream, after), prepare=True, binary=True)
        found = await cursor.fetchall()
        return [StoredRow._make(row[1:]) for row in found if row[1] is not None], found[0][0]

    async def parts_of(
        self, wanted: Sequence[tuple[UUID, int, int]], *, most: int, bare: Sequence[str] = ()
    ) -> list[StoredRow]:
        """Give what comes next in each of several streams, at most so many events each, in the order of each stream.

        Asked for are a stream, the version after which, and the position up to which. Of the topics `bare` no personal
        values are read.
        """
        streams, versions, positions = zip(*wanted, strict=True)
        parameters = {"streams": [*streams], "after": [*versions], "upto": [*positions], "most": most, "bare": [*bare]}
        return await self._rows(self._sql_parts, parameters)

    async def whole(self, streams: Sequence[UUID]) -> dict[UUID, list[StoredRow]]:
        """Give all events of several streams, each in order, without personal values; by one statement, so as of one moment."""
        found: dict[UUID, list[StoredRow]] = {}
        for row in await self._rows(self._sql_whole, (list(streams),)):
            found.setdefault(row.stream, []).append(row)
        return found

    async def last_of(self, streams: Sequence[UUID], topics: Sequence[str]) -> list[StoredRow]:
        """Give the last event of any of these topics in each of the streams that have one."""
        return await self._rows(self._sql_last_of, (list(streams), list(topics)))

    async def page(
        self, after: int, limit: int, *, upto: int | None = None, topics: Sequence[str] | None = None
    ) -> list[StoredRow]:
        """Give the next `limit` events with positions `after` < p ≤ `upto`, in order."""
        if topics is None:
            return await self._rows(self._sql_page, (after, upto, limit))
        return await self._rows(self._sql_page_topics, (after, upto, list(topics), limit))

    def page_over(self, connection: psycopg.Connection[Any], after: int, upto: int, cut: Cut = WHOLE) -> list[RawRow]:
        """Give what a reader takes of the positions `after` < p ≤ `upto`, in order, over a blocking connection.

        For a thread that reads the whole log: large answers arrive in thousands of small pieces, each of which would
        be a turn of the event loop.
        """
        parameters = {
            "after": after,
            "upto": upto,
            "lane": cut.lane,
            "lanes": cut.lanes,
            "without": list(cut.without),
            "bare": list(cut.bare),
        }
        # Planned each time, as the topics are looked up in a hash table where the planner knows them, else one by one.
        return connection.execute(self._sql_range, parameters, prepare=False, binary=True).fetchall()

    async def at(self, positions: Sequence[int]) -> list[StoredRow]:
        """Give the events at these positions, as far as there are any, in the order asked."""
        return await self._rows(self._sql_places, (list(positions),)) if positions else []

    async def streams_between(self, after: int, upto: int, topics: Iterable[str]) -> list[UUID]:
        """Name the streams that have events of some topics at positions `after` < p ≤ `upto`, in no order."""
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_streams, (after, upto, [*topics]), prepare=True)
            return [row[0] for row in await cursor.fetchall()]

    async def row(self, position: int) -> StoredRow | None:
        """Give the event at a position, or None when there is none yet."""
        rows = await self.page(position - 1, 1, upto=position)
        return rows[0] if rows else None

    async def heads(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """Give the last version of each of the streams that exist."""
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_heads, (list(streams),), prepare=True)
            return dict(await cursor.fetchall())

    async def head(self) -> Head:
        """Give the end of the log and its epoch."""
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_head, prepare=True)
            row = await cursor.fetchone()
        if row is None:
            message = f"workspace {self._workspace} has no log identity"
            raise LogError(message)
        return Head(*row)

    async def epoch(self) -> str:
        """Give the log's epoch as this process knows it; it is read again after a restore or a failover."""
        return await self.epochs.current()

    async def position_at(self, instant: datetime) -> tuple[int, bool]:
        """Give the last position recorded at or before an instant, and whether that is provisional.

        It is provisional until an event with a later recorded time is in the log: until then another event
        may still be recorded within the instant.
        """
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_at, (instant,), prepare=True)
            row = await cursor.fetchone()
        position, later = row if row is not None else (0, False)
        return position, not later

    async def owner_of(self, kind: str, key: bytes) -> UUID | None:
        """Give the stream that holds a claimed value, or None."""
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_owner, (kind, key), prepare=True)
            row = await cursor.fetchone()
        return row[0] if row is not None else None

    async def _rows(self, statement: str, parameters: tuple[Any, ...] | dict[str, Any]) -> list[StoredRow]:
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(statement, parameters, prepare=True, binary=True)
            return list(map(StoredRow._make, await cursor.fetchall()))


_COLUMNS = "notification_id, originator_id, originator_version, topic, state, personal, recorded_at"

# By the unique index on stream and version.
_STREAM = f"""
SELECT {_COLUMNS} FROM {{schema}}.events
WHERE originator_id = %s AND originator_version > %s AND originator_version <= coalesce(%s, 9223372036854775807)
ORDER BY originator_version LIMIT %s
"""

# In one statement, and so one snapshot, with the log's end.
_STREAM_BY_NOW = f"""
SELECT h.head, e.* FROM (SELECT coalesce(max(notification_id), 0) AS head FROM {{schema}}.events) h
LEFT JOIN LATERAL (
    SELECT {_COLUMNS} FROM {{schema}}.events
    WHERE originator_id = %s AND originator_version > %s ORDER BY originator_version OFFSET 0
) e ON true
"""

# By the unique index on stream and version, one look for each stream whatever the planner thinks.
_PARTS = """
SELECT e.* FROM unnest(%(streams)s::uuid[], %(after)s::bigint[], %(upto)s::bigint[]) u (id, after, upto)
CROSS JOIN LATERAL (
    SELECT notification_id, originator_id, originator_version, topic, state,
           CASE WHEN topic <> ALL (%(bare)s::text[]) THEN personal END, recorded_at
    FROM {schema}.events
    WHERE originator_id = u.id AND originator_version > u.after AND notification_id <= u.upto
    ORDER BY originator_version LIMIT %(most)s
) e
"""

# By the unique index on stream and version; the inner order is kept, a stream at a time.
_WHOLE = """
SELECT e.* FROM unnest(%s::uuid[]) u (id)
CROSS JOIN LATERAL (
    SELECT notification_id, originator_id, originator_version, topic, state, NULL::bytea, recorded_at
    FROM {schema}.events WHERE originator_id = u.id ORDER BY originator_version OFFSET 0
) e
"""

# By the unique index, backwards, for each stream: people and teams have few events after the one that names them.
_LAST_OF = f"""
SELECT {_COLUMNS} FROM unnest(%s::uuid[]) u (id)
CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM {{schema}}.events
    WHERE originator_id = u.id AND topic = ANY(%s) ORDER BY originator_version DESC LIMIT 1
) x
"""

# By the primary key; positions are dense, so that a page of n is n steps of the index.
_PAGE = f"""
SELECT {_COLUMNS} FROM {{schema}}.events
WHERE notification_id > %s AND notification_id <= coalesce(%s, 9223372036854775807)
ORDER BY notification_id LIMIT %s
"""

_PLACES = f"""
SELECT e.* FROM unnest(%s::bigint[]) WITH ORDINALITY u (position, place)
CROSS JOIN LATERAL (SELECT {_COLUMNS} FROM {{schema}}.events WHERE notification_id = u.position OFFSET 0) e
ORDER BY u.place
"""

_PAGE_OF_TOPICS = f"""
SELECT {_COLUMNS} FROM {{schema}}.events
WHERE notification_id > %s AND notification_id <= coalesce(%s, 9223372036854775807) AND topic = ANY(%s)
ORDER BY notification_id LIMIT %s
"""

_STREAMS_BETWEEN = """
SELECT DISTINCT originator_id FROM {schema}.events
WHERE notification_id > %s AND notification_id <= %s AND topic = ANY(%s)
"""

# A stream is in the lane that the last byte of its id says: random in ids of versions 4 and 5, and the same for ever.
_RANGE = """
SELECT notification_id, originator_id, originator_version, topic, state,
       CASE WHEN topic <> ALL (%(bare)s::text[]) THEN personal END, recorded_at
FROM {schema}.events
WHERE notification_id > %(after)s AND notification_id <= %(upto)s
  AND (%(lanes)s::int = 1 OR get_byte(uuid_send(originator_id), 15) %% %(lanes)s = %(lane)s::int)
  AND topic <> ALL (%(without)s::text[])
ORDER BY notification_id
"""

_HEADS = """
SELECT u.id, x.version FROM unnest(%s::uuid[]) u (id)
CROSS JOIN LATERAL (
    SELECT originator_version AS version FROM {schema}.events
    WHERE originator_id = u.id ORDER BY originator_version DESC LIMIT 1
) x
"""

_HEAD = """
SELECT coalesce(e.notification_id, 0), e.recorded_at, i.epoch
FROM {schema}.log_identity i
LEFT JOIN LATERAL (
    SELECT notification_id, recorded_at FROM {schema}.events ORDER BY notification_id DESC LIMIT 1
) e ON true
"""

# The last position by the end of the primary key: asked whether one above exists, the planner scans the table for it.
_POSITION_AT = """
SELECT p.position, p.position < (SELECT max(notification_id) FROM {schema}.events)
FROM {schema}.position_at(%s) p (position)
"""

_OWNER = "SELECT stream FROM {schema}.claims WHERE kind = %s AND key = %s"
