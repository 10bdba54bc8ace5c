"""Long work makes way for those who wait for an answer: it takes the processors that nobody else wants."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg
    from psycopg import AsyncConnection

NICENESS: Final = 15  # of 19; at 0, where everybody else is, a process gets some thirty times as much
# Less on the server, where a process that is kept waiting may hold what others need for a moment: a third of theirs.
SERVER_NICENESS: Final = 5


def make_way() -> None:
    """Put this process, and those that it forks from now on, behind all others of the machine."""
    with suppress(OSError, AttributeError):
        os.nice(max(NICENESS - os.nice(0), 0))


def make_way_on_server(*connections: AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """Put the server's processes behind these connections behind its others, where they are on this machine and ours."""
    for connection in connections:
        pid = connection.info.backend_pid
        if connection.info.host.startswith("/") and _is_postgres(pid):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, pid, SERVER_NICENESS)


def _is_postgres(pid: int) -> bool:
    """Tell whether a process of that number here is PostgreSQL's: behind a socket may be another machine's numbers."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8").strip() == "postgres"
    except (OSError, UnicodeDecodeError):
        return False
