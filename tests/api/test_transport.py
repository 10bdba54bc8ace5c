"""Heads and bodies of answers on the wire: together where both are there, and never kept waiting for one another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from api.transport import HttpProtocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Send = Callable[[dict[str, Any]], Awaitable[None]]

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
BODY = {"type": "http.response.body", "body": b"body"}
WRITES: list[bytes] = []


class Recorded(asyncio.Protocol):
    """The protocol under test, over a transport whose writes are noted on their way."""

    def __init__(self, made: HttpProtocol) -> None:
        self.made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.connection_made(Noting(transport))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self.made.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.made.connection_lost(exc)


class Noting:
    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        WRITES.append(data)
        self.transport.write(data)


@asynccontextmanager
async def connected(answer: Callable[[Send], Awaitable[None]]) -> AsyncIterator[asyncio.StreamReader]:
    """Have a request answered over a real connection."""

    async def app(_scope: Any, receive: Any, send: Send) -> None:
        await receive()
        await answer(send)

    WRITES.clear()
    config = uvicorn.Config(app, http=HttpProtocol, lifespan="off", log_config=None, date_header=False)
    config.load()
    state = uvicorn.server.ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Recorded(HttpProtocol(config=config, server_state=state, app_state={})), "127.0.0.1"
    )
    async with server, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(REQUEST)
        yield reader
        writer.close()
        await writer.wait_closed()


async def test_an_answer_that_is_all_there_leaves_in_one_piece() -> None:
    async def answer(send: Send) -> None:
        await send(START)
        await send(BODY)

    async with connected(answer) as reader:
        assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(WRITES) == 1


async def test_a_head_does_not_wait_for_a_body_that_is_long_in_coming() -> None:
    go_on = asyncio.Event()

    async def answer(send: Send) -> None:
        await send(START)
        await go_on.wait()
        await send(BODY)

    async with connected(answer) as reader:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        go_on.set()
        assert await reader.readexactly(4) == b"body"


async def test_an_answer_without_a_body_is_sent_before_the_connection_is_closed() -> None:
    async def answer(send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})

    async with connected(answer) as reader:
        assert (await reader.read()).startswith(b"HTTP/1.1 204 No Content\r\n")
