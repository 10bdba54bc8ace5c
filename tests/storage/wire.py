"""A wire to PostgreSQL that breaks at a chosen moment, seen by the client as any lost connection is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from types import TracebackType


class Cut(StrEnum):
    """When the wire breaks, in the course of one statement that was prepared before."""

    BEFORE = "before the server hears of it"
    DURING = "when the server has been told and nobody waits for its answer"
    AFTER = "between the commit and the reply"


class Wire:
    """Carries connections to a server; `break_next` breaks those of one kind of client.

    It reads the messages that pass (PostgreSQL's documentation, "Message Formats"), and so wants them unencrypted.
    In autocommit the server says that it is ready for the next statement when the last one is committed: a wire that
    breaks on that message, before handing anything on, loses the reply to something that was done.
    """

    def __init__(self, host: str, port: int, only: bytes) -> None:
        self._host, self._port = host, port
        self._only = only  # what the first message of a connection holds if the wire may break under it
        self._planned: list[Cut] = []
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        self.broken = 0

    @classmethod
    async def to(cls, conninfo: str, *, only: str) -> Self:
        """Lay a wire to a server, breakable under clients whose application name contains `only`."""
        async with await psycopg.AsyncConnection.connect(conninfo) as connection:
            wire = cls(connection.info.host, connection.info.port, only.encode())
        wire._server = await asyncio.start_server(wire._carry, "127.0.0.1", 0)
        return wire

    def conninfo(self, conninfo: str) -> str:
        """Give the address of the wire for what an address of the server says otherwise."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return make_conninfo(
            conninfo, host="127.0.0.1", hostaddr="", port=port, sslmode="disable", gssencmode="disable"
        )

    def break_next(self, *cuts: Cut) -> None:
        """Break under the next statements, once each; the statements planned before are let through."""
        self._planned = list(cuts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        ends = [writer]
        try:
            if self._host.startswith("/"):
                there, back = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
            else:
                there, back = await asyncio.open_connection(self._host, self._port)
            ends.append(back)
            first = await reader.read(65536)
            back.write(first)
            breakable = self._only in first
            # Whichever end goes first, by itself or by a break, takes the other one with it.
            told = asyncio.Event()
            ways = [
                asyncio.create_task(self._requests(reader, back, told, breakable=breakable)),
                asyncio.create_task(self._replies(there, writer, told, breakable=breakable)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in ends:
                end.transport.abort()
            self._carrying.discard(task)

    def _break(self, *moments: Cut) -> bool:
        if self._planned and self._planned[0] in moments:
            self._planned.pop(0)
            self.broken += 1
            return True
        return False

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: asyncio.Event, *, breakable: bool
    ) -> None:
        while data := await reader.read(65536):
            # A prepared statement is carried out by Bind, Describe, Execute, Sync, which the client sends together.
            executes = breakable and data[:1] == b"B"
            if executes and self._break(Cut.BEFORE):
                return
            if executes:
                told.set()
            writer.write(data)
            await writer.drain()
            if executes and self._break(Cut.DURING):
                return

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: asyncio.Event, *, breakable: bool
    ) -> None:
        held = b""
        with suppress(asyncio.IncompleteReadError):
            while breakable:
                head = await reader.readexactly(5)
                held += head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
                if head[:1] == b"Z" and told.is_set() and self._break(Cut.AFTER):
                    return
                # Whole answers are handed on, so that nothing is known of one that is lost. Before the first statement
                # the client has to be asked for its password, and an error may be the last word.
                if head[:1] in b"ZRE":
                    writer.write(held)
                    await writer.drain()
                    held = b""
                    if head[:1] == b"Z":
                        told.clear()
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def unencrypted(error: Exception) -> str:
    """Say why a test that needs a wire is left out."""
    return f"the server takes no unencrypted connection over TCP, and the wire reads what passes: {error}"
