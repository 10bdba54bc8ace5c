"""One kept HTTP/1.1 connection of the load client, carrying one request at a time.

A library client would cost more than the server it measures, so answers are read by hand; both services answer with
Content-Length.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = b"\r\ncontent-length: "


class Wire(asyncio.Protocol):
    """Hands each whole answer to `answered` as status, head and body; `ended` hears of an end nobody asked for."""

    def __init__(self, answered: Callable[[int, bytes, bytes], None], ended: Callable[[str], None]) -> None:
        self._answered = answered
        self._ended = ended
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class does not derive from it

    def send(self, request: bytes) -> None:
        """Send a request; its answer must have come before the next is sent."""
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Collect one whole answer."""
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._received = data
            return
        head = data[: end + 2]
        lower = head.lower()
        start = lower.find(LENGTH)
        if start < 0:
            self._answered(0, head, data[end + 4 :])
            return
        start += len(LENGTH)
        if len(data) < end + 4 + int(lower[start : lower.index(b"\r\n", start)]):
            self._received = data
            return
        self._received = b""
        self._answered(int(head[9:12]), head, data[end + 4 :])

    def close(self) -> None:
        """End the connection."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of a connection that the server ended."""
        if not self._closing:
            self._ended(f"the connection ended: {exc}")
