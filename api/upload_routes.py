"""Handing in files that a later command names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID, uuid4

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute
from api.bodies import attachment_body, content_type
from api.command_routes import problem_response
from api.problems import MALFORMED_REQUEST, Problem
from api.ticket_routes import READING_PROBLEMS, Caller
from domain.text import printable_line
from storage import attachments

if TYPE_CHECKING:
    from commands.desk import Desk

router = APIRouter(route_class=GuardedRoute, tags=["tickets"])

UNKNOWN_TYPE: Final = "application/octet-stream"
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}\Z")


class Uploaded(BaseModel):
    """A file as it was taken in; commands name it by `id`. `sha256` is lower-case hexadecimal."""

    id: UUID
    name: str
    content_type: str
    size: int
    sha256: str


@router.post(
    "/attachments",
    operation_id="attachment.upload",
    summary="Upload a file for a message",
    response_model=None,
    status_code=201,
    responses={
        **READING_PROBLEMS,
        201: {"model": Uploaded},
        413: problem_response("More than 25 MiB"),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(
    request: Request,
    credential: Caller,
    name: Annotated[str, Query(min_length=1, max_length=200), AfterValidator(printable_line)],
) -> Response:
    """Take the bytes of the body, of the type in Content-Type; a command then names the id in `attachments`."""
    media_type, _ = content_type(request)
    data = await attachment_body(request)
    if not data:
        raise Problem(MALFORMED_REQUEST, "The body is empty; it should be the bytes of the file.")
    desk: Desk = await request.app.state.desks.of(credential.workspace)
    stored = await attachments.put(
        desk.workspace,
        uuid4(),
        name=name,
        content_type=media_type if _MEDIA_TYPE.match(media_type) else UNKNOWN_TYPE,
        data=data,
        by=credential.actor_id,
    )
    told = Uploaded(
        id=stored.id, name=stored.name, content_type=stored.content_type, size=stored.size, sha256=stored.sha256.hex()
    )
    return Response(told.model_dump_json(), 201, media_type="application/json")
