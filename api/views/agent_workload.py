"""Reading the workload: how many open tickets each agent and team has, and since when the oldest waits."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response  # noqa: TC002 - FastAPI reads the annotation at run time

from api.access import STAFF, view_router
from api.people_routes import LISTING_PROBLEMS
from api.ticket_routes import Caller  # noqa: TC001 - FastAPI reads the annotation at run time
from api.view_pages import After, reading_desk, true_of, wait_if_asked
from api.view_routes import Agents, Priorities, Teams  # noqa: TC001 - FastAPI reads the annotation at run time
from domain.priority import Priority
from projections import agent_workload, directory
from projections.agent_workload import Grouping, WorkloadFilter

router = view_router("workload.read", roles=STAFF)

OpenStatus = Literal["new", "open", "pending", "on_hold"]


class LoadTold(BaseModel):
    """The open tickets of one agent, team, priority or status; only what `by` names is there."""

    agent_id: UUID | None = None
    team_id: UUID | None = None
    priority: Priority | None = None
    status: OpenStatus | None = None
    tickets: int
    oldest_opened_at: AwareDatetime


class WorkloadTold(BaseModel):
    """The open tickets, most first, true of `position`; `names` gives agents and teams that ids stand for."""

    by: list[Grouping]
    items: list[LoadTold]
    tickets: int
    oldest_opened_at: AwareDatetime | None
    names: dict[UUID, str]
    position: int


BY_AGENT: Final[tuple[Grouping, ...]] = ("agent",)
_FIELD_OF: Final = {"agent": "agent_id", "team": "team_id", "priority": "priority", "status": "status"}


@router.get(
    "/workload",
    operation_id="workload.read",
    summary="Count open tickets by agent, team, priority and status",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": WorkloadTold}},
)
async def read_workload(
    *,
    request: Request,
    credential: Caller,
    by: Annotated[list[Grouping] | None, Query(max_length=4, description="By each of these; else by agent.")] = None,
    teams: Teams = None,
    agent: Agents = None,
    priorities: Priorities = None,
    statuses: Annotated[list[OpenStatus] | None, Query(alias="status", max_length=4)] = None,
    after: After = None,
) -> Response:
    """Tell how many tickets that are neither solved nor closed each has, and since when the oldest of them is open.

    The numbers are those of `/queue` with the same filters; `agent_id` is null for tickets that nobody has.
    """
    desk = await reading_desk(request, credential)
    await wait_if_asked(request, desk, agent_workload.VIEW, after)
    grouped = list(dict.fromkeys(by or BY_AGENT))
    which = WorkloadFilter(
        teams=teams, agent=credential.actor_id if agent == "me" else agent, priorities=priorities, statuses=statuses
    )
    found = await agent_workload.workload(desk.workspace, which, by=grouped)
    fields = [_FIELD_OF[one] for one in grouped]
    ids = {value for load in found.loads for value in load.key if isinstance(value, UUID)}
    content = {
        "by": grouped,
        "items": [
            dict(zip(fields, load.key, strict=True))
            | {"tickets": load.tickets, "oldest_opened_at": load.oldest_opened_at}
            for load in found.loads
        ],
        "tickets": sum(load.tickets for load in found.loads),
        "oldest_opened_at": min((load.oldest_opened_at for load in found.loads), default=None),
        "names": {str(one): name for one, name in (await directory.names(desk.workspace, ids)).items()},
        "position": found.position,
    }
    return await true_of(desk, found.position, content)
