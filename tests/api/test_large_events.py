"""An event larger than the desk takes is refused by itself, wherever it comes from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from storage.append import EventTooLarge, NewEvent, Submission

if TYPE_CHECKING:
    import httpx

    from storage.database import Database, Workspace
    from tests.api.conftest import DeskOverHttp

LIMIT = 4096


@pytest.fixture
def database(database: Database) -> Database:
    """Have a desk that takes small events only."""
    database.largest_event = LIMIT
    return database


async def test_a_command_that_would_record_too_large_an_event_is_told_so_and_changes_nothing(
    desk: DeskOverHttp,
) -> None:
    opened = await desk.open()
    before = await desk.head()
    for body in ({"text": "x" * LIMIT}, {"text": "火" * (LIMIT // 3)}):
        answer = await desk.post(f"/tickets/{opened['id']}/reply", body, headers={"Idempotency-Key": "k"})
        told = answer.json()
        assert (answer.status_code, told["type"]) == (413, "/problems/event-too-large")
        assert told["limit"] == LIMIT < told["size"]
        assert "xxx" not in answer.text
    assert await desk.head() == before
    # The key is still free, and the ticket as it was.
    done = await desk.done(f"/tickets/{opened['id']}/reply", {"text": "x"}, headers={"Idempotency-Key": "k"})
    assert (done["version"], done["replayed"]) == (2, False)


async def test_neighbours_of_an_event_that_is_too_large_are_recorded(desk: DeskOverHttp) -> None:
    opened = [await desk.open() for _ in range(20)]
    texts = ["x" * (LIMIT if number % 2 else 1) for number in range(20)]
    answers: list[httpx.Response] = await asyncio.gather(
        *(desk.post(f"/tickets/{one['id']}/add-note", {"text": text}) for one, text in zip(opened, texts, strict=True))
    )
    assert [answer.status_code for answer in answers] == [200, 413] * 10


async def test_the_last_byte_counts(alpha: Workspace) -> None:
    event = NewEvent(uuid4(), 1, "t", b"x" * (LIMIT - 10), b"y" * 10)
    await alpha.log.append(Submission([event]))
    larger = NewEvent(uuid4(), 1, "t", b"x" * (LIMIT - 10), b"y" * 11)
    with pytest.raises(EventTooLarge, match=r"has 4,097 bytes; the log takes 4,096"):
        await alpha.log.append(Submission([larger]))
    async with alpha.log.exclusively() as append:
        with pytest.raises(EventTooLarge):
            await append(Submission([larger]))
    assert (await alpha.log.head()).position == 1
