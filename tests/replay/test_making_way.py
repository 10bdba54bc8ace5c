"""A rebuild takes the processors that nobody else wants, here and on a server of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from projections.registry import BY_NAME
from replay import making_way
from replay.rebuild_lane import Lane, Site

if TYPE_CHECKING:
    from storage.database import Workspace

ROOT = Path(__file__).parents[2]


def test_a_process_that_makes_way_does_so_once_and_with_those_it_starts() -> None:
    program = (
        "import os; from replay.making_way import make_way; make_way(); make_way();"
        "print(os.nice(0), flush=True); os.fork() or print(os.nice(0))"
    )
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert said.split() == [str(making_way.NICENESS)] * 2


async def test_the_servers_processes_behind_a_lane_make_way_and_no_others(alpha: Workspace) -> None:
    if not alpha.database.conninfo.count("host=/") or sys.platform != "linux":
        pytest.skip("the server is not reached by a socket of this machine")
    async with Lane.opened(Site(alpha, BY_NAME["ticket_queue"], "a test")) as lane:
        assert os.getpriority(os.PRIO_PROCESS, lane.connection.info.backend_pid) == making_way.SERVER_NICENESS
    async with alpha.database.pool.connection() as connection:
        assert os.getpriority(os.PRIO_PROCESS, connection.info.backend_pid) == 0


def test_a_process_that_is_not_postgres_is_left_alone() -> None:
    before = os.getpriority(os.PRIO_PROCESS, os.getpid())

    class Elsewhere:
        """A connection whose server's process numbers are another machine's."""

        class info:  # noqa: N801 - as psycopg has it
            backend_pid = os.getpid()
            host = "/run/elsewhere"

    elsewhere: Any = Elsewhere
    making_way.make_way_on_server(elsewhere)
    assert os.getpriority(os.PRIO_PROCESS, os.getpid()) == before
