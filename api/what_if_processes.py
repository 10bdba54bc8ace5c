"""Starts the processes that answer what-ifs, one at a time, and ends them with this one."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay import what_if_jobs
from replay.what_if_worker import place

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from storage.database import Workspace

logger = logging.getLogger("ledgerdesk.what_if")

GRACE_SECONDS: Final = 5.0  # to put back what it was at


class WhatIfProcesses:
    """Sees to it that what waits is worked on, whenever somebody asks about it."""

    def __init__(self, ending: asyncio.Event) -> None:
        """End what was started when `ending` is set."""
        self._ending = ending
        self._going: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    def look(self, workspace: Workspace) -> None:
        """Start a process for a workspace where there is something to do that nobody is at."""
        going = self._going.get(workspace.name)
        if going is None or going.done():
            self._going[workspace.name] = asyncio.create_task(self._work(workspace), name="what-if")

    def going(self) -> list[asyncio.Task[None]]:
        """Give what is going on, to be waited for once `ending` is set."""
        return [task for task in self._going.values() if not task.done()]

    async def _work(self, workspace: Workspace) -> None:
        try:
            async with self._one_at_a_time:
                if not self._ending.is_set() and await what_if_jobs.claimable(workspace):
                    await self._run(workspace)
        except Exception:
            logger.exception("no process could be started for a what-if")

    async def _run(self, workspace: Workspace) -> None:
        # The same code as here, wherever it was found.
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "replay.what_if_worker",
            stdin=PIPE,
            stdout=DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
        )
        ended = asyncio.create_task(process.wait())
        asked = asyncio.create_task(self._ending.wait())
        try:
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.write(place(workspace.database, workspace.name))
                    await process.stdin.drain()
            await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            await self._end(process, ended)

    async def _end(self, process: Process, ended: asyncio.Task[int]) -> None:
        if not ended.done():
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), GRACE_SECONDS)
        if not ended.done():
            with suppress(ProcessLookupError):
                process.kill()
            await ended
        if process.stdin is not None:
            process.stdin.close()
