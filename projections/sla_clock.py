"""SLA clocks: for each ticket what is promised, until when, and whether it was kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - part of the public row
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from psycopg.sql import SQL

from domain import sla, ticket_clocks
from domain import ticket_events as happened
from domain.priority import Priority
from domain.sla import Clock, ClockState, Metric
from domain.ticket_clocks import METRICS, Promise
from projections.listing import Counts, Listing, count_rows, list_rows
from projections.selection import Sort, Where
from projections.table import Column, Row, Rows, Table
from projections.view import Draft, View, events_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from storage.codec import Recorded
    from storage.database import Workspace

TABLE: Final = Table(
    columns=(
        Column("ticket_id", "uuid", null=False),
        Column("metric", "text", null=False),
        Column("since", "bigint", null=False),
        Column("number", "bigint", null=False),
        Column("status", "text", null=False),
        Column("priority", "text", null=False),
        Column("team_id", "uuid"),
        Column("agent_id", "uuid"),
        # The priority that `due_at` follows from: that of a fulfilled promise no longer moves with the ticket's.
        Column("due_priority", "text", null=False),
        Column("started_at", "timestamptz"),
        Column("due_at", "timestamptz"),
        Column("met_at", "timestamptz"),
        Column("paused_at", "timestamptz"),
    ),
    key=("ticket_id", "metric"),
    indexes=(
        "(due_at, ticket_id, metric) WHERE met_at IS NULL AND paused_at IS NULL",
        "(due_at, ticket_id, metric)",
        "(team_id, due_at)",
        "(agent_id, due_at)",
    ),
    keeps_past=True,
)

SORTS: Final[dict[str, Sort]] = {"due": Sort(("due_at", "ticket_id", "metric"))}
"""Soonest due first."""

_POLICY: Final = sla.STANDARD
_CARRIED: Final = ("status", "priority", "team_id", "agent_id")


def fold(rows: Rows, recorded: Iterable[Recorded]) -> Rows:
    """Run the clocks of each ticket by the times at which things occurred."""
    draft = Draft(rows)
    for event, position, _ in recorded:
        stream = event.originator_id
        if isinstance(event, happened.Opened):
            for metric in METRICS:
                draft.put(_opened(event, metric, position), stream, metric)
            continue
        told = _told(event)
        for metric in METRICS:
            row = draft.look(stream, metric)
            if row is None:
                message = f"ticket {stream} has an event at position {position} but was never opened"
                raise ValueError(message)
            ran = _ran(row, metric, event)
            changed = {**told, **ran} if ran else told
            for name, value in changed.items():
                if row[name] != value:
                    draft.get(stream, metric).update(changed, since=position)  # type: ignore[union-attr]
                    break
    return draft.changed


def _opened(event: happened.Opened, metric: Metric, position: int) -> Row:
    promise = ticket_clocks.opened(_POLICY, metric, event)
    return {
        "ticket_id": event.originator_id,
        "metric": metric,
        "since": position,
        "number": position,
        "status": event.status,
        "priority": event.priority,
        "team_id": None,
        "agent_id": None,
        "started_at": None if promise.due_at is None else event.timestamp,
        **_of_promise(promise),
    }


def _told(event: happened.TicketEvent) -> Row:
    """Give what the event says of the columns that all clocks of the ticket carry."""
    values = event.__dict__
    if isinstance(event, happened.Replied):
        return {"status": values["status"]}  # whoever replies need not be whose ticket it is
    return {name: values[name] for name in _CARRIED if name in values}


def _ran(row: Row, metric: Metric, event: happened.TicketEvent) -> Row:
    """Give the columns of a clock after an event; empty where the event does not touch the clock."""
    status = row["status"]
    if metric not in ticket_clocks.touched(event, status):
        return {}
    before = Promise(row["due_at"], row["met_at"], row["paused_at"], Priority(row["due_priority"]))
    promise = ticket_clocks.after(_POLICY, metric, before, event, status=status, priority=Priority(row["priority"]))
    started_at = row["started_at"] or event.timestamp
    return {"started_at": None if promise.due_at is None else started_at, **_of_promise(promise)}


def _of_promise(promise: Promise) -> Row:
    return {
        "due_at": promise.due_at,
        "met_at": promise.met_at,
        "paused_at": promise.paused_at,
        "due_priority": promise.priority,
    }


def _clock(row: Row) -> Clock | None:
    return None if row["due_at"] is None else Clock(row["due_at"], row["met_at"], row["paused_at"])


VIEW: Final = View(
    name="sla_clock",
    version=1,
    table=TABLE,
    fold=fold,
    # The rest of what happens to a ticket says nothing of its clocks.
    topics=frozenset(
        event.TOPIC for event in events_of(happened.TicketEvent) if event.model_fields.keys() & set(_CARRIED)
    ),
    reads=ticket_clocks.READS | set(_CARRIED),
    stream_local=True,
)


class ClockEntry(NamedTuple):
    """One promise about one ticket; `state` is as of the instant asked about."""

    ticket_id: UUID
    number: int
    metric: str
    state: ClockState
    status: str
    priority: str
    team_id: UUID | None
    agent_id: UUID | None
    started_at: datetime | None
    due_at: datetime | None
    met_at: datetime | None
    paused_at: datetime | None


# As `domain.sla.state` has it; a test holds the two together.
_BREACHED: Final = "coalesce(met_at, paused_at, %(now)s::timestamptz) > due_at"
_STATE: Final = (
    f"CASE WHEN due_at IS NULL THEN 'not_applicable' WHEN {_BREACHED} THEN 'breached'"
    " WHEN met_at IS NOT NULL THEN 'met' WHEN paused_at IS NOT NULL THEN 'paused' ELSE 'active' END"
)
_IN_STATE: Final = {
    ClockState.ACTIVE: "met_at IS NULL AND paused_at IS NULL AND due_at >= %(now)s::timestamptz",
    ClockState.PAUSED: "met_at IS NULL AND paused_at <= due_at",
    ClockState.MET: "met_at <= due_at",
    ClockState.BREACHED: _BREACHED,
    ClockState.NOT_APPLICABLE: "due_at IS NULL",
}


@dataclass(frozen=True, kw_only=True)
class ClockFilter:
    """Which clocks; a promise that does not apply is only given by `clocks_of`. `due_before` leaves out its instant."""

    states: Sequence[ClockState] | None = None
    metrics: Sequence[Metric] | None = None
    due_before: datetime | None = None
    teams: Sequence[UUID] | None = None
    agent: UUID | None = None
    priorities: Sequence[str] | None = None

    def where(self) -> Where:
        """Say it in SQL; lists and counts share this and so agree."""
        where = Where()
        where.add("due_at IS NOT NULL")
        if self.states is not None:
            any_of = [f"({_IN_STATE[ClockState(state)]})" for state in sorted(self.states)]
            where.add("(" + (" OR ".join(any_of) or "false") + ")")
        if self.metrics is not None:
            where.add("metric = ANY(%(metrics)s)", metrics=list(map(str, self.metrics)))
        if self.due_before is not None:
            where.add("due_at < %(due_before)s", due_before=self.due_before)
        if self.teams is not None:
            where.add("team_id = ANY(%(teams)s)", teams=list(self.teams))
        if self.agent is not None:
            where.add("agent_id = %(agent)s", agent=self.agent)
        if self.priorities is not None:
            where.add("priority = ANY(%(priorities)s)", priorities=list(map(str, self.priorities)))
        return where


EVERY_CLOCK: Final = ClockFilter()


async def list_clocks(
    workspace: Workspace,
    clocks: ClockFilter = EVERY_CLOCK,
    *,
    now: datetime,
    sort: str = "due",
    limit: int = 50,
    cursor: str | None = None,
) -> Listing[ClockEntry]:
    """List clocks with their states as of `now`; a cursor keeps the instant that its list was begun with.

    Raises CursorInvalid, CursorExpired, ViewsNotReady.
    """
    found = await list_rows(
        workspace, VIEW, clocks.where(), SORTS[sort], name=sort, limit=limit, cursor=cursor, now=now
    )
    as_of = found.now or now
    return Listing([_entry(row, as_of) for row in found.items], found.position, found.recorded_at, found.cursor, as_of)


async def count_clocks(
    workspace: Workspace, clocks: ClockFilter = EVERY_CLOCK, *, now: datetime, at: int | None = None
) -> Counts:
    """Count by state the clocks that `list_clocks` would list. Raises CursorExpired, ViewsNotReady."""
    return await count_rows(workspace, VIEW, clocks.where(), by=SQL(_STATE), at=at, now=now)


async def clocks_of(workspace: Workspace, ticket_id: UUID, *, now: datetime) -> Listing[ClockEntry]:
    """Give the clocks of one ticket, also those that do not apply; none where the view does not know the ticket.

    Raises ViewsNotReady.
    """
    where = Where()
    where.add("ticket_id = %(ticket_id)s", ticket_id=ticket_id)
    found = await list_rows(workspace, VIEW, where, Sort(("metric",)), name="metric", limit=len(Metric), cursor=None)
    return Listing([_entry(row, now) for row in found.items], found.position, found.recorded_at, None, now)


def _entry(row: Row, now: datetime) -> ClockEntry:
    values: dict[str, Any] = {name: row[name] for name in ClockEntry._fields if name != "state"}
    return ClockEntry(**values, state=sla.state(_clock(row), now))
