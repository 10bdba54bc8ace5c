"""Ending background tasks so that they do end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

logger = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 1.0  # time enough to tidy up in; only a cancellation that was lost waits this long


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task that would go on for ever, until it has ended; a failure of it is logged.

    Once does not do: before Python 3.12 asyncio.wait_for, in which psycopg waits for the server, now and then loses
    a cancellation, and whoever then waits for the task waits for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_SECONDS)
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("%s had failed", task.get_name(), exc_info=failure)
