"""Whether this process lives, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute
from api.command_routes import problem_response
from api.problems import DATABASE_UNAVAILABLE, SOON, Problem
from projections.bookkeeping import absent_views, stopped_views
from projections.registry import VIEWS
from storage.migrations import pending

router = APIRouter(route_class=GuardedRoute, tags=["about"])


@router.get("/health/live", operation_id="health.live", summary="Tell whether the process lives")
async def live() -> Response:
    """Answer without touching anything else."""
    return Response(b'{"status":"live"}', media_type="application/json")


@router.get(
    "/health/ready",
    operation_id="health.ready",
    summary="Tell whether requests can be served",
    response_model=None,
    responses={503: problem_response("The database does not answer, or its schema is not up to date")},
)
async def ready(request: Request) -> Response:
    """Answer when the database does and its schema is up to date; views that cannot be read, or have stopped, are named.

    They do not make the process unready: all processes read the same views, and commands and all other views go on.
    """
    waiting = await pending(request.app.state.database)
    if waiting:
        raise Problem(DATABASE_UNAVAILABLE, "The schema is not up to date.", headers=SOON, pending=waiting)
    stopped = [
        {"view": view, "position": position, "failed_at": failed_at}
        for view, position, failed_at in await stopped_views(request.app.state.database, VIEWS)
    ]
    absent = await absent_views(request.app.state.database, VIEWS)
    content = {"status": "ready", "stopped_views": stopped, "absent_views": absent}
    return Response(to_json(content), media_type="application/json")
