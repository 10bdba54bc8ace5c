"""Reading the views: the queue, the SLA clocks, the audit trail; and how far each view and the log have come."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, get_args
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel
from pydantic_core import to_json
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute
from api.command_routes import Answer
from api.conditions import position_text
from api.people_routes import LISTING_PROBLEMS
from api.problems import MALFORMED_REQUEST, Problem
from api.queue_moments import AsOf, OccurredAsOf, moment_asked, moment_told
from api.repeated_routes import RepeatedRoute
from api.ticket_routes import Caller  # noqa: TC001 - FastAPI reads the annotation at run time
from api.view_pages import (
    After,
    CursorText,
    DueWithin,
    Limit,
    Line,
    LineText,
    known_position,
    listed,
    reading_desk,
    true_of,
    wait_if_asked,
)
from commands.desk import Kind
from domain.event import Channel  # noqa: TC001 - FastAPI reads the annotation at run time
from domain.priority import Priority
from domain.status import Status
from domain.ticket_events import TicketType
from projections import audit_trail, directory, ticket_queue
from projections.bookkeeping import view_status
from projections.consumer_register import consumer_skips, consumer_status
from projections.queue_pages import first_page
from projections.registry import VIEWS
from projections.skipping import skips
from replay.queue_as_of import count_tickets_at, list_tickets_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commands.desk import Desk
    from projections.bookkeeping import ViewStatus
    from projections.consumer_register import ConsumerStatus
    from projections.listing import Counts, Listing
    from projections.queue_pages import Written
    from replay.queue_as_of import CountsThen
    from storage.credentials import Credential
    from storage.database import Workspace

router = APIRouter(route_class=GuardedRoute, tags=["views"])
repeated = APIRouter(route_class=RepeatedRoute, tags=["views"])
"""Routes that screens ask again and again."""

Teams = Annotated[list[UUID] | None, Query(alias="team", max_length=50, description="Of any of these teams.")]
Agents = Annotated[UUID | Literal["unassigned", "me"] | None, Query(description="Of an agent, of nobody, or yours.")]
Statuses = Annotated[list[Status] | None, Query(alias="status", max_length=6)]
Priorities = Annotated[list[Priority] | None, Query(alias="priority", max_length=4)]
Types = Annotated[list[TicketType] | None, Query(alias="type", max_length=4)]
Tags = Annotated[list[LineText] | None, Query(alias="tag", max_length=20, description="With all of these tags.")]
TICKET_REFERENCE: Final = "Of a ticket: its id, number or foreign id."
TicketReference = Annotated[str | None, Query(max_length=250, description=TICKET_REFERENCE)]


class QueueTold(BaseModel):
    """A ticket as the queue lists it."""

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
    opened_at: AwareDatetime
    updated_at: AwareDatetime
    solved_at: AwareDatetime | None
    wake_at: AwareDatetime | None
    due_at: AwareDatetime | None


class QueuePage(BaseModel):
    """A page of the queue, true of `position`; `names` gives people and teams that ids in it stand for."""

    items: list[QueueTold]
    names: dict[UUID, str]
    position: int
    next_cursor: str | None


class QueueThenPage(QueuePage):
    """A page of the queue as it was; `names` are those of today.

    Beside the position it is true of there is when that was recorded, the instant of the source's time where one was
    asked for, and whether asking for the same moment again may still name a later position.
    """

    recorded_at: AwareDatetime | None
    occurred_as_of: AwareDatetime | None
    provisional: bool


class QueueCounts(BaseModel):
    """Numbers of tickets by value, true of `position`; they add up to the list with the same filters."""

    by: str
    counts: dict[str, int]
    total: int
    position: int


class QueueThenCounts(QueueCounts):
    """Numbers of tickets as they were, with the moment as `QueueThenPage` has it."""

    recorded_at: AwareDatetime | None
    occurred_as_of: AwareDatetime | None
    provisional: bool


class AuditTold(BaseModel):
    """One change; an event that changed no field has one entry without a field."""

    position: int
    ordinal: int
    stream: UUID
    version: int
    kind: str
    topic: str
    occurred_at: AwareDatetime
    recorded_at: AwareDatetime
    actor_id: UUID
    role: str
    on_behalf_of: UUID | None
    channel: str
    client: str | None
    correlation_id: UUID | None
    field: str | None
    old: Any
    new: Any
    reason: str | None
    source_address: str | None


class AuditPage(BaseModel):
    """A page of the audit trail, true of `position`."""

    items: list[AuditTold]
    position: int
    next_cursor: str | None


class TicketsAsked(NamedTuple):
    """Which tickets somebody asked for; `yours` are those of whoever it was."""

    tickets: ticket_queue.QueueFilter
    yours: bool

    def of(self, credential: Credential) -> ticket_queue.QueueFilter:
        """Give the tickets that a caller means."""
        return replace(self.tickets, agent=credential.actor_id) if self.yours else self.tickets


async def queue_filter(
    *,
    teams: Teams = None,
    agent: Agents = None,
    statuses: Statuses = None,
    priorities: Priorities = None,
    types: Types = None,
    tags: Tags = None,
    customer: Annotated[UUID | None, Query(description="Requested by this customer.")] = None,
    channel: Channel | None = None,
    category: Line = None,
    due_before: AwareDatetime | None = None,
    due_within: DueWithin = None,
) -> TicketsAsked:
    """Give the tickets asked for."""
    tickets = ticket_queue.QueueFilter(
        teams=teams,
        agent=None if agent == "me" else agent,
        statuses=statuses,
        priorities=priorities,
        types=types,
        tags=tags,
        customer=customer,
        channel=channel,
        category=category,
        due_before=due_before,
        due_within=due_within,
    )
    return TicketsAsked(tickets, yours=agent == "me")


Tickets = Annotated[TicketsAsked, Depends(queue_filter)]


@repeated.get(
    "/queue",
    operation_id="queue.list",
    summary="List tickets as on an agent's screen",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": QueuePage | QueueThenPage}},
)
async def list_queue(
    *,
    request: Request,
    credential: Caller,
    tickets: Tickets,
    sort: Literal["updated", "due", "opened", "priority", "number"] = "updated",
    limit: Limit = 50,
    cursor: CursorText = None,
    after: After = None,
    as_of: AsOf = None,
    occurred_as_of: OccurredAsOf = None,
) -> Response:
    """List tickets in pages. A cursor pins the list to the position of its first page, so that nothing moves.

    `as_of` and `occurred_as_of` look back: the answer names the position that they stand for, and `provisional` says
    that the moment is so recent that it may still gain events. Personal values erased since show as erased.
    """
    desk = await reading_desk(request, credential)
    past, asked = await moment_asked(request, desk, as_of, occurred_as_of, cursor=cursor, after=after)
    if past:
        seconds = request.app.state.longest_wait
        then = await list_tickets_at(
            desk.workspace, asked, tickets.of(credential), sort=sort, limit=limit, cursor=cursor, wait=seconds
        )
        items, further, told = [item._asdict() for item in then.items], then.cursor, moment_told(then.moment)
    else:
        await wait_if_asked(request, desk, ticket_queue.VIEW, after)
        chosen = tickets.of(credential)
        now = datetime.now(UTC)
        if cursor is None:
            return await _written_out(desk, await first_page(desk.workspace, chosen, sort=sort, limit=limit, now=now))
        page = await ticket_queue.list_told(desk.workspace, chosen, sort=sort, limit=limit, cursor=cursor, now=now)
        items, further, told = page.items, page.cursor, {"position": page.position}
    content = {
        "items": items,
        "names": await _names_in(desk.workspace, items),
        **told,
        "next_cursor": further,
    }
    return await true_of(desk, told["position"], content)


async def _written_out(desk: Desk, page: Listing[Written]) -> Response:
    """Write a page as `QueuePage` has it, around the tickets that are written already."""
    people: dict[int, UUID] = {}
    for item in page.items:
        people.update(item.people)
    content = b'{"items":[%b],"names":%b,"position":%d,"next_cursor":%b}' % (
        b",".join([item.text for item in page.items]),
        await directory.names_written(desk.workspace, people),
        page.position,
        to_json(page.cursor),
    )
    headers = [
        (b"log-position", position_text(page.position, await desk.workspace.log.epoch()).encode()),
        (b"content-length", b"%d" % len(content)),
        (b"content-type", b"application/json"),
    ]
    return Answer(200, headers, content)


async def _names_in(workspace: Workspace, items: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Give the names of people and teams whose ids are in items of the queue."""
    ids = {one.int: one for item in items for one in (item["agent_id"], item["team_id"], item["requester_id"]) if one}
    return {str(one): name for one, name in (await directory.names(workspace, ids.values())).items()}


@repeated.get(
    "/queue/counts",
    operation_id="queue.counts",
    summary="Count tickets",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": QueueCounts | QueueThenCounts}},
)
async def count_queue(
    *,
    request: Request,
    credential: Caller,
    tickets: Tickets,
    by: Literal["status", "team", "agent", "priority"] = "status",
    at: Annotated[str | None, Query(max_length=100, description="As of a list's position.")] = None,
    after: After = None,
    as_of: AsOf = None,
    occurred_as_of: OccurredAsOf = None,
) -> Response:
    """Count the tickets that the list with the same filters has; the key of those without a value is empty."""
    desk = await reading_desk(request, credential)
    _, asked = await moment_asked(request, desk, as_of, occurred_as_of, after=after, at=at)
    found: Counts | CountsThen
    if asked is not None:
        found = await count_tickets_at(
            desk.workspace, asked, tickets.of(credential), by=by, wait=request.app.state.longest_wait
        )
        told = moment_told(found.moment)
    else:
        await wait_if_asked(request, desk, ticket_queue.VIEW, after)
        position = None if at is None else await known_position(request, desk, at)
        found = await ticket_queue.count_tickets(
            desk.workspace, tickets.of(credential), by=by, at=position, now=datetime.now(UTC)
        )
        told = {"position": found.position}
    counts = {"" if value is None else str(value): number for value, number in found.counts.items()}
    content = {"by": by, "counts": counts, "total": sum(counts.values()), **told}
    return await true_of(desk, told["position"], content)


@router.get(
    "/audit-trail",
    operation_id="audit.list",
    summary="List who changed what",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": AuditPage}},
)
async def list_audit_trail(
    *,
    request: Request,
    credential: Caller,
    ticket: TicketReference = None,
    stream: Annotated[UUID | None, Query(description="Of a ticket, customer, agent or team, by id.")] = None,
    actor: Annotated[UUID | None, Query(description="By somebody.")] = None,
    kind: Annotated[list[Kind] | None, Query(max_length=len(get_args(Kind)))] = None,
    field: Annotated[list[LineText] | None, Query(max_length=20)] = None,
    occurred_from: AwareDatetime | None = None,
    occurred_before: AwareDatetime | None = None,
    recorded_from: AwareDatetime | None = None,
    recorded_before: AwareDatetime | None = None,
    sort: Literal["newest", "oldest"] = "newest",
    limit: Limit = 100,
    cursor: CursorText = None,
    after: After = None,
) -> Response:
    """List changes: when, who, in what role, through what, which field from what to what, and why."""
    desk = await reading_desk(request, credential)
    if ticket is not None and stream is not None:
        raise Problem(MALFORMED_REQUEST, "Give ticket or stream, not both.")
    await wait_if_asked(request, desk, audit_trail.VIEW, after)
    which = audit_trail.AuditFilter(
        stream=stream if ticket is None else await desk.resolve("ticket", ticket),
        actor=actor,
        kinds=kind,
        fields=field,
        occurred_from=occurred_from,
        occurred_before=occurred_before,
        recorded_from=recorded_from,
        recorded_before=recorded_before,
    )
    page = await audit_trail.list_changes(desk.workspace, which, sort=sort, limit=limit, cursor=cursor)
    return await listed(desk, page, lambda entry: entry._asdict())


@router.get("/views", operation_id="views.list", summary="Tell how far each view has come", response_model=None)
async def list_views(request: Request, credential: Caller) -> Response:
    """Name, version, position, lag and state of each view, what stopped it, and every event ever passed over.

    The same of consumers, to which events are handed on.
    """
    desk: Desk = await request.app.state.desks.of(credential.workspace)

    def told(status: ViewStatus | ConsumerStatus) -> dict[str, Any]:
        return status._asdict() | {"failure": None if status.failure is None else status.failure._asdict()}

    content = {
        "views": [told(status) for status in await view_status(desk.workspace, VIEWS)],
        "skips": [one._asdict() for one in await skips(desk.workspace)],
        "consumers": [told(status) for status in await consumer_status(desk.workspace)],
        "consumer_skips": [one._asdict() for one in await consumer_skips(desk.workspace)],
    }
    return Response(to_json(content), media_type="application/json")


@router.get("/log", operation_id="log.head", summary="Tell where the log ends", response_model=None)
async def read_log(request: Request, credential: Caller) -> Response:
    """Position, time and epoch of the log's end."""
    desk: Desk = await request.app.state.desks.of(credential.workspace)
    head = await desk.workspace.log.head()
    token = position_text(head.position, head.epoch)
    content = {"position": head.position, "recorded_at": head.recorded_at, "epoch": head.epoch, "token": token}
    return Response(to_json(content), headers={"Log-Position": token}, media_type="application/json")
