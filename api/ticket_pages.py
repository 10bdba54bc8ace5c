"""One ticket as people read it: its state at a moment, and what was written, for HTTP and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from commands.execution import allowed_commands
from domain.event import Role
from domain.ticket import Ticket
from replay.as_of import as_of
from replay.history import history

if TYPE_CHECKING:
    from datetime import datetime

    from commands.request import Caller
    from replay.as_of import AsOf
    from replay.history import Entry, History
    from storage.database import Workspace


class Person(BaseModel):
    """Somebody, with the name the desk knows now."""

    id: UUID
    name: str | None


class FileTold(BaseModel):
    """A file that came with a message."""

    id: UUID
    name: str | None
    content_type: str
    size: int
    sha256: str


class MessageTold(BaseModel):
    """What somebody wrote. `direction` is from_customer, to_customer or internal."""

    version: int
    position: int
    occurred_at: AwareDatetime
    direction: str
    author: Person
    author_role: str
    channel: str
    text: str
    attachments: list[FileTold]


class Messages(BaseModel):
    """A page of messages, oldest first; `next_after` is the `messages_after` of the next page."""

    items: list[MessageTold]
    next_after: int | None


class Link(BaseModel):
    """Another ticket and what it is to this one."""

    ticket_id: UUID
    kind: str


class TicketTold(BaseModel):
    """A ticket as it stands at `version`. A customer sees the desk's own marks (tags, links, level …) empty."""

    id: UUID
    number: int
    foreign_id: str | None
    version: int
    position: int
    subject: str
    status: str
    priority: str
    type: str
    category: str | None
    channel: str
    impact: str | None
    urgency: str | None
    level: int
    tags: list[str]
    custom_fields: dict[str, str]
    requester: Person
    agent: Person | None
    team: Person | None
    cc: list[Person]
    cc_addresses: list[str]
    opened_at: AwareDatetime
    solved_at: AwareDatetime | None
    closed_at: AwareDatetime | None
    wake_at: AwareDatetime | None
    third_party: str | None
    resolution_code: str | None
    follow_up_of: UUID | None
    links: list[Link]
    provisional: bool
    allowed_commands: list[str]
    messages: Messages


class Moment(NamedTuple):
    """The moment asked about: at most one of a version, an instant of recorded time and a position; none is now."""

    version: int | None = None
    instant: datetime | None = None
    position: int | None = None

    @property
    def past(self) -> bool:
        """Whether a moment is named."""
        return any(one is not None for one in self)


NOW: Final = Moment()

DESKS_OWN: Final[dict[str, Any]] = {
    "foreign_id": None,
    "impact": None,
    "urgency": None,
    "level": 0,
    "tags": [],
    "custom_fields": {},
    "cc": [],
    "cc_addresses": [],
    "wake_at": None,
    "third_party": None,
    "links": [],
}
"""How a customer sees what the desk keeps to itself: its own marks on a ticket, and who else is involved."""


async def ticket_told(
    workspace: Workspace, stream: UUID, caller: Caller, moment: Moment = NOW, *, after: int = 0, limit: int = 50
) -> TicketTold:
    """Tell a ticket as of a moment, with a page of its messages; what the caller may do only as of now.

    Raises ReplayError and its kin, UnreadableEvent.
    """
    then = await as_of(
        workspace, Ticket, stream, version=moment.version, instant=moment.instant, position=moment.position
    )
    life = await history(workspace, stream, kind="ticket", upto=then.aggregate.version)
    allowed = [] if moment.past else allowed_commands(caller, then.aggregate)
    upto = then.aggregate.version
    told = _told(life, then, allowed, messages_of(life, caller.role, upto=upto, after=after, limit=limit))
    return told.model_copy(update=DESKS_OWN) if caller.role is Role.CUSTOMER else told


def messages_of(life: History, role: Role, *, upto: int | None = None, after: int = 0, limit: int = 50) -> Messages:
    """Give a page of the messages that a role may read, with versions `after` < v ≤ `upto`."""
    found = [
        entry
        for entry in life.entries
        if after < entry.version and (upto is None or entry.version <= upto) and may_read(entry, role)
    ]
    items = [_message(entry) for entry in found[:limit]]
    return Messages(items=items, next_after=items[-1].version if len(found) > limit else None)


def may_read(entry: Entry, role: Role) -> bool:
    """Tell whether an entry is a message that a role may read: customers don't see internal notes."""
    return entry.message is not None and (role is not Role.CUSTOMER or entry.message.direction != "internal")


def files_of(entry: Entry) -> list[FileTold]:
    """Give the files that came with a message."""
    if entry.message is None:
        return []
    return [
        FileTold(id=file.id, name=file.name, content_type=file.content_type, size=file.size, sha256=file.sha256)
        for file in entry.message.files
    ]


def _message(entry: Entry) -> MessageTold:
    if entry.message is None:
        message = f"entry {entry.version} is no message"
        raise ValueError(message)
    return MessageTold(
        version=entry.version,
        position=entry.position,
        occurred_at=entry.occurred_at,
        direction=entry.message.direction,
        author=Person(id=entry.actor.id, name=entry.actor.name),
        author_role=entry.actor.role,
        channel=entry.contact_channel or entry.channel,
        text=entry.message.text,
        attachments=files_of(entry),
    )


def _told(life: History, then: AsOf[Ticket], allowed: list[str], page: Messages) -> TicketTold:
    ticket = then.aggregate

    def person(one: UUID) -> Person:
        return Person(id=one, name=life.names.get(str(one)))

    return TicketTold(
        id=life.stream,
        number=life.entries[0].position,
        foreign_id=ticket.foreign_id,
        version=ticket.version,
        position=then.position,
        subject=ticket.subject,
        status=ticket.status,
        priority=ticket.priority,
        type=ticket.type,
        category=ticket.category,
        channel=ticket.channel,
        impact=ticket.impact,
        urgency=ticket.urgency,
        level=ticket.level,
        tags=list(ticket.tags),
        custom_fields=dict(ticket.custom_fields),
        requester=person(ticket.requester_id),
        agent=None if ticket.agent_id is None else person(ticket.agent_id),
        team=None if ticket.team_id is None else person(ticket.team_id),
        cc=[person(one) for one in sorted(ticket.cc_ids)],
        cc_addresses=sorted(ticket.cc_addresses),
        opened_at=ticket.opened_at,
        solved_at=ticket.solved_at,
        closed_at=ticket.closed_at,
        wake_at=ticket.wake_at,
        third_party=ticket.third_party,
        resolution_code=ticket.resolution_code,
        follow_up_of=ticket.follow_up_of,
        links=[Link(ticket_id=other, kind=kind) for other, kind in sorted(ticket.links)],
        provisional=then.provisional,
        allowed_commands=allowed,
        messages=page,
    )
