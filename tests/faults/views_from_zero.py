"""Whether each view is what its fold makes of the whole log at once, whatever pages and crashes it was built through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier
from pydantic_core import to_json

from projections.page import Page
from projections.reference import Told
from projections.registry import VIEWS
from storage.codec import decode
from storage.log_reader import StoredRow

if TYPE_CHECKING:
    from projections.view import View

EVENTS = """
SELECT notification_id, originator_id, originator_version, topic, state, personal, recorded_at
FROM {schema}.events ORDER BY notification_id
"""

SKIPPED = "SELECT position FROM {schema}.view_skips WHERE view = %s AND version = %s"

CHECKPOINT = "SELECT position, state FROM {schema}.views WHERE name = %s AND version = %s"

EXPECT = """
CREATE TEMPORARY TABLE expected ON COMMIT DROP AS
SELECT {columns} FROM json_populate_recordset(NULL::{live}, %s::text::json)
"""

DIFFERENCES = """
(SELECT 'missing or different', to_jsonb(x)::text FROM (TABLE expected EXCEPT ALL SELECT {columns} FROM {live}) x LIMIT 3)
UNION ALL
(SELECT 'there and wrong', to_jsonb(x)::text FROM (SELECT {columns} FROM {live} EXCEPT ALL TABLE expected) x LIMIT 3)
"""

BROKEN_PAST = """
SELECT keys, {since}, until, next FROM (
    SELECT ROW({key})::text AS keys, {since}, until, coalesce(
        lead({since}) OVER (PARTITION BY {key} ORDER BY until, {since}),
        (SELECT l.{since} FROM {live} l WHERE ({key_of_live}) = ({key_of_past}))) AS next
    FROM {past} p) chain
WHERE until <= {since} OR until <> next LIMIT 3
"""


def check_views(conninfo: str, schema: str) -> list[str]:
    """Compare every view that has caught up with a fold of the whole log; blocks."""
    wrong = []
    with psycopg.connect(conninfo) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        names = {"schema": Identifier(schema)}
        rows = list(map(StoredRow._make, connection.execute(SQL(EVENTS).format(**names), binary=True)))
        page = Page(rows) if rows else None
        for view in VIEWS:
            found = connection.execute(SQL(CHECKPOINT).format(**names), (view.name, view.version)).fetchone()
            if found != (len(rows), "live"):
                wrong.append(f"{view.label} stands at {found}, the log at {len(rows)}")
            elif page is not None:
                skipped = connection.execute(SQL(SKIPPED).format(**names), (view.name, view.version)).fetchall()
                wrong += _check_view(connection, schema, view, page, {position for (position,) in skipped})
    return wrong


def _check_view(
    connection: psycopg.Connection[Any], schema: str, view: View, page: Page, skipped: set[int]
) -> list[str]:
    if view.reference is not None:
        stream = view.reference.stream
        events = tuple(decode(row).event for row in page.rows if row.stream == stream)
        page.told[view.reference] = Told(view.reference.read(events), events, len(page))
    expected = page.folded(view, {}, page.recorded(view, 0, len(page), skipped))
    names = {
        "live": Identifier(schema, view.label),
        "past": Identifier(schema, f"{view.label}_past"),
        "columns": SQL(", ").join(map(Identifier, view.table.names)),
        "key": SQL(", ").join(map(Identifier, view.table.key)),
        "key_of_live": SQL(", ").join(Identifier("l", name) for name in view.table.key),
        "key_of_past": SQL(", ").join(Identifier("p", name) for name in view.table.key),
        "since": Identifier(view.table.since),
    }
    document = to_json(list(expected.values())).decode()
    connection.execute("DROP TABLE IF EXISTS pg_temp.expected")
    connection.execute(SQL(EXPECT).format(**names), (document,))
    wrong = [f"{view.label}: {what}: {row}" for what, row in connection.execute(SQL(DIFFERENCES).format(**names))]
    if view.table.keeps_past:
        # Each row that was replaced stopped being true exactly where the next one began.
        broken = connection.execute(SQL(BROKEN_PAST).format(**names))
        wrong += [f"{view.label}_past: {row} does not lead to the next" for row in broken]
    return wrong
