"""Audit trail: one row for each field that anybody changed, with who, in what role, through what, when and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - part of the public row
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from projections.listing import Listing, Sort, Where, list_rows
from projections.table import Column, Row, Rows, Table
from projections.view import View

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from storage.codec import Recorded
    from storage.database import Workspace

TABLE: Final = Table(
    columns=(
        Column("position", "bigint", null=False),
        Column("ordinal", "smallint", null=False),
        Column("stream", "uuid", null=False),
        Column("version", "bigint", null=False),
        Column("kind", "text", null=False),
        Column("topic", "text", null=False),
        Column("occurred_at", "timestamptz", null=False),
        Column("recorded_at", "timestamptz", null=False),
        Column("actor_id", "uuid", null=False),
        Column("role", "text", null=False),
        Column("on_behalf_of", "uuid"),
        Column("channel", "text", null=False),
        Column("client", "text"),
        Column("correlation_id", "uuid"),
        Column("field", "text"),
        Column("old", "jsonb"),
        Column("new", "jsonb"),
        Column("old_sealed", "text"),
        Column("new_sealed", "text"),
        Column("reason_sealed", "text"),
        Column("source_address_sealed", "text"),
    ),
    key=("position", "ordinal"),
    indexes=(
        "(stream, position, ordinal)",
        "(actor_id, position, ordinal)",
        "(occurred_at)",
        # Recorded time is position order, so that block ranges find a period in it at no cost worth naming.
        "USING brin (recorded_at) WITH (pages_per_range = 32)",
    ),
    since="position",
)

SORTS: Final[dict[str, Sort]] = {
    "newest": Sort(("position", "ordinal"), descending=True),
    "oldest": Sort(("position", "ordinal")),
}


def fold(rows: Rows, recorded: Iterable[Recorded]) -> Rows:  # noqa: ARG001 - rows are only ever added
    """Write out every event's changes; an event that changed no field gets one row without a field."""
    added: Rows = {}
    for event, position, recorded_at in recorded:
        by = event.by
        topic = event.TOPIC
        of_event = {
            "position": position,
            "ordinal": 1,
            "stream": event.originator_id,
            "version": event.originator_version,
            "kind": topic.partition(".")[0],
            "topic": topic,
            "occurred_at": event.timestamp,
            "recorded_at": recorded_at,
            "actor_id": by.actor_id,
            "role": by.role,
            "on_behalf_of": by.on_behalf_of,
            "channel": by.channel,
            "client": by.client,
            "correlation_id": by.correlation_id,
            "field": None,
            "old": None,
            "new": None,
            "old_sealed": None,
            "new_sealed": None,
            "reason_sealed": event.reason,
            "source_address_sealed": event.source_address,
        }
        added[position, 1] = of_event
        for ordinal, (field, old, new, personal) in enumerate(event.changes(), start=1):
            row = of_event if ordinal == 1 else of_event.copy()
            row["ordinal"] = ordinal
            row["field"] = field
            # Those of the first change are in what was copied.
            row["old"], row["old_sealed"] = (None, old) if personal else (old, None)
            row["new"], row["new_sealed"] = (None, new) if personal else (new, None)
            added[position, ordinal] = row
    return added


VIEW: Final = View(name="audit_trail", version=1, table=TABLE, fold=fold, needs=lambda _: None, stream_local=True)


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

    def where(self) -> Where:
        """Say it in SQL."""
        where = Where()
        if self.stream is not None:
            where.add("stream = %(stream)s", stream=self.stream)
        if self.actor is not None:
            where.add("actor_id = %(actor)s", actor=self.actor)
        if self.kinds is not None:
            where.add("kind = ANY(%(kinds)s)", kinds=list(self.kinds))
        if self.fields is not None:
            where.add("field = ANY(%(fields)s)", fields=list(self.fields))
        if self.occurred_from is not None:
            where.add("occurred_at >= %(occurred_from)s", occurred_from=self.occurred_from)
        if self.occurred_before is not None:
            where.add("occurred_at < %(occurred_before)s", occurred_before=self.occurred_before)
        if self.recorded_from is not None:
            where.add("recorded_at >= %(recorded_from)s", recorded_from=self.recorded_from)
        if self.recorded_before is not None:
            where.add("recorded_at < %(recorded_before)s", recorded_before=self.recorded_before)
        return where


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

    Raises CursorInvalid, CursorExpired, ViewsNotReady.
    """
    found = await list_rows(workspace, VIEW, changes.where(), SORTS[sort], name=sort, limit=limit, cursor=cursor)
    return Listing(await _opened_up(workspace, found.items), found.position, found.recorded_at, found.cursor)


_SEALED: Final = ("old", "new", "reason", "source_address")


async def _opened_up(workspace: Workspace, rows: Sequence[Row]) -> list[AuditEntry]:
    tokens = [(row["stream"], row[f"{name}_sealed"]) for row in rows for name in _SEALED]
    opened = iter(await workspace.keyring.reveal(tokens))
    entries = []
    for row in rows:
        values: dict[str, Any] = {name: row.get(name) for name in AuditEntry._fields}
        for name in _SEALED:
            value = next(opened)
            if value is not None:
                values[name] = value
        entries.append(AuditEntry(**values))
    return entries
