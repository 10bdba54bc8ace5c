"""Which process keeps which view up: whoever lives says so several times a second, and the living divide the views."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Placeholder

from projections.bookkeeping import LEASE_SECONDS
from storage.database import CONNECT_TIMEOUT, RECONNECT_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psycopg import AsyncConnection

    from projections.view import View
    from storage.database import Workspace

logger = logging.getLogger(__name__)

RENEW_SECONDS: Final = 0.3  # four renewals a lease: three may be late
HANGS_SECONDS: Final = 10.0  # an event loop that has not turned for so long does not keep its views by a thread's word
FORGET_SECONDS: Final = 3600.0

Living = dict[str, frozenset[str]]
"""Processes that live, and the labels of the views that each has the code of."""


class Lease:
    """A process's word that it lives, given by a thread with a connection of its own.

    So a fold, or a statement that takes long, does not cost the process its views. `heard` is called in the event loop
    after each renewal with those who live, this process among them, and whether it had been taken for dead before.
    """

    def __init__(
        self, conninfo: str, owner_id: str, views: Iterable[View], heard: Callable[[Living, bool], None]
    ) -> None:
        self._conninfo = conninfo
        self._owner_id = owner_id
        self._views = sorted(view.label for view in views)
        self._heard = heard
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turned_at = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="views lease", daemon=True)

    def start(self) -> None:
        """Begin, from the event loop that is to hear of it."""
        self._loop = asyncio.get_running_loop()
        self._turned_at = time.monotonic()
        self._thread.start()

    async def end(self) -> None:
        """Say that this process lives no more, unless the database does not answer."""
        self._ending.set()
        await asyncio.to_thread(self._thread.join, RENEW_SECONDS + LEASE_SECONDS)

    def _keep(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        pause = 0.0
        while not self._ending.wait(pause):
            pause = RENEW_SECONDS
            try:
                if connection is None or connection.closed:
                    connection = psycopg.connect(
                        self._conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name="desk lease"
                    )
                if time.monotonic() - self._turned_at < HANGS_SECONDS:
                    self._renew(connection)
                else:
                    self._tell(None)
            except psycopg.Error as error:
                logger.info("the lease was not renewed: %s", error)
                if connection is not None:
                    connection.close()  # the server may be written to no more; another is
                connection, pause = None, RECONNECT_INTERVAL
        if connection is not None:
            try:
                connection.execute("DELETE FROM ledgerdesk.runners WHERE name = %s", (self._owner_id,))
                connection.close()
            except psycopg.Error as error:
                logger.info("the lease was not given up: %s", error)

    def _renew(self, connection: psycopg.Connection[Any]) -> None:
        parameters = {
            "owner": self._owner_id,
            "views": self._views,
            "lease": LEASE_SECONDS,
            "forget": FORGET_SECONDS,
        }
        self._tell(connection.execute(_RENEW, parameters, prepare=True).fetchall())

    def _tell(self, rows: Sequence[tuple[str, list[str]]] | None) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop was closed: this process ends
                self._loop.call_soon_threadsafe(self._hear, rows)

    def _hear(self, rows: Sequence[tuple[str, list[str]]] | None) -> None:
        self._turned_at = time.monotonic()
        if rows is not None:
            living = {name: frozenset(views) for name, views in rows}
            known = self._owner_id in living
            self._heard(living | {self._owner_id: frozenset(self._views)}, not known)


def keeper(workspace: str, view: View, living: Living) -> str | None:
    """Name the process that is to keep a view up, of those that have its code; None where none has.

    Every process comes to the same answer by itself. The views of a workspace stay together, so that a page is read and
    decoded once for all of them; workspaces are spread, and when a process comes or goes, only its share moves.
    """
    able = [name for name, views in living.items() if view.label in views]
    return max(able, key=lambda name: _weight(workspace, name), default=None)


def _weight(workspace: str, name: str) -> bytes:
    return blake2b(f"{workspace}\n{name}".encode(), digest_size=8).digest()


class Share(NamedTuple):
    """Which views of a workspace are to be ours, and which are to be somebody else's."""

    workspace: Workspace
    ours: Sequence[View]
    others: Sequence[View] = ()


def share(workspace: Workspace, views: Iterable[View], living: Living, owner_id: str) -> Share:
    """Tell which of the views of a workspace fall to a process."""
    ours: list[View] = []
    others: list[View] = []
    for view in views:
        (ours if keeper(workspace.name, view, living) == owner_id else others).append(view)
    return Share(workspace, ours, others)


async def divide(connection: AsyncConnection[Any], owner_id: str, shares: Iterable[Share]) -> bool:
    """Take the views that are to be ours and that nobody living has, and give up those that are to be somebody else's.

    One statement for many workspaces. Tells whether a view was taken that was not ours before.
    """
    parameters: dict[str, Any] = {"owner": owner_id, "lease": LEASE_SECONDS}
    parts: list[Composable] = []
    taken: list[Composable] = [SQL("false")]
    for number, (workspace, ours, others) in enumerate(shares):
        for what, views, statement in (("take", ours, _TAKE), ("give", others, _GIVE)):
            if views:
                part = f"{what}{number}"
                if what == "take":
                    taken.append(SQL("EXISTS (SELECT FROM {})").format(Identifier(part)))
                parts.append(
                    SQL(statement).format(
                        part=Identifier(part),
                        schema=Identifier(workspace.schema),
                        names=Placeholder(f"{part}_names"),
                        versions=Placeholder(f"{part}_versions"),
                    )
                )
                parameters[f"{part}_names"] = [view.name for view in views]
                parameters[f"{part}_versions"] = [view.version for view in views]
    if not parts:
        return False
    query = SQL("WITH {} SELECT {}").format(SQL(", ").join(parts), SQL(" OR ").join(taken))
    row = await (await connection.execute(query, parameters)).fetchone()
    return row == (True,)


# Gives the others that live; and this process where it had not been taken for dead, since all parts of a statement see
# the table as it was before.
_RENEW = """
WITH forgotten AS (
    DELETE FROM ledgerdesk.runners WHERE leased_until < now() - %(forget)s * interval '1 second'
), renewed AS (
    INSERT INTO ledgerdesk.runners (name, views, leased_until)
    VALUES (%(owner)s, %(views)s, now() + %(lease)s * interval '1 second')
    ON CONFLICT (name) DO UPDATE SET leased_until = excluded.leased_until
    RETURNING set_config('synchronous_commit', 'off', true)
)
SELECT name, views FROM ledgerdesk.runners WHERE leased_until > now()
"""

# A view is kept by its owner while that lives, and a moment after each page that it wrote. A row that is locked is passed
# over: whoever is writing it lives, or stands still and is ended by the server.
_TAKE = """{part} AS (
    UPDATE {schema}.views SET owner = %(owner)s, leased_until = now() + %(lease)s * interval '1 second'
    WHERE (name, version) IN (
        SELECT v.name, v.version FROM {schema}.views v
        WHERE (v.name, v.version) IN (SELECT * FROM unnest({names}::text[], {versions}::int[]))
          AND (v.owner IS NULL OR v.owner <> %(owner)s AND v.leased_until < now() AND NOT EXISTS (
              SELECT FROM ledgerdesk.runners r WHERE r.name = v.owner AND r.leased_until > now()))
        FOR UPDATE SKIP LOCKED)
    RETURNING true
)"""

_GIVE = """{part} AS (
    UPDATE {schema}.views SET owner = NULL, leased_until = NULL
    WHERE (name, version) IN (
        SELECT v.name, v.version FROM {schema}.views v
        WHERE (v.name, v.version) IN (SELECT * FROM unnest({names}::text[], {versions}::int[])) AND v.owner = %(owner)s
        FOR UPDATE SKIP LOCKED)
)"""
