"""Background tasks end when they are told to, even where a cancellation gets lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from storage import ending
from storage.ending import end

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = pytest.mark.anyio


async def endless() -> None:
    """Go on for ever."""
    await asyncio.Event().wait()


async def losing_the_first_cancellation() -> None:
    """Do as psycopg was seen to do under Python 3.11."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    await endless()


@pytest.mark.parametrize("body", [endless, losing_the_first_cancellation])
async def test_a_task_without_an_end_is_ended(
    body: Callable[[], Coroutine[None, None, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "AGAIN_SECONDS", 0.01)
    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end(task)
    assert task.cancelled()


async def test_a_failure_that_nobody_waited_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        message = "the reason"
        raise RuntimeError(message)

    task = asyncio.create_task(fail(), name="something")
    await asyncio.wait([task])
    await end(task)
    assert "something had failed" in caplog.text
    assert "the reason" in caplog.text
