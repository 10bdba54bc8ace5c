"""SLA clocks: for each ticket what is promised, until when, how much of the time is used, and whether it was kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from psycopg.sql import SQL

from domain import ticket_breach_events, ticket_sla_events, ticket_timeline
from domain import ticket_events as happened
from domain.service_levels import EMPTY_BOOK
from domain.sla_clocks import METRICS, Clock, ClockState, remaining, used
from domain.sla_policy import Unit
from domain.sla_terms import Metric, SlaTerms
from domain.spans import instant, microseconds
from domain.ticket_breach_events import Allowed
from domain.ticket_timeline import after, encode, sla_terms
from projections.listing import Counts, Listing, count_rows, list_rows
from projections.promises import BY_BOOK, clocks_by, timeline_in
from projections.reference import told
from projections.selection import Sort, Where
from projections.table import Column, Row, Rows, Table
from projections.view import View, events_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from domain.service_levels import Book
    from domain.ticket_timeline import Timeline
    from storage.codec import Recorded
    from storage.database import Workspace

HOLDER: Final = Metric.TOTAL_RESOLUTION
"""The metric of which every ticket has a row, promised or not: that one keeps the timeline."""

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
        # The latest clock of the metric; without `due_at` there is none, or it lapsed without having been broken.
        Column("serial", "integer"),
        Column("owning_team_id", "uuid"),
        Column("started_at", "timestamptz"),
        Column("due_at", "timestamptz"),
        Column("ended_at", "timestamptz"),
        Column("fulfilled", "boolean", null=False),
        Column("paused_at", "timestamptz"),
        # By which terms, how much time is allowed, and by what that is counted.
        Column("policy", "text"),
        Column("policy_version", "integer"),
        Column("calendar", "text"),
        Column("calendar_version", "integer"),
        Column("target_amount", "bigint"),
        Column("target_unit", "text"),
        Column("end_of_day", "boolean", null=False),
        Column("manual", "boolean", null=False),
        # In microseconds as they count: allowed; used until `runs_since`, or in all where the clock does not run.
        Column("allowed", "bigint"),
        Column("used", "bigint"),
        Column("runs_since", "timestamptz"),
        Column("timeline", "text", past=False),
    ),
    key=("ticket_id", "metric"),
    indexes=(
        "(due_at, ticket_id, metric) WHERE ended_at IS NULL AND paused_at IS NULL",
        "(due_at, ticket_id, metric)",
        "(team_id, due_at)",
        "(agent_id, due_at)",
    ),
    keeps_past=True,
)

SORTS: Final[dict[str, Sort]] = {"due": Sort(("due_at", "ticket_id", "metric"))}
"""Soonest due first."""

_CARRIED: Final = ("status", "priority", "team_id", "agent_id")
_SHOWN: Final = tuple(column.name for column in TABLE.columns if column.past)


class _Ticket(NamedTuple):
    """What the events of a page make of a ticket: what its clocks carry of it, its timeline, and the last change."""

    since: int
    carried: Row
    timeline: Timeline
    metrics: frozenset[Metric]


def fold(rows: Rows, recorded: Iterable[Recorded], book: Book = EMPTY_BOOK) -> Rows:
    """Run the clocks of each ticket by the times at which things occurred.

    All rows of a ticket change together, when the facts that clocks follow from do or what the rows carry of the ticket.
    A ticket has rows for the metrics of every policy that it ever went by.
    """
    changed: dict[UUID, _Ticket] = {}
    for event, position, _ in recorded:
        values = event.__dict__
        stream = values["originator_id"]
        known = changed.get(stream)
        if type(event) is happened.Opened:
            carried = {
                "number": position,
                "status": event.status,
                "priority": event.priority,
                "team_id": None,
                "agent_id": None,
            }
            changed[stream] = _Ticket(position, carried, after(None, event), _metrics(event, book))
            continue
        if known is None:
            row = rows.get((stream, HOLDER))
            if row is None:
                message = f"ticket {stream} has an event at position {position} but was never opened"
                raise ValueError(message)
            carried = {name: row[name] for name in _KEPT}
            known = _Ticket(row["since"], carried, timeline_in(row["timeline"]), frozenset())
        timeline = after(known.timeline, event)
        told = _told(event, values, known.carried)
        if timeline is not known.timeline or told:
            metrics = known.metrics | _metrics(event, book)
            changed[stream] = _Ticket(position, {**known.carried, **told}, timeline, metrics)
    found: Rows = {}
    for stream, ticket in changed.items():
        found |= _clocks(stream, ticket, rows, book)
    return found


_KEPT: Final = ("number", *_CARRIED)


def _told(event: happened.TicketEvent, values: Row, carried: Row) -> Row:
    """Give what the event says anew of the columns that all clocks of the ticket carry."""
    names = ("status",) if isinstance(event, happened.Replied) else _CARRIED  # whoever replies need not have the ticket
    return {name: values[name] for name in names if name in values and values[name] != carried[name]}


def _metrics(event: happened.TicketEvent, book: Book) -> frozenset[Metric]:
    """Name the metrics that an event brings: those of the policy that the ticket goes by from then on."""
    if isinstance(event, ticket_sla_events.DueDateSet):
        return frozenset({event.metric})
    if isinstance(event, happened.Opened | ticket_sla_events.SlaTermsChanged):
        return frozenset(target.metric for target in book.policy(event.terms).targets)
    return frozenset()


def _clocks(stream: UUID, ticket: _Ticket, rows: Rows, book: Book) -> Rows:
    """Give the rows of a ticket: of each metric the latest clock, where there is one."""
    text = encode(ticket.timeline)
    latest = {clock.metric: clock for clock in clocks_by(text, ticket.timeline, book)}
    found: Rows = {}
    for metric, name in _NAMES:
        key = stream, name
        clock = latest.get(metric)
        if clock is None and metric is not HOLDER and metric not in ticket.metrics and key not in rows:
            continue
        row: Row = {"ticket_id": stream, "metric": name, "since": ticket.since, **ticket.carried}
        lapsed = clock is not None and clock.ended is not None and not clock.fulfilled and clock.ended <= clock.due
        row |= _NO_CLOCK if clock is None or lapsed else columns_of(clock, book)
        row["timeline"] = text if metric is HOLDER else None
        found[key] = row
    return found


def columns_of(clock: Clock, book: Book) -> Row:
    """Give what a row says of a clock."""
    terms, target = clock.terms, clock.target
    begins = max(clock.pauses[-1][1] if clock.pauses else clock.started, clock.calendars[-1][0])
    runs_since = instant(begins) if clock.ended is None and clock.paused is None else None
    stands_at = clock.ended if clock.ended is not None else clock.paused
    if stands_at is None and begins == clock.started:
        gone = 0
    elif stands_at is not None and not clock.pauses and (target is None or target.unit is Unit.CALENDAR):
        gone = max(stands_at - clock.started, 0)
    else:
        gone = used(clock, book, instant(begins)) // _MICROSECOND
    if target is None or clock.manual or target.unit is Unit.BUSINESS_DAYS:
        at = instant(begins)
        allowed = (used(clock, book, at) + remaining(clock, book, at)) // _MICROSECOND
    else:
        allowed = target.amount * 1_000_000
    return {
        "serial": clock.serial,
        "owning_team_id": clock.team_id,
        "started_at": clock.started_at,
        "due_at": clock.due_at,
        "ended_at": clock.ended_at,
        "fulfilled": clock.fulfilled,
        "paused_at": clock.paused_at,
        "policy": None if terms is None else terms.policy,
        "policy_version": None if terms is None else terms.policy_version,
        "calendar": None if terms is None else terms.calendar,
        "calendar_version": None if terms is None else terms.calendar_version,
        "target_amount": None if target is None else target.amount,
        "target_unit": None if target is None else _UNITS[target.unit],
        "end_of_day": target is not None and target.end_of_day,
        "manual": clock.manual,
        "allowed": allowed,
        "used": gone,
        "runs_since": runs_since,
    }


_UNITS: Final = {unit: str(unit) for unit in Unit}
_NAMES: Final = tuple((metric, str(metric)) for metric in METRICS)
_MICROSECOND: Final = timedelta(microseconds=1)
_NO_CLOCK: Final[Row] = {
    **dict.fromkeys(
        ("serial", "owning_team_id", "started_at", "due_at", "ended_at", "paused_at", "policy", "policy_version",
         "calendar", "calendar_version", "target_amount", "target_unit", "allowed", "used", "runs_since")
    ),
    **dict.fromkeys(("fulfilled", "end_of_day", "manual"), False),
}  # fmt: skip


VIEW: Final = View(
    name="sla_clock",
    version=2,
    table=TABLE,
    fold=fold,
    # The rest of what happens to a ticket says nothing of its clocks, nor does what is on record of them.
    topics=frozenset(
        event.TOPIC
        for event in events_of(happened.TicketEvent)
        if event.TOPIC in ticket_timeline.TOPICS or event.model_fields.keys() & set(_CARRIED)
        if not issubclass(event, ticket_breach_events.ClockEvent)
    ),
    reads=ticket_timeline.READS | set(_CARRIED),
    stream_local=True,
    reference=BY_BOOK,
)


class ClockEntry(NamedTuple):
    """The latest clock of one metric of one ticket; `state`, and how much time is used, are as of the instant asked about.

    `used` and `remaining` are counted as the target is, `remaining` negative by how much it is overdue; `percent_used`
    goes on above 100. They are None where nothing is promised.
    """

    ticket_id: UUID
    number: int
    metric: str
    state: ClockState
    status: str
    priority: str
    team_id: UUID | None
    agent_id: UUID | None
    serial: int | None
    owning_team_id: UUID | None
    started_at: datetime | None
    due_at: datetime | None
    met_at: datetime | None
    paused_at: datetime | None
    ended_at: datetime | None
    breached_at: datetime | None
    manual: bool
    terms: SlaTerms | None
    target: Allowed | None
    used: timedelta | None
    remaining: timedelta | None
    percent_used: float | None


# As `domain.sla_clocks.state` has it; a test holds the two together.
_BREACHED: Final = "coalesce(ended_at, paused_at, %(now)s::timestamptz) > due_at"
_STATE: Final = (
    f"CASE WHEN due_at IS NULL THEN 'not_applicable' WHEN {_BREACHED} THEN 'breached'"
    " WHEN ended_at IS NOT NULL THEN 'met' WHEN paused_at IS NOT NULL THEN 'paused' ELSE 'active' END"
)
_IN_STATE: Final = {
    ClockState.ACTIVE: "ended_at IS NULL AND paused_at IS NULL AND due_at >= %(now)s::timestamptz",
    ClockState.PAUSED: "ended_at IS NULL AND paused_at <= due_at",
    ClockState.MET: "ended_at <= due_at",
    ClockState.BREACHED: _BREACHED,
    ClockState.NOT_APPLICABLE: "due_at IS NULL",
}


@dataclass(frozen=True, kw_only=True)
class ClockFilter:
    """Which clocks; a promise that does not apply is only given by `clocks_of`.

    `due_before` leaves out its instant. `due_within` is a span from the instant that states are as of: what is due by
    its end, and what is overdue.
    """

    states: Sequence[ClockState] | None = None
    metrics: Sequence[Metric] | None = None
    due_before: datetime | None = None
    due_within: timedelta | None = None
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
        if self.due_within is not None:
            where.add("due_at <= %(now)s::timestamptz + %(due_within)s::interval", due_within=self.due_within)
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
        workspace, VIEW, clocks.where(), SORTS[sort], name=sort, limit=limit, cursor=cursor, now=now, columns=_SHOWN
    )
    as_of = found.now or now
    items = await _entries(workspace, found, as_of)
    return Listing(items, found.position, found.recorded_at, found.cursor, as_of)


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
    sort = Sort(("metric",))
    found = await list_rows(workspace, VIEW, where, sort, name="metric", limit=len(Metric), cursor=None, columns=_SHOWN)
    return Listing(await _entries(workspace, found, now), found.position, found.recorded_at, None, now)


async def _entries(workspace: Workspace, found: Listing[Row], now: datetime) -> list[ClockEntry]:
    book = (await told(workspace, BY_BOOK, 0)).value
    try:
        return [entry(row, book, now) for row in found.items]
    except LookupError:  # adopted since the book was read, which is not done for every page
        book = (await told(workspace, BY_BOOK, found.position)).value
        return [entry(row, book, now) for row in found.items]


def entry(row: Row, book: Book, now: datetime) -> ClockEntry:
    """Say how the clock in a row stands at an instant. Raises LookupError for a calendar that the book lacks."""
    due, ended, paused, allowed = row["due_at"], row["ended_at"], row["paused_at"], row["allowed"]
    if due is None:
        return nothing_promised(row)
    values: dict[str, Any] = {name: row[name] for name in _AS_THEY_ARE}
    spent = row["used"]
    if row["runs_since"] is not None and now > row["runs_since"]:
        spent += _counted(row, book, microseconds(row["runs_since"]), microseconds(now))
    state = _state(due, ended, paused, now)
    if state is ClockState.MET and not row["fulfilled"]:
        state = ClockState.NOT_APPLICABLE  # it lapsed
    return ClockEntry(
        **values,
        state=state,
        met_at=ended if row["fulfilled"] else None,
        breached_at=due if state is ClockState.BREACHED else None,
        terms=None if row["policy"] is None else sla_terms(tuple(row[name] for name in _TERMS)),
        target=None
        if row["target_amount"] is None
        else Allowed(amount=row["target_amount"], unit=row["target_unit"], end_of_day=row["end_of_day"]),
        used=timedelta(microseconds=spent),
        remaining=timedelta(microseconds=allowed - spent),
        percent_used=100 * spent / allowed if allowed > 0 else 100.0,
    )


def nothing_promised(row: Row) -> ClockEntry:
    """Say that a metric does not apply to a ticket."""
    return ClockEntry(**_NO_CLOCK_TOLD | {name: row[name] for name in ("ticket_id", *_KEPT, "metric")})


_DERIVED: Final = frozenset({"state", "met_at", "breached_at", "terms", "target", "used", "remaining", "percent_used"})
_AS_THEY_ARE: Final = tuple(name for name in ClockEntry._fields if name not in _DERIVED)
_NO_CLOCK_TOLD: Final[dict[str, Any]] = {
    **dict.fromkeys(ClockEntry._fields),
    "state": ClockState.NOT_APPLICABLE,
    "manual": False,
}


def _state(due: datetime, ended: datetime | None, paused: datetime | None, now: datetime) -> ClockState:
    if (ended or paused or now) > due:
        return ClockState.BREACHED
    if ended is not None:
        return ClockState.MET
    return ClockState.ACTIVE if paused is None else ClockState.PAUSED


def _counted(row: Row, book: Book, start: int, end: int) -> int:
    if row["calendar"] is None or row["target_unit"] in _BY_THE_CLOCK:
        return end - start
    hours = book.calendar(row["calendar"], row["calendar_version"])
    return int(hours.between_us(start, end))


_TERMS: Final = ("policy", "policy_version", "calendar", "calendar_version")
_BY_THE_CLOCK: Final = (None, str(Unit.CALENDAR))
