"""Whether a log is one that the append function could have written: everything it checks or leaves, looked at again."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Identifier

from domain.contact import normalise_email, normalise_phone
from domain.event import ERASED
from storage.append import LARGEST_EVENT
from storage.codec import decode
from storage.keyring import ID_BYTES, NONCE_BYTES
from storage.log_reader import StoredRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.keyring import Keyring

EVENTS = """
SELECT notification_id, originator_id, originator_version, topic, state, personal, recorded_at
FROM {schema}.events ORDER BY notification_id
"""
SHAPE = """
SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.conrelid = %(table)s::regclass
UNION ALL
SELECT replace(i.indexdef, %(schema)s, '') FROM pg_indexes i WHERE i.schemaname = %(schema)s AND i.tablename = 'events'
UNION ALL
SELECT format('%%s by %%s', relacl, pg_get_userbyid(relowner)) FROM pg_class WHERE oid = %(table)s::regclass
ORDER BY 1
"""


def check_log(conninfo: str, schema: str, keyring: Keyring, *, like: str) -> list[str]:
    """Name what is wrong with the log of a workspace, whose keys are loaded; blocks.

    `like` is the schema of a workspace whose tables are as they were made.
    """
    with psycopg.connect(conninfo) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        checker = _Checker(connection, schema, keyring)
        wrong = [*checker.rows(), *checker.beside()]
        if checker.shape(schema) != checker.shape(like):
            wrong.append(f"the table of events is not made as that of {like}")
    return wrong


class _Checker:
    """Walks a log once from its beginning, with a memory of its own for what must follow what."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, keyring: Keyring) -> None:
        self._connection = connection
        self._schema = schema
        self._keyring = keyring
        self._standing: dict[UUID, Any] = {}
        self._heads: Counter[UUID] = Counter()
        self._kinds: dict[UUID, str] = {}
        self._subjects: set[UUID] = set()
        self._commands: set[UUID] = set()
        self._claims: set[tuple[str, bytes, UUID]] = set()
        self._last_at = datetime(1970, 1, 1, tzinfo=UTC)

    def rows(self) -> Iterator[str]:
        """Check every event; name what is wrong."""
        for position, row in enumerate(map(StoredRow._make, self._read(EVENTS, binary=True)), start=1):
            if row.position != position:
                yield f"position {position} is followed by {row.position}"
                return
            for complaint in (*self._place(row), *self._content(row)):
                yield f"event {position} ({row.topic}) {complaint}"
        if self._last_at > datetime.now(UTC):
            yield f"the last event was recorded at {self._last_at}, which is yet to come"

    def _place(self, row: StoredRow) -> Iterator[str]:
        self._heads[row.stream] += 1
        if row.version != self._heads[row.stream]:
            yield f"has version {row.version} of its stream instead of {self._heads[row.stream]}"
        if row.recorded_at < self._last_at:
            yield f"was recorded at {row.recorded_at}, the one before at {self._last_at}"
        self._last_at = row.recorded_at
        kind = row.topic.partition(".")[0]
        if self._kinds.setdefault(row.stream, kind) != kind:
            yield f"is in a stream of the kind {self._kinds[row.stream]}"
        if len(row.state) + len(row.personal or b"") > LARGEST_EVENT:
            yield "is larger than the log takes"

    def _content(self, row: StoredRow) -> Iterator[str]:
        event = decode(row, self._keyring).event
        if event.occurred_at > row.recorded_at:
            yield f"happened at {event.occurred_at}, after it was recorded"
        state = json.loads(row.state)
        commitments = state.pop("commitments", {})
        if json.loads(event.state_json()) != state or list(json.loads(event.state_json())) != list(state):
            yield "is stored otherwise than its event says"
        if event.by.command_id is not None and event.by.command_id in self._commands:
            yield f"has the command {event.by.command_id} of another"
        self._commands.add(event.by.command_id)
        yield from self._follows(event)
        boxes = {} if row.personal is None else json.loads(row.personal)
        if set(boxes) != set(commitments) or set(boxes) != set(event.personal_values()):
            yield "seals other values than it commits to"
        for field, box in boxes.items():
            self._subjects.add(event.subject_of(field))
            if getattr(event, field) == ERASED or commitments[field] != self._commitment(row, field, box):
                yield f"does not commit to what is sealed in {field}"
        if row.topic == "customer.registered":
            self._claim("email", event.email and normalise_email(event.email), row.stream)
            self._claim("phone", event.phone and normalise_phone(event.phone), row.stream)

    def _follows(self, event: Any) -> Iterator[str]:
        """Check that an event tells of its stream what its stream was before."""
        before = self._standing.get(event.originator_id)
        for name, value in event.__dict__.items():
            if before is None or not name.startswith("previous_"):
                continue
            known = before.custom_fields.get(event.name) if name == "previous_value" else getattr(before, name[9:])
            if known != value:
                yield f"says {name} is {value!r}, and it was {known!r}"
        if before is not None and getattr(event, "requester_id", None) != getattr(before, "requester_id", None):
            yield "is of another requester's ticket"
        try:
            self._standing[event.originator_id] = event.mutate(before)
        except Exception as error:  # noqa: BLE001 - whatever it is, the event cannot be there
            yield f"does not follow: {error!r}"

    def _commitment(self, row: StoredRow, field: str, box: str) -> str:
        raw = b64decode(box)
        key = self._keyring._keys[UUID(bytes=raw[:ID_BYTES])]
        assert key is not None
        nonce, sealed = raw[ID_BYTES : ID_BYTES + NONCE_BYTES], raw[ID_BYTES + NONCE_BYTES :]
        plain = key.decrypt(nonce, sealed, self._keyring._place(row.stream, row.version, field))
        return b64encode(sha256(plain).digest()).decode()

    def _claim(self, kind: str, value: str | None, stream: UUID) -> None:
        if value is not None:
            self._claims.add((kind, self._keyring.digest(f"claim {kind}", value.encode()), stream))

    def beside(self) -> Iterator[str]:
        """Check what appends leave beside the events; name what is wrong."""
        claims = {(kind, bytes(key), stream) for kind, key, stream in self._read("SELECT * FROM {schema}.claims")}
        if claims != self._claims:
            yield f"{len(claims - self._claims)} claims are by nobody and {len(self._claims - claims)} are missing"
        keys = {row[0] for row in self._read("SELECT subject_id FROM {schema}.personal_keys")}
        if keys != self._subjects:
            yield f"{len(keys - self._subjects)} keys are nobody's and {len(self._subjects - keys)} are missing"
        releases = self._read("SELECT first_position FROM {schema}.releases")
        if releases != [(1,)]:
            yield f"the releases that wrote it began at {releases}"
        epochs = self._read("SELECT after_position, epoch, place FROM {schema}.log_epochs ORDER BY number")
        identity = self._read("SELECT 0::bigint, epoch, {schema}.log_place() FROM {schema}.log_identity")
        if epochs[-1:] != identity or any(after for after, _, _ in epochs):
            yield f"its epochs are {epochs} and it is in {identity}"
        if self._read("SELECT FROM {schema}.command_outcomes LIMIT 1"):
            yield "commands are remembered that had no key"

    def shape(self, schema: str) -> list[Any]:
        """Give the constraints, indexes and rights of a table of events."""
        found = self._connection.execute(SHAPE, {"table": f'"{schema}".events', "schema": schema}).fetchall()
        return [text.replace(schema, "") for (text,) in found]

    def _read(self, statement: str, *, binary: bool = False) -> list[tuple[Any, ...]]:
        text = SQL(statement).format(schema=Identifier(self._schema))
        return self._connection.execute(text, binary=binary).fetchall()
