"""Where the desk keeps its record and how it is reached, as the environment says."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from storage.append import LARGEST_EVENT
from storage.embedded import OWNER, EmbeddedServer
from storage.programs import VERSIONS, EmbeddedServerError
from storage.releases import installed_release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

logger = logging.getLogger(__name__)

WATCH_SECONDS: Final = 0.5  # between two looks whether the embedded server is still there

LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGDATABASE")
"""Each of these names a server; PGUSER, PGPASSWORD and the like only say how to enter one."""

WAITING_COMMANDS: Final = 2_000
"""As many as a process carries out in about a second: who comes later than that is better told so at once."""

WORKSPACE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""What a workspace may be called: it names a Postgres schema and stands in addresses."""


class SettingsError(ValueError):
    """A setting is wrong; the message is one sentence that names it and says what it may be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process finds its record, and how it lets itself be found."""

    data_dir: Path
    """Holds the embedded server's data and its log, and the root key unless that is elsewhere."""
    key_file: Path
    """The root key."""
    database_url: str | None = None
    """An external server, as libpq understands it; empty for "as the libpq variables say", None for the embedded."""
    read_database_url: str | None = None
    """Where reading requests are answered from, such as a standby; None for the same place as all others."""
    workspace: str = "main"
    """What the command line works on; over HTTP the credential decides."""
    host: str = "127.0.0.1"
    port: int = 8000
    pool_size: int = 10
    """Connections one process may open."""
    waiting_commands: int = WAITING_COMMANDS
    """Commands that may wait in one process at once; more are told to come again."""
    workers: int = 1
    """Processes that serve HTTP."""
    timer: bool = True
    """Whether processes that keep views up also see to what falls due; not so on a copy that is only looked at."""
    largest_event: int = LARGEST_EVENT
    """Bytes of state and personal values that an event may have."""
    release: str = field(default_factory=installed_release)
    """What this copy of the desk is called in the logs it writes."""
    postgres_version: int | None = None
    """Of the embedded server; None is the version its data has, or else the newest."""

    @property
    def embedded(self) -> bool:
        """Whether the desk brings its own server."""
        return self.database_url is None

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read DATABASE_URL, the libpq variables and DESK_*; an empty variable counts as absent.

        Raises SettingsError.
        """
        given = {name: value.strip() for name, value in env.items() if value.strip()}
        data_dir = _directory(given.get("DESK_DATA_DIR"))
        key_file = given.get("DESK_KEY_FILE")
        return cls(
            data_dir=data_dir,
            key_file=_path("DESK_KEY_FILE", key_file) if key_file else data_dir / "root.key",
            database_url=_database_url(given),
            read_database_url=_address("DESK_READ_DATABASE_URL", given.get("DESK_READ_DATABASE_URL")),
            workspace=_workspace(given.get("DESK_WORKSPACE", "main")),
            host=given.get("DESK_HOST", "127.0.0.1"),
            port=_whole_number(given, "DESK_PORT", 8000, 0, 65535),
            pool_size=_whole_number(given, "DESK_POOL_SIZE", 10, 1, 1000),
            waiting_commands=_whole_number(given, "DESK_WAITING_COMMANDS", WAITING_COMMANDS, 1, 1_000_000),
            workers=_whole_number(given, "DESK_WORKERS", 1, 1, 64),
            timer=_on_or_off("DESK_TIMER", given.get("DESK_TIMER", "on")),
            largest_event=_whole_number(given, "DESK_LARGEST_EVENT", LARGEST_EVENT, 4096, 256 * 1024 * 1024),
            release=_release(given.get("DESK_RELEASE")),
            postgres_version=_postgres_version(given.get("DESK_POSTGRES_VERSION")),
        )

    @asynccontextmanager
    async def server_conninfo(self, role: str) -> AsyncIterator[str]:
        """Give the address of the record's server in a role, having started or joined the embedded one if need be.

        On an external server the user of the address is the owner, and takes the other roles on. Leaving the block
        leaves the embedded server, and the last to leave stops it; one that ends by itself before is started again.
        Raises EmbeddedServerError.
        """
        if self.database_url is not None:
            yield external_conninfo(self.database_url, role)
            return
        server = EmbeddedServer(self.data_dir, version=self.postgres_version)
        # Starting may take a recovery, and it blocks: in a thread, so that the loop goes on meanwhile.
        await asyncio.to_thread(server.start)
        leaving = asyncio.Event()
        watching = asyncio.create_task(_keep_up(server, leaving), name="embedded server")
        try:
            yield server.conninfo(user=role)
        finally:
            leaving.set()
            await watching
            await asyncio.to_thread(server.stop)


async def _keep_up(server: EmbeddedServer, leaving: asyncio.Event) -> None:
    """Start the server again whenever it has ended, until it is left."""
    while not leaving.is_set():
        try:
            if await asyncio.to_thread(server.revive):
                logger.error("the embedded PostgreSQL in %s had ended and was started again", server.data_dir)
        except EmbeddedServerError as error:
            logger.error("%s", error)  # noqa: TRY400 - the message is the whole story
        with suppress(TimeoutError):
            await asyncio.wait_for(leaving.wait(), WATCH_SECONDS)


def external_conninfo(database_url: str, role: str, env: Mapping[str, str] = os.environ) -> str:
    """Give an external server's address in a role; options of the address or of PGOPTIONS stay in force."""
    if role == OWNER:
        return database_url
    options = conninfo_to_dict(database_url).get("options") or env.get("PGOPTIONS", "")
    return make_conninfo(database_url, options=f"{options} -c role={role}".strip())


def project_root() -> Path | None:
    """Return the checkout this package is imported from; None when it was installed elsewhere."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else None


def _directory(value: str | None) -> Path:
    if value is None:
        return (project_root() or Path.cwd()) / ".desk"
    directory = _path("DESK_DATA_DIR", value)
    if directory.exists() and not directory.is_dir():
        message = f"DESK_DATA_DIR must name a directory, and {str(directory)!r} is something else."
        raise SettingsError(message)
    return directory


def _path(variable: str, value: str) -> Path:
    if "\0" in value:
        message = f"{variable} must not contain NUL characters."
        raise SettingsError(message)
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        message = f"{variable} starts with a home directory that does not exist: {value!r}."
        raise SettingsError(message) from None


def _database_url(given: Mapping[str, str]) -> str | None:
    url = _address("DATABASE_URL", given.get("DATABASE_URL"))
    if url is None:
        return "" if any(name in given for name in LIBPQ_VARIABLES) else None
    return url


def _address(variable: str, url: str | None) -> str | None:
    # The libpq parser decides what is an address, several hosts included. Its complaint may quote the address with the
    # password in it, so it is not repeated.
    if url is None:
        return None
    try:
        conninfo_to_dict(url)
    except (ProgrammingError, UnicodeError):
        message = (
            f"{variable} must be an address that libpq understands, such as"
            " postgresql://user:password@host:5432/database or 'host=... dbname=...'."
        )
        raise SettingsError(message) from None
    return url


def _workspace(value: str) -> str:
    if not WORKSPACE_NAME.fullmatch(value):
        message = (
            "DESK_WORKSPACE must be at most 40 lower-case letters, digits and underscores,"
            f" beginning with a letter, not {value!r}."
        )
        raise SettingsError(message)
    return value


def _whole_number(given: Mapping[str, str], variable: str, default: int, least: int, most: int) -> int:
    value = given.get(variable)
    if value is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()) or not least <= int(value) <= most:
        message = f"{variable} must be a whole number from {least} to {most}, not {value!r}."
        raise SettingsError(message)
    return int(value)


def _on_or_off(variable: str, value: str) -> bool:
    if value not in {"on", "off"}:
        message = f"{variable} must be on or off, not {value!r}."
        raise SettingsError(message)
    return value == "on"


def _release(value: str | None) -> str:
    if value is None:
        return installed_release()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", value):
        message = (
            "DESK_RELEASE must be at most 64 letters, digits, dots, underscores, plus and minus signs,"
            f" beginning with a letter or digit, not {value!r}."
        )
        raise SettingsError(message)
    return value


def _postgres_version(value: str | None) -> int | None:
    if value is None:
        return None
    if value not in map(str, VERSIONS):
        message = f"DESK_POSTGRES_VERSION must be one of {', '.join(map(str, VERSIONS))}, not {value!r}."
        raise SettingsError(message)
    return int(value)
