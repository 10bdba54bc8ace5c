"""Reading one ticket: as it is, as it was, what was written, its whole life, its files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel
from pydantic_core import to_json
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute, caller_of
from api.callers import caller
from api.command_routes import problem_response
from api.conditions import parse_position, position_text
from api.problems import FORBIDDEN, MALFORMED_REQUEST, NOT_FOUND, Problem
from commands.execution import NotFound, allowed_commands, may_see
from domain.event import Role
from domain.ticket import Ticket
from replay.as_of import as_of as state_as_of
from replay.history import history as life_of
from replay.terminal import as_json
from storage import attachments
from storage.credentials import Credential

if TYPE_CHECKING:
    from commands.execution import Desk
    from replay.as_of import AsOf
    from replay.history import Entry, History

router = APIRouter(route_class=GuardedRoute, tags=["tickets"])

Caller = Annotated[Credential, Depends(caller_of)]
MOST_MESSAGES: Final = 200
AsOfVersion = Annotated[int | None, Query(ge=1, le=10**15, description="As of a version of the ticket.")]
AsOfInstant = Annotated[
    AwareDatetime | None, Query(alias="as_of", description="As the desk knew it at an instant, with its zone.")
]
AsOfPosition = Annotated[str | None, Query(max_length=100, description="As of a position of the log.")]
MessagesAfter = Annotated[int, Query(ge=0, le=10**15, description="Only messages of later versions: the next page.")]
MessagesLimit = Annotated[int, Query(ge=1, le=MOST_MESSAGES, description="Messages a page.")]
READING_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    401: problem_response("No valid credential"),
    403: problem_response("The role may not do this"),
    404: problem_response("No such thing"),
    422: problem_response("Values that are not valid"),
}
_UNSAFE_IN_NAME = re.compile(r"[^\w .()+=@-]")
_SHOWN_BY_BROWSERS: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain"})


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
    """A ticket as it stands at `version`."""

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


@router.get(
    "/tickets/{ticket}",
    operation_id="ticket.read",
    summary="Read a ticket, now or as it was",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": TicketTold}},
)
async def read_ticket(
    request: Request,
    ticket: str,
    credential: Caller,
    as_of: AsOfInstant = None,
    as_of_version: AsOfVersion = None,
    as_of_position: AsOfPosition = None,
    messages_after: MessagesAfter = 0,
    messages_limit: MessagesLimit = 50,
) -> Response:
    """Give the ticket, a page of its messages, and what the caller may do with it now.

    `as_of` goes by recorded time: what the desk knew then. `provisional` says that the moment is so recent that it
    may still gain events. For an earlier moment `allowed_commands` is empty.
    """
    desk: Desk = await request.app.state.desks.of(credential.workspace)
    moments = [moment for moment in (as_of, as_of_version, as_of_position) if moment is not None]
    if len(moments) > 1:
        raise Problem(MALFORMED_REQUEST, "Give as_of, as_of_version or as_of_position, not several.")
    if moments and credential.role == Role.CUSTOMER:
        detail = "Customers read tickets as they are now."
        raise Problem(FORBIDDEN, detail, role=credential.role, command="ticket.read")
    stream = await desk.resolve("ticket", ticket)
    now = await desk.load(Ticket, stream)
    asking = caller(request, credential)
    if not may_see(asking, now):
        raise NotFound("ticket", ticket)
    epoch = await desk.workspace.log.epoch()
    if moments:
        position = None if as_of_position is None else parse_position(as_of_position).checked(epoch)
        then = await state_as_of(
            desk.workspace, Ticket, stream, version=as_of_version, instant=as_of, position=position
        )
    else:
        then = await state_as_of(desk.workspace, Ticket, stream)
    life = await life_of(desk.workspace, stream, kind="ticket")
    allowed = [] if moments else allowed_commands(asking, then.aggregate)
    page = messages_of(life, then, credential, after=messages_after, limit=messages_limit)
    told = _told(life, then, allowed, page)
    headers = {"ETag": f'"{then.aggregate.version}"', "Log-Position": position_text(then.position, epoch)}
    return Response(told.model_dump_json(), headers=headers, media_type="application/json")


@router.get(
    "/tickets/{ticket}/messages",
    operation_id="ticket.messages",
    summary="List a ticket's messages",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": Messages}},
)
async def read_messages(
    request: Request,
    ticket: str,
    credential: Caller,
    messages_after: MessagesAfter = 0,
    messages_limit: MessagesLimit = 50,
) -> Response:
    """Give a page of what was written; a customer does not see internal notes."""
    desk: Desk = await request.app.state.desks.of(credential.workspace)
    stream = await visible_ticket(request, desk, ticket, credential)
    then = await state_as_of(desk.workspace, Ticket, stream)
    life = await life_of(desk.workspace, stream, kind="ticket")
    page = messages_of(life, then, credential, after=messages_after, limit=messages_limit)
    return Response(page.model_dump_json(), media_type="application/json")


@router.get(
    "/tickets/{ticket}/history",
    operation_id="ticket.history",
    summary="Read a ticket's whole life",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"description": "Every event in order, from the log itself"}},
)
async def read_history(
    request: Request,
    ticket: str,
    credential: Caller,
    after: Annotated[int, Query(ge=0, le=10**15, description="Only entries of later versions.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Response:
    """Give each event with actor, times, reason and the fields it changed, old to new; `next_after` goes on."""
    desk: Desk = await request.app.state.desks.of(credential.workspace)
    stream = await desk.resolve("ticket", ticket)
    life = await life_of(desk.workspace, stream, kind="ticket")
    told = as_json(life)
    entries = [entry for entry in told["entries"] if entry["version"] > after]
    told["entries"] = entries[:limit]
    told["next_after"] = told["entries"][-1]["version"] if len(entries) > limit else None
    headers = {
        "ETag": f'"{told["version"]}"',
        "Log-Position": position_text(life.position, await desk.workspace.log.epoch()),
    }
    return Response(to_json(told), headers=headers, media_type="application/json")


@router.get(
    "/tickets/{ticket}/attachments/{attachment}",
    operation_id="ticket.attachment",
    summary="Download a file that came with a message",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"description": "The bytes", "content": {"application/octet-stream": {}}}},
)
async def read_attachment(request: Request, ticket: str, attachment: UUID, credential: Caller) -> Response:
    """Give the bytes of a file that a message of this ticket names and that the caller may see."""
    desk: Desk = await request.app.state.desks.of(credential.workspace)
    stream = await visible_ticket(request, desk, ticket, credential)
    life = await life_of(desk.workspace, stream, kind="ticket")
    named = {file.id for entry in life.entries if _may_read(entry, credential) for file in _files(entry)}
    found = await attachments.read(desk.workspace, attachment) if attachment in named else None
    if found is None:
        raise Problem(NOT_FOUND, f"The ticket has no file {attachment}.")
    about, content = found
    shown = about.content_type if about.content_type in _SHOWN_BY_BROWSERS else "application/octet-stream"
    headers = {
        # A file that somebody sent in must never run as a page of this host.
        "Content-Disposition": _disposition(about.name),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "ETag": f'"{about.sha256.hex()}"',
    }
    return Response(content, headers=headers, media_type=shown)


async def visible_ticket(request: Request, desk: Desk, reference: str, credential: Credential) -> UUID:
    """Give the stream of a ticket that the caller may know of. Raises NotFound."""
    stream = await desk.resolve("ticket", reference)
    if not may_see(caller(request, credential), await desk.load(Ticket, stream)):
        raise NotFound("ticket", reference)
    return stream


def messages_of(life: History, then: AsOf[Ticket], credential: Credential, *, after: int, limit: int) -> Messages:
    """Give a page of the messages that a caller may read, as of a moment."""
    found = [
        entry
        for entry in life.entries
        if after < entry.version <= then.aggregate.version and _may_read(entry, credential)
    ]
    items = [_message(entry, credential) for entry in found[:limit]]
    return Messages(items=items, next_after=items[-1].version if len(found) > limit else None)


def _may_read(entry: Entry, credential: Credential) -> bool:
    if entry.message is None:
        return False
    return credential.role != Role.CUSTOMER or entry.message.direction != "internal"


def _files(entry: Entry) -> list[FileTold]:
    if entry.message is None:
        return []
    return [
        FileTold(id=file.id, name=file.name, content_type=file.content_type, size=file.size, sha256=file.sha256)
        for file in entry.message.files
    ]


def _message(entry: Entry, _credential: Credential) -> MessageTold:
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
        attachments=_files(entry),
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


def _disposition(name: str) -> str:
    plain = _UNSAFE_IN_NAME.sub("_", name.encode("ascii", "replace").decode())[:100] or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
