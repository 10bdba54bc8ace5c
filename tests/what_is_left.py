"""What tests leave behind is verified as `desk verify views` does it: live views against a fresh fold of their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

import pytest

from projections.bookkeeping import view_status
from projections.registry import VIEWS
from replay.verification import verify_view

if TYPE_CHECKING:
    from storage.database import Database

EXCUSED: Final = "spoils_views"

_verified: dict[str, int] = {}


async def verify_what_is_left(database: Database, node: pytest.Item) -> None:
    """Verify a view of every workspace that a test has filled, for the same test the same one: all would take long.

    A test that leaves views wrong on purpose says so with the marker `spoils_views`.
    """
    if node.get_closest_marker(EXCUSED) is not None:
        return
    for workspace in await database.workspaces():
        statuses = await view_status(workspace, VIEWS)
        there = [view for view, status in zip(VIEWS, statuses, strict=True) if status.position > 0]
        if not there:
            continue
        view = there[crc32(f"{node.nodeid} {workspace.name}".encode()) % len(there)]
        found = await verify_view(workspace, view, workers=1)
        _verified[view.name] = _verified.get(view.name, 0) + 1
        if not found.same:
            pytest.fail(f"{workspace.name} was left with a {view.name} that its log does not make: {found.as_json()}")


def summary() -> str | None:
    """Say how many views were verified; None where no test has left any."""
    if not _verified:
        return None
    told = ", ".join(f"{name} {number}" for name, number in sorted(_verified.items()))
    return f"live views verified against their logs: {told}"
