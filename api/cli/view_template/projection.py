"""Example view: every ticket with its status and since when it has had it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - part of the public row
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from domain import ticket_events as happened
from projections.listing import Listing, list_rows
from projections.selection import Sort, Where
from projections.table import Column, Rows, Table
from projections.view import Draft, View, events_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from storage.codec import Recorded
    from storage.database import Workspace

TABLE: Final = Table(
    columns=(
        Column("ticket_id", "uuid", null=False),
        Column("since", "bigint", null=False),
        Column("number", "bigint", null=False),
        Column("status", "text", null=False),
        Column("changed_at", "timestamptz", null=False),
    ),
    key=("ticket_id",),
    indexes=("(status, number)", "(number)"),
    keeps_past=True,  # a list that is paged through goes on as it was when it was begun
)

BY_NUMBER: Final = Sort(("number",))


def fold(rows: Rows, recorded: Iterable[Recorded]) -> Rows:
    """Follow each ticket's status by when it changed at its source."""
    draft = Draft(rows)
    for event, position, _ in recorded:
        stream = event.originator_id
        if isinstance(event, happened.Opened):
            opened = {"number": position, "status": event.status, "changed_at": event.timestamp}
            draft.put({"ticket_id": stream, "since": position, **opened}, stream)
            continue
        row = draft.look(stream)
        if row is None:
            message = f"ticket {stream} has an event at position {position} but was never opened"
            raise ValueError(message)
        if event.status != row["status"]:
            changed = {"since": position, "status": event.status, "changed_at": event.timestamp}
            draft.get(stream).update(changed)  # type: ignore[union-attr]
    return draft.changed


VIEW: Final = View(
    name="example_view",
    version=1,
    table=TABLE,
    fold=fold,
    topics=frozenset(event.TOPIC for event in events_of(happened.TicketEvent) if "status" in event.model_fields),
    reads=frozenset({"timestamp", "status"}),
    stream_local=True,
)


class Entry(NamedTuple):
    """A ticket as the view has it."""

    ticket_id: UUID
    number: int
    status: str
    changed_at: datetime


async def list_entries(
    workspace: Workspace,
    *,
    statuses: Sequence[str] | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Listing[Entry]:
    """List tickets by number, those of some statuses or all. Raises CursorInvalid, CursorExpired, ViewsNotReady."""
    where = Where()
    if statuses is not None:
        where.add("status = ANY(%(statuses)s)", statuses=list(map(str, statuses)))
    found = await list_rows(workspace, VIEW, where, BY_NUMBER, name="number", limit=limit, cursor=cursor)
    entries = [Entry(**{name: row[name] for name in Entry._fields}) for row in found.items]
    return Listing(entries, found.position, found.recorded_at, found.cursor)
