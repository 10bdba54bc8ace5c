"""Where the desk keeps its record and how it is reached, as the environment says."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGDATABASE")
"""Each of these names a server; PGUSER, PGPASSWORD and the like only say how to enter one."""

POSTGRES_VERSIONS = (18, 16)
"""The versions whose binaries come with the embedded server, newest first."""

WORKSPACE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""What a workspace may be called: it names a Postgres schema and stands in addresses."""


class SettingsError(ValueError):
    """A setting is wrong; the message is one sentence that names it and says what it may be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process finds its record, and how it lets itself be found."""

    data_dir: Path
    """Holds the embedded server's data, its log and the root key."""
    database_url: str | None = None
    """An external server, as libpq understands it; empty for "as the libpq variables say", None for the embedded."""
    workspace: str = "main"
    """What the command line works on; over HTTP the credential decides."""
    host: str = "127.0.0.1"
    port: int = 8000
    key_file: Path | None = None
    """The root key; None is `root.key` in the data directory."""
    pool_size: int = 10
    """Connections one process may open."""
    workers: int = 1
    """Processes that serve HTTP."""
    postgres_version: int | None = None
    """Of the embedded server; None is the version its data has, or else the newest."""

    @property
    def embedded(self) -> bool:
        """Whether the desk brings its own server."""
        return self.database_url is None

    @property
    def root_key_file(self) -> Path:
        """Where the root key lies."""
        return self.key_file or self.data_dir / "root.key"

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read DATABASE_URL, the libpq variables and DESK_*; an empty variable counts as absent.

        Raises SettingsError.
        """
        given = {name: value for name, value in env.items() if value}
        key_file = given.get("DESK_KEY_FILE")
        return cls(
            data_dir=_directory(given.get("DESK_DATA_DIR")),
            database_url=_database_url(given),
            workspace=_workspace(given.get("DESK_WORKSPACE", "main")),
            host=given.get("DESK_HOST", "127.0.0.1"),
            port=_whole_number(given, "DESK_PORT", 8000, 0, 65535),
            key_file=_path("DESK_KEY_FILE", key_file) if key_file else None,
            pool_size=_whole_number(given, "DESK_POOL_SIZE", 10, 1, 1000),
            workers=_whole_number(given, "DESK_WORKERS", 1, 1, 64),
            postgres_version=_postgres_version(given.get("DESK_POSTGRES_VERSION")),
        )


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
    url = given.get("DATABASE_URL")
    if url is None:
        return "" if any(name in given for name in LIBPQ_VARIABLES) else None
    # The libpq parser decides what is an address, several hosts included. Its complaint may quote the address with the
    # password in it, so it is not repeated.
    try:
        parts = conninfo_to_dict(url)
    except (ProgrammingError, UnicodeError):
        parts = {}
    if not parts:
        message = (
            "DATABASE_URL must be an address that libpq understands, such as"
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


def _postgres_version(value: str | None) -> int | None:
    if value is None:
        return None
    if value not in map(str, POSTGRES_VERSIONS):
        message = f"DESK_POSTGRES_VERSION must be one of {', '.join(map(str, POSTGRES_VERSIONS))}, not {value!r}."
        raise SettingsError(message)
    return int(value)
