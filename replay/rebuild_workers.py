"""The lanes of a rebuild side by side: one in this process, the others in processes forked from it."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import psycopg

from projections.page import uncollected
from projections.view import ViewError
from replay.rebuild_lane import Lane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    from replay.rebuild_lane import Site

Said = TypeVar("Said")

MOST_WORKERS: Final = 4  # beyond, the server that they all write to has no processor left


class RebuildStopped(ViewError):
    """A process that took part in a rebuild is gone; the live view is as it was, and another run goes on from there."""


def can_fork() -> bool:
    """Tell whether lanes can have processes of their own."""
    return sys.platform == "linux"


def processors() -> int:
    """Give how many processes are worth having on this machine."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS) if can_fork() else 1


async def reach_in_lanes(
    site: Site, own: Lane, positions: Sequence[int], target: int, tell: Callable[[list[int]], None]
) -> None:
    """Bring every lane from its position to the target; `own` is the first of them and runs here.

    Raises RebuildFailed, RebuildRunning, RebuildStopped; then all have ended.
    """
    lanes = len(positions)

    async def lane(number: int, stands: Callable[[int], None]) -> None:
        if number == 0:
            own.stand(positions[0], 0, lanes)
            await own.reach(target, lambda: stands(own.position))
            return
        async with Lane.opened(site) as other:
            other.stand(positions[number], number, lanes)
            await other.reach(target, lambda: stands(other.position))

    await side_by_side(lane, positions, tell, doing=f"rebuilt part of {site.view.name}")


async def side_by_side(
    lane: Callable[[int, Callable[[Said], None]], Awaitable[None]],
    positions: Sequence[Said],
    tell: Callable[[list[Said]], None],
    *,
    doing: str,
) -> None:
    """Run lanes 0, 1 …, which stand at these positions, the first here and the others in processes forked from this one.

    `lane` gets its number and a function to say with where it stands; what each said last is told. Raises what a lane
    raised, and RebuildStopped, which says what the process was `doing`, where one did not say; then all have ended.
    """
    now = list(positions)
    workers: list[_Worker[Said]] = []

    def stands(number: int, position: Said) -> None:
        now[number] = position
        tell(now)

    try:
        for number in range(1, len(now)):
            workers.append(_Worker(lane, number, doing, workers))
        going = [asyncio.ensure_future(lane(0, lambda position: stands(0, position)))]
        going += [asyncio.create_task(worker.follow(stands)) for worker in workers]
        try:
            await asyncio.wait(going, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for worker in workers:
                worker.end()
            for task in going:
                if not task.done():
                    task.cancel()
            outcomes = await asyncio.gather(*going, return_exceptions=True)
    finally:
        for worker in workers:
            await asyncio.to_thread(worker.bury)
    failures = [one for one in outcomes if isinstance(one, BaseException)]
    if failures:
        raise min(failures, key=_says_less)


def _says_less(failure: BaseException) -> int:
    """Rank failures: what was stopped because of another's, or just ended, has less to say than what said why."""
    return 2 if isinstance(failure, asyncio.CancelledError) else int(isinstance(failure, RebuildStopped))


class _Worker(Generic[Said]):
    """A lane in a process of its own: it shares nothing with this one but a pipe, and ends with it."""

    def __init__(
        self,
        lane: Callable[[int, Callable[[Said], None]], Awaitable[None]],
        number: int,
        doing: str,
        others: Sequence[_Worker[Said]],
    ) -> None:
        self.number = number
        self._doing = doing
        context = multiprocessing.get_context("fork")
        self.pipe, there = context.Pipe()
        inherited = [self.pipe, *(other.pipe for other in others)]
        self._process: ForkProcess = context.Process(
            target=_work, args=(lane, number, doing, there, inherited), name="desk rebuild", daemon=True
        )
        with warnings.catch_warnings():
            # Other threads may hold locks at the fork; the child uses nothing that they could hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        there.close()

    async def follow(self, stands: Callable[[int, Said], None]) -> None:
        """Wait until the lane has reached its target. Raises what ended it, RebuildStopped when it did not say."""
        while True:
            try:
                said = await asyncio.to_thread(self.pipe.recv)
            except (EOFError, OSError):
                await asyncio.to_thread(self._process.join)
                message = (
                    f"a process that {self._doing} ended with status {self._process.exitcode};"
                    " another run goes on from there"
                )
                raise RebuildStopped(message) from None
            if said is None:
                return
            if isinstance(said, Exception):
                raise said
            stands(self.number, said)

    def end(self) -> None:
        """End the process, wherever it is: the server undoes what it had not committed."""
        self._process.kill()

    def bury(self) -> None:
        """Clear away what is left of the process."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.pipe.close()


def _work(
    lane: Callable[[int, Callable[[Said], None]], Awaitable[None]],
    number: int,
    doing: str,
    pipe: Connection,
    inherited: Sequence[Connection],
) -> None:
    """Run a lane in the child. Nothing of the parent's is used or closed but the pipes."""
    for one in inherited:
        one.close()  # or the parent's end would not be seen to close when the parent is gone
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # collecting would copy the pages shared with the parent
    asyncio._set_running_loop(None)  # noqa: SLF001 - the parent's, which stands still in this copy
    said: Any = None

    async def run() -> None:
        # The parent sends nothing: what there is to read is the end of the pipe, and so of the parent.
        asyncio.get_running_loop().add_reader(pipe.fileno(), os._exit, 1)
        with uncollected():
            await lane(number, pipe.send)

    try:
        asyncio.run(run())
    except (ViewError, psycopg.Error) as error:
        said = error
    except Exception as error:  # noqa: BLE001 - the parent says it
        said = RebuildStopped(f"a process that {doing} failed: {error!r}")
    with suppress(OSError):  # the parent is gone
        pipe.send(said)
