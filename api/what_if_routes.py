"""What-ifs over HTTP: asked for, followed while they are worked on, read as data or as a page, cancelled."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel
from pydantic_core import to_json
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import HTMLResponse, Response

from api.access import GuardedRoute
from api.bodies import json_body
from api.command_routes import problem_response
from api.following import Followed, follow
from api.problems import BUSY, NOT_FOUND, SOON, Problem
from api.ticket_routes import Caller  # noqa: TC001 - FastAPI reads the annotation at run time
from domain.what_if import sides
from replay import what_if_jobs
from replay.what_if import known_books
from replay.what_if_asked import Asked
from replay.what_if_jobs import Job, Phase, TooManyWaiting
from replay.what_if_page import page
from replay.what_if_report import Report

if TYPE_CHECKING:
    from storage.database import Workspace

router = APIRouter(route_class=GuardedRoute, tags=["service levels"])

PATH: Final = "/sla/what-if"
JobId = Annotated[UUID, Path(alias="id", description="As it was given when it was asked.")]


class WhatIfTold(BaseModel):
    """A what-if: what was asked, how many tickets are done of how many, and in the end its report.

    `phase` is waiting, running, done, failed (`error` says why) or cancelled. `running` is false in phase running where
    the process that was at it has ended: another goes on in a moment.
    """

    id: UUID
    asked: Asked
    asked_by: UUID
    asked_at: AwareDatetime
    phase: Phase
    running: bool
    done: int
    total: int
    seconds_left: float | None
    started_at: AwareDatetime | None
    updated_at: AwareDatetime
    finished_at: AwareDatetime | None
    error: str | None
    report: Report | None


class WhatIfsTold(BaseModel):
    """All what-ifs that are not forgotten yet, the last asked first, without their reports."""

    items: list[WhatIfTold]


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    401: problem_response("No valid credential"),
    403: problem_response("The role may not ask this"),
    404: problem_response("There is no such what-if, or none any more"),
}


@router.post(
    PATH,
    operation_id="what-if.ask",
    summary="Ask what would have become of tickets under other policies or calendars",
    status_code=202,
    response_model=None,
    responses={
        **{status: told for status, told in PROBLEMS.items() if status != 404},  # noqa: PLR2004 - nothing is looked for
        202: {"model": WhatIfTold, "description": "It is in line; `Location` is where it is told"},
        422: problem_response("Values that are not valid, or that nothing would come of"),
        503: problem_response("Too many wait already"),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Asked"}}},
        }
    },
)
async def ask(request: Request, credential: Caller) -> Response:
    """Nothing is changed by asking. The answer comes in time from a process that makes way for all others.

    `as_of`, unless given, is now, also where it is worked on later. What waits is asked after by everything below: a
    what-if whose process ended goes on only then.
    """
    workspace = await _workspace(request, credential.workspace)
    asked = Asked.model_validate_json(await json_body(request))
    asked = asked.model_copy(update={"as_of": asked.as_of_or(datetime.now(UTC))})
    sides(asked.axis, await known_books(workspace), asked.given)
    try:
        job = await what_if_jobs.submit(workspace, asked, credential.actor_id)
    except TooManyWaiting as error:
        raise Problem(BUSY, f"{error}.", headers=SOON) from None
    request.app.state.what_ifs.look(workspace)
    told = _told(await _job(workspace, job))
    return Response(to_json(told), 202, {"Location": f"{PATH}/{job}"}, "application/json")


@router.get(
    PATH, operation_id="what-if.list", summary="List what-ifs", response_model=None,
    responses={**PROBLEMS, 200: {"model": WhatIfsTold}},
)  # fmt: skip
async def list_what_ifs(request: Request, credential: Caller) -> Response:
    """Give those of the last week, twenty and what waits at most, without their reports."""
    workspace = await _workspace(request, credential.workspace)
    found = await what_if_jobs.listed(workspace)
    if any(not job.phase.final for job in found):
        request.app.state.what_ifs.look(workspace)
    return Response(to_json({"items": [_told(job) for job in found]}), media_type="application/json")


@router.get(
    PATH + "/{id}",
    operation_id="what-if.read",
    summary="Tell how far a what-if is, or what came of it",
    response_model=None,
    responses={**PROBLEMS, 200: {"model": WhatIfTold}},
)
async def read(request: Request, credential: Caller, job: JobId) -> Response:
    """Give phase, tickets done of how many, seconds left, and in the end the report with both sides of every table."""
    found = await _looked_after(request, await _workspace(request, credential.workspace), job)
    return Response(to_json(_told(found)), media_type="application/json")


@router.get(
    PATH + "/{id}/page",
    operation_id="what-if.page",
    summary="Read what came of a what-if as a page with plots",
    response_class=HTMLResponse,
    responses={**PROBLEMS, 200: {"content": {"text/html": {}}}},
)
async def read_page(request: Request, credential: Caller, job: JobId) -> HTMLResponse:
    """Give the page that `desk sla what-if --html` writes; there is none before it is done."""
    found = await _looked_after(request, await _workspace(request, credential.workspace), job)
    if found.report is None:
        raise Problem(NOT_FOUND, f"What-if {job} is {found.phase}: there is no report.")
    content = page(Report.model_validate(found.report))
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


@router.get(
    PATH + "/{id}/events",
    operation_id="what-if.events",
    summary="Follow a what-if",
    response_model=None,
    responses={
        **PROBLEMS,
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "It has ended, as the `Last-Event-ID` sent along says already"},
        503: problem_response("Too many follow something already"),
    },
)
async def follow_what_if(request: Request, credential: Caller, job: JobId) -> Response:
    """Server-sent events: `progress` whenever something has changed, without the report, and at last one `end` with it.

    The stream ends then, and after an hour in any case. A client that comes again with the `Last-Event-ID` of the end
    is answered 204, upon which an EventSource stays away.
    """
    workspace = await _workspace(request, credential.workspace)

    async def look() -> Job:
        return await _looked_after(request, workspace, job)

    return await follow(
        request,
        Followed(
            look=look,
            told=_told,
            over=lambda found: found.phase.final,
            name=lambda found: f"{found.id}-{found.phase}",
        ),
    )


@router.delete(
    PATH + "/{id}",
    operation_id="what-if.cancel",
    summary="Cancel a what-if, or forget one that has ended",
    status_code=204,
    response_class=Response,
    responses={**PROBLEMS, 204: {"description": "It is cancelled, or forgotten"}},
)
async def cancel(request: Request, credential: Caller, job: JobId) -> Response:
    """End one that waits or is worked on: it is told as cancelled from now on, and its processes end within a second."""
    workspace = await _workspace(request, credential.workspace)
    if not await what_if_jobs.cancel(workspace, job):
        raise _missing(job)
    request.app.state.what_ifs.look(workspace)
    return Response(status_code=204)


async def _looked_after(request: Request, workspace: Workspace, job: UUID) -> Job:
    """Give a job, and have it worked on where nobody is at it."""
    found = await _job(workspace, job)
    if not found.phase.final and not found.running:
        request.app.state.what_ifs.look(workspace)
    return found


async def _job(workspace: Workspace, job: UUID) -> Job:
    found = await what_if_jobs.find(workspace, job)
    if found is None:
        raise _missing(job)
    return found


def _missing(job: UUID) -> Problem:
    return Problem(NOT_FOUND, f"There is no what-if {job}, or none any more.")


def _told(job: Job) -> dict[str, Any]:
    left = None
    if job.running and job.done and job.started_at is not None:
        left = (job.total - job.done) * (job.updated_at - job.started_at).total_seconds() / job.done
    return {**job._asdict(), "seconds_left": left}


async def _workspace(request: Request, name: str) -> Workspace:
    workspace: Workspace = (await request.app.state.desks.of(name)).workspace
    return workspace
