"""An event as it is handed to programs outside: its own fields as JSON, personal values only where they are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.event import plain
from storage.codec import decode

if TYPE_CHECKING:
    from domain.event import Event
    from projections.consumer import Delivery
    from storage.database import Workspace


async def told(workspace: Workspace, delivery: Delivery, *, opened: bool = False) -> dict[str, Any]:
    """Give an event with who, when and where it is in the log; JSON-ready.

    Personal values are left out and their names listed in `withheld`; `opened` gives them, an erased one as "[erased]".
    Raises UnreadableEvent.
    """
    row = delivery.row
    if opened:
        await workspace.keyring.load([row])
    event: Event = decode(row, workspace.keyring if opened else None).event
    withheld = [] if opened else [name for name in event.PERSONAL if getattr(event, name) is not None]
    left_out = {"originator_id", "originator_version", "originator_topic", "timestamp", "by", *withheld}
    fields = {name: getattr(event, name) for name in type(event).model_fields if name not in left_out}
    return {
        "delivery": delivery.id,
        "workspace": workspace.name,
        "position": row.position,
        "stream": str(row.stream),
        "version": row.version,
        "topic": row.topic,
        "occurred_at": event.occurred_at.isoformat(),
        "recorded_at": row.recorded_at.isoformat(),
        "by": event.by.model_dump(mode="json", exclude_none=True),
        "fields": {name: plain(value) for name, value in fields.items() if value is not None},
        "withheld": sorted(withheld),
    }
