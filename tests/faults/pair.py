"""A PostgreSQL and its streaming standby, from the embedded distribution: to be parted, killed and promoted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg

from storage.embedded import OWNER, SUPERUSER, EmbeddedServer
from storage.programs import OPTIONS, give, neutral_environment, server_user
from storage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from storage.programs import ServerUser

PATIENCE: Final = 30.0  # seconds
LOOK: Final = 0.02  # seconds between two looks
STANDBY: Final = "standby"

# Nothing here survives a crash of the machine; kill -9 of a process leaves what was written to the system.
QUICK: Final = {**OPTIONS, "fsync": "off", "shared_buffers": "32MB", "wal_retrieve_retry_interval": "200ms"}


class Server:
    """One PostgreSQL of the pair."""

    def __init__(self, directory: Path) -> None:
        # Not started through it, as it would bring a killed server up again: it knows programs, users and addresses.
        self.embedded = EmbeddedServer(directory, version=Settings.from_environment().postgres_version)
        self.embedded._make_data_dir()
        self.user: ServerUser | None = server_user(self.embedded.cluster, directory)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Where its socket is."""
        return str(self.embedded._reachable_socket_dir())

    def program(self, name: str, *arguments: str) -> None:
        """Run a program as the user of the server."""
        command = [*self.embedded._as(self.user), str(self.embedded.bin(name)), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", env=neutral_environment(), umask=0o077)

    def start(self, **options: str) -> None:
        """Start it and wait until it answers."""
        socket_dir = self.embedded._socket_dir
        socket_dir.mkdir(mode=0o700, exist_ok=True)
        give(socket_dir, self.user)
        settings = [part for name, value in {**QUICK, **options}.items() for part in ("-c", f"{name}={value}")]
        command = [*self.embedded._as(self.user), str(self.embedded.bin("postgres"))]
        with self.embedded.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-D", str(self.embedded.cluster), *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=neutral_environment(),
                umask=0o077,
            )
        eventually(self.answers, f"{self.host} answers")

    def answers(self) -> bool:
        """Tell whether it can be connected to."""
        return self.embedded._ask_whether_it_lives() is None

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask it as superuser."""
        address = self.embedded.conninfo(user=SUPERUSER)
        with psycopg.connect(address, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """End it and its processes as the machine would end them."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            for one in self.embedded._processes():
                with suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait(PATIENCE)
        self.process = None


class Pair:
    """A primary and a standby that follows it."""

    def __init__(self, directory: Path) -> None:
        self.primary = Server(directory / "first")
        self.standby = Server(directory / "second")
        self._directory = directory

    def start(self) -> None:
        """Make both, and wait until the standby follows."""
        first, second = self.primary, self.standby
        first.embedded._initialise(first.user)
        first.start()
        first.embedded._make_roles_and_database()
        address = f"host='{first.host}' user={SUPERUSER} application_name={STANDBY}"
        data = second.embedded.cluster
        data.mkdir(mode=0o700)
        give(data, second.user)
        second.program("pg_basebackup", "-D", str(data), "-d", address, "-X", "stream", "-c", "fast", "-R", "--no-sync")
        second.start()
        eventually(
            lambda: first.query("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'") != [],
            "the standby follows",
        )

    def synchronous(self, names: str = f"FIRST 1 ({STANDBY})") -> None:
        """Have every commit wait for the standby, or none with an empty name."""
        self.primary.query(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.primary.query("SELECT pg_reload_conf()")
        wanted = "sync" if names else "async"
        eventually(
            lambda: self.primary.query("SELECT sync_state FROM pg_stat_replication") == [(wanted,)], f"it is {wanted}"
        )

    def stop(self) -> None:
        """End both."""
        for server in (self.primary, self.standby):
            server.kill()

    @property
    def database_url(self) -> str:
        """Give the address of whichever of the two can be written to."""
        hosts = f"{self.primary.host},{self.standby.host}"
        return f"host='{hosts}' user={OWNER} dbname=ledgerdesk target_session_attrs=read-write"

    def receiver(self) -> int:
        """Give the process of the standby that receives."""
        found: list[tuple[Any, ...]] = []

        def there() -> bool:
            found[:] = self.standby.query("SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'")
            return bool(found)

        eventually(there, "the standby receives")
        return int(found[0][0])

    @contextmanager
    def parted(self) -> Iterator[int]:
        """Let the standby receive nothing for a while."""
        pid = self.receiver()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def waiting(self) -> list[int]:
        """Give the append connections of the primary that wait for the standby to confirm their commit."""
        rows = self.primary.query(
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name LIKE 'desk append%%'"
        )
        return [row[0] for row in rows]

    def fail_over(self, receiver: int | None = None) -> None:
        """Kill the primary and promote the standby; a stopped `receiver` never gets what is on its way to it."""
        self.primary.kill()
        if receiver is not None:
            os.kill(receiver, signal.SIGKILL)
            eventually(lambda: not _exists(receiver), "the receiver is gone")
        eventually(self._promoted, "the standby is promoted")

    def _promoted(self) -> bool:
        with suppress(psycopg.OperationalError):
            if self.standby.query("SELECT pg_is_in_recovery()") == [(False,)]:
                return True
            self.standby.query("SELECT pg_promote(false)")
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds; blocks."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"it was not so that {what}"
        time.sleep(LOOK)


@contextmanager
def pair(directory: Path) -> Iterator[Pair]:
    """Give a primary and its standby, and end them."""
    with ExitStack() as stack:
        made = Pair(directory)
        stack.callback(made.stop)
        made.start()
        yield made
