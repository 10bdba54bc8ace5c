"""The epochs of a log: what earlier positions still mean after a restore or a failover."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.sql import SQL, Identifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from psycopg import AsyncConnection

    from storage.database import Database, Workspace

logger = logging.getLogger(__name__)

LONGEST_REASON: Final = 500


class Epoch(NamedTuple):
    """A stretch of the log's life in one place. What earlier epochs said of positions up to `after_position` holds."""

    epoch: str
    after_position: int
    started_at: datetime
    reason: str


class Epochs:
    """The epochs of one log as one process knows them."""

    def __init__(self, database: Database, schema: str) -> None:
        self._database = database
        self._schema = schema
        self._generation = -1
        self._all: list[Epoch] | None = None
        self._seen: tuple[str | None, int, datetime] | None = None
        self.known: str | None = None
        """The epoch as last read."""
        self.on_renewal: Callable[[], None] | None = None
        """Called when the epoch has changed: what was remembered of the log may not be in it any more."""
        name = Identifier(schema)
        self._sql_enter = SQL("SELECT {}.enter_log(%s, %s, %s)").format(name).as_string()
        self._sql_current = SQL("SELECT epoch FROM {}.log_identity").format(name).as_string()
        self._sql_all = (
            SQL("SELECT epoch, after_position, started_at, reason FROM {}.log_epochs ORDER BY number")
            .format(name)
            .as_string()
        )

    async def enter(self, connection: AsyncConnection[Any]) -> str:
        """Learn the epoch from the server that a new connection will append to, which begins one where it must."""
        cursor = await connection.execute(self._sql_enter, self._seen or (None, None, None))
        epoch = _only(await cursor.fetchone())
        if self._learn(epoch):
            # Some of the pool's connections may still lead to the server of before.
            await self._database.pool.drain()
        return epoch

    def saw(self, position: int, recorded_at: datetime) -> None:
        """Remember an event that was appended, to know a log again that was set back."""
        self._seen = (self.known, position, recorded_at)

    async def current(self) -> str:
        """Give the epoch.

        It is read again when connections had to be made anew: a restore or a failover ends them. Those to a standby may
        outlast the primary that it follows, so there it is read every time.
        """
        generation = self._database.generation
        if self.known is None or self._generation != generation or self._database.follows:
            async with self._database.pool.connection() as connection:
                cursor = await connection.execute(self._sql_current, prepare=True)
                epoch = _only(await cursor.fetchone())
            self._learn(epoch)
            self._generation = generation
            return epoch
        return self.known

    async def all(self) -> list[Epoch]:
        """Give every epoch of the log, in order."""
        async with self._database.pool.connection() as connection:
            cursor = await connection.execute(self._sql_all)
            return list(map(Epoch._make, await cursor.fetchall()))

    async def hold(self, position: int, epoch: str) -> bool:
        """Tell whether the log still has what was at a position, and before it, in an epoch.

        It does if every epoch since then took the position over; so callers go on with what they have after a failover
        that lost nothing.
        """
        if epoch == await self.current():
            return True
        if self._all is None:
            self._all = await self.all()
        for one in reversed(self._all):
            if one.epoch == epoch:
                return True
            if position > one.after_position:
                break
        return False

    def _learn(self, epoch: str) -> bool:
        """Take note of the epoch; tell whether another one was known before."""
        before, self.known = self.known, epoch
        if before in {None, epoch}:
            return False
        logger.warning("%s: the log is in epoch %s now; before it was in %s", self._schema, epoch, before)
        self._all = None
        if self.on_renewal is not None:
            self.on_renewal()
        return True


async def renew(workspace: Workspace, reason: str, *, trusted: int = 0) -> str:
    """Begin an epoch and give it; what earlier ones said of positions above `trusted` is refused from now on.

    The connections of every process of the desk are ended, so that each of them reads the epoch; requests under way are
    repeated by the processes or told to their callers as an outage. The workspace's database is open as the owner.
    Raises ValueError for positions and reasons that cannot be.
    """
    if not reason.strip() or len(reason) > LONGEST_REASON:
        message = f"a reason has 1 to {LONGEST_REASON} characters"
        raise ValueError(message)
    head = (await workspace.log.head()).position
    if not 0 <= trusted <= head:
        message = f"the log has positions up to {head}, not {trusted}"
        raise ValueError(message)
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            SQL("SELECT {}.renew_epoch(%s, %s)").format(Identifier(workspace.schema)), (reason.strip(), trusted)
        )
        epoch = _only(await cursor.fetchone())
        await connection.execute(
            """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'desk%' AND pid <> pg_backend_pid()
            """
        )
    return epoch


def _only(row: tuple[str] | None) -> str:
    if row is None:
        message = "the log has no identity"
        raise LookupError(message)
    return row[0]
