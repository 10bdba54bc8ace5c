"""A reply that is lost after the commit, exactly there: what was committed is told, and nothing is done twice."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from storage.append import Conflict, NewEvent, Submission
from storage.database import Database
from tests.faults.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from storage.database import Workspace
    from storage.settings import Settings


@pytest.fixture
async def wire(settings: Settings) -> AsyncIterator[Proxy]:
    """Give a wire to the database of this test; below a short path, as sockets want it."""
    with tempfile.TemporaryDirectory(prefix="desk-wire-") as directory:
        proxy = Proxy(Path(directory) / "wire", settings.database_url or "")
        await proxy.start()
        yield proxy
        await proxy.stop()


@pytest.fixture
async def far(wire: Proxy, settings: Settings) -> AsyncIterator[Workspace]:
    """Give workspace alpha at the other end of the wire."""
    async with await Database.open(replace(settings, database_url=wire.conninfo)) as database:
        yield await database.workspace("alpha")


def happened(stream: UUID, version: int, text: str) -> NewEvent:
    return NewEvent(stream, version, "test.happened", f'{{"text":"{text}"}}'.encode(), None)


async def texts(workspace: Workspace) -> list[tuple[int, int, bytes]]:
    return [(row.position, row.version, row.state) for row in await workspace.log.page(0, 100)]


@pytest.mark.parametrize("key", [None, b"k" * 32], ids=["without a key", "with a key"])
async def test_a_command_whose_reply_was_lost_is_recorded_once_and_told_as_recorded(
    wire: Proxy, far: Workspace, key: bytes | None
) -> None:
    stream = uuid4()
    await far.log.append(Submission([happened(stream, 1, "a")], {stream: 0}))
    wire.cut_replies(1, only="append")
    events = [happened(stream, 2, "b"), happened(stream, 3, "c")]
    told = await far.log.append(Submission(events, {stream: 1}, key=key, body_hash=key))
    assert wire.cut_after_commit == 1
    assert (told.first_position, told.position) == (2, 3)
    assert [(position, version) for position, version, _ in await texts(far)] == [(1, 1), (2, 2), (3, 3)]


async def test_a_command_that_another_was_ahead_of_is_refused_although_the_reply_was_lost(
    wire: Proxy, far: Workspace
) -> None:
    stream = uuid4()
    await far.log.append(Submission([happened(stream, 1, "a")], {stream: 0}))
    wire.cut_replies(1, only="append")
    with pytest.raises(Conflict):
        await far.log.append(Submission([happened(stream, 1, "b")], {stream: 0}))
    assert wire.cut_after_commit == 1
    assert await texts(far) == [(1, 1, b'{"text":"a"}')]


async def test_replies_that_are_lost_again_and_again_change_nothing_about_it(wire: Proxy, far: Workspace) -> None:
    stream = uuid4()
    wire.cut_replies(3, only="append")
    told = await far.log.append(Submission([happened(stream, 1, "a")], {stream: 0}))
    assert wire.cut_after_commit == 3
    assert told.position == 1
    assert len(await texts(far)) == 1
