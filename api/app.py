"""The HTTP application: every route, each with its rule, over the desks of one database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api import (
    documentation_routes,
    health_routes,
    metrics_routes,
    people_routes,
    problems,
    rebuild_routes,
    service_level_routes,
    sla_routes,
    ticket_routes,
    upload_routes,
    view_routes,
    views,
    what_if_routes,
)
from api.access import CredentialCheck, GuardedRoute
from api.command_routes import Door, command_router
from api.framing import REQUEST_ID, Framing
from api.repeated_routes import RepeatedRoute
from api.view_pages import LONGEST_WAIT
from api.what_if_processes import WhatIfProcesses
from commands.desk import Desk

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from storage.database import Database

ABOUT: Final = """\
A service desk whose record can be trusted. Every change is an event; nothing is overwritten.

Send a credential as `Authorization: Bearer desk_…`. Commands are POSTs; each answer names the version (`ETag`) and the
place in the log (`Log-Position`). `If-Match` makes a command depend on a version, `Idempotency-Key` makes repeating it
safe, and `?after=` on a list waits until the list includes a position. Errors are problem documents (RFC 9457).
"""


class Desks:
    """The desks of this process, one a workspace."""

    def __init__(self, database: Database, marks: MutableSequence[int] | None = None) -> None:
        """Open desks of `database` as they are asked for; `marks` are shared with other processes."""
        self._database = database
        self._marks = marks
        self._desks: dict[str, Desk] = {}

    async def of(self, workspace: str) -> Desk:
        """Give the desk of a workspace. Raises UnknownWorkspace, RootKeyError."""
        desk = self._desks.get(workspace)
        if desk is None:
            desk = Desk(await self._database.workspace(workspace), self._marks)
            desk = self._desks.setdefault(workspace, desk)
        return desk


class Application(FastAPI):
    """FastAPI with a direct way to commands and the lists of screens, which come by the thousand."""

    direct: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self.direct is None or scope["type"] != "http":
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await self.direct(scope, receive, send)


def create_app(
    database: Database,
    *,
    reading: Database | None = None,
    marks: MutableSequence[int] | None = None,
    longest_wait: float = LONGEST_WAIT,
    believed_seconds: float = 5.0,
) -> FastAPI:
    """Make the application over an open database; lists and tickets are read from `reading`, such as a standby.

    `marks` are what the processes of a server share of what they change (see Desk). `longest_wait` bounds, in seconds, how long `?after=` waits; a credential that was found is believed for
    `believed_seconds`, so that is how long a revoked one still works.
    """
    app = Application(
        title="Ledgerdesk",
        version="0.1.0",
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.database = database
    app.state.desks = Desks(database, marks)
    app.state.reading = app.state.desks if reading is None else Desks(reading)
    app.state.credential_check = CredentialCheck(database, reading=reading, believed_seconds=believed_seconds)
    app.state.longest_wait = longest_wait
    app.state.ending = asyncio.Event()  # what would otherwise go on for long ends when it is set
    app.state.followers = 0
    app.state.what_ifs = WhatIfProcesses(app.state.ending)
    app.add_middleware(Framing)
    for known in (HTTPException, RequestValidationError):
        app.add_exception_handler(known, _as_problem)
    commands = command_router()
    for router in (
        commands,
        ticket_routes.router,
        upload_routes.router,
        people_routes.router,
        view_routes.router,
        view_routes.repeated,
        sla_routes.router,
        service_level_routes.router,
        rebuild_routes.router,
        what_if_routes.router,
        *views.routers(),
        documentation_routes.router,
        health_routes.router,
        metrics_routes.router,
    ):
        # Taken over as they are: a router within a router would be searched at every request.
        app.router.routes.extend(router.routes)
    require_rules(app)
    lists = [route for route in app.router.routes if isinstance(route, RepeatedRoute)]
    app.direct = Door(commands, lists, super(Application, app).__call__)
    return app


def require_rules(app: FastAPI) -> None:
    """Refuse to serve a route that is not guarded. Raises LookupError."""
    for route in app.routes:
        if not isinstance(route, GuardedRoute):
            message = f"{getattr(route, 'path', route)} is not guarded"
            raise LookupError(message)  # noqa: TRY004 - what is missing is its rule


async def _as_problem(request: Request, failure: Exception) -> Response:
    instance = str(request.scope[REQUEST_ID])
    return problems.response_to(failure, instance) or problems.internal_error(instance)
