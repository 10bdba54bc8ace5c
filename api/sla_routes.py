"""Reading the SLA clocks: what was promised, until when, and how it stands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response  # noqa: TC002 - FastAPI reads the annotation at run time

from api.access import GuardedRoute
from api.clocks_told import ClockTold, TicketClocks, clock_told, ticket_told
from api.people_routes import LISTING_PROBLEMS
from api.ticket_routes import Caller  # noqa: TC001 - FastAPI reads the annotation at run time
from api.view_pages import After, CursorText, DueWithin, Limit, known_position, reading_desk, true_of, wait_if_asked
from domain.priority import Priority
from domain.sla_clocks import ClockState
from domain.sla_terms import Metric
from projections import sla_clock
from replay.explained_clocks import explained

router = APIRouter(route_class=GuardedRoute, tags=["views"])

States = Annotated[list[ClockState] | None, Query(max_length=5)]
Metrics = Annotated[list[Metric] | None, Query(max_length=10)]
Teams = Annotated[list[UUID] | None, Query(max_length=50)]
Priorities = Annotated[list[Priority] | None, Query(max_length=4)]


class ClockPage(BaseModel):
    """A page of clocks, true of `position`, with their states as of `as_of`."""

    items: list[ClockTold]
    as_of: AwareDatetime
    position: int
    next_cursor: str | None


class ClockCounts(BaseModel):
    """Numbers of clocks by state, true of `position`; they add up to the list with the same filters."""

    counts: dict[str, int]
    total: int
    as_of: AwareDatetime
    position: int


async def clock_filter(
    *,
    state: States = None,
    metric: Metrics = None,
    due_before: AwareDatetime | None = None,
    due_within: DueWithin = None,
    team: Teams = None,
    agent: UUID | None = None,
    priority: Priorities = None,
) -> sla_clock.ClockFilter:
    """Give the clocks asked for."""
    return sla_clock.ClockFilter(
        states=state,
        metrics=metric,
        due_before=due_before,
        due_within=due_within,
        teams=team,
        agent=agent,
        priorities=priority,
    )


Clocks = Annotated[sla_clock.ClockFilter, Depends(clock_filter)]


@router.get(
    "/sla-clocks",
    operation_id="sla.list",
    summary="List SLA clocks",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": ClockPage}},
)
async def list_clocks(
    *,
    request: Request,
    credential: Caller,
    clocks: Clocks,
    sort: Literal["due"] = "due",
    limit: Limit = 50,
    cursor: CursorText = None,
    after: After = None,
) -> Response:
    """List promises by when they are due. A cursor keeps position and instant of its first page."""
    desk = await reading_desk(request, credential)
    await wait_if_asked(request, desk, sla_clock.VIEW, after)
    now = datetime.now(UTC)
    page = await sla_clock.list_clocks(desk.workspace, clocks, now=now, sort=sort, limit=limit, cursor=cursor)
    content = {
        "items": [clock_told(item) for item in page.items],
        "as_of": page.now or now,
        "position": page.position,
        "next_cursor": page.cursor,
    }
    return await true_of(desk, page.position, content)


@router.get(
    "/sla-clocks/counts",
    operation_id="sla.counts",
    summary="Count SLA clocks by state",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": ClockCounts}},
)
async def count_clocks(
    *,
    request: Request,
    credential: Caller,
    clocks: Clocks,
    at: Annotated[str | None, Query(max_length=100, description="As of a list's position.")] = None,
    as_of: Annotated[AwareDatetime | None, Query(description="States as of an instant; a list's `as_of`.")] = None,
    after: After = None,
) -> Response:
    """Count the clocks that the list with the same filters has."""
    desk = await reading_desk(request, credential)
    await wait_if_asked(request, desk, sla_clock.VIEW, after)
    position = None if at is None else await known_position(request, desk, at)
    now = as_of or datetime.now(UTC)
    found = await sla_clock.count_clocks(desk.workspace, clocks, now=now, at=position)
    counts = {str(state): number for state, number in found.counts.items()}
    content = {"counts": counts, "total": sum(counts.values()), "as_of": now, "position": found.position}
    return await true_of(desk, found.position, content)


@router.get(
    "/tickets/{ticket}/sla",
    operation_id="ticket.sla",
    summary="Read a ticket's SLA clocks, line by line",
    tags=["tickets"],
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": TicketClocks}},
)
async def read_clocks(*, request: Request, ticket: str, credential: Caller, after: After = None) -> Response:
    """Give every clock that a ticket has had, how it stands now, and line by line why."""
    desk = await reading_desk(request, credential)
    stream = await desk.resolve("ticket", ticket)
    await wait_if_asked(request, desk, sla_clock.VIEW, after)
    now = datetime.now(UTC)
    found = await explained(desk.workspace, stream, now=now)
    return await true_of(desk, found.position, ticket_told(found, now))
