"""Agent workload: how many tickets wait at each agent and team, how urgent they are, and since when the oldest does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - part of the public row
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from psycopg.sql import SQL, Identifier

from domain import ticket_events as happened
from domain.status import Status
from projections.listing import summarise
from projections.selection import Where
from projections.table import Column, Rows, Table
from projections.view import Draft, View, events_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from domain.event import Event
    from storage.codec import Recorded
    from storage.database import Workspace

FINISHED: Final = (Status.SOLVED, Status.CLOSED)
_WAITS: Final = "status NOT IN ('solved', 'closed')"

TABLE: Final = Table(
    columns=(
        Column("ticket_id", "uuid", null=False),
        Column("status", "text", null=False),
        Column("priority", "text", null=False),
        Column("team_id", "uuid"),
        Column("agent_id", "uuid"),
        Column("opened_at", "timestamptz", null=False),
    ),
    key=("ticket_id",),
    # Of a million tickets few are open, and those are counted in the index alone.
    indexes=(f"(team_id, agent_id) INCLUDE (priority, status, opened_at) WHERE {_WAITS}",),
)

_CARRIED: Final = ("status", "priority", "team_id", "agent_id")


def _taken(event: type[Event]) -> tuple[str, ...]:
    if event is happened.Replied:
        return ("status",)  # whoever replies need not be whose ticket it is
    return tuple(name for name in _CARRIED if name in event.model_fields)


_TAKEN: Final = {event: names for event in events_of(happened.TicketEvent) if (names := _taken(event))}
"""Event → its fields that are columns of the same name, as they are after it."""


def fold(rows: Rows, recorded: Iterable[Recorded]) -> Rows:
    """Follow where each ticket is and how it stands; a row changes only with one of its columns."""
    draft = Draft(rows)
    for event, position, _ in recorded:
        stream = event.originator_id
        values = event.__dict__
        if type(event) is happened.Opened:
            opened = {"status": values["status"], "priority": values["priority"], "opened_at": values["timestamp"]}
            draft.put({"ticket_id": stream, **opened, "team_id": None, "agent_id": None}, stream)
            continue
        row = draft.look(stream)
        if row is None:
            message = f"ticket {stream} has an event at position {position} but was never opened"
            raise ValueError(message)
        changed = {name: values[name] for name in _TAKEN[type(event)] if row[name] != values[name]}
        if changed:
            draft.get(stream).update(changed)  # type: ignore[union-attr]
    return draft.changed


VIEW: Final = View(
    name="agent_workload",
    version=1,
    table=TABLE,
    fold=fold,
    topics=frozenset(event.TOPIC for event in _TAKEN),
    reads=frozenset({"timestamp", *_CARRIED}),
    stream_local=True,
    at_leisure=True,
)

Grouping = Literal["agent", "team", "priority", "status"]
_COLUMN_OF: Final[dict[Grouping, str]] = {
    "agent": "agent_id",
    "team": "team_id",
    "priority": "priority",
    "status": "status",
}


@dataclass(frozen=True, kw_only=True)
class WorkloadFilter:
    """Which of the tickets that are neither solved nor closed; what is left None does not matter."""

    teams: Sequence[UUID] | None = None
    agent: UUID | Literal["unassigned"] | None = None
    priorities: Sequence[str] | None = None
    statuses: Sequence[str] | None = None

    def where(self) -> Where:
        """Say it in SQL."""
        where = Where()
        where.add(_WAITS)
        if self.teams is not None:
            where.add("team_id = ANY(%(teams)s)", teams=list(self.teams))
        if self.agent == "unassigned":
            where.add("agent_id IS NULL")
        elif self.agent is not None:
            where.add("agent_id = %(agent)s", agent=self.agent)
        if self.priorities is not None:
            where.add("priority = ANY(%(priorities)s)", priorities=list(map(str, self.priorities)))
        if self.statuses is not None:
            where.add("status = ANY(%(statuses)s)", statuses=list(map(str, self.statuses)))
        return where


EVERY_OPEN_TICKET: Final = WorkloadFilter()


class Load(NamedTuple):
    """Open tickets of one agent, team, priority and status, as far as grouped by; `key` has the values in order."""

    key: tuple[UUID | str | None, ...]
    tickets: int
    oldest_opened_at: datetime


class Workload(NamedTuple):
    """How the open tickets are spread, most first, true of a position of the log."""

    loads: list[Load]
    position: int


async def workload(
    workspace: Workspace, tickets: WorkloadFilter = EVERY_OPEN_TICKET, *, by: Sequence[Grouping] = ("agent",)
) -> Workload:
    """Count open tickets by agent, team, priority, status or several of them. Raises ViewsNotReady."""
    columns = [_COLUMN_OF[one] for one in by]
    names = {"columns": SQL(", ").join(map(Identifier, columns))}
    found = await summarise(workspace, VIEW, _LOADS, tickets.where(), names)
    loads = [Load(tuple(key), tickets, oldest) for *key, tickets, oldest in found.rows]
    loads.sort(key=lambda load: (-load.tickets, load.oldest_opened_at, str(load.key)))
    return Workload(loads, found.position)


_LOADS: Final = "SELECT {columns}, count(*), min(opened_at) FROM {place} WHERE {where} GROUP BY {columns}"
