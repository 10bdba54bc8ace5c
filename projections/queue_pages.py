"""Pages of the queue as they are written out: a ticket that stays as it is is read and written once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from pydantic_core import to_json

from projections.listing import Listing, list_rows
from projections.ticket_queue import SHOWN, SORTS, VIEW, QueueEntry, list_told
from storage.keyring import ERASED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from projections.table import Row
    from projections.ticket_queue import QueueFilter
    from storage.database import Workspace

TICKETS_HELD: Final = 20_000  # about 25 MB: the first pages of some hundred lists


class Written(NamedTuple):
    """A ticket as a page has it, in JSON, and whose names belong beside it."""

    text: bytes
    people: dict[int, UUID]
    """Ids by their numbers, which are hashed at once."""


Stamp = tuple[int, int, bytes]
"""What one state of a row is known by: its table, the ticket's number, and the transaction that wrote it."""


class _Kept:
    """What was written of one workspace in an epoch of its log, and with the keys that were known then."""

    def __init__(self, epoch: str, generation: int) -> None:
        self.of = epoch, generation
        self.written: dict[Stamp, Written] = {}

    def keep(self, fresh: dict[Stamp, Written]) -> None:
        """Keep what was written, and the last TICKETS_HELD at most."""
        self.written.update(fresh)
        while len(self.written) > TICKETS_HELD:
            del self.written[next(iter(self.written))]


_kept: WeakKeyDictionary[Workspace, _Kept] = WeakKeyDictionary()


async def first_page(
    workspace: Workspace, tickets: QueueFilter, *, sort: str, limit: int, now: datetime | None = None
) -> Listing[Written]:
    """Give the first page of the list that `list_told` gives.

    Which tickets those are, and in what state, is read every time; the tickets themselves only in a state in which they
    have not been written yet. Raises ViewsNotReady.
    """
    of = await workspace.log.epoch(), workspace.keyring.generation
    kept = _kept.get(workspace)
    if kept is None or kept.of != of:
        kept = _kept[workspace] = _Kept(*of)
    order = SORTS[sort]
    columns = tuple(dict.fromkeys((*_STAMP, *order.columns)))
    found = await list_rows(
        workspace,
        VIEW,
        tickets.listed(sort),
        order,
        name=sort,
        limit=limit,
        cursor=None,
        columns=columns,
        now=tickets.asked_at(now),
    )
    stamps: list[Stamp] = [(row["tableoid"], row["number"], row["xmin"]) for row in found.items]
    known = {stamp: text for stamp in stamps if (text := kept.written.get(stamp)) is not None}
    if len(known) < len(stamps):
        fresh = await _write(workspace, [stamp[1] for stamp in stamps if stamp not in known])
        kept.keep({stamp: written for stamp, (written, lasting) in fresh.items() if lasting})
        known |= {stamp: written for stamp, (written, _) in fresh.items()}
        if any(stamp not in known for stamp in stamps):
            # One of them has changed in between: all are read at once.
            told = await list_told(workspace, tickets, sort=sort, limit=limit, cursor=None, now=now)
            return Listing([_written(row) for row in told.items], told.position, told.recorded_at, told.cursor)
    return Listing([known[stamp] for stamp in stamps], found.position, found.recorded_at, found.cursor)


_STAMP: Final = ("tableoid", "number", "xmin")


async def _write(workspace: Workspace, numbers: Sequence[int]) -> dict[Stamp, tuple[Written, bool]]:
    """Read and write tickets as they are now, with whether what was written may be kept."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(_by_number(workspace.schema), {"numbers": numbers}, prepare=True, binary=True)
        found = await cursor.fetchall()
    rows: list[Row] = [dict(zip(QueueEntry._fields, values[1:-1], strict=True)) for values in found]
    subjects: list[Any] = await workspace.keyring.reveal([(row["ticket_id"], row["subject"]) for row in rows])
    fresh = {}
    for values, row, subject in zip(found, rows, subjects, strict=True):
        row["subject"] = subject
        fresh[values[0], row["number"], values[-1]] = _written(row), subject != ERASED
    return fresh


def _written(row: Row) -> Written:
    people = (row["agent_id"], row["team_id"], row["requester_id"])
    return Written(to_json(row), {one.int: one for one in people if one is not None})


@cache
def _by_number(schema: str) -> bytes:
    columns = ", ".join(("tableoid", *(f'"{name}"' for name in SHOWN), "xmin"))
    return _BY_NUMBER.format(columns=columns, place=VIEW.shelf(schema).place.as_string()).encode()


# One look into an index each, whatever was planned while the table was small.
_BY_NUMBER: Final = """
SELECT q.* FROM unnest(%(numbers)s::bigint[]) u (number)
CROSS JOIN LATERAL (SELECT {columns} FROM {place} WHERE number = u.number OFFSET 0) q
"""
