"""The PostgreSQL server the desk brings along: started by whoever needs it first, stopped by whoever leaves last."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from storage import caretaker, unprivileged
from storage.programs import (
    NEUTRAL,
    OPTIONS,
    PORT,
    VERSIONS,
    EmbeddedServerError,
    Process,
    ServerUser,
    give,
    installation,
    may_keep_search,
    neutral_environment,
    permits,
    postgres_processes,
    server_user,
    short_link,
    signal_to,
    somebody_listens,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

SUPERUSER: Final = "postgres"
OWNER: Final = "ledgerdesk_owner"
LOGIN_ROLES: Final = (OWNER, "ledgerdesk_app", "ledgerdesk_reader")
DATABASE: Final = "ledgerdesk"

START_TIMEOUT: Final = 120.0  # seconds; recovery after a crash reads the whole log since the last checkpoint
ORPHAN_PATIENCE: Final = 10.0  # seconds given to the backends of a killed server before they are ended
POLL: Final = 0.05  # seconds
LOG_LIMIT: Final = 16 * 1024 * 1024  # bytes; a longer log is set aside at the next start
LOG_TAIL: Final = 5  # lines shown in an error
RELAUNCHES: Final = 3
DECISION_LOCK: Final = "decision.lock"
USERS_LOCK: Final = "users.lock"
ALIVE_LOCK: Final = "alive.lock"


class EmbeddedServer:
    """The server of one data directory; any number of processes use it at the same time.

    `start` starts or joins it and `stop` leaves it; the last to leave stops it. Both block, and are meant for threads.
    `options` are further server settings; they hold for a server that this call starts, not for one it joins.

    In the data directory, `decision.lock` is held while a server is started or stopped, `users.lock` is shared by its
    users, and `alive.lock` is inherited by every process of the server: the kernel drops each of them with its holder,
    whatever end that came to. No file's word is taken for a process.
    """

    def __init__(self, data_dir: Path, *, version: int | None = None, options: Mapping[str, str] | None = None) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.cluster = self.data_dir / "postgres"
        self.log_file = self.data_dir / "postgres.log"
        self._asked_version = version
        self._options = {**OPTIONS, **(options or {})}
        self._socket_dir = self.data_dir / "socket"
        self._using: int | None = None
        self._reached_at = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # What users need

    def conninfo(self, *, user: str = OWNER, dbname: str = DATABASE) -> str:
        """Give the address of a database in a role; to be asked for again when a long-kept one stops working."""
        return make_conninfo("", **NEUTRAL, host=str(self._reachable_socket_dir()), user=user, dbname=dbname)

    @property
    def version(self) -> int:
        """The PostgreSQL version: that of the existing data, else the one asked for, else the newest."""
        try:
            found = int((self.cluster / "PG_VERSION").read_text("ascii"))
        except FileNotFoundError:
            return self._asked_version or next(iter(VERSIONS))
        except (OSError, ValueError) as error:
            message = f"The database in {self.cluster} cannot be read: {error}."
            raise EmbeddedServerError(message) from None
        if self._asked_version not in {None, found}:
            message = f"The data in {self.data_dir} is of PostgreSQL {found}, not {self._asked_version}."
            raise EmbeddedServerError(message)
        return found

    def bin(self, name: str) -> Path:
        """Locate a program of the server's version, such as `pgbench`."""
        program = installation(self.version) / "bin" / name
        if not program.is_file():
            message = f"There is no program {name} for PostgreSQL {self.version}."
            raise EmbeddedServerError(message)
        return program

    def environment(self, *, user: str = OWNER, dbname: str = DATABASE) -> dict[str, str]:
        """Give the environment in which a client program finds a database of this server."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        found = {"PGHOST": str(self._reachable_socket_dir()), "PGPORT": str(PORT)}
        return env | found | {"PGUSER": user, "PGDATABASE": dbname}

    def run(
        self, name: str, *arguments: str, user: str = OWNER, dbname: str = DATABASE, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a client program on a database of this server and give what it printed."""
        env = self.environment(user=user, dbname=dbname)
        return subprocess.run(  # noqa: S603 - a program of ours
            [self.bin(name), *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check
        )

    # Start and stop

    def start(self) -> None:
        """Start the server, or join it, and make the desk's roles and database where they are missing.

        Raises EmbeddedServerError.
        """
        if self._using is not None:
            message = "This server is in use already."
            raise EmbeddedServerError(message)
        deadline = time.monotonic() + START_TIMEOUT
        try:
            self._make_data_dir()
            with self._deciding(deadline), ExitStack() as undo:
                users = self._open_file(USERS_LOCK)
                undo.callback(os.close, users)
                fcntl.flock(users, fcntl.LOCK_SH)
                self._bring_up(deadline)
                self._make_roles_and_database()
                undo.pop_all()
                self._using = users
        except (OSError, psycopg.Error) as error:
            reason = (
                f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
            )
            sentence = " ".join(reason.split()).rstrip(".")
            message = f"The embedded PostgreSQL in {self.data_dir} cannot be used: {sentence}.{self._log_tail()}"
            raise EmbeddedServerError(message) from error

    def stop(self) -> None:
        """Leave the server; the last user to leave stops it. Raises EmbeddedServerError when it does not stop."""
        users, self._using = self._using, None
        if users is None:
            return
        try:
            # Whoever starts, joins or leaves meanwhile waits for this decision.
            with self._deciding(time.monotonic() + START_TIMEOUT):
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                self._shut_down()
        except FileNotFoundError:
            # The data directory was removed; the caretaker ends what is left.
            return
        finally:
            os.close(users)

    def revive(self) -> bool:
        """Start the server again where it has ended under its users, and tell whether that was so.

        To be called again and again by whoever uses the server for long: one that was killed is nobody's child, and
        its caretaker may have been killed with it. Raises EmbeddedServerError.
        """
        try:
            if self._using is None or not self._has_ended():
                return False
            deadline = time.monotonic() + START_TIMEOUT
            with self._deciding(deadline):
                # Another user may have been quicker.
                ended = self._has_ended()
                if ended:
                    self._bring_up(deadline)
                return ended
        except FileNotFoundError:
            return False  # the data directory was removed, and with it what there was to serve
        except OSError as error:
            message = f"The embedded PostgreSQL in {self.data_dir} cannot be started again: {error}.{self._log_tail()}"
            raise EmbeddedServerError(message) from error

    def _has_ended(self) -> bool:
        """Tell whether no process of a server lives, or none has answered for a while."""
        with self._unless_alive() as alive_lock:
            if alive_lock is not None:
                return True
        now = time.monotonic()
        if now - self._reached_at < ORPHAN_PATIENCE:
            return False
        # The server may have been killed while one of its backends is in the middle of a long statement. A connection
        # costs the server a process, so that the lock is asked first and this seldom.
        if not somebody_listens(self._reachable_socket_dir() / f".s.PGSQL.{PORT}"):
            return True
        self._reached_at = now
        return False

    def _bring_up(self, deadline: float) -> None:
        """Connect, having started a server where none lives. Held: the decision."""
        launches = 0
        refused_since = time.monotonic()
        while time.monotonic() < deadline:
            problem = self._ask_whether_it_lives()
            if problem is None:
                self._reached_at = time.monotonic()
                return
            if isinstance(problem, psycopg.errors.CannotConnectNow):
                refused_since = time.monotonic()  # it is starting, recovering or stopping, and will be done some time
            with self._unless_alive() as alive_lock:
                if alive_lock is not None:
                    if launches and not self._was_in_the_way_of_itself(launches):
                        message = f"PostgreSQL did not start in {self.data_dir}.{self._log_tail()}"
                        raise EmbeddedServerError(message)
                    self._launch(alive_lock)
                    launches += 1
                    refused_since = time.monotonic()
            if time.monotonic() - refused_since > ORPHAN_PATIENCE:
                # The server was killed, and a backend in the middle of a long statement has not noticed yet.
                for process in self._processes():
                    signal_to(process.pid, signal.SIGKILL)
            time.sleep(POLL)
        message = f"PostgreSQL in {self.data_dir} did not answer within {START_TIMEOUT:.0f} seconds.{self._log_tail()}"
        raise EmbeddedServerError(message)

    def _ask_whether_it_lives(self) -> psycopg.Error | None:
        """Connect, which alone is proof; else say why not."""
        try:
            psycopg.connect(self.conninfo(user=SUPERUSER, dbname="postgres"), connect_timeout=5).close()
        except psycopg.Error as error:
            return error
        return None

    def _was_in_the_way_of_itself(self, launches: int) -> bool:
        """Tell whether a server that did not start may do so now: a killed one's memory is freed with a delay."""
        return launches < RELAUNCHES and "shared memory block" in self._log_tail()

    def _launch(self, alive_lock: int) -> None:
        """Start a server with its caretaker, having cleared away what a killed one left. Held: alive, decision."""
        user = server_user(self.cluster, self.data_dir)
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise(user)
        self._clear_remains(user)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        os.close(self._open_file(self.log_file.name))
        settings = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        plan: caretaker.Plan = {
            "command": [*self._as(user), str(self.bin("postgres")), "-D", str(self.cluster), *settings],
            "log": str(self.log_file),
            "alive_fd": alive_lock,
            "decision_lock": str(self.data_dir / DECISION_LOCK),
            "users_lock": str(self.data_dir / USERS_LOCK),
            "alias": [str(link), str(self._socket_dir)] if (link := short_link(self._socket_dir)) else [],
        }
        subprocess.run(  # noqa: S603 - our own module, by path
            [sys.executable, "-I", "-S", caretaker.__file__],
            input=json.dumps(plan).encode(),
            pass_fds=[alive_lock],
            start_new_session=True,
            env=neutral_environment(),
            check=True,
        )

    def _initialise(self, user: ServerUser | None) -> None:
        """Make an empty cluster; a half-finished one is never taken for a whole."""
        fresh = self.data_dir / "postgres.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        give(fresh, user)
        arguments = ["--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C", "--data-checksums"]
        arguments += ["--auth-local", "trust", "--auth-host", "reject", "--no-instructions"]
        if self._options.get("fsync") == "off":
            arguments.append("--no-sync")
        done = subprocess.run(  # noqa: S603 - the wheel's own program
            [*self._as(user), self.bin("initdb"), *arguments, "--pgdata", fresh],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=neutral_environment(),
            umask=0o077,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            message = f"A database cannot be made in {self.data_dir}: {reason}"
            raise EmbeddedServerError(message)
        fresh.rename(self.cluster)
        directory = os.open(self.data_dir, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _clear_remains(self, user: ServerUser | None) -> None:
        """Put the directories in order and remove what names a process that is no server any more."""
        if self.cluster.stat().st_uid != (user.uid if user else os.geteuid()):
            if user is None:
                owner = self.cluster.stat().st_uid
                message = f"The database in {self.data_dir} belongs to another user (uid {owner})."
                raise EmbeddedServerError(message)
            for path in [self.cluster, *self.cluster.rglob("*")]:
                give(path, user)
        self.cluster.chmod(0o700)
        if self._processes():
            message = f"A PostgreSQL server that the desk did not start uses the data in {self.cluster}."
            raise EmbeddedServerError(message)
        if Path("/proc/self/cwd").exists():
            # The server would refuse to start if the id in the file were some other program's by now.
            (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        if self._socket_dir.is_symlink() or self._socket_dir.exists():
            shutil.rmtree(self._socket_dir)
        self._socket_dir.mkdir(mode=0o700)
        give(self._socket_dir, user)

    def _make_roles_and_database(self) -> None:
        with psycopg.connect(self.conninfo(user=SUPERUSER, dbname="postgres"), autocommit=True) as connection:
            roles = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
            for role in LOGIN_ROLES:
                if role not in roles:
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
                    if role != OWNER:
                        # As on an external server, where one user owns everything and takes the other roles on.
                        grant = sql.SQL("GRANT {} TO {}")
                        connection.execute(grant.format(sql.Identifier(role), sql.Identifier(OWNER)))
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
                statement = sql.SQL("CREATE DATABASE {} OWNER {}")
                connection.execute(statement.format(sql.Identifier(DATABASE), sql.Identifier(OWNER)))

    def _shut_down(self) -> None:
        """Stop the server cleanly, and at once when that takes too long. Held: the decision, and users alone."""
        for number, patience in ((signal.SIGINT, caretaker.STOP_TIMEOUT), (signal.SIGQUIT, ORPHAN_PATIENCE)):
            deadline = time.monotonic() + patience
            postmaster = self._postmaster()
            if postmaster is not None:
                signal_to(postmaster, number)
            while time.monotonic() < deadline:
                with self._unless_alive() as alive_lock:
                    if alive_lock is not None:
                        self._remove_alias()
                        return
                if postmaster is None:
                    return  # out of our sight, as from another container: its caretaker sees the locks
                time.sleep(POLL)
        message = f"PostgreSQL in {self.data_dir} does not stop.{self._log_tail()}"
        raise EmbeddedServerError(message)

    # Locks and processes

    @contextmanager
    def _deciding(self, deadline: float) -> Iterator[None]:
        """Hold the right to start or stop the server."""
        lock = self._open_file(DECISION_LOCK)
        try:
            while not _locked(lock):
                if time.monotonic() > deadline:
                    message = (
                        f"Another process has been starting or stopping PostgreSQL in {self.data_dir} for too long."
                    )
                    raise EmbeddedServerError(message)
                time.sleep(POLL)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _unless_alive(self) -> Iterator[int | None]:
        """Hold the lock that every process of a server holds; None when one lives."""
        lock = self._open_file(ALIVE_LOCK)
        try:
            yield lock if _locked(lock) else None
        finally:
            os.close(lock)

    def _processes(self) -> list[Process]:
        """Find the processes that work in the cluster's directory; none where the system does not show them."""
        with suppress(FileNotFoundError):
            here = self.cluster.stat()
            return [process for process in postgres_processes() if os.path.samestat(process.directory, here)]
        return []

    def _postmaster(self) -> int | None:
        """Give the process that a server's other processes descend from."""
        if Path("/proc/self/cwd").exists():
            processes = self._processes()
            ids = {process.pid for process in processes}
            return next((process.pid for process in processes if process.parent not in ids), None)
        # Its lock is held, so it lives, and the file in its directory is its own.
        with suppress(OSError, ValueError, IndexError):
            return int((self.cluster / "postmaster.pid").read_text("ascii").split()[0])
        return None

    # Files and users

    def _make_data_dir(self) -> None:
        if not self.data_dir.exists():
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
            # The server of a root's desk is another user and must pass through.
            self.data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)

    def _open_file(self, name: str) -> int:
        """Open a file of the data directory, made for its owner alone, whoever first needs it."""
        file = os.open(self.data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0:
            owner = self.data_dir.stat()
            os.fchown(file, owner.st_uid, owner.st_gid)
        return file

    def _as(self, user: ServerUser | None) -> list[str]:
        """Give the beginning of a command line that runs the rest as that user."""
        if user is None:
            return []
        closed = self._closed_to(user)
        if closed is not None and not may_keep_search():
            message = (
                f"PostgreSQL would run as {user.name}, to whom {closed} is closed, and this system does not let root"
                f" share its view: move the installation and DESK_DATA_DIR to where {user.name} may go."
            )
            raise EmbeddedServerError(message)
        search = "drop" if closed is None else "keep"
        return [sys.executable, "-I", "-S", unprivileged.__file__, str(user.uid), str(user.gid), search]

    def _closed_to(self, user: ServerUser) -> Path | None:
        """Name a directory or file that the user cannot pass or read, of those a server needs."""
        root = installation(self.version)
        files = [
            root / "bin" / "postgres",
            *list(root.rglob("postgres.bki")),
            *root.parent.with_suffix(".libs").glob("*"),
        ]
        for path in {*files, *(file.resolve() for file in files), self.cluster, self.cluster.resolve()}:
            for directory in reversed(path.parents):
                if directory.exists() and not permits(directory, user, os.X_OK):
                    return directory
        return next((file for file in files if not permits(file, user, os.R_OK)), None)

    def _reachable_socket_dir(self) -> Path:
        link = short_link(self._socket_dir)
        if link is None:
            return self._socket_dir
        try:
            caretaker.renew_alias(str(link), str(self._socket_dir))
        except OSError as error:
            message = f"{self.data_dir} is too long a path for a socket, and no short one can be made: {error}."
            raise EmbeddedServerError(message) from None
        return link

    def _remove_alias(self) -> None:
        link = short_link(self._socket_dir)
        if link is not None:
            with suppress(OSError):
                link.unlink()
                link.parent.rmdir()

    def _log_tail(self) -> str:
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return f" The end of {self.log_file}: {' | '.join(lines[-LOG_TAIL:])}" if lines else ""


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
