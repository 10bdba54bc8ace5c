"""An event that only another release knows is traced to the release that wrote it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from projections import bookkeeping
from projections.bookkeeping import FAILED, LIVE, view_status
from projections.registry import VIEWS
from projections.runner import Runner
from replay.history import history
from replay.rebuild import RebuildFailed, rebuild
from storage.append import NewEvent, Submission
from storage.database import Database
from storage.releases import Writer, other_writers
from tests.replay.lives import Cast, append

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from storage.database import Workspace
    from storage.settings import Settings


@asynccontextmanager
async def desk_of(settings: Settings, release: str) -> AsyncIterator[Workspace]:
    """Open workspace alpha as a process of a release does."""
    async with await Database.open(replace(settings, release=release)) as database:
        yield await database.workspace("alpha")


async def written(workspace: Workspace, topic: str = "team.created", **more: Any) -> int:
    """Append an event and give its position."""
    event = NewEvent(more.pop("stream", uuid4()), more.pop("version", 1), topic, b"{}", None)
    return (await workspace.log.append(Submission([event]))).position


async def noted(workspace: Workspace) -> dict[str, int]:
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute("SELECT release, first_position FROM ws_alpha.releases")
        return dict(await cursor.fetchall())


async def test_a_release_is_noted_once_before_its_first_event(settings: Settings) -> None:
    async with desk_of(settings, "1.0") as old, desk_of(settings, "2.0") as new:
        assert await noted(old) == {}
        assert await written(old) == 1
        assert await written(old) == 2
        assert await written(new) == 3
        assert await written(old) == 4
        for workspace in (old, new):  # a lost connection is opened again
            await workspace.log.close()
            await written(workspace)
        assert await noted(old) == {"1.0": 1, "2.0": 3}


async def test_processes_of_one_release_that_begin_at_once_note_it_once(settings: Settings) -> None:
    async with desk_of(settings, "1.0") as a, desk_of(settings, "1.0") as b, desk_of(settings, "1.0") as c:
        await asyncio.gather(*(written(workspace) for workspace in (a, b, c) for _ in range(5)))
        assert await noted(a) == {"1.0": 1}


async def test_a_view_stops_at_an_event_of_a_newer_release_and_names_event_position_and_release(
    settings: Settings,
) -> None:
    async with desk_of(settings, "1.0") as old, desk_of(settings, "2.0") as new:
        cast = await Cast().recorded(old)
        await append(new, cast.lived())
        strange = await written(new, "ticket.teleported")
        last = strange - 1
        await Runner(old.database, VIEWS).catch_up(old)
        for status in await view_status(old, VIEWS):
            assert (status.state, status.position) == (FAILED, last)
            assert status.failure is not None
            assert f"UnknownTopic: event {strange} (ticket.teleported, version 1" in status.failure.error
            assert "this is release 1.0, the event was written by release 2.0, which has been writing this log" in (
                status.failure.error
            )


async def test_a_rebuild_that_fails_at_an_event_of_a_newer_release_names_it_as_well(settings: Settings) -> None:
    async with desk_of(settings, "1.0") as old, desk_of(settings, "2.0") as new:
        await append(old, (await Cast().recorded(old)).lived())
        strange = await written(new, "ticket.teleported")
        with pytest.raises(
            RebuildFailed, match=r"this is release 1\.0, the event was written by release 2\.0"
        ) as caught:
            await rebuild(old, VIEWS[0])
        assert (caught.value.position, caught.value.topic) == (strange, "ticket.teleported")


async def test_a_shape_of_a_newer_release_is_traced_as_well_and_a_plain_fault_is_not(settings: Settings) -> None:
    async with desk_of(settings, "1.0") as old, desk_of(settings, "2.0") as new:
        cast = await Cast().recorded(old)
        ticket = cast.lived()
        await append(old, ticket)
        newer = NewEvent(ticket.id, 9, "ticket.note_added", b'{"class_version":2}', None)
        await new.log.append(Submission([newer, newer._replace(version=10, state=b"{}")]))
        marks = (await history(old, ticket.id, marked=True)).unreadable
        assert [(mark.version, mark.reason) for mark in marks] == [(9, "newer_event"), (10, "undecodable_event")]
        assert "written by release 2.0" in marks[0].detail
        assert "release" not in marks[1].detail


async def test_with_several_releases_those_that_can_have_written_it_are_named_the_latest_first(
    settings: Settings,
) -> None:
    async with (
        desk_of(settings, "1.0") as first,
        desk_of(settings, "2.0") as own,
        desk_of(settings, "3.0") as third,
        desk_of(settings, "4.0") as fourth,
    ):
        for workspace in (first, own, third):
            await written(workspace)
        between = await written(third)
        last = await written(fourth)
        assert await other_writers(own, between) == [Writer("3.0", 3)]
        assert await other_writers(own, last) == [Writer("4.0", 5), Writer("3.0", 3)]
        # What this one's own forerunner wrote, if it wrote it, is better than nothing.
        assert await other_writers(own, 2) == [Writer("1.0", 1)]
        assert await other_writers(first, 1) == []


async def test_a_release_that_nobody_noted_is_not_invented_and_stopped_views_can_try_again(settings: Settings) -> None:
    async with desk_of(settings, "1.0") as old:
        await written(old, "ticket.teleported")
        await Runner(old.database, VIEWS, "me").catch_up(old)
        (failure,) = {status.failure.error for status in await view_status(old, VIEWS) if status.failure}
        assert "this is release 1.0, and no other is known to have written this log by then" in failure
        for view in VIEWS:
            assert await bookkeeping.retry(old, view)
        assert {status.state for status in await view_status(old, VIEWS)} == {LIVE}
