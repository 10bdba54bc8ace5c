"""Reading one ticket: as it is, as it was, what was written, its whole life, its files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote
from uuid import UUID  # noqa: TC003 - FastAPI reads the annotation at run time

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime
from pydantic_core import to_json
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute, caller_of
from api.callers import caller
from api.command_routes import problem_response
from api.conditions import position_text
from api.problems import FORBIDDEN, MALFORMED_REQUEST, NOT_FOUND, Problem
from api.ticket_pages import Messages, Moment, TicketTold, files_of, may_read, messages_of, ticket_told
from api.view_pages import known_position, reading_desk
from commands.desk import NotFound
from commands.request import may_see
from domain.event import Role
from domain.ticket import Ticket
from replay.history import history as life_of
from replay.terminal import as_json
from storage import attachments
from storage.credentials import Credential

if TYPE_CHECKING:
    from commands.desk import Desk

router = APIRouter(route_class=GuardedRoute, tags=["tickets"])

Caller = Annotated[Credential, Depends(caller_of)]
TICKET: Final = "ticket"
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


@router.get(
    "/tickets/{ticket}",
    operation_id="ticket.read",
    summary="Read a ticket, now or as it was",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": TicketTold}},
)
async def read_ticket(
    *,
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
    desk = await reading_desk(request, credential)
    if len([moment for moment in (as_of, as_of_version, as_of_position) if moment is not None]) > 1:
        raise Problem(MALFORMED_REQUEST, "Give as_of, as_of_version or as_of_position, not several.")
    log = desk.workspace.log
    position = None if as_of_position is None else await known_position(request, desk, as_of_position)
    moment = Moment(as_of_version, as_of, position)
    if moment.past and credential.role == Role.CUSTOMER:
        detail = "Customers read tickets as they are now."
        raise Problem(FORBIDDEN, detail, role=credential.role, command="ticket.read")
    stream = await visible_ticket(request, desk, ticket, credential)
    asking = caller(request, credential)
    told = await ticket_told(desk.workspace, stream, asking, moment, after=messages_after, limit=messages_limit)
    headers = {"ETag": f'"{told.version}"', "Log-Position": position_text(told.position, await log.epoch())}
    return Response(told.model_dump_json(), headers=headers, media_type="application/json")


@router.get(
    "/tickets/{ticket}/messages",
    operation_id="ticket.messages",
    summary="List a ticket's messages",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": Messages}},
)
async def read_messages(
    *,
    request: Request,
    ticket: str,
    credential: Caller,
    messages_after: MessagesAfter = 0,
    messages_limit: MessagesLimit = 50,
) -> Response:
    """Give a page of what was written; a customer does not see internal notes."""
    desk = await reading_desk(request, credential)
    stream = await visible_ticket(request, desk, ticket, credential)
    life = await life_of(desk.workspace, stream, kind="ticket")
    page = messages_of(life, Role(credential.role), after=messages_after, limit=messages_limit)
    return Response(page.model_dump_json(), media_type="application/json")


@router.get(
    "/tickets/{ticket}/history",
    operation_id="ticket.history",
    summary="Read a ticket's whole life",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"description": "Every event in order, from the log itself"}},
)
async def read_history(
    *,
    request: Request,
    ticket: str,
    credential: Caller,
    after: Annotated[int, Query(ge=0, le=10**15, description="Only entries of later versions.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Response:
    """Give each event with actor, times, reason and the fields it changed, old to new; `next_after` goes on.

    Where an event cannot be read, or is missing, `unreadable` says which and why, and the others are given.
    """
    desk = await reading_desk(request, credential)
    stream = await desk.resolve("ticket", ticket)
    life = await life_of(desk.workspace, stream, kind="ticket", marked=True)
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
    desk = await reading_desk(request, credential)
    stream = await visible_ticket(request, desk, ticket, credential)
    life = await life_of(desk.workspace, stream, kind="ticket", marked=True)
    role = Role(credential.role)
    named = {file.id for entry in life.entries if may_read(entry, role) for file in files_of(entry)}
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
    # Whom nothing is kept from may read on where the ticket as it is now cannot be told.
    if credential.role == Role.CUSTOMER and not may_see(caller(request, credential), await desk.load(Ticket, stream)):
        raise NotFound(TICKET, reference)
    return stream


def _disposition(name: str) -> str:
    plain = _UNSAFE_IN_NAME.sub("_", name.encode("ascii", "replace").decode())[:100] or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
