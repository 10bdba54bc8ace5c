"""What surrounds every request: its id, and an answer even when the desk itself fails."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from starlette.requests import ClientDisconnect

from api import problems
from api.access import CREDENTIAL
from api.headers import stated
from domain.event import Role
from storage.codec import UnreadableEvent
from storage.metrics import UNREADABLE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("ledgerdesk.http")

REQUEST_ID = "desk.request_id"
"""Where a request's id lies in its scope."""


class Framing:
    """Give each request an id, return it, and answer every failure with a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        """Surround `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope[REQUEST_ID] = request_id
        label = (b"x-request-id", str(request_id).encode())
        started = False

        async def labelled(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), label]
            await send(message)

        try:
            await self._app(scope, receive, labelled)
        except ClientDisconnect:
            logger.info("the caller went away during %s %s", scope["method"], scope["path"])
        except Exception as failure:
            answer = problems.response_to(failure, str(request_id))
            if answer is None:
                logger.exception("request %s failed: %s %r", request_id, scope["method"], scope["path"])
                answer = problems.internal_error(str(request_id))
            elif isinstance(failure, UnreadableEvent):
                credential = scope[CREDENTIAL]
                UNREADABLE.labels(credential.workspace, failure.reason).inc()
                logger.error("request %s: %s", request_id, failure)  # noqa: TRY400 - it says where, which is all there is to know
                if credential.role == Role.CUSTOMER:
                    answer = problems.unreadable(str(request_id))
            if started:
                raise
            await answer(scope, receive, labelled)


def _request_id(scope: Scope) -> UUID:
    for value in stated(scope, b"x-request-id")[:1]:
        with suppress(ValueError):
            return UUID(value)
    return uuid4()
