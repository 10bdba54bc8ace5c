"""Reading the example view."""

from __future__ import annotations

from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response  # noqa: TC002 - FastAPI reads the annotation at run time

from api.access import STAFF, view_router
from api.people_routes import LISTING_PROBLEMS
from api.ticket_routes import Caller  # noqa: TC001 - FastAPI reads the annotation at run time
from api.view_pages import After, CursorText, Limit, listed, reading_desk, wait_if_asked
from api.view_routes import Statuses  # noqa: TC001 - FastAPI reads the annotation at run time
from projections import example_view as view

router = view_router("view.example_view", roles=STAFF)


class ExampleViewEntry(BaseModel):
    """A ticket as the view has it."""

    ticket_id: UUID
    number: int
    status: str
    changed_at: AwareDatetime


class ExampleViewPage(BaseModel):
    """A page of tickets, true of `position`."""

    items: list[ExampleViewEntry]
    position: int
    next_cursor: str | None


@router.get(
    "/views/example_view/rows",
    operation_id="view.example_view",
    summary="List the example view",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": ExampleViewPage}},
)
async def list_entries(
    *,
    request: Request,
    credential: Caller,
    statuses: Statuses = None,
    limit: Limit = 50,
    cursor: CursorText = None,
    after: After = None,
) -> Response:
    """List tickets by number."""
    desk = await reading_desk(request, credential)
    await wait_if_asked(request, desk, view.VIEW, after)
    page = await view.list_entries(desk.workspace, statuses=statuses, limit=limit, cursor=cursor)
    return await listed(desk, page, lambda entry: entry._asdict())
