"""Sends the head of an answer together with its body: every write is a system call, and wakes the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

HEAD_ENDS: Final = b"\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 "


class HttpProtocol(HttpToolsProtocol):
    """The server's protocol over a transport that keeps a head back until its body comes, or the next turn."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(_Joining(transport, self.loop))  # type: ignore[arg-type]


class _Joining:
    """A transport of which only `write` differs."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._write = transport.write
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, now or with what follows at once."""
        if self._head:
            head, self._head = self._head, b""
            self._write(head + data)
        elif data.endswith(HEAD_ENDS) and data.startswith(b"HTTP/1.1 ") and not data.startswith(CONTINUE):
            self._head = data
            # A body that is longer in coming must not keep the head waiting.
            self._loop.call_soon(self._send_head)
        else:
            self._write(data)

    def close(self) -> None:
        """Close once everything is sent."""
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._write(head)
