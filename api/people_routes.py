"""Finding and reading customers, agents and teams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute
from api.callers import caller
from api.command_routes import problem_response
from api.conditions import position_text
from api.problems import MALFORMED_REQUEST, Problem
from api.ticket_routes import READING_PROBLEMS, Caller
from api.view_pages import After, CursorText, Limit, Line, listed, reading_desk, wait_if_asked
from commands.customers import normal_contact
from commands.desk import NotFound
from commands.request import may_see
from domain.agent import Agent
from domain.customer import Customer
from domain.customer_events import Tier  # noqa: TC001 - FastAPI reads the annotation at run time
from domain.team import Team
from projections import directory

if TYPE_CHECKING:
    from commands.desk import Desk, Kind
    from domain.event import Aggregate
    from projections.directory import DirectoryEntry

router = APIRouter(route_class=GuardedRoute)


class CustomerTold(BaseModel):
    """A customer."""

    id: UUID
    version: int
    name: str | None
    email: str | None
    phone: str | None
    language: str | None
    tier: str
    organisation: str | None
    foreign_id: str | None


class AgentTold(BaseModel):
    """Somebody who works tickets."""

    id: UUID
    version: int
    name: str | None
    email: str | None
    team_ids: list[UUID]
    active: bool
    foreign_id: str | None


class TeamTold(BaseModel):
    """A group of agents with a queue."""

    id: UUID
    version: int
    name: str | None
    active: bool
    foreign_id: str | None


class CustomerPage(BaseModel):
    """A page of customers, true of `position`."""

    items: list[CustomerTold]
    position: int
    next_cursor: str | None


class AgentPage(BaseModel):
    """A page of agents, true of `position`."""

    items: list[AgentTold]
    position: int
    next_cursor: str | None


class TeamPage(BaseModel):
    """A page of teams, true of `position`."""

    items: list[TeamTold]
    position: int
    next_cursor: str | None


_TOLD: Final[dict[str, type[BaseModel]]] = {"customer": CustomerTold, "agent": AgentTold, "team": TeamTold}
_KINDS: Final[dict[str, type[Aggregate]]] = {"customer": Customer, "agent": Agent, "team": Team}
LISTING_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    **READING_PROBLEMS,
    410: problem_response("The cursor is too old"),
    503: problem_response("The view has not reached the position of ?after="),
}


@router.get(
    "/customers",
    operation_id="customer.list",
    tags=["customers"],
    summary="List customers, or look one up",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": CustomerPage}},
)
async def list_customers(
    *,
    request: Request,
    credential: Caller,
    email: Annotated[str | None, Query(max_length=300, description="Who has this address.")] = None,
    phone: Annotated[str | None, Query(max_length=60, description="Who has this number, however written.")] = None,
    foreign_id: Annotated[str | None, Query(max_length=250, description="source:identifier.")] = None,
    tier: Tier | None = None,
    organisation: Line = None,
    limit: Limit = 50,
    cursor: CursorText = None,
    after: After = None,
) -> Response:
    """List customers as they came. `email`, `phone` and `foreign_id` find at most one, at once and from the log."""
    desk = await reading_desk(request, credential)
    ways = {"email": email, "phone": phone, "foreign_id": foreign_id}
    given = {name: value for name, value in ways.items() if value is not None}
    if len(given) > 1:
        raise Problem(MALFORMED_REQUEST, "Look up by email, phone or foreign_id, not by several.")
    if given:
        (way, value) = next(iter(given.items()))
        return await _look_up(desk, way, value)
    who = directory.DirectoryFilter(kind="customer", tier=tier, organisation=organisation)
    return await _listed(request, desk, who, limit, cursor, after)


async def _look_up(desk: Desk, way: str, value: str) -> Response:
    stream: UUID | None
    if way == "foreign_id":
        stream = await desk.resolve("customer", value) if ":" in value and "\0" not in value else None
    else:
        try:
            normal = normal_contact(way, value)
        except ValueError:
            stream = None
        else:
            stream = await desk.holder(way, normal)
    items = []
    if stream is not None:
        try:
            items.append(_aggregate_told("customer", await desk.load(Customer, stream)))
        except NotFound:
            items = []
    head = await desk.workspace.log.head()
    told = {"items": items, "position": head.position, "next_cursor": None}
    return Response(
        to_json(told),
        headers={"Log-Position": position_text(head.position, head.epoch)},
        media_type="application/json",
    )


@router.get(
    "/customers/{customer}",
    operation_id="customer.read",
    tags=["customers"],
    summary="Read a customer",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": CustomerTold}},
)
async def read_customer(request: Request, customer: str, credential: Caller) -> Response:
    """Give a customer, by id or foreign id; a customer reads oneself only."""
    return await _read(request, "customer", customer, credential)


@router.get(
    "/agents",
    operation_id="agent.list",
    tags=["agents"],
    summary="List agents",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": AgentPage}},
)
async def list_agents(
    *,
    request: Request,
    credential: Caller,
    team: UUID | None = None,
    active: bool | None = None,
    limit: Limit = 50,
    cursor: CursorText = None,
    after: After = None,
) -> Response:
    """List agents as they came."""
    desk = await reading_desk(request, credential)
    return await _listed(
        request, desk, directory.DirectoryFilter(kind="agent", team=team, active=active), limit, cursor, after
    )


@router.get(
    "/agents/{agent}",
    operation_id="agent.read",
    tags=["agents"],
    summary="Read an agent",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": AgentTold}},
)
async def read_agent(request: Request, agent: str, credential: Caller) -> Response:
    """Give an agent, by id or foreign id."""
    return await _read(request, "agent", agent, credential)


@router.get(
    "/teams",
    operation_id="team.list",
    tags=["teams"],
    summary="List teams",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": TeamPage}},
)
async def list_teams(
    *,
    request: Request,
    credential: Caller,
    active: bool | None = None,
    limit: Limit = 50,
    cursor: CursorText = None,
    after: After = None,
) -> Response:
    """List teams as they came."""
    desk = await reading_desk(request, credential)
    return await _listed(request, desk, directory.DirectoryFilter(kind="team", active=active), limit, cursor, after)


@router.get(
    "/teams/{team}",
    operation_id="team.read",
    tags=["teams"],
    summary="Read a team",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": TeamTold}},
)
async def read_team(request: Request, team: str, credential: Caller) -> Response:
    """Give a team, by id or foreign id."""
    return await _read(request, "team", team, credential)


async def _listed(
    request: Request, desk: Desk, who: directory.DirectoryFilter, limit: int, cursor: str | None, after: str | None
) -> Response:
    await wait_if_asked(request, desk, directory.VIEW, after)
    found = await directory.list_entries(desk.workspace, who, limit=limit, cursor=cursor)
    return await listed(desk, found, _entry_told)


async def _read(request: Request, kind: Kind, reference: str, credential: Caller) -> Response:
    desk = await reading_desk(request, credential)
    aggregate = await desk.load(_KINDS[kind], await desk.resolve(kind, reference))
    if not may_see(caller(request, credential), aggregate):
        raise NotFound(kind, reference)
    headers = {"ETag": f'"{aggregate.version}"'}
    return Response(to_json(_aggregate_told(kind, aggregate)), headers=headers, media_type="application/json")


def _aggregate_told(kind: str, aggregate: Aggregate) -> dict[str, Any]:
    return _TOLD[kind].model_validate(aggregate, from_attributes=True).model_dump(mode="json")


def _entry_told(entry: DirectoryEntry) -> dict[str, Any]:
    return _TOLD[entry.kind].model_validate(entry, from_attributes=True).model_dump(mode="json")
