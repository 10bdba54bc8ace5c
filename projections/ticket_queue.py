"""Ticket queue: every ticket as it stands now, for the lists on an agent's screen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta  # noqa: TC003 - part of the public row
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from psycopg.sql import Identifier

from domain import ticket_events as happened
from domain import ticket_timeline
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK
from domain.sla_announcements import next_at
from domain.sla_clocks import FINISHED, falls_due
from domain.spans import instant
from domain.status import Status
from domain.ticket_timeline import TERMS, after, encode, sla_terms
from projections.listing import Counts, Listing, count_rows, find_row, list_rows, summarise
from projections.promises import BY_BOOK, clocks_by, timeline_in
from projections.selection import Sort, Where
from projections.table import Column, Key, Row, Rows, Table
from projections.view import View, topics_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from domain.service_levels import Book
    from domain.sla_clocks import Clock
    from domain.ticket_timeline import Timeline
    from storage.codec import Recorded
    from storage.database import Workspace


UNFINISHED: Final = "status IN ({})".format(", ".join(f"'{one}'" for one in Status if one not in FINISHED))

TABLE: Final = Table(
    columns=(
        Column("ticket_id", "uuid", null=False),
        Column("since", "bigint", null=False),
        Column("number", "bigint", null=False),
        Column("version", "bigint", null=False),
        Column("subject_sealed", "text"),
        Column("status", "text", null=False),
        Column("priority", "text", null=False),
        Column("urgency_rank", "smallint", null=False),
        Column("type", "text", null=False),
        Column("category", "text"),
        Column("tags", "text[]", null=False),
        Column("team_id", "uuid"),
        Column("agent_id", "uuid"),
        Column("requester_id", "uuid", null=False),
        Column("channel", "text", null=False),
        Column("level", "smallint", null=False),
        Column("foreign_id", "text"),
        Column("opened_at", "timestamptz", null=False),
        Column("updated_at", "timestamptz", null=False),
        Column("solved_at", "timestamptz"),
        Column("wake_at", "timestamptz"),
        # The earliest instant at which a promise whose clock runs falls due.
        Column("due_at", "timestamptz"),
        # When it is worth looking whether something about the ticket has to be put on record: see `timer_at`.
        Column("timer_at", "timestamptz"),
        # What clocks follow from, as `ticket_timeline.encode` writes it.
        Column("timeline", "text", null=False, past=False),
    ),
    key=("ticket_id",),
    # Of equally cheap ones, as all are while the table is empty, the planner takes the one made last.
    indexes=(
        "(number)",
        "(requester_id, updated_at, number)",
        "(status, updated_at, number)",
        "(status, coalesce(due_at, 'infinity'), number)",
        f"(status, urgency_rank, opened_at, number) WHERE {UNFINISHED}",
        "(agent_id, status, updated_at, number)",
        "(team_id, status, updated_at, number)",
        f"(team_id, status, coalesce(due_at, 'infinity'), number) WHERE {UNFINISHED}",
        f"(team_id, status, urgency_rank, opened_at, number) WHERE {UNFINISHED}",
        "(timer_at, number) WHERE timer_at IS NOT NULL",
    ),
    keeps_past=True,
)

RANKS: Final[dict[str, int]] = {Priority.URGENT: 0, Priority.HIGH: 1, Priority.NORMAL: 2, Priority.LOW: 3}

SORTS: Final[dict[str, Sort]] = {
    "updated": Sort(("updated_at", "number"), descending=True),
    "due": Sort(("due_at", "number"), none_last="due_at"),
    "opened": Sort(("opened_at", "number")),
    "priority": Sort(("urgency_rank", "opened_at", "number")),
    "number": Sort(("number",)),
}
"""Newest change first; soonest due first, last what is not due at all; longest open first; most urgent first, among equals the longest open; by number."""

Grouping = Literal["status", "team", "agent", "priority"]
COLUMN_OF: Final[dict[Grouping, str]] = {
    "status": "status",
    "team": "team_id",
    "agent": "agent_id",
    "priority": "priority",
}


_TAKEN: Final[dict[type[happened.TicketEvent], tuple[str, ...]]] = {
    happened.Assigned: ("agent_id", "team_id"),
    happened.Unassigned: ("agent_id",),
    happened.Transferred: ("team_id", "agent_id"),
    happened.Escalated: ("level", "team_id", "agent_id"),
    happened.DeEscalated: ("level",),
    happened.SetPending: ("wake_at",),
    happened.PriorityChanged: ("priority",),
    happened.Categorised: ("category",),
    happened.TypeChanged: ("type",),
    happened.RequesterChanged: ("requester_id",),
}
"""Event → its fields that are columns of the same name, as they are after it. Every status is taken as well."""


def fold(rows: Rows, recorded: Iterable[Recorded], book: Book = EMPTY_BOOK) -> Rows:
    """Follow each ticket's present values; every event of a ticket moves its `updated_at` and `since`.

    Clocks are worked out once for each ticket, as they are after its last event here: they follow from its timeline.
    """
    changed, timelines = _followed(rows, recorded)
    for key, timeline in timelines.items():
        changed[key]["timeline"] = timeline
        finish(changed[key], book)
    return changed


def follow(rows: Rows, recorded: Iterable[Recorded], book: Book = EMPTY_BOOK) -> Rows:
    """Follow tickets as `fold` does, but for clocks, which `finish` works out. Raises LookupError as it would."""
    changed, timelines = _followed(rows, recorded)
    for key, timeline in timelines.items():
        changed[key]["timeline"] = timeline
        terms = sla_terms(timeline.latest(TERMS))
        book.hours(terms)
        book.policy(terms)
    return changed


def finish(row: Row, book: Book = EMPTY_BOOK) -> None:
    """Work out the clocks of a ticket whose timeline is not written down yet, and write it down."""
    timeline = row["timeline"]
    if isinstance(timeline, str):
        return
    row["timeline"] = text = encode(timeline)
    found = clocks_by(text, timeline, book)
    row["due_at"] = _due(found)
    row["timer_at"] = next_at(timeline, book, found)
    wake_at = row["wake_at"]
    # The history of an imported ticket waits for nothing.
    if wake_at is not None and timeline.announces_from is not None:
        row["timer_at"] = wake_at if row["timer_at"] is None else min(wake_at, row["timer_at"])


def step(rows: Rows, recorded: Iterable[Recorded], book: Book = EMPTY_BOOK) -> Rows:
    """Follow tickets as `fold` does, for who takes event by event: to be `settled` at the end, and without `timer_at`."""
    changed, timelines = _followed(rows, recorded)
    for key, timeline in timelines.items():
        row = changed[key]
        # Found by what it says where the queue was there before.
        found = clocks_by(encode(timeline), timeline, book)
        row["timeline"], row["due_at"], row["timer_at"] = timeline, _due(found), None
    return changed


def settled(row: Row) -> None:
    """Write down what `step` has left as it is."""
    if not isinstance(row["timeline"], str):
        row["timeline"] = encode(row["timeline"])


def _due(found: Iterable[Clock]) -> datetime | None:
    due = falls_due(found)
    return None if due is None else instant(due)


def _followed(  # noqa: C901 - a Draft, written out: half of a rebuild
    rows: Rows, recorded: Iterable[Recorded]
) -> tuple[Rows, dict[Key, Timeline]]:
    """Give the rows that change, and the timelines that do, which are in no row yet."""
    changed: Rows = {}
    timelines: dict[Key, Timeline] = {}
    for event, position, _ in recorded:
        kind, values = type(event), event.__dict__
        key = (values["originator_id"],)
        if kind is happened.Opened:
            changed[key] = _opened(event, position)
            timelines[key] = after(None, event)
            continue
        row = changed.get(key)
        if row is None:
            found = rows.get(key)
            if found is None:
                message = f"ticket {key[0]} has an event at position {position} but was never opened"
                raise ValueError(message)
            row = changed[key] = found.copy()
        at = values["timestamp"]
        row["since"] = position
        row["version"] = values["originator_version"]
        # Occurred times of foreign histories may step back; the latest is when the ticket last changed.
        if at > row["updated_at"]:  # noqa: PLR1730 - `max` takes thrice as long
            row["updated_at"] = at
        timeline = timelines.get(key) or timeline_in(row["timeline"])
        moved_on = after(timeline, event)
        if moved_on is not timeline or "wake_at" in values:
            timelines[key] = moved_on
        status = values.get("status")
        if status is not None and status != row["status"]:
            _take_status(row, status, at)
        if kind in _TAKEN:
            for name in _TAKEN[kind]:
                row[name] = values[name]
        if kind is happened.PriorityChanged:
            row["urgency_rank"] = RANKS[event.priority]
        elif kind is happened.SubjectChanged:
            row["subject_sealed"] = event.subject
        elif kind is happened.Tagged or kind is happened.Untagged:
            row["tags"] = list(event.tags)
    return changed, timelines


def _opened(event: happened.Opened, position: int) -> Row:
    return {
        "ticket_id": event.originator_id,
        "since": position,
        "number": position,
        "version": event.originator_version,
        "subject_sealed": event.subject,
        "status": event.status,
        "priority": event.priority,
        "urgency_rank": RANKS[event.priority],
        "type": event.type,
        "category": event.category,
        "tags": list(event.tags),
        "team_id": None,
        "agent_id": None,
        "requester_id": event.requester_id,
        "channel": event.channel,
        "level": 0,
        "foreign_id": event.foreign_id,
        "opened_at": event.timestamp,
        "updated_at": event.timestamp,
        "solved_at": None,
        "wake_at": None,
        "due_at": None,
        "timer_at": None,
        "timeline": "",
    }


def _take_status(row: Row, status: str, at: datetime) -> None:
    row["status"] = status
    row["wake_at"] = None
    if status == "solved":
        row["solved_at"] = at
    elif status != "closed":
        row["solved_at"] = None


READS: Final = frozenset(
    [
        "timestamp",
        "subject",
        "status",
        "priority",
        "type",
        "category",
        "tags",
        "team_id",
        "agent_id",
        "requester_id",
        "channel",
        "level",
        "foreign_id",
        "wake_at",
        *ticket_timeline.READS,
    ]
)

VIEW: Final = View(
    name="ticket_queue",
    version=3,
    table=TABLE,
    fold=fold,
    topics=topics_of(happened.TicketEvent),
    reads=READS,
    stream_local=True,
    reference=BY_BOOK,
    follow=follow,
    finish=finish,
)


class QueueEntry(NamedTuple):
    """A ticket as the queue lists it.

    `number` is what people call it by; `due_at` when the next promise about it falls due, among those that run.
    """

    ticket_id: UUID
    number: int
    version: int
    subject: str | None
    status: str
    priority: str
    type: str
    category: str | None
    tags: list[str]
    team_id: UUID | None
    agent_id: UUID | None
    requester_id: UUID
    channel: str
    level: int
    foreign_id: str | None
    opened_at: datetime
    updated_at: datetime
    solved_at: datetime | None
    wake_at: datetime | None
    due_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class QueueFilter:
    """Which tickets; what is left None does not matter. `tags` are all wanted, of statuses and priorities any one.

    `due_before` leaves out its instant. `due_within` is a span from the instant of asking, or looked back to: what is due
    by its end, and what is overdue.
    """

    teams: Sequence[UUID] | None = None
    agent: UUID | Literal["unassigned"] | None = None
    statuses: Sequence[str] | None = None
    priorities: Sequence[str] | None = None
    types: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    customer: UUID | None = None
    channel: str | None = None
    category: str | None = None
    due_before: datetime | None = None
    due_within: timedelta | None = None

    def where(self) -> Where:  # noqa: C901 - one condition a field
        """Say it in SQL; lists and counts share this and so agree."""
        where = Where()
        if self.teams is not None:
            where.one_of("team_id", self.teams)
        if self.agent == "unassigned":
            where.add("agent_id IS NULL")
        elif self.agent is not None:
            where.add("agent_id = %(agent)s", agent=self.agent)
        if self.statuses is not None:
            where.one_of("status", self.statuses, known=True)
        if self.priorities is not None:
            where.add("priority = ANY(%(priorities)s)", priorities=list(map(str, self.priorities)))
        if self.types is not None:
            where.add("type = ANY(%(types)s)", types=list(map(str, self.types)))
        if self.tags is not None:
            where.add("tags @> %(tags)s::text[]", tags=list(self.tags))
        if self.customer is not None:
            where.add("requester_id = %(customer)s", customer=self.customer)
        if self.channel is not None:
            where.add("channel = %(channel)s", channel=str(self.channel))
        if self.category is not None:
            where.add("category = %(category)s", category=self.category)
        # As the indexes have it, which hold what is not due at all as infinitely late.
        if self.due_before is not None:
            where.add(f"{_DUE} < %(due_before)s", due_before=self.due_before)
        if self.due_within is not None:
            where.add(f"{_DUE} <= %(now)s::timestamptz + %(due_within)s::interval", due_within=self.due_within)
        return where

    def asked_at(self, now: datetime | None) -> datetime | None:
        """Give the instant of asking as far as it matters to the filter. Raises ValueError where it does and is not told."""
        if self.due_within is None:
            return None
        if now is None:
            message = "what is due within a span depends on when that is asked"
            raise ValueError(message)
        return now

    def listed(self, sort: str) -> Where:
        """Say it for a list in one of SORTS, with what an index for that order begins with."""
        where = self.where()
        if sort in _BY_STATUS and self.statuses is None and self.customer is None:
            where.one_of("status", Status, known=True)
        elif sort == "opened" and self.statuses is not None and not FINISHED.intersection(self.statuses):
            where.one_of("urgency_rank", RANKS.values(), known=True)
        return where


_DUE: Final = "coalesce(due_at, 'infinity')"
EVERY_TICKET: Final = QueueFilter()
SHOWN: Final = tuple("subject_sealed" if name == "subject" else name for name in QueueEntry._fields)
_BY_STATUS: Final = frozenset({"updated", "due"})
"""Orders that indexes give for each status: a list of whatever status is put together from them."""


async def list_tickets(
    workspace: Workspace,
    tickets: QueueFilter = EVERY_TICKET,
    *,
    sort: str = "updated",
    limit: int = 50,
    cursor: str | None = None,
    now: datetime | None = None,
) -> Listing[QueueEntry]:
    """List tickets, with subjects opened. `sort` is one of SORTS; a cursor keeps the `now` that its list was begun with.

    Raises CursorInvalid, CursorExpired, ViewsNotReady.
    """
    found = await list_told(workspace, tickets, sort=sort, limit=limit, cursor=cursor, now=now)
    return Listing([QueueEntry(**row) for row in found.items], found.position, found.recorded_at, found.cursor)


async def list_told(
    workspace: Workspace,
    tickets: QueueFilter,
    *,
    sort: str,
    limit: int,
    cursor: str | None,
    now: datetime | None = None,
) -> Listing[Row]:
    """List tickets as `list_tickets` does, each as the fields of a QueueEntry by name, to be written out as they are."""
    order = SORTS[sort]
    hidden = tuple(column for column in order.columns if column not in SHOWN)
    columns, names = SHOWN + hidden, QueueEntry._fields + hidden
    found = await list_rows(
        workspace,
        VIEW,
        tickets.listed(sort),
        order,
        name=sort,
        limit=limit,
        cursor=cursor,
        columns=columns,
        names=names,
        now=tickets.asked_at(now),
    )
    subjects: list[Any] = await workspace.keyring.reveal([(row["ticket_id"], row["subject"]) for row in found.items])
    for row, subject in zip(found.items, subjects, strict=True):
        row["subject"] = subject
        for name in hidden:
            del row[name]
    return found


async def count_tickets(
    workspace: Workspace,
    tickets: QueueFilter = EVERY_TICKET,
    *,
    by: Grouping = "status",
    at: int | None = None,
    now: datetime | None = None,
) -> Counts:
    """Count the tickets that `list_tickets` would list; `at` counts them as of a list's position, `now` of its instant.

    Raises CursorExpired, ViewsNotReady.
    """
    return await count_rows(
        workspace, VIEW, tickets.where(), by=Identifier(COLUMN_OF[by]), at=at, now=tickets.asked_at(now)
    )


async def find_ticket(workspace: Workspace, ticket_id: UUID) -> tuple[QueueEntry | None, int]:
    """Give one ticket as the queue has it, or None, with the position it is true of. Raises ViewsNotReady."""
    where = Where()
    where.add("ticket_id = %(ticket_id)s", ticket_id=ticket_id)
    row, position = await find_row(workspace, VIEW, where)
    return ((await opened_up(workspace, [row]))[0] if row is not None else None), position


async def find_tickets(workspace: Workspace, ids: Collection[UUID]) -> dict[UUID, QueueEntry]:
    """Give tickets as the queue has them, as far as it knows them. Raises ViewsNotReady."""
    found = await summarise(workspace, VIEW, _BY_IDS, Where(parameters={"ids": list(ids)}))
    rows = [dict(zip(VIEW.table.names, row, strict=True)) for row in found.rows]
    return {entry.ticket_id: entry for entry in await opened_up(workspace, rows)}


# One look into the key each, whatever was planned while the table was small.
_BY_IDS: Final = """
SELECT q.* FROM unnest(%(ids)s::uuid[]) u (id)
CROSS JOIN LATERAL (SELECT {columns} FROM {place} WHERE ticket_id = u.id OFFSET 0) q WHERE {where}
"""


async def opened_up(workspace: Workspace, rows: Sequence[Row]) -> list[QueueEntry]:
    """Give rows as people see them: with their subjects, as far as they have not been erased."""
    subjects: list[Any] = await workspace.keyring.reveal([(row["ticket_id"], row["subject_sealed"]) for row in rows])
    return [
        QueueEntry(**{name: row[name] for name in QueueEntry._fields if name != "subject"}, subject=subject)
        for row, subject in zip(rows, subjects, strict=True)
    ]
