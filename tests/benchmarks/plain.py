"""The yardstick: the same desk built the plain way on the `eventsourcing` package and FastAPI."""

from __future__ import annotations

import hashlib
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ATTEMPTS = 20
"""How often a conflicting command is decided again before the caller is told."""
TOKENS_VARIABLE = "LEDGERDESK_BENCH_PLAIN_TOKENS"
"""Environment variable with `sha256:actor id:role` of each credential, separated by commas."""
READY_VARIABLE = "LEDGERDESK_BENCH_PLAIN_READY"
"""Environment variable with a directory in which each worker that serves leaves a file."""


class Refused(Exception):
    """The ticket's state forbids the command."""


class Ticket(Aggregate):
    """A ticket in the library's documented style: decorated command methods, one event class each."""

    @event("Opened")
    def __init__(
        self,
        *,
        subject: str,
        body: str,
        requester_id: UUID,
        channel: str,
        type: str,  # noqa: A002 - the word of the desk
        priority: str,
        category: str | None,
        tags: list[str],
        actor_id: UUID,
        role: str,
    ) -> None:
        self.subject = subject
        self.body = body
        self.requester_id = requester_id
        self.channel = channel
        self.type = type
        self.priority = priority
        self.category = category
        self.tags = tags
        self.opened_by = actor_id
        self.role = role
        self.status = "new"
        self.agent_id: UUID | None = None
        self.team_id: UUID | None = None
        self.level = 0
        self.replies = 0
        self.resolution_code: str | None = None

    def refuse_when_closed(self) -> None:
        """Raise Refused on a closed ticket."""
        if self.status == "closed":
            message = "the ticket is closed"
            raise Refused(message)

    def assign(self, *, agent_id: UUID | None, team_id: UUID | None, actor_id: UUID, role: str) -> None:
        """Give the ticket to an agent and a team; the same again changes nothing."""
        self.refuse_when_closed()
        if (agent_id, team_id) != (self.agent_id, self.team_id):
            self._assigned(
                agent_id=agent_id,
                team_id=team_id,
                previous_agent_id=self.agent_id,
                previous_team_id=self.team_id,
                actor_id=actor_id,
                role=role,
            )

    @event("Assigned")
    def _assigned(
        self,
        *,
        agent_id: UUID | None,
        team_id: UUID | None,
        previous_agent_id: UUID | None,  # noqa: ARG002 - kept in the event, for views
        previous_team_id: UUID | None,  # noqa: ARG002
        actor_id: UUID,  # noqa: ARG002
        role: str,  # noqa: ARG002
    ) -> None:
        self.agent_id, self.team_id = agent_id, team_id
        if self.status == "new":
            self.status = "open"

    def reply(self, *, text: str, actor_id: UUID, role: str) -> None:
        """Answer the customer."""
        self.refuse_when_closed()
        self._replied(text=text, first_reply=self.replies == 0, actor_id=actor_id, role=role)

    @event("Replied")
    def _replied(self, *, text: str, first_reply: bool, actor_id: UUID, role: str) -> None:  # noqa: ARG002
        self.replies += 1
        if self.status == "new":
            self.status = "open"

    def add_note(self, *, text: str, actor_id: UUID, role: str) -> None:
        """Write a note that the customer does not see."""
        self.refuse_when_closed()
        self._note_added(text=text, actor_id=actor_id, role=role)

    @event("NoteAdded")
    def _note_added(self, *, text: str, actor_id: UUID, role: str) -> None:
        """Change nothing but the version."""

    def tag(self, *, tags: list[str], actor_id: UUID, role: str) -> None:
        """Put tags on; those that are there already change nothing."""
        self._set_tags(sorted({*self.tags, *tags}), actor_id, role)

    def untag(self, *, tags: list[str], actor_id: UUID, role: str) -> None:
        """Take tags off; those that are not there change nothing."""
        self._set_tags(sorted({*self.tags} - {*tags}), actor_id, role)

    def _set_tags(self, tags: list[str], actor_id: UUID, role: str) -> None:
        self.refuse_when_closed()
        if tags != sorted(self.tags):
            self._tags_changed(tags=tags, actor_id=actor_id, role=role)

    @event("TagsChanged")
    def _tags_changed(self, *, tags: list[str], actor_id: UUID, role: str) -> None:  # noqa: ARG002
        self.tags = tags

    def escalate(self, *, level: int, team_id: UUID | None, reason: str, actor_id: UUID, role: str) -> None:
        """Raise the ticket to a higher level."""
        self.refuse_when_closed()
        if level <= self.level:
            message = f"the ticket is at level {self.level} already"
            raise Refused(message)
        self._escalated(
            level=level,
            previous_level=self.level,
            team_id=team_id,
            previous_team_id=self.team_id,
            reason=reason,
            actor_id=actor_id,
            role=role,
        )

    @event("Escalated")
    def _escalated(
        self,
        *,
        level: int,
        previous_level: int,  # noqa: ARG002 - kept in the event, for views
        team_id: UUID | None,
        previous_team_id: UUID | None,  # noqa: ARG002
        reason: str,  # noqa: ARG002
        actor_id: UUID,  # noqa: ARG002
        role: str,  # noqa: ARG002
    ) -> None:
        self.level = level
        if team_id is not None and team_id != self.team_id:
            self.team_id, self.agent_id = team_id, None

    def solve(self, *, resolution_code: str, actor_id: UUID, role: str) -> None:
        """Give the ticket its resolution."""
        self.refuse_when_closed()
        self._solved(
            resolution_code=resolution_code, status="solved", previous_status=self.status, actor_id=actor_id, role=role
        )

    @event("Solved")
    def _solved(
        self,
        *,
        resolution_code: str,
        status: str,
        previous_status: str,  # noqa: ARG002 - kept in the event, for views
        actor_id: UUID,  # noqa: ARG002
        role: str,  # noqa: ARG002
    ) -> None:
        self.status, self.resolution_code = status, resolution_code

    def close(self, *, actor_id: UUID, role: str) -> None:
        """End the ticket."""
        self.refuse_when_closed()
        self._closed(status="closed", previous_status=self.status, actor_id=actor_id, role=role)

    @event("Closed")
    def _closed(self, *, status: str, previous_status: str, actor_id: UUID, role: str) -> None:  # noqa: ARG002
        self.status = status


class Desk(Application[UUID]):
    """The library's application: a repository of tickets and a notification log."""


class Opening(BaseModel):
    """A ticket to open."""

    model_config = ConfigDict(extra="forbid")

    subject: Annotated[str, Field(max_length=300)]
    body: Annotated[str, Field(max_length=65_536)]
    requester_id: UUID
    channel: str
    type: Literal["question", "incident", "problem", "task"]
    priority: Literal["low", "normal", "high", "urgent"]
    category: str | None = None
    tags: list[str] = []


class Assignment(BaseModel):
    """Whom to give the ticket to."""

    model_config = ConfigDict(extra="forbid")

    agent_id: UUID | None = None
    team_id: UUID | None = None


class Reply(BaseModel):
    """An answer to the customer."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(max_length=65_536)]


class Tags(BaseModel):
    """Tags to put on or to take off."""

    model_config = ConfigDict(extra="forbid")

    tags: list[str]


class Escalation(BaseModel):
    """A level to raise the ticket to, and why."""

    model_config = ConfigDict(extra="forbid")

    level: Annotated[int, Field(ge=1, le=3)]
    team_id: UUID | None = None
    reason: str


class Solution(BaseModel):
    """How the ticket was resolved."""

    model_config = ConfigDict(extra="forbid")

    resolution_code: str


class Actor(BaseModel):
    """Who sent the command."""

    actor_id: UUID
    role: str


bearer = HTTPBearer()
routes = APIRouter()


async def caller(request: Request, credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> Actor:
    """Who holds the credential. Alone asynchronous among the routes, which favours this side."""
    actors: dict[str, Actor] = request.app.state.actors
    actor = actors.get(hashlib.sha256(credentials.credentials.encode()).hexdigest())
    if actor is None:
        raise HTTPException(401)
    return actor


By = Annotated[Actor, Depends(caller)]


def carry_out(request: Request, ticket_id: UUID, decide: Callable[[Ticket], None]) -> JSONResponse:
    """Load, decide, save; again when another command came between."""
    desk: Desk = request.app.state.desk
    for _ in range(ATTEMPTS):
        ticket: Ticket = desk.repository.get(ticket_id)
        decide(ticket)
        try:
            recordings = desk.save(ticket)
        except IntegrityError:
            continue
        return answer(desk, 200, ticket, recordings)
    raise HTTPException(409)


def answer(desk: Desk, status: int, ticket: Ticket, recordings: list[Any]) -> JSONResponse:
    """Tell what a command came to: version and position."""
    position = recordings[-1].notification.id if recordings else desk.recorder.max_notification_id()
    return JSONResponse(
        {"id": str(ticket.id), "version": ticket.version, "position": position, "changed": bool(recordings)},
        status,
        {"ETag": f'"{ticket.version}"', "Log-Position": str(position)},
    )


async def refused(_request: Request, refusal: Exception) -> JSONResponse:
    """Answer a refusal of the ticket."""
    return JSONResponse({"detail": str(refusal)}, 409)


async def not_found(_request: Request, _error: Exception) -> JSONResponse:
    """Answer a command on a ticket that does not exist."""
    return JSONResponse({"detail": "no such ticket"}, 404)


@routes.post("/tickets", status_code=201)
def open_ticket(request: Request, command: Opening, by: By) -> JSONResponse:
    """Open a ticket."""
    ticket = Ticket(**command.model_dump(), actor_id=by.actor_id, role=by.role)
    desk: Desk = request.app.state.desk
    return answer(desk, 201, ticket, desk.save(ticket))


@routes.post("/tickets/{ticket_id}/assign")
def assign(request: Request, ticket_id: UUID, command: Assignment, by: By) -> JSONResponse:
    """Give a ticket to an agent and a team."""
    return carry_out(request, ticket_id, lambda ticket: ticket.assign(**command.model_dump(), **by.model_dump()))


@routes.post("/tickets/{ticket_id}/reply")
def reply(request: Request, ticket_id: UUID, command: Reply, by: By) -> JSONResponse:
    """Answer the customer."""
    return carry_out(request, ticket_id, lambda ticket: ticket.reply(**command.model_dump(), **by.model_dump()))


@routes.post("/tickets/{ticket_id}/add-note")
def add_note(request: Request, ticket_id: UUID, command: Reply, by: By) -> JSONResponse:
    """Write a note."""
    return carry_out(request, ticket_id, lambda ticket: ticket.add_note(**command.model_dump(), **by.model_dump()))


@routes.post("/tickets/{ticket_id}/tag")
def tag(request: Request, ticket_id: UUID, command: Tags, by: By) -> JSONResponse:
    """Put tags on."""
    return carry_out(request, ticket_id, lambda ticket: ticket.tag(**command.model_dump(), **by.model_dump()))


@routes.post("/tickets/{ticket_id}/untag")
def untag(request: Request, ticket_id: UUID, command: Tags, by: By) -> JSONResponse:
    """Take tags off."""
    return carry_out(request, ticket_id, lambda ticket: ticket.untag(**command.model_dump(), **by.model_dump()))


@routes.post("/tickets/{ticket_id}/escalate")
def escalate(request: Request, ticket_id: UUID, command: Escalation, by: By) -> JSONResponse:
    """Raise a ticket to a higher level."""
    return carry_out(request, ticket_id, lambda ticket: ticket.escalate(**command.model_dump(), **by.model_dump()))


@routes.post("/tickets/{ticket_id}/solve")
def solve(request: Request, ticket_id: UUID, command: Solution, by: By) -> JSONResponse:
    """Give a ticket its resolution."""
    return carry_out(request, ticket_id, lambda ticket: ticket.solve(**command.model_dump(), **by.model_dump()))


@routes.post("/tickets/{ticket_id}/close")
def close(request: Request, ticket_id: UUID, by: By) -> JSONResponse:
    """End a ticket."""
    return carry_out(request, ticket_id, lambda ticket: ticket.close(**by.model_dump()))


@asynccontextmanager
async def serving(_service: FastAPI) -> AsyncIterator[None]:
    """Tell whoever started this worker that it is up."""
    Path(os.environ[READY_VARIABLE], str(os.getpid())).touch()  # noqa: ASYNC240 - once, before serving
    yield


def create() -> FastAPI:
    """Build the service; its database and credentials come from the environment (`POSTGRES_*`, TOKENS_VARIABLE).

    Routes are plain functions in the framework's thread pool, as the library's documentation shows.
    """
    service = FastAPI(exception_handlers={Refused: refused, AggregateNotFoundError: not_found}, lifespan=serving)
    service.include_router(routes)
    service.state.desk = Desk()
    service.state.actors = {}
    for entry in os.environ[TOKENS_VARIABLE].split(","):
        digest, actor_id, role = entry.split(":")
        service.state.actors[digest] = Actor(actor_id=UUID(actor_id), role=role)
    return service
