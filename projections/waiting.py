"""Waiting until a view has taken in a position, so that whoever wrote reads what they wrote."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from projections import bookkeeping
from projections.view import ViewError

if TYPE_CHECKING:
    from projections.view import View
    from storage.database import Workspace

LOOK_SECONDS: Final = 0.015  # between two looks at a checkpoint, whoever and however many wait for it


class NotReached(ViewError):
    """The view did not reach the position in time, or has stopped before it."""

    def __init__(self, view: View, wanted: int, reached: int, state: str) -> None:
        super().__init__(f"{view.name} has reached position {reached}, not {wanted}")
        self.view = view.name
        self.wanted = wanted
        self.reached = reached
        self.state = state


_looks: WeakKeyDictionary[Workspace, dict[str, asyncio.Task[tuple[int, str]]]] = WeakKeyDictionary()


async def wait_for(workspace: Workspace, view: View, position: int, seconds: float) -> int:
    """Wait until a view has taken in a position, and give the one it has reached.

    Raises NotReached after `seconds`, or at once when the view has stopped; ViewsNotReady.
    """
    deadline = time.monotonic() + seconds
    reached, state = await bookkeeping.reached(workspace, view)
    while reached < position:
        if state == bookkeeping.FAILED or time.monotonic() >= deadline:
            raise NotReached(view, position, reached, state)
        reached, state = await asyncio.shield(_next_look(workspace, view))
    return reached


def _next_look(workspace: Workspace, view: View) -> asyncio.Task[tuple[int, str]]:
    """Share one look at the checkpoint among all that wait for it."""
    looks = _looks.setdefault(workspace, {})
    look = looks.get(view.label)
    if look is None or look.done() or look.get_loop() is not asyncio.get_running_loop():
        look = looks[view.label] = asyncio.create_task(_look(workspace, view))
    return look


async def _look(workspace: Workspace, view: View) -> tuple[int, str]:
    await asyncio.sleep(LOOK_SECONDS)
    return await bookkeeping.reached(workspace, view)
