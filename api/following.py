"""Following something long as it goes, by server-sent events: what changes, and at last how it ended."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic_core import to_json
from starlette.responses import Response

from api.problems import BUSY, SOON, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

T = TypeVar("T")

LOOK_SECONDS: Final = 0.5  # what is followed notes how far it is a little more often
HEARTBEAT_SECONDS: Final = 15.0  # proxies end what is silent for a minute
LONGEST_SECONDS: Final = 3600.0  # then the stream ends, and who still listens comes again
MOST_FOLLOWERS: Final = 100  # of a process, each of which looks into the database twice a second
RETRY_MILLISECONDS: Final = 2000


@dataclass(frozen=True)
class Followed(Generic[T]):
    """How something is followed: `look` gives it as it is now, `told` what is said of it, `over` whether it has ended.

    While it goes on what is `large` of what is told is left out. `name` tells one end from another.
    """

    look: Callable[[], Awaitable[T]]
    told: Callable[[T], dict[str, Any]]
    over: Callable[[T], bool]
    name: Callable[[T], str]
    large: str = "report"


async def follow(request: Request, followed: Followed[T]) -> Response:
    """Answer with `progress` whenever something has changed, and at last one `end`, with all there is to be told.

    The stream ends then, and after an hour in any case. A client that comes again with the `Last-Event-ID` of the end
    is answered 204, upon which an EventSource stays away. Raises Problem busy.
    """
    found = await followed.look()
    if followed.over(found) and request.headers.get("Last-Event-ID") == followed.name(found):
        return Response(status_code=204)
    state = request.app.state
    if state.followers >= MOST_FOLLOWERS:
        raise Problem(BUSY, f"{state.followers} follow something already.", headers=SOON)

    async def stream() -> AsyncIterator[bytes]:
        state.followers += 1
        try:
            async for piece in _events(followed, found, state.ending):
                yield piece
        finally:
            state.followers -= 1

    return EventSourceResponse(stream(), headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


async def _events(followed: Followed[T], found: T, ending: asyncio.Event) -> AsyncIterator[bytes]:
    """Tell of it until it is over, or this process is to end."""
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    until = time.monotonic() + LONGEST_SECONDS
    said: dict[str, Any] | None = None
    said_at = time.monotonic()
    while not followed.over(found):
        told = {**followed.told(found), followed.large: None}
        if said is None or told != {**said, "updated_at": told["updated_at"]}:
            said, said_at = told, time.monotonic()
            yield format_sse_event(event="progress", data_str=to_json(told).decode())
        elif time.monotonic() - said_at >= HEARTBEAT_SECONDS:
            said_at = time.monotonic()
            yield KEEPALIVE_COMMENT
        if ending.is_set() or time.monotonic() >= until:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), LOOK_SECONDS)
        try:
            found = await followed.look()
        except Problem:
            return  # it was forgotten meanwhile
    yield format_sse_event(event="end", id=followed.name(found), data_str=to_json(followed.told(found)).decode())
