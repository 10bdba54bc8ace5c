"""A process of its own that answers the what-ifs of one workspace, one after another, and ends when there are no more."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import psycopg

from domain.event import Rejected
from projections.bookkeeping import new_owner
from projections.view import ViewError
from replay import what_if_jobs
from replay.making_way import make_way
from replay.what_if import what_if
from replay.what_if_asked import Asked
from storage.database import Database
from storage.ending import end

if TYPE_CHECKING:
    from replay.what_if_jobs import Job
    from replay.what_if_report import Report
    from storage.database import Workspace

logger = logging.getLogger("ledgerdesk.what_if")

NOTE_SECONDS: Final = 0.4  # between two notes of how far it is; whoever watches sees it as late
MOST_SECONDS: Final = 900.0


def main() -> None:
    """Answer what there is to be answered; where and what is read from standard input, whose end ends this process."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    told = json.loads(sys.stdin.readline())
    make_way()
    asyncio.run(_serve(told))


def place(database: Database, workspace: str) -> bytes:
    """Say to a process what `main` reads: the database and the workspace. It holds a secret, so it goes by a pipe."""
    told = {"conninfo": database.conninfo, "root": database.root.hex(), "workspace": workspace}
    return json.dumps(told).encode() + b"\n"


async def _serve(told: dict[str, Any]) -> None:
    task = asyncio.ensure_future(_work(told))
    loop, pipe = asyncio.get_running_loop(), sys.stdin.fileno()

    def leave() -> None:
        # Once: a second cancellation would keep it from putting back what it is at.
        if loop.remove_reader(pipe):
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, leave)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the parent's to answer
    loop.add_reader(pipe, leave)  # nothing more is said: this is the end of the pipe, and so of the parent
    with suppress(asyncio.CancelledError):
        await task


async def _work(told: dict[str, Any]) -> None:
    database = Database(told["conninfo"], root=bytes.fromhex(told["root"]), pool_size=2)
    await database.start()
    try:
        workspace = await database.workspace(told["workspace"])
        owner = new_owner()
        while (job := await what_if_jobs.claim(workspace, owner)) is not None:
            await answer(workspace, job, owner)
    finally:
        await database.close()


async def answer(workspace: Workspace, job: Job, owner: str) -> None:
    """Carry out a job that is ours; it is put back where this is cancelled, and ends when it is cancelled itself."""
    far = (0, 0)

    def progress(done: int, total: int) -> None:
        nonlocal far
        far = (done, total)

    async def keep_noting() -> None:
        ours = True  # until it was cancelled, or another process has taken it
        while ours:
            with suppress(psycopg.Error):
                ours = await what_if_jobs.note(workspace, job.id, owner, *far)
            await asyncio.sleep(NOTE_SECONDS)

    async def compare() -> Report:
        asked = Asked.model_validate(job.asked)
        async with asyncio.timeout(MOST_SECONDS):
            return await what_if(workspace, asked, progress, now=datetime.now(UTC))

    noting, comparing = asyncio.create_task(keep_noting()), asyncio.create_task(compare())
    try:
        await asyncio.wait({noting, comparing}, return_when=asyncio.FIRST_COMPLETED)
        if comparing.done():
            await what_if_jobs.finish(workspace, job.id, owner, _outcome(comparing))
    except asyncio.CancelledError:
        await end(comparing)
        with suppress(psycopg.Error):
            await what_if_jobs.put_back(workspace, job.id, owner)
        raise
    finally:
        await end(comparing)
        await end(noting)


def _outcome(comparing: asyncio.Task[Report]) -> Report | str:
    try:
        return comparing.result()
    except TimeoutError:
        return f"it was not done after {MOST_SECONDS / 60:.0f} minutes; ask of fewer tickets"
    except (Rejected, ViewError) as error:
        return str(error)
    except psycopg.Error as error:
        logger.warning("a what-if failed: %s", error)
        return "the database did not answer"
    except Exception:
        logger.exception("a what-if failed")
        return "something went wrong here; the server's log says what"


if __name__ == "__main__":
    main()
    os._exit(0)  # threads that still wait for an answer of the server need not be waited for
