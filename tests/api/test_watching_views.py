"""`desk views --watch` as a person runs it: on a terminal, into a file, and ended with Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from projections.registry import VIEWS
from projections.runner import Runner
from tests.api.test_server import PATIENCE, ROOT
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.database import Database, Workspace

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Watched:
    """A process that watches the views, and what it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], file: int) -> None:
        self.process = process
        self.text = ""
        self._file = file

    async def until(self, pattern: str) -> None:
        """Read until a pattern was written."""
        deadline = time.monotonic() + PATIENCE
        while re.search(pattern, self.text, re.DOTALL) is None:
            assert time.monotonic() < deadline, self.text
            await asyncio.to_thread(self._read, 0.1)

    async def interrupted(self) -> int:
        """Press Ctrl-C, read the rest, and give the status."""
        self.process.send_signal(signal.SIGINT)
        status = await asyncio.to_thread(self.process.wait, PATIENCE)
        while self._read(0.1):
            pass
        return status

    def _read(self, patience: float) -> bool:
        ready, _, _ = select.select([self._file], [], [], patience)
        try:
            found = os.read(self._file, 65536) if ready else b""
        except OSError:  # a terminal whose last process has gone
            return False
        self.text += found.decode()
        return bool(found)


@contextmanager
def watching(environment: dict[str, str], *, terminal: bool) -> Iterator[Watched]:
    """Run `desk views --watch`, on a terminal or into a pipe."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "views", "--watch"],
        env=environment | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        cwd=ROOT,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield Watched(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)
        os.close(ours)


async def test_where_there_is_no_terminal_each_change_is_a_line(
    database: Database, alpha: Workspace, environment: dict[str, str]
) -> None:
    desk = DeskDays(1)
    head = await record(alpha, desk.first())
    runner = Runner(database, VIEWS)
    await runner.catch_up(alpha)
    with watching(environment, terminal=False) as watched:
        for view in VIEWS:
            await watched.until(rf"\d\d:\d\d:\d\d {view.label.replace('_v', ' v')} position {head}, 0 events behind")
        head = await record(alpha, desk.more(20))
        await runner.catch_up(alpha)
        await watched.until(rf"ticket_queue v\d+ position {head}, 0 events behind \(0.0 s\), live\n")
        assert await watched.interrupted() == 0
    assert "Traceback" not in watched.text
    assert "\x1b" not in watched.text
    lines = [line.partition(" ")[2] for line in watched.text.splitlines()]
    for view in VIEWS:
        assert all(before != after for before, after in pairwise(one for one in lines if one.startswith(view.name)))


async def test_on_a_terminal_the_table_is_shown_anew_in_its_place(
    database: Database, alpha: Workspace, environment: dict[str, str]
) -> None:
    desk = DeskDays(1)
    head = await record(alpha, desk.first())
    runner = Runner(database, VIEWS)
    await runner.catch_up(alpha)
    with watching(environment, terminal=True) as watched:
        await watched.until(rf"ticket_queue +\d+ +{head} +0 +- +live")
        head = await record(alpha, desk.more(20))
        await runner.catch_up(alpha)
        await watched.until(rf"ticket_queue +\d+ +{head} +0 +- +live")
        assert await watched.interrupted() == 0
    assert "Traceback" not in watched.text
    assert watched.text.rfind(SHOW) > watched.text.rfind(HIDE) >= 0  # the cursor is given back
