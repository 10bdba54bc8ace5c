"""A wire between the desk and PostgreSQL that can be cut after a commit and before its reply, or stall."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 65536
HEADER = 5  # bytes of every message of the server: a letter and a length that counts itself
READY_FOR_QUERY = ord("Z")
IDLE = ord("I")
PORT = 5432  # of the socket file
SOCKET = f".s.PGSQL.{PORT}"
COMMITTED = b"COMMIT\0"


class Wire:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near = near
        self._far = far
        self._entered = False  # until then the two talk about a password
        self._armed = False
        self._withheld = b""
        self._kind = 0
        self._left = 0  # bytes of the message that is passing
        self._header = b""
        self.application = ""
        self.greeted = False

    def note_greeting(self, data: bytes) -> None:
        """Read the name that the client gives itself in its first message."""
        self.greeted = True
        words = data[8:].split(b"\0")
        pairs = dict(zip(words[::2], words[1::2], strict=False))
        self.application = pairs.get(b"application_name", b"").decode(errors="replace")

    def asked(self) -> None:
        """Take the wire up for cutting when the client says something while cuts are wanted."""
        if self._entered and not self._armed and self._proxy.take_cut(self.application):
            self._armed = True

    def replied(self, data: bytes) -> tuple[bytes, bool]:
        """Follow the server's messages: give what may pass on, and whether the wire is to be cut now.

        A server that says it is ready and idle has committed, or rolled back, whatever it was asked; what it says
        inside a transaction passes, so that its end can come.
        """
        status = self._follow(data)
        self._entered = self._entered or status is not None
        if not self._armed:
            return data, False
        self._withheld += data
        if status is None:
            return b"", False
        if status == IDLE:
            return b"", True
        passing, self._withheld = self._withheld, b""
        return passing, False

    def _follow(self, data: bytes) -> int | None:
        """Give the transaction status of the last message in `data` if that says that the server is ready."""
        status = None
        place = 0
        while place < len(data):
            if self._left:
                step = min(self._left, len(data) - place)
                self._left -= step
                place += step
                status = data[place - 1] if self._kind == READY_FOR_QUERY and not self._left else None
            else:
                step = min(HEADER - len(self._header), len(data) - place)
                self._header += data[place : place + step]
                place += step
                if len(self._header) == HEADER:
                    self._kind, length = struct.unpack("!BI", self._header)
                    self._left, self._header = length - 4, b""
                    status = None
        return status

    def cut(self) -> None:
        """End both sides at once."""
        for writer in (self._near, self._far):
            writer.transport.abort()


class Proxy:
    """Listens in a directory as PostgreSQL does and passes everything on to the server of an address."""

    def __init__(self, directory: Path, conninfo: str) -> None:
        self.directory = directory
        self._conninfo = conninfo
        self._wires: set[Wire] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cuts = self._commits = 0
        self._only = ""
        self._server: asyncio.Server | None = None
        self.cut_after_commit = 0
        """How many connections were cut with their reply withheld."""

    async def start(self) -> None:
        """Listen."""
        self.directory.mkdir(mode=0o700)
        self._server = await asyncio.start_unix_server(self._serve, self.directory / SOCKET, limit=CHUNK)

    @property
    def conninfo(self) -> str:
        """The address through here."""
        return make_conninfo(self._conninfo, host=str(self.directory), port=PORT, hostaddr="")

    async def stop(self) -> None:
        """End every connection and listen no more."""
        if self._server is not None:
            self._server.close()
            self.cut_all()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 5)

    def cut_replies(self, count: int, *, only: str = "") -> None:
        """Withhold the reply of the next `count` requests and cut their connections once the server is done.

        With `only`, those of clients whose name contains it.
        """
        self._cuts, self._only = count, only

    def cut_commits(self, count: int) -> None:
        """Cut the next `count` connections on which the server says that a transaction block was committed."""
        self._commits = count

    def cut_all(self) -> None:
        """Cut every connection as it stands."""
        for wire in list(self._wires):
            wire.cut()

    def stall(self) -> None:
        """Let nothing through, in either direction."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let everything through again, and cut nothing more."""
        self._cuts = self._commits = 0
        self._flowing.set()

    def take_cut(self, application: str) -> bool:
        """Give one of the wanted cuts to a connection."""
        wanted = self._cuts > 0 and self._only in application
        self._cuts -= wanted
        return wanted

    def take_commit(self, data: bytes) -> bool:
        """Tell whether a reply is that of a commit that is to be cut: it is short, and arrives in one piece."""
        wanted = self._commits > 0 and COMMITTED in data
        self._commits -= wanted
        return wanted

    async def _serve(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await self._open()
        except OSError:
            near.transport.abort()
            return
        wire = Wire(self, near, far)
        self._wires.add(wire)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(near_reader, far, wire))
                group.create_task(self._down(far_reader, near, wire))
        except* (OSError, EOFError, RuntimeError):  # RuntimeError is uvloop's word for a transport that was aborted
            pass
        finally:
            self._wires.discard(wire)
            wire.cut()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        given = conninfo_to_dict(self._conninfo)
        host, port = str(given.get("host") or "/var/run/postgresql"), int(str(given.get("port") or PORT))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}", limit=CHUNK)
        return await asyncio.open_connection(host, port, limit=CHUNK)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> None:
        while data := await reader.read(CHUNK):
            await self._flowing.wait()
            if wire.greeted:
                wire.asked()
            else:
                wire.note_greeting(data)
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> None:
        while data := await reader.read(CHUNK):
            await self._flowing.wait()
            passing, cut = wire.replied(data)
            if cut or self.take_commit(data):
                self.cut_after_commit += 1
                raise EOFError
            if passing:
                writer.write(passing)
                await writer.drain()
        raise EOFError
