"""How far the rebuild of a view is and what it came to, to be asked for or followed as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel
from pydantic_core import to_json
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute
from api.command_routes import problem_response
from api.following import Followed, follow
from api.problems import NOT_FOUND, Problem
from api.ticket_routes import Caller  # noqa: TC001 - FastAPI reads the annotation at run time
from projections.registry import BY_NAME
from replay.builds import last_run

if TYPE_CHECKING:
    from commands.desk import Desk
    from projections.view import View
    from replay.builds import Run

router = APIRouter(route_class=GuardedRoute, tags=["views"])

ViewName = Annotated[str, Path(alias="name", max_length=100, description="As `GET /views` has it.")]


class RebuildTold(BaseModel):
    """The last rebuild of a view, or the one under way.

    `running` without a final phase (`done`, `failed`, `refused`) is false where it was cut off: `desk rebuild` goes on
    with it. `report` is there from the comparison on; its samples are as the tables have them, personal values sealed.
    """

    view: str
    version: int
    phase: Literal["reading", "indexing", "catching up", "comparing", "swapping", "done", "failed", "refused"]
    running: bool
    done: int
    total: int
    rate: float
    seconds_left: float | None
    started_at: AwareDatetime
    updated_at: AwareDatetime
    finished_at: AwareDatetime | None
    error: str | None
    report: dict[str, Any] | None


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    401: problem_response("No valid credential"),
    403: problem_response("The role may not read this"),
    404: problem_response("There is no such view, or it was never rebuilt"),
    503: problem_response("The database does not answer, or too many follow rebuilds already"),
}


@router.get(
    "/views/{name}/rebuild",
    operation_id="views.rebuild",
    summary="Tell how far a view's rebuild is, or what the last one came to",
    response_model=None,
    responses={**PROBLEMS, 200: {"model": RebuildTold}},
)
async def read_rebuild(request: Request, credential: Caller, name: ViewName) -> Response:
    """Phase, events done of how many, rate, seconds left, and the comparison of the new table with the old one."""
    run = await _run(await _desk(request, credential.workspace), _view(name))
    return Response(to_json(_told(run)), media_type="application/json")


@router.get(
    "/views/{name}/rebuild/events",
    operation_id="views.rebuild-events",
    summary="Follow a view's rebuild",
    response_model=None,
    responses={
        **PROBLEMS,
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "It has ended, as the `Last-Event-ID` sent along says already"},
    },
)
async def follow_rebuild(request: Request, credential: Caller, name: ViewName) -> Response:
    """Server-sent events: `progress` whenever something has changed, without the report, and at last one `end` with it.

    The stream ends then, and after an hour in any case. A client that comes again with the `Last-Event-ID` of the end
    is answered 204, upon which an EventSource stays away.
    """
    desk, view = await _desk(request, credential.workspace), _view(name)
    return await follow(request, Followed(look=lambda: _run(desk, view), told=_told, over=_over, name=_id))


def _told(run: Run) -> dict[str, Any]:
    return {**run._asdict(), "seconds_left": run.seconds_left}


def _over(run: Run) -> bool:
    """Tell whether nothing more will come of a run: it has ended, or was cut off."""
    return run.phase.final or not run.running


def _id(run: Run) -> str:
    return f"{run.view}-{run.started_at.timestamp():.6f}"


def _view(name: str) -> View:
    view = BY_NAME.get(name)
    if view is None:
        raise Problem(NOT_FOUND, f"There is no view {name!r}.")
    return view


async def _run(desk: Desk, view: View) -> Run:
    run = await last_run(desk.workspace, view)
    if run is None:
        raise Problem(NOT_FOUND, f"{view.name} version {view.version} was never rebuilt here.")
    return run


async def _desk(request: Request, workspace: str) -> Desk:
    desk: Desk = await request.app.state.desks.of(workspace)
    return desk
