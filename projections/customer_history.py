"""Customer history: everything that happened to one customer and on that customer's tickets, in one list.

The table is an index of the log, a narrow row for each customer whom an event concerns. What the event says is read from
the log and opened when somebody looks, so that there is no copy of anything personal, and what is erased is so at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - part of the public row
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from domain import ticket_events as happened
from domain.customer_events import CustomerEvent
from projections.listing import Listing, list_rows
from projections.selection import Sort, Where
from projections.table import Column, Rows, Table
from projections.view import View, topics_of
from storage.codec import BrokenStream, UnreadableEvent, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from domain.event import Event
    from storage.codec import Recorded
    from storage.database import Workspace

TABLE: Final = Table(
    columns=(
        Column("customer_id", "uuid", null=False),
        Column("occurred_at", "timestamptz", null=False),
        Column("position", "bigint", null=False),
        Column("ticket_id", "uuid"),
        Column("topic", "text", null=False),
    ),
    key=("customer_id", "occurred_at", "position"),  # also the order in which they are listed
    since="position",
)

NEWEST_FIRST: Final = Sort(("occurred_at", "position"), descending=True)


class Kind(StrEnum):
    """What an event is to somebody who looks for it."""

    OPENED = "opened"
    MESSAGE = "message"
    """The customer wrote."""
    REPLY = "reply"
    NOTE = "note"
    """Somebody of the desk wrote what the customer does not see."""
    STATUS = "status"
    HANDLING = "handling"
    """Who has the ticket, how high up and how urgent it is."""
    PEOPLE = "people"
    """Whose ticket it is and who has copies."""
    FILING = "filing"
    """Subject, type, category, tags, fields, links and corrections."""
    CUSTOMER = "customer"
    """The customer came to be known, or changed."""


_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(topics_of(happened.TicketEvent), Kind.FILING),
    **dict.fromkeys(topics_of(happened.StatusEvent), Kind.STATUS),
    **dict.fromkeys(topics_of(CustomerEvent), Kind.CUSTOMER),
    happened.Opened.TOPIC: Kind.OPENED,
    happened.CustomerMessageReceived.TOPIC: Kind.MESSAGE,
    happened.Replied.TOPIC: Kind.REPLY,
    happened.NoteAdded.TOPIC: Kind.NOTE,
    happened.Assigned.TOPIC: Kind.HANDLING,
    happened.Unassigned.TOPIC: Kind.HANDLING,
    happened.Transferred.TOPIC: Kind.HANDLING,
    happened.Escalated.TOPIC: Kind.HANDLING,
    happened.DeEscalated.TOPIC: Kind.HANDLING,
    happened.PriorityChanged.TOPIC: Kind.HANDLING,
    happened.RequesterChanged.TOPIC: Kind.PEOPLE,
    happened.CcAdded.TOPIC: Kind.PEOPLE,
    happened.CcRemoved.TOPIC: Kind.PEOPLE,
}


def fold(rows: Rows, recorded: Iterable[Recorded]) -> Rows:  # noqa: ARG001 - rows are only ever added
    """Note every event under each customer whom it concerns.

    An event of a ticket concerns whoever requested it at the time. When it becomes another's, what was before stays with
    the one whom it was about, under whose key it is sealed too, and both have the change; so also have the author of a
    message who is not the requester, and a customer who gets copies.
    """
    added: Rows = {}
    for event, position, _ in recorded:
        ticket = event.originator_id if isinstance(event, happened.TicketEvent) else None
        for customer in _concerned(event):
            added[customer, event.timestamp, position] = {
                "customer_id": customer,
                "occurred_at": event.timestamp,
                "position": position,
                "ticket_id": ticket,
                "topic": event.TOPIC,
            }
    return added


_CUSTOMERS: Final = ("requester_id", "previous_requester_id", "author_id", "cc_id")


def _concerned(event: Event) -> Iterator[UUID]:
    if not isinstance(event, happened.TicketEvent):
        yield event.originator_id
        return
    values = event.__dict__
    for name in _CUSTOMERS:
        customer = values.get(name)
        if customer is not None:
            yield customer


VIEW: Final = View(
    name="customer_history",
    version=1,
    table=TABLE,
    fold=fold,
    topics=frozenset(_KINDS),
    needs=lambda _: None,
    reads=frozenset({"timestamp", *_CUSTOMERS}),
    stream_local=True,
    at_leisure=True,
)


class Happening(NamedTuple):
    """An event that concerns a customer, opened; `ticket_id` is None for one of the customer alone.

    Where the log has it no more, or not so that it can be read, `event` is None and `unreadable` names the reason.
    """

    position: int
    occurred_at: datetime
    ticket_id: UUID | None
    kind: Kind
    event: Recorded | None
    unreadable: str | None


@dataclass(frozen=True, kw_only=True)
class HistoryFilter:
    """Whose history, and what of it; the period goes by when things occurred and leaves out its end."""

    customer: UUID
    tickets: Sequence[UUID] | None = None
    kinds: Sequence[Kind] | None = None
    occurred_from: datetime | None = None
    occurred_before: datetime | None = None

    def where(self) -> Where:
        """Say it in SQL."""
        where = Where()
        where.add("customer_id = %(customer)s", customer=self.customer)
        if self.tickets is not None:
            where.add("ticket_id = ANY(%(tickets)s)", tickets=list(self.tickets))
        if self.kinds is not None:
            topics = sorted(topic for topic, kind in _KINDS.items() if kind in self.kinds)
            where.add("topic = ANY(%(topics)s)", topics=topics)
        if self.occurred_from is not None:
            where.add("occurred_at >= %(occurred_from)s", occurred_from=self.occurred_from)
        if self.occurred_before is not None:
            where.add("occurred_at < %(occurred_before)s", occurred_before=self.occurred_before)
        return where


async def list_history(
    workspace: Workspace, which: HistoryFilter, *, limit: int = 50, cursor: str | None = None
) -> Listing[Happening]:
    """List what happened, newest first, with personal values opened, or ERASED.

    Raises CursorInvalid, CursorExpired, ViewsNotReady.
    """
    found = await list_rows(workspace, VIEW, which.where(), NEWEST_FIRST, name="newest", limit=limit, cursor=cursor)
    rows = await workspace.log.at([row["position"] for row in found.items])
    await workspace.keyring.load(rows)
    read: dict[int, tuple[Recorded | None, str | None]] = {}
    for row in rows:
        try:
            read[row.position] = decode(row, workspace.keyring), None
        except UnreadableEvent as error:  # hides none of the others
            read[row.position] = None, error.reason
    happenings = [
        Happening(
            row["position"],
            row["occurred_at"],
            row["ticket_id"],
            _KINDS[row["topic"]],
            *read.get(row["position"], (None, BrokenStream.reason)),
        )
        for row in found.items
    ]
    return Listing(happenings, found.position, found.recorded_at, found.cursor)
