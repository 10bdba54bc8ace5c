"""Stay with an embedded server until nobody uses it any more, and then stop it.

Users of a server may be killed without a word; their locks go with them. So a process of its own, outside their
session and process group, starts the server and looks at the locks once a second. It may be killed as well: the server
then goes on, and the next user to leave as the last one stops it.

`python -I -S caretaker.py`, with a JSON Plan on standard input. Runs on the standard library alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 1.0  # seconds a server outlives a last user that was killed
STOP_TIMEOUT = 60.0  # seconds; a fast shutdown writes a checkpoint


class Plan(TypedDict):
    """What to start and what to watch."""

    command: list[str]
    """The server's program and arguments."""
    log: str
    """Where it writes to."""
    alive_fd: int
    """A held lock that the server inherits; as long as any process of it lives, the lock is held."""
    decision_lock: str
    """Held while a server is being started or stopped."""
    users_lock: str
    """Held, shared, by everybody who uses the server."""
    alias: list[str]
    """A symbolic link to renew and its target; empty when the socket's own path is short enough."""


def main(plan: Plan) -> None:
    """Start the server and return when it has stopped."""
    with Path(plan["log"]).open("ab") as log:
        server = subprocess.Popen(  # noqa: S603 - the command comes from storage.embedded
            plan["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            pass_fds=[plan["alive_fd"]],
            umask=0o077,
        )
    # From here on the lock stands for the server alone.
    os.close(plan["alive_fd"])
    while True:
        with suppress(subprocess.TimeoutExpired):
            server.wait(INTERVAL)
            return
        if plan["alias"]:
            with suppress(OSError):
                renew_alias(*plan["alias"])
        with unused(plan["decision_lock"], plan["users_lock"]) as nobody:
            if nobody:
                stop(server)
                return


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to finish at once and cleanly; after STOP_TIMEOUT, at once."""
    server.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        server.wait(STOP_TIMEOUT)
        return
    server.send_signal(signal.SIGQUIT)
    server.wait()


@contextmanager
def unused(decision_lock: str, users_lock: str) -> Iterator[bool]:
    """Tell whether nobody uses the server; if so, nobody can begin to before the block is left."""
    with ExitStack() as stack:
        try:
            # In this order, as everybody does: a user who leaves as the last one holds the decision first.
            for path in (decision_lock, users_lock):
                lock = stack.enter_context(Path(path).open("rb"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            nobody = True
        except FileNotFoundError:
            # The data directory is gone, and with it the reason to go on.
            nobody = True
        except OSError:
            nobody = False
        yield nobody


def renew_alias(link: str, target: str) -> None:
    """Make `link` lead to `target`, in a directory nobody else can enter, and keep both young.

    Those who clean temporary directories go by age. Raises OSError, PermissionError when the directory is another's.
    """
    directory = Path(link).parent
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        message = f"{directory} belongs to somebody else"
        raise PermissionError(message)
    os.utime(directory)
    if not (Path(link).is_symlink() and str(Path(link).readlink()) == target):
        fresh = f"{link}.{os.getpid()}"
        Path(fresh).unlink(missing_ok=True)
        Path(fresh).symlink_to(target)
        Path(fresh).replace(link)


if __name__ == "__main__":
    instructions: Plan = json.load(sys.stdin)
    if os.fork():
        # The one who starts a server is not its parent: it may leave before the server does.
        os._exit(0)
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(quiet, standard)
    main(instructions)
