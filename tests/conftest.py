"""The ground tests stand on: one PostgreSQL for the run, a database of its own for every test that asks for one."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from storage.database import Database, Workspace
from storage.embedded import OWNER, SUPERUSER, EmbeddedServer
from storage.migrations import create_workspace, migrate
from storage.settings import Settings
from tests.what_is_left import summary, verify_what_is_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

WORKSPACES = ("alpha", "beta")

# What `pytest --hypothesis-profile=soak` means for the tests that go by it; a seed is given with --hypothesis-seed.
hypothesis_settings.register_profile(
    "soak",
    max_examples=3000,
    stateful_step_count=50,
    deadline=None,
    # Who wins a race differs from one run to the next, so that an example cannot be made smaller.
    phases=[Phase.reuse, Phase.generate],
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

UNSAFE_BUT_QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # A clone of a database is a checkpoint away from its template; none should come in between by itself.
    "checkpoint_timeout": "1h",
    "autovacuum_naptime": "1h",
    "max_wal_size": "512MB",  # it may be kept in memory
}

MEMORY = Path("/dev/shm")  # noqa: S108 - what is kept there has a directory of its own
ROOM = 4 << 30  # bytes; a run needs a small part of it


class Server(NamedTuple):
    """A PostgreSQL on which the run may make and drop databases named with its prefix."""

    administrator: str
    """An address with the right to make databases and roles."""
    owner: str
    """The address of the user the desk connects as; the database in it is replaced."""
    prefix: str
    strategy: str
    """How a database is cloned: FILE_COPY is quicker where a checkpoint costs nothing, as nothing waits for a disk."""

    def settings(self, dbname: str, directory: Path, key_file: Path) -> Settings:
        """Point a desk at one of the databases."""
        return Settings(
            data_dir=directory, key_file=key_file, database_url=make_conninfo(self.owner, dbname=dbname), pool_size=4
        )

    def execute(self, statement: str, *names: str) -> None:
        """Run one statement on the server, with names in place of {}."""
        with psycopg.connect(self.administrator, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was verified after the tests, so that it is seen when nothing was."""
    told = summary()
    if told is not None:
        terminalreporter.write_line(told)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what tests the domain: it has to do without the world."""
    for item in items:
        if "domain" in item.path.relative_to(Path(__file__).parent).parts[:1]:
            item.add_marker(pytest.mark.pure)


@pytest.fixture(autouse=True)
def _kept_from_the_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("pure") is None:
        return

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a test of the domain reached for a socket or a database")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(psycopg.Connection, "connect", refuse)
    monkeypatch.setattr(psycopg.AsyncConnection, "connect", refuse)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run asynchronous tests as the desk runs: on asyncio, with uvloop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Give the server of DATABASE_URL or the libpq variables, else an embedded one of DESK_POSTGRES_VERSION."""
    prefix = f"ledgerdesk_test_{uuid4().hex[:8]}"
    chosen = Settings.from_environment()
    if chosen.database_url is not None:
        yield Server(chosen.database_url, chosen.database_url, prefix, "WAL_LOG")
        return
    # Not below pytest's own directory: that one is closed to the user a root's PostgreSQL runs as.
    directory = roomy_directory() / prefix
    try:
        with EmbeddedServer(directory, version=chosen.postgres_version, options=UNSAFE_BUT_QUICK) as embedded:
            administrator = embedded.conninfo(user=SUPERUSER, dbname="postgres")
            yield Server(administrator, embedded.conninfo(user=OWNER), prefix, "FILE_COPY")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name the root key that the workspaces of this run are made with."""
    return tmp_path_factory.mktemp("key") / "root.key"


@pytest.fixture(scope="session")
def template(server: Server, key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name a migrated database with the workspaces alpha and beta; nobody may stay connected to it."""
    with new_database(server, "template") as name:
        settings = server.settings(name, tmp_path_factory.mktemp("template"), key_file)

        async def prepare() -> None:
            await migrate(settings)
            for workspace in WORKSPACES:
                await create_workspace(settings, workspace)

        asyncio.run(prepare())
        yield name


@pytest.fixture
def settings(server: Server, template: str, key_file: Path, tmp_path: Path) -> Iterator[Settings]:
    """Point at a fresh database with the workspaces alpha and beta, empty."""
    with new_database(server, uuid4().hex[:8], template=template) as name:
        yield server.settings(name, tmp_path, key_file)


@pytest.fixture
def empty_settings(server: Server, tmp_path: Path) -> Iterator[Settings]:
    """Point at a fresh database in which nothing has been made yet."""
    with new_database(server, uuid4().hex[:8]) as name:
        yield server.settings(name, tmp_path, tmp_path / "root.key")


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """Give what a command of ours, run as a process, needs to find the database of this test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_URL"))}
    return kept | {
        "DATABASE_URL": settings.database_url or "",
        "DESK_DATA_DIR": str(settings.data_dir),
        "DESK_KEY_FILE": str(settings.key_file),
        "DESK_WORKSPACE": WORKSPACES[0],
    }


@pytest.fixture
async def database(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Open the database of this test in the application's role; the views that the test leaves there are verified."""
    async with await Database.open(settings) as opened:
        yield opened
        await verify_what_is_left(opened, request.node)


@pytest.fixture
async def alpha(database: Database) -> Workspace:
    """Give the workspace most tests work in."""
    return await database.workspace("alpha")


@pytest.fixture
async def beta(database: Database) -> Workspace:
    """Give the workspace that must not notice."""
    return await database.workspace("beta")


@contextmanager
def new_database(server: Server, suffix: str, *, template: str | None = None) -> Iterator[str]:
    """Make a database owned by the desk's user and drop it afterwards, whoever is still connected."""
    name = f"{server.prefix}_{suffix}"
    owner = conninfo_to_dict(server.owner).get("user")
    statement = f"CREATE DATABASE {{}} TEMPLATE {{}} STRATEGY {server.strategy}"
    if template is None:
        statement += " ENCODING 'UTF8' LOCALE 'C'"
    names = [name, template or "template0"]
    if owner:
        statement += " OWNER {}"
        names.append(str(owner))
    server.execute(statement, *names)
    try:
        yield name
    finally:
        drop(server, name)


def roomy_directory() -> Path:
    """Choose memory, where the machine offers plenty of it as a directory: every test makes some 600 files anew."""
    with suppress(OSError):
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize >= ROOM and os.access(MEMORY, os.W_OK | os.X_OK):
            return MEMORY
    return Path(tempfile.gettempdir())


def drop(server: Server, name: str) -> None:
    """Drop a database, whoever is still connected; a vacuum that the server began there may have to end first."""
    deadline = time.monotonic() + 30
    while True:
        try:
            server.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectInUse):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
