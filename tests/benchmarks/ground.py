"""Where measurements are made: fresh databases on one server with the desk's own settings, gone afterwards."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from storage.embedded import SUPERUSER, EmbeddedServer
from storage.migrations import create_workspace, migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from storage.settings import Settings

WORKSPACE = "bench"
DURABILITY = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
"""Server settings that decide what a commit costs; printed with the figures, the same for both sides."""


class MeasurementError(Exception):
    """A measurement could not be made or an answer was wrong; the message says which."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A server to measure on. `settings` lead to a database of ours with an empty workspace."""

    settings: Settings
    address: str
    durability: dict[str, str]
    made: list[str]
    cluster: Path | None = None
    """The server's data directory, when it is one of ours."""

    async def database(self) -> str:
        """Make an empty database and give its address."""
        name = f"ledgerdesk_bench_{uuid4().hex[:12]}"
        async with await _connect(self.address) as connection:
            await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        self.made.append(name)
        return make_conninfo(self.address, dbname=name)

    async def checkpoint(self) -> None:
        """Write out what earlier measurements left behind, so that the next one does not pay for it."""
        async with await _connect(self.address) as connection:
            try:
                await connection.execute("CHECKPOINT")
            except psycopg.errors.InsufficientPrivilege:
                say("this user may not order a checkpoint, so one measurement may pay for another's writes")


@asynccontextmanager
async def ground(settings: Settings) -> AsyncIterator[Ground]:
    """Prepare a place to measure, and clear it away afterwards; the desk's own data is not touched.

    With the embedded server: a server of its own under the data directory, so on the same disk. With another one:
    databases of its own there, which takes the right to make them. Raises MeasurementError.
    """
    if settings.database_url is not None:
        async with _prepared(settings, settings.database_url) as prepared:
            yield prepared
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    data_dir = Path(tempfile.mkdtemp(prefix="bench-", dir=settings.data_dir))
    server = EmbeddedServer(data_dir, version=settings.postgres_version)
    try:
        await asyncio.to_thread(server.start)
        try:
            address = server.conninfo(user=SUPERUSER, dbname="postgres")
            async with _prepared(replace(settings, data_dir=data_dir), address) as prepared:
                yield replace(prepared, cluster=server.cluster)
        finally:
            await asyncio.to_thread(server.stop)
    finally:
        await asyncio.to_thread(shutil.rmtree, data_dir, ignore_errors=True)


@asynccontextmanager
async def _prepared(settings: Settings, address: str) -> AsyncIterator[Ground]:
    try:
        async with await _connect(address) as connection:
            durability = {name: str(await _one(connection, f"SHOW {name}")) for name in DURABILITY}
    except psycopg.Error as error:
        message = f"The database cannot be reached: {' '.join(str(error).split())}"
        raise MeasurementError(message) from None
    keys = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="ledgerdesk-bench-"))
    prepared = Ground(replace(settings, key_file=keys / "root.key"), address, durability, [])
    try:
        ours = replace(prepared.settings, database_url=await prepared.database(), workspace=WORKSPACE)
        await migrate(ours)
        await create_workspace(ours, WORKSPACE)
        yield replace(prepared, settings=ours)
    finally:
        async with await _connect(address) as connection:
            for name in prepared.made:
                drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                await connection.execute(drop)
        await asyncio.to_thread(shutil.rmtree, keys, ignore_errors=True)


def library_environment(address: str, *, pool_size: int, max_overflow: int = 0) -> dict[str, str]:
    """Give the `eventsourcing` package's settings for a database; a pool is exactly as large as asked for."""
    with psycopg.connect(address) as connection:
        info = connection.info
        return {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": info.dbname,
            "POSTGRES_HOST": info.host,
            "POSTGRES_PORT": str(info.port),
            "POSTGRES_USER": info.user,
            "POSTGRES_PASSWORD": info.password or "none",
            "POSTGRES_POOL_SIZE": str(pool_size),
            "POSTGRES_MAX_OVERFLOW": str(max_overflow),
        }


def say(line: str) -> None:
    """Tell the person waiting how far it is; standard output is for the result alone."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


async def _connect(address: str) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(address, autocommit=True)


async def _one(connection: psycopg.AsyncConnection[Any], statement: str) -> Any:
    row = await (await connection.execute(statement.encode())).fetchone()
    return None if row is None else row[0]
