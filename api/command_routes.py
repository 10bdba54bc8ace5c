"""One POST route for every command the desk knows, made from the list of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from api.access import DirectRoute, caller_of
from api.bodies import json_body
from api.callers import circumstances
from api.conditions import position_text, require_basis
from api.framing import Framing
from api.headers import stated
from api.problems import MALFORMED_REQUEST, Problem, is_the_callers
from commands.catalogue import COMMANDS
from commands.execution import execute
from storage.metrics import CommandMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from uuid import UUID

    from starlette.types import ASGIApp, Receive, Scope, Send

    from api.access import Handler
    from api.repeated_routes import RepeatedRoute
    from commands.execution import CommandSpec
    from commands.request import Outcome

COLLECTIONS: Final = {
    "ticket": "/tickets",
    "customer": "/customers",
    "agent": "/agents",
    "team": "/teams",
    "service_levels": "/service-levels",
}
"""Kind of thing → where its things are found."""


def command_router() -> APIRouter:
    """Make the routes of all commands."""
    router = APIRouter(route_class=DirectRoute)
    for spec in COMMANDS.values():
        add_command(router, spec)
    return router


def add_command(router: APIRouter, spec: CommandSpec) -> None:
    """Make the route of one command."""
    router.add_api_route(
        path_of(spec, f"{{{spec.kind}}}"),
        _endpoint(spec),
        methods=["POST"],
        operation_id=f"{spec.kind}.{spec.name}",
        summary=spec.summary,
        tags=[COLLECTIONS[spec.kind][1:]],
        status_code=201 if spec.creates else 200,
        response_model=None,
        response_class=Response,
        responses=_responses(spec),
        openapi_extra=_described(spec),
    )


def path_of(spec: CommandSpec, reference: str) -> str:
    """Give where a command on something is sent, which `reference` names unless there is one of its kind alone."""
    collection = COLLECTIONS[spec.kind]
    if spec.creates:
        return collection
    return f"{collection}/{spec.name}" if spec.stream is not None else f"{collection}/{reference}/{spec.name}"


class Door:
    """Serves commands and repeated lists without trying route after route and without the framework's layers.

    Guard and endpoint are those of the routes themselves, which stay what describes them; whatever else is asked for
    goes on to `others`. `docs/performance.md` has what it saves.
    """

    def __init__(self, commands: APIRouter, lists: Iterable[RepeatedRoute], others: ASGIApp) -> None:
        """Take in the routes of `commands`, as `command_router` makes it, and `lists`."""
        self._others = others
        self._framed = Framing(_serve)
        self._lists = {route.path: (route, route.direct_handler()) for route in lists}
        self._creating: dict[str, Handler] = {}
        self._changing: dict[tuple[str, str], tuple[str, Handler]] = {}
        for route in commands.routes:
            if not isinstance(route, DirectRoute):
                message = f"{route} is no command's"
                raise TypeError(message)
            handler = route.get_route_handler()
            _, collection, *rest = route.path.split("/")
            if rest[1:]:
                self._changing[collection, rest[1]] = rest[0].strip("{}"), handler
            else:
                self._creating[route.path] = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        handler = self._find(scope) if scope["type"] == "http" else None
        if handler is None:
            await self._others(scope, receive, send)
        else:
            scope[_HANDLER] = handler
            await self._framed(scope, receive, send)

    def _find(self, scope: Scope) -> Handler | None:
        method, path = scope["method"], scope["path"]
        if method == "GET":
            route, handler = self._lists.get(path, _NO_LIST)
            return handler if route is not None and route.knows(scope["query_string"]) else None
        if method != "POST":
            return None
        handler = self._creating.get(path)
        if handler is None and path.count("/") == _SLASHES:
            _, collection, reference, name = path.split("/")
            found = self._changing.get((collection, name))
            if found is not None and reference:
                scope["path_params"] = {found[0]: reference}
                return found[1]
        return handler


_NO_LIST: Final = (None, None)
_SLASHES: Final = 3  # of /tickets/{ticket}/assign
_HANDLER: Final = "desk.handler"


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    response = await scope[_HANDLER](Request(scope, receive, send))
    await response(scope, receive, send)


def _endpoint(spec: CommandSpec) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    count = CommandMeter(f"{spec.kind}.{spec.name}")

    # Read and answered by hand: the model reads the bytes itself, and nothing is validated twice on the way out.
    async def carry_out(request: Request) -> Response:
        credential = await caller_of(request)
        try:
            if spec.creates and stated(request.scope, b"if-match"):
                detail = "If-Match has no meaning for a command that creates something."
                raise Problem(MALFORMED_REQUEST, detail)  # noqa: TRY301 - it is counted with the others
            body = await json_body(request)
            given = circumstances(request, credential, len(body))
            command = spec.model.model_validate_json(body)
            desk = await request.app.state.desks.of(credential.workspace)
            await require_basis(request, desk.workspace.log)
            target = spec.stream
            if target is None and not spec.creates:
                target = await desk.resolve(spec.kind, request.path_params[spec.kind])
            outcome = await execute(desk, given, spec, target, command)
        except Exception as failure:
            count(credential.workspace, "refused" if is_the_callers(failure) else "failed")
            raise
        count(credential.workspace, "replayed" if outcome.replayed else "done" if outcome.changed else "unchanged")
        return answer(spec, target, outcome, await desk.workspace.log.epoch())

    carry_out.__name__ = f"{spec.kind}_{spec.name}".replace("-", "_")
    carry_out.__doc__ = spec.summary
    return carry_out


def answer(spec: CommandSpec, target: UUID | None, outcome: Outcome, epoch: str) -> Response:
    """Tell what a command did; a message to a closed ticket brings forth another, which is then what is told of."""
    created = outcome.stream != target
    told: dict[str, Any] = {
        "id": outcome.stream,
        "version": outcome.version,
        "position": outcome.position,
        "changed": outcome.changed,
        "replayed": outcome.replayed,
    }
    if outcome.number is not None:
        told["number"] = outcome.number
    content = to_json(told)
    headers = [
        (b"content-length", b"%d" % len(content)),
        (b"content-type", b"application/json"),
        (b"etag", b'"%d"' % outcome.version),
        (b"log-position", position_text(outcome.position, epoch).encode()),
    ]
    if outcome.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    if created:
        headers.append((b"location", f"{COLLECTIONS[spec.kind]}/{outcome.stream}".encode()))
    return Answer(201 if created else 200, headers, content)


class Answer(Response):
    """A response whose every byte is known; the framework would put its headers together a second time."""

    def __init__(self, status_code: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status_code = status_code
        self.raw_headers = headers
        self.body = body
        self.background = None


def _described(spec: CommandSpec) -> dict[str, Any]:
    """Describe a command for the schema by hand, as its body is read by hand."""
    parameters: list[dict[str, Any]] = [
        _header("Idempotency-Key", "Makes repeating safe: the same key and body give the first outcome again."),
        _header("Log-Position", "What you had read: 409 where a failover or a restore has lost it since."),
        _header("X-Request-ID", "A UUID that ties this request's events together; one is made up where none is sent."),
    ]
    if not spec.creates:
        parameters.insert(0, _header("If-Match", 'The version it must have, in quotes: "3". Another gives 412.'))
    if not spec.creates and spec.stream is None:
        about = "Id, number or foreign id" if spec.kind == "ticket" else "Id or foreign id"
        parameters.insert(
            0,
            {
                "name": spec.kind,
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "description": f"{about} of the {spec.kind}.",
            },
        )
    return {
        "security": [{"credential": []}],
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{spec.model.__name__}"}}},
        },
    }


def _header(name: str, about: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": about}


_PROBLEMS: Final = {
    400: "Malformed request",
    401: "No valid credential",
    403: "The role may not do this",
    409: "A rule of the desk refused it",
    413: "Body or event too large",
    415: "Not JSON",
    422: "Values that are not valid",
    500: "A record that cannot be read, or a fault of the desk",
    503: "The database does not answer",
}


def _responses(spec: CommandSpec) -> dict[int | str, dict[str, Any]]:
    told = _PROBLEMS if spec.creates else _PROBLEMS | {404: "No such thing", 412: "Changed since it was read"}
    described: dict[int | str, dict[str, Any]] = {status: problem_response(about) for status, about in told.items()}
    headers = {
        "ETag": {"schema": {"type": "string"}, "description": "The version now, in quotes"},
        "Log-Position": {"schema": {"type": "string"}, "description": "Place in the log, for ?after="},
    }
    if spec.creates:
        headers["Location"] = {"schema": {"type": "string"}, "description": "Where it is found"}
    described[201 if spec.creates else 200] = {
        "description": "Carried out",
        "headers": headers,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CommandOutcome"}}},
    }
    return described


def problem_response(about: str) -> dict[str, Any]:
    """How the schema describes an answer that is a problem document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": about, "content": {"application/problem+json": {"schema": schema}}}
