"""Audit trail: every field that anybody changed, with who, in what role, through what, when and why.

The table is an index of the log, a narrow row an event: what an event says is read from the event itself, so that there
is no copy of it that could differ, and little to write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - part of the public row
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from psycopg.sql import Identifier

from domain.event import Event, Sealed
from projections.listing import NOT_A_CURSOR, Cursor, CursorInvalid, Listing, list_rows
from projections.selection import Sort, Where
from projections.table import Column, Row, Rows, Table
from projections.view import View, events_of
from storage.codec import decode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from storage.codec import Recorded
    from storage.database import Workspace

TABLE: Final = Table(
    columns=(
        Column("position", "bigint", null=False),
        Column("stream", "uuid", null=False),
        Column("actor_id", "uuid", null=False),
        Column("occurred_at", "timestamptz", null=False),
        Column("topic", "text", null=False),
    ),
    key=("position",),
    indexes=("(stream, position)", "(actor_id, position)", "(occurred_at)"),
    since="position",
)

SORTS: Final[dict[str, Sort]] = {
    "newest": Sort(("position",), descending=True),
    "oldest": Sort(("position",)),
}

PAGES_A_LIST: Final = 10  # of events, looked through for the fields asked for; then a page is given with what was found


def fold(rows: Rows, recorded: Iterable[Recorded]) -> Rows:  # noqa: ARG001 - rows are only ever added
    """Note of every event by whom it was, when and of what; what it changed is read from the log when it is asked for."""
    return {
        (position,): {
            "position": position,
            "stream": event.originator_id,
            "actor_id": event.by.actor_id,
            "occurred_at": event.timestamp,
            "topic": event.TOPIC,
        }
        for event, position, _ in recorded
    }


VIEW: Final = View(
    name="audit_trail",
    version=2,
    table=TABLE,
    fold=fold,
    needs=lambda _: None,
    reads=frozenset({"by", "timestamp"}),
    stream_local=True,
    at_leisure=True,
)


class AuditEntry(NamedTuple):
    """One change; `ordinal` tells the changes of one event apart, `field` is None for an event that changed none."""

    position: int
    ordinal: int
    stream: UUID
    version: int
    kind: str
    topic: str
    occurred_at: datetime
    recorded_at: datetime
    actor_id: UUID
    role: str
    on_behalf_of: UUID | None
    channel: str
    client: str | None
    correlation_id: UUID | None
    field: str | None
    old: Any
    new: Any
    reason: str | None
    source_address: str | None


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which changes; periods take in their beginning and leave out their end."""

    stream: UUID | None = None
    actor: UUID | None = None
    kinds: Sequence[str] | None = None
    fields: Sequence[str] | None = None
    occurred_from: datetime | None = None
    occurred_before: datetime | None = None
    recorded_from: datetime | None = None
    recorded_before: datetime | None = None

    def where(self, schema: str) -> Where:
        """Say it in SQL: of an event that is found by its fields, not all changes need be of them."""
        where = Where()
        if self.stream is not None:
            where.add("stream = %(stream)s", stream=self.stream)
        if self.actor is not None:
            where.add("actor_id = %(actor)s", actor=self.actor)
        if self.kinds is not None or self.fields is not None:
            where.add("topic = ANY(%(topics)s)", topics=self._topics())
        if self.occurred_from is not None:
            where.add("occurred_at >= %(occurred_from)s", occurred_from=self.occurred_from)
        if self.occurred_before is not None:
            where.add("occurred_at < %(occurred_before)s", occurred_before=self.occurred_before)
        # Recorded time is position order, so that a period in it is a stretch of the log.
        if self.recorded_from is not None:
            where.add(f"position > {_before(schema, 'recorded_from')}", recorded_from=self.recorded_from)
        if self.recorded_before is not None:
            where.add(f"position <= {_before(schema, 'recorded_before')}", recorded_before=self.recorded_before)
        return where

    def _topics(self) -> list[str]:
        fields = None if self.fields is None else frozenset(self.fields)
        return sorted(
            event.TOPIC
            for event in events_of(Event)
            if (self.kinds is None or event.TOPIC.partition(".")[0] in self.kinds)
            and (fields is None or not fields.isdisjoint(event.changeable()))
        )


def _before(schema: str, parameter: str) -> str:
    """Give the SQL of the last position recorded before an instant."""
    function = Identifier(schema, "position_at").as_string()
    return f"{function}(%({parameter})s::timestamptz - interval '1 microsecond')"


EVERY_CHANGE: Final = AuditFilter()


async def list_changes(
    workspace: Workspace,
    changes: AuditFilter = EVERY_CHANGE,
    *,
    sort: str = "newest",
    limit: int = 100,
    cursor: str | None = None,
) -> Listing[AuditEntry]:
    """List changes with personal values opened, or ERASED. `sort` is one of SORTS.

    Where few events change the fields asked for, a page may hold less than `limit` and yet have a cursor.

    Raises CursorInvalid, CursorExpired, ViewsNotReady, UnreadableEvent.
    """
    order = SORTS[sort]
    where = changes.where(workspace.schema)
    name = f"{sort} {changes.fields}"
    inside, cursor = _apart(cursor)
    entries: list[AuditEntry] = []
    recorded_at = None
    for page in range(PAGES_A_LIST):
        found = await list_rows(workspace, VIEW, where, order, name=name, limit=limit, cursor=cursor)
        recorded_at = found.recorded_at if page == 0 else recorded_at
        last = None if cursor is None else Cursor.read(cursor, VIEW, where.digest(name), order).last[0]
        more = found.cursor is not None
        for position, told in await _told(workspace, found.items, changes, backwards=order.descending):
            room = limit - len(entries)
            entries += told[inside : inside + room]
            if len(told) > inside + room:
                inside, more = inside + room, True
                break
            inside, last = 0, position
        if not more:
            cursor = None
            break
        if last is None:  # not one event is told to its end
            last = found.position + 1 if order.descending else 0
        epoch = await workspace.log.epoch()
        cursor = Cursor(VIEW.label, epoch, found.position, where.digest(name), [last], None).text()
        if len(entries) == limit:
            break
    further = None if cursor is None else f"{cursor}.{inside}" if inside else cursor
    return Listing(entries, found.position, recorded_at, further)


def _apart(cursor: str | None) -> tuple[int, str | None]:
    """Take the number of changes already told of an event off a cursor. Raises CursorInvalid."""
    if cursor is None or "." not in cursor:
        return 0, cursor
    cursor, _, inside = cursor.partition(".")
    if not _COUNT.fullmatch(inside):
        raise CursorInvalid(NOT_A_CURSOR)
    return int(inside), cursor


_COUNT: Final = re.compile(r"[1-9][0-9]{0,5}")


async def _told(
    workspace: Workspace, rows: Sequence[Row], which: AuditFilter, *, backwards: bool
) -> list[tuple[int, list[AuditEntry]]]:
    """Read from the log what these events changed, and open it: position → changes, in the order of the list."""
    recorded = [decode(row) for row in await workspace.log.at([row["position"] for row in rows])]
    found = {one.position: _entries(one, which.fields) for one in recorded}
    sealed = [
        (entry, name, value)
        for entries in found.values()
        for entry in entries
        for name in _PERSONAL
        if isinstance(value := entry[name], Sealed)
    ]
    opened = await workspace.keyring.reveal([(entry["stream"], value) for entry, _, value in sealed])
    for (entry, name, _), value in zip(sealed, opened, strict=True):
        entry[name] = value
    told = [(row["position"], [AuditEntry(**entry) for entry in found[row["position"]]]) for row in rows]
    return [(position, entries[::-1]) for position, entries in told] if backwards else told


def _entries(recorded: Recorded, fields: Collection[str] | None) -> list[dict[str, Any]]:
    """List what an event changed; one that changed nothing is told once, without a field."""
    event, position, recorded_at = recorded
    by = event.by
    of_event = {
        "position": position,
        "stream": event.originator_id,
        "version": event.originator_version,
        "kind": event.TOPIC.partition(".")[0],
        "topic": event.TOPIC,
        "occurred_at": event.timestamp,
        "recorded_at": recorded_at,
        "actor_id": by.actor_id,
        "role": by.role,
        "on_behalf_of": by.on_behalf_of,
        "channel": by.channel,
        "client": by.client,
        "correlation_id": by.correlation_id,
        "reason": _token(event.reason),
        "source_address": _token(event.source_address),
    }
    changes = [
        (field, _token(old), _token(new)) if personal else (field, old, new)
        for field, old, new, personal in event.changes()
    ] or [(None, None, None)]
    return [
        {**of_event, "ordinal": ordinal, "field": field, "old": old, "new": new}
        for ordinal, (field, old, new) in enumerate(changes, start=1)
        if fields is None or field in fields
    ]


def _token(value: str | None) -> Sealed | None:
    """Mark a personal value as what it is while it is sealed."""
    return None if value is None else Sealed(value)


_PERSONAL: Final = ("old", "new", "reason", "source_address")
