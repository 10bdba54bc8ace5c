"""The desk's PostgreSQL: connections in a role, workspaces, and the wake-ups that follow commits."""

from __future__ import annotations

import asyncio
import logging
import select
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests
from psycopg_pool.pool_async import AddConnection

from storage.append import LARGEST_EVENT
from storage.embedded import LOGIN_ROLES
from storage.ending import AGAIN_SECONDS, end
from storage.keyring import Keyring, RootKeyError, key_check, root_key
from storage.log import Log
from storage.programs import EmbeddedServerError
from storage.releases import installed_release
from storage.settings import WAITING_COMMANDS, external_conninfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from psycopg_pool.pool_async import MaintenanceTask

    from storage.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHANNEL: Final = "ledgerdesk"
WAKE_INTERVAL: Final = (
    0.025  # seconds between two wake-ups of one process: a reader that is awake looks again by itself
)
POLL_INTERVAL: Final = 0.25  # seconds; a wake-up can be lost, and then this is the delay
CONNECT_TIMEOUT: Final = 10  # seconds
LOST_IN_A_ROW: Final = 3  # connections one reading may lose before it is given up
RECONNECT_INTERVAL: Final = 0.5  # seconds between two attempts of the pool
UTC_OPTION: Final = "-c timezone=UTC"  # so that every time read is shown in UTC, whatever the server's zone
OLDEST_SERVER: Final = 150000  # as libpq counts: 15.0

DatabaseRole = Literal["owner", "application", "reader"]
ROLE_NAMES: Final[dict[DatabaseRole, str]] = {
    "owner": LOGIN_ROLES[0],
    "application": LOGIN_ROLES[1],
    "reader": LOGIN_ROLES[2],
}


class DatabaseUnreachable(Exception):
    """The database cannot be used; the message is one sentence for a person."""


class UnknownWorkspace(Exception):
    """There is no workspace of that name."""


class _Pool(AsyncConnectionPool[AsyncConnection[Any]]):
    """Gives no connection whose server has closed it, and tries to reconnect at a steady pace.

    The pool's own check waits longer and longer from one dead connection to the next, and so do its attempts to
    reconnect; a failover, which ends all of them, is over in seconds.
    """

    async def getconn(self, timeout: float | None = None) -> AsyncConnection[Any]:  # noqa: ASYNC109 - as inherited
        """Give a connection that lives, as far as a look at its socket shows."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            connection = await super().getconn(deadline - time.monotonic())
            if not spoken_to(connection):
                return connection
            try:
                await connection.execute("")
            except psycopg.Error:
                await self.putconn(connection)
            else:
                return connection

    async def schedule_task(self, task: MaintenanceTask, delay: float) -> None:
        """Do a task of the pool's after so many seconds, or sooner when it is to connect."""
        await super().schedule_task(task, min(delay, RECONNECT_INTERVAL) if isinstance(task, AddConnection) else delay)


def spoken_to(connection: AsyncConnection[Any]) -> bool:
    """Tell whether a server has said something that nobody asked for, such as goodbye, at no round trip's cost."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Workspace:
    """One tenant: a PostgreSQL schema with its own log, views and keys."""

    def __init__(self, database: Database, name: str, root: bytes) -> None:
        self.database = database
        self.name = name
        self.schema = f"ws_{name}"
        self.log = Log(database, name, self.schema)
        self.keyring = Keyring(database, name, self.schema, root)
        # A key that was made on a server that is lost may not be on the one that goes on.
        self.log.epochs.on_renewal = self.keyring.forget

    def __repr__(self) -> str:
        return f"Workspace({self.name!r})"


class Database:
    """Connections of one process to the desk's database, in one role."""

    def __init__(
        self,
        conninfo: str,
        *,
        root: bytes,
        pool_size: int = 8,
        largest_event: int = LARGEST_EVENT,
        waiting_commands: int = WAITING_COMMANDS,
        release: str | None = None,
    ) -> None:
        self.conninfo = conninfo
        self.largest_event = largest_event
        self.waiting_commands = waiting_commands
        self.release = installed_release() if release is None else release
        self.follows = False
        """Whether this may be a standby, which takes over from another server what it has, the epoch among it."""
        self.generation = 0
        """Counts the connections that had to be made: one made anew may lead to another server."""
        self.pool: AsyncConnectionPool[AsyncConnection[Any]] = _Pool(
            conninfo,
            kwargs={"autocommit": True, "connect_timeout": CONNECT_TIMEOUT, "application_name": "desk"},
            min_size=1,
            max_size=pool_size,
            open=False,
            timeout=CONNECT_TIMEOUT,
            max_waiting=waiting_commands,
            configure=self._count,
        )
        self.root = root
        self._workspaces: dict[str, Workspace] = {}
        self._woken: set[str] = set()
        self._wake = asyncio.Event()
        self._waker: asyncio.Task[None] | None = None
        self._closing = False
        self._stack = AsyncExitStack()
        self.local_wake = asyncio.Event()

    async def _count(self, _connection: AsyncConnection[Any]) -> None:
        self.generation += 1

    @classmethod
    async def open(
        cls, settings: Settings, *, role: DatabaseRole = "application", pool_size: int | None = None
    ) -> Self:
        """Connect, starting or joining the embedded server where no other database is named.

        Raises DatabaseUnreachable, RootKeyError.
        """
        stack = AsyncExitStack()
        try:
            conninfo = await stack.enter_async_context(reach(settings, role))
            root = root_key(settings.key_file, create=True)
            database = cls(
                conninfo,
                root=root,
                pool_size=pool_size or settings.pool_size,
                largest_event=settings.largest_event,
                release=settings.release,
                waiting_commands=settings.waiting_commands,
            )
            database._stack = stack
            await database.start()
        except BaseException:
            await stack.aclose()
            raise
        return database

    @classmethod
    async def open_for_reading(cls, settings: Settings) -> Self:
        """Connect to where DESK_READ_DATABASE_URL says, which may be a standby: behind, and not to be written to.

        Raises DatabaseUnreachable, RootKeyError.
        """
        conninfo = external_conninfo(settings.read_database_url or "", ROLE_NAMES["application"])
        options = str(conninfo_to_dict(conninfo).get("options") or "")
        root = root_key(settings.key_file, create=False)
        database = cls(
            make_conninfo(conninfo, options=f"{options} {UTC_OPTION}".strip()), root=root, pool_size=settings.pool_size
        )
        database.follows = True
        await database.start()
        return database

    async def start(self) -> None:
        """Open the pool. Raises DatabaseUnreachable."""
        await check_reachable(self.conninfo)
        await self.pool.open(wait=True, timeout=CONNECT_TIMEOUT)

    async def close(self) -> None:
        """Finish the appends under way, give every connection back, and leave the embedded server."""
        for workspace in self._workspaces.values():
            await workspace.log.drain()
        self._closing = True
        self._wake.set()
        if self._waker is not None:
            # It ends by itself once the last wake-up is sent: a cancellation in the middle of that is easily lost.
            await asyncio.wait([self._waker], timeout=AGAIN_SECONDS)
            await end(self._waker)
        for workspace in self._workspaces.values():
            await workspace.log.close()
        await self.pool.close()
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self, name: str) -> AsyncConnection[Any]:
        """Open a connection outside the pool, in autocommit mode; the caller closes it."""
        return await AsyncConnection.connect(
            self.conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name=name[:63]
        )

    async def workspace(self, name: str) -> Workspace:
        """Give a workspace. Raises UnknownWorkspace, RootKeyError."""
        found = self._workspaces.get(name)
        if found is None:
            async with self.pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT key_check FROM ledgerdesk.workspaces WHERE name = %s", (name,)
                )
                row = await cursor.fetchone()
            if row is None:
                message = f"There is no workspace {name!r}."
                raise UnknownWorkspace(message)
            if row[0] != key_check(self.root, name):
                message = f"The root key is not the one that workspace {name!r} was made with."
                raise RootKeyError(message)
            found = self._workspaces.setdefault(name, Workspace(self, name, self.root))
        return found

    def opened(self) -> list[Workspace]:
        """Give the workspaces that this process has opened so far."""
        return list(self._workspaces.values())

    async def workspaces(self) -> list[Workspace]:
        """Give every workspace, by name."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute("SELECT name FROM ledgerdesk.workspaces ORDER BY name")
            names = [row[0] for row in await cursor.fetchall()]
        return [await self.workspace(name) for name in names]

    # Wake-ups

    def wake(self, workspace: str) -> None:
        """Say that a workspace's log has grown. Sent after the commit and coalesced, on a connection of its own.

        NOTIFY inside the appending transaction would hold a lock of the whole cluster through the commit.
        """
        self._woken.add(workspace)
        self._wake.set()
        self.local_wake.set()
        if self._waker is None or self._waker.done():
            self._waker = asyncio.create_task(self._send_wake_ups(), name="wake-ups")

    async def _send_wake_ups(self) -> None:
        while self._woken or not self._closing:
            await self._wake.wait()
            self._wake.clear()
            names, self._woken = list(self._woken), set()
            if not names:
                continue
            try:
                async with self.pool.connection() as connection:
                    await connection.execute(
                        "SELECT pg_notify(%s, name) FROM unnest(%s::text[]) name", (CHANNEL, names), prepare=True
                    )
            except psycopg.Error as error:
                logger.warning("a wake-up was not sent: %s", error)  # readers poll as well
            if not self._closing:
                await asyncio.sleep(WAKE_INTERVAL)

    async def listen(self) -> AsyncGenerator[set[str]]:
        """Yield the workspaces whose logs have grown, or an empty set when POLL_INTERVAL passed without news.

        Close it when done (contextlib.aclosing): it holds a connection.
        """
        connection: AsyncConnection[Any] | None = None
        try:
            while True:
                try:
                    if connection is None or connection.closed:
                        connection = await self.connect("desk listen")
                        await connection.execute(f"LISTEN {CHANNEL}")
                    names = set()
                    async for notice in connection.notifies(timeout=POLL_INTERVAL, stop_after=1):
                        names.add(notice.payload)
                except psycopg.Error as error:
                    logger.warning("listening was interrupted: %s", error)
                    if connection is not None:
                        await connection.close()
                    connection = None
                    await asyncio.sleep(POLL_INTERVAL)
                    names = set()
                yield names
        finally:
            if connection is not None:
                await connection.close()


async def once_more(work: Callable[[], Awaitable[T]]) -> T:
    """Do what may be done twice, such as reading, and do it again where a connection was lost in the middle.

    Raises psycopg.OperationalError when that happens time after time, or nobody could be connected to.
    """
    for _ in range(LOST_IN_A_ROW):
        try:
            return await work()
        except psycopg.OperationalError as error:
            # On a standby, a query can be in the way of what is being replayed (class 40).
            if isinstance(error, PoolTimeout | TooManyRequests) or not (error.sqlstate or "08").startswith(
                ("08", "40", "57P")
            ):
                raise
            logger.info("reading again: %s", error)
    return await work()


@asynccontextmanager
async def reach(settings: Settings, role: DatabaseRole) -> AsyncIterator[str]:
    """Give the address under which a role finds the desk's database, keeping the embedded server up meanwhile.

    Raises DatabaseUnreachable.
    """
    async with AsyncExitStack() as stack:
        try:
            conninfo = await stack.enter_async_context(settings.server_conninfo(ROLE_NAMES[role]))
        except EmbeddedServerError as error:
            raise DatabaseUnreachable(str(error)) from error
        options = str(conninfo_to_dict(conninfo).get("options") or "")
        yield make_conninfo(conninfo, options=f"{options} {UTC_OPTION}".strip())


async def check_reachable(conninfo: str) -> None:
    """Connect once, so that a wrong address gives one sentence. Raises DatabaseUnreachable."""
    try:
        connection = await AsyncConnection.connect(conninfo, connect_timeout=CONNECT_TIMEOUT)
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        message = f"The database cannot be reached: {reason}"
        raise DatabaseUnreachable(message) from None
    async with connection:
        version = connection.info.server_version
        if version < OLDEST_SERVER:
            message = f"PostgreSQL {version // 10000} is too old: 15 or newer is needed."
            raise DatabaseUnreachable(message)
