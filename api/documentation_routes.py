"""What the interface says about itself: interactive documentation, its schema, and what each problem means."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Path
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic.json_schema import models_json_schema
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from api import problems
from api.access import GuardedRoute
from api.command_routes import problem_response
from api.problems import NOT_FOUND, Problem
from commands.catalogue import COMMANDS

if TYPE_CHECKING:
    from api.problems import Kind

_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_REF_TEMPLATE: Final = "#/components/schemas/{model}"

router = APIRouter(route_class=GuardedRoute, tags=["about"])


@router.get("/docs", operation_id="docs.page", include_in_schema=False)
async def page() -> HTMLResponse:
    """Interactive documentation, served without the help of another host."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Ledgerdesk",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
        swagger_ui_parameters={"persistAuthorization": True, "displayRequestDuration": True},
    )


@router.get("/docs/{name}", operation_id="docs.asset", include_in_schema=False)
async def asset(name: str) -> Response:
    """One file of the documentation page."""
    media_type = _ASSETS.get(name)
    if media_type is None:
        raise Problem(NOT_FOUND, "Nothing is served at this address.")
    content = resources.files("fastapi_offline").joinpath("static", name).read_bytes()
    return Response(content, media_type=media_type, headers={"Cache-Control": "public, max-age=86400"})


@router.get("/openapi.json", operation_id="docs.schema", include_in_schema=False)
async def schema(request: Request) -> Response:
    """Describe this interface as OpenAPI."""
    content: bytes | None = getattr(request.app.state, "openapi_text", None)
    if content is None:
        content = json.dumps(complete_schema(request.app), ensure_ascii=False).encode()
        request.app.state.openapi_text = content
    return Response(content, media_type="application/json")


@router.get("/problems", operation_id="problems.list", summary="List every kind of problem")
async def list_problems() -> Response:
    """Name, status and title of each kind of problem that an answer can be."""
    listed = [
        {"type": kind.type, "status": kind.status.value, "title": kind.title}
        for kind in sorted(problems.all_kinds().values(), key=lambda kind: (kind.status, kind.name))
    ]
    return Response(json.dumps({"problems": listed}, ensure_ascii=False), media_type="application/json")


@router.get("/problems/{name}", operation_id="problems.read", summary="Explain a kind of problem")
async def read_problem(name: Annotated[str, Path(max_length=100)]) -> PlainTextResponse:
    """Say in words what a problem's `type` means and what to do about it."""
    kind = problems.all_kinds().get(name)
    if kind is None:
        raise Problem(NOT_FOUND, "There is no problem of that name; GET /problems lists them.")
    return PlainTextResponse(_explained(kind))


def _explained(kind: Kind) -> str:
    return f"{kind.title}\n\n{kind.type} is answered with status {kind.status.value}.\n\n{kind.explanation}\n"


def complete_schema(app: FastAPI) -> dict[str, Any]:
    """Describe the whole interface, with the commands' models, problem documents and the credential."""
    described = app.openapi()
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    models = {spec.model for spec in COMMANDS.values()}
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF_TEMPLATE)
    schemas.update(definitions.get("$defs", {}))
    schemas["Problem"] = PROBLEM_SCHEMA
    schemas["CommandOutcome"] = OUTCOME_SCHEMA
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for methods in described["paths"].values():
        for operation in methods.values():
            # The framework's own idea of this answer is not what is sent.
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                operation["responses"]["422"] = problem_response("Values that are not valid")
    components["securitySchemes"] = {"credential": {"type": "http", "scheme": "bearer", "bearerFormat": "desk_…"}}
    return described


PROBLEM_SCHEMA: Final = {
    "type": "object",
    "title": "Problem",
    "description": "Why a request was not carried out (RFC 9457). Kinds may add members of their own.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "description": "/problems/<name>; open it to read what it means"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "urn:uuid:<request id>"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body"},
                    "parameter": {"type": "string"},
                    "in": {"type": "string"},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                },
            },
        },
        "details": {"type": "object", "description": "Particulars of a refusal"},
    },
}

OUTCOME_SCHEMA: Final = {
    "type": "object",
    "title": "CommandOutcome",
    "description": "What a command did.",
    "required": ["id", "version", "position", "changed", "replayed"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "number": {"type": "integer", "description": "Of a ticket: the short number people can say"},
        "version": {"type": "integer", "description": "Version of its stream now; also in ETag"},
        "position": {"type": "string", "description": "Place in the log; pass it as ?after= to read your own write"},
        "changed": {"type": "boolean", "description": "False where it was so already and nothing was recorded"},
        "replayed": {
            "type": "boolean",
            "description": "True where the key had been used and this is the first outcome",
        },
    },
}
