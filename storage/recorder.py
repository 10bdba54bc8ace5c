"""The log behind the recorder interface of the `eventsourcing` package, through the same append function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventsourcing.persistence import IntegrityError, StoredEvent, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresProcessRecorder
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from storage.append import (
    APPEND,
    LARGEST_EVENT,
    Conflict,
    NewEvent,
    Submission,
    arguments_of,
    check_sizes,
    read_outcome,
)
from storage.database import CHANNEL
from storage.releases import installed_release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Cursor
    from psycopg.rows import DictRow


def datastore(conninfo: str, schema: str, *, pool_size: int = 2, max_overflow: int = 8) -> PostgresDatastore:
    """Give the package's datastore for a workspace's schema."""
    parts = conninfo_to_dict(conninfo)
    return PostgresDatastore(
        dbname=str(parts.get("dbname") or ""),
        host=str(parts.get("host") or ""),
        port=str(parts.get("port") or ""),
        user=str(parts.get("user") or ""),
        password=str(parts.get("password") or ""),
        schema=schema,
        pool_size=pool_size,
        max_overflow=max_overflow,
    )


class LogRecorder(PostgresProcessRecorder):
    """Records and selects events of one workspace for applications built on the package.

    An event of more than `largest_event` bytes is refused. `release` is what the log is told writes it.

    The package's own table lock, insert statement and retry are not used: a retry of an insert whose reply was
    lost would report a false conflict. `POSTGRES_ENABLE_DB_FUNCTIONS` must stay unset, it would bypass the lock.
    """

    def __init__(
        self, datastore: PostgresDatastore, *, largest_event: int = LARGEST_EVENT, release: str | None = None
    ) -> None:
        self._largest_event = largest_event
        self._release = installed_release() if release is None else release
        self._noted = False
        super().__init__(datastore, events_table_name="events", tracking_table_name="notification_tracking")
        # The workspace's migrations make the log; of the package's own objects only the tracking table is wanted.
        self.sql_create_statements = [
            statement for statement in self.sql_create_statements if "notification_tracking" in statement.as_string()
        ]
        self.channel_name = CHANNEL
        schema = Identifier(datastore.schema)
        self._sql_note = SQL("SELECT {}.note_release(%s)").format(schema).as_string()
        self._sql_enter = SQL("SELECT {}.enter_log(NULL, NULL, NULL)").format(schema).as_string()
        self._sql_append = SQL(APPEND).format(schema=schema).as_string()

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Append events, with a tracking record in the same transaction; give their positions.

        Raises IntegrityError where a stream moved on, an event is there already, or a gap would open; EventTooLarge.
        """
        tracking: Tracking | None = kwargs.get("tracking")
        if not stored_events and tracking is None:
            return None
        positions: list[int] | None = None
        with self.datastore.transaction(commit=True) as cursor:
            if tracking is not None:
                self._insert_tracking(cursor, tracking)
            if stored_events:
                if not self._noted:
                    cursor.execute(self._sql_note, (self._release,))
                positions = self._append(cursor, stored_events)
        self._noted = self._noted or bool(stored_events)
        if positions:
            with self.datastore.get_connection() as connection:
                workspace = self.datastore.schema.removeprefix("ws_")
                connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, workspace), prepare=True)
        return positions

    def _append(self, cursor: Cursor[DictRow], stored_events: Sequence[StoredEvent]) -> list[int]:
        events = [
            NewEvent(UUID(str(event.originator_id)), event.originator_version, event.topic, event.state, None)
            for event in stored_events
        ]
        check_sizes(events, self._largest_event)
        cursor.execute(self._sql_enter, prepare=True)
        cursor.execute(self._sql_append, arguments_of([Submission(events)]), prepare=True)
        row = cursor.fetchone()
        outcome = read_outcome(tuple((row or {}).values()))
        if isinstance(outcome, Conflict):
            raise IntegrityError(str(outcome))
        if isinstance(outcome, Exception):
            raise outcome
        return list(range(outcome.first_position, outcome.position + 1))
