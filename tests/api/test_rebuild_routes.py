"""Whoever looks after a desk from a browser sees how far a rebuild is, and what it came to."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from api import following, rebuild_routes
from domain.event import Role
from projections.registry import BY_NAME, VIEWS
from replay import builds
from replay.builds import Phase, Standing, claimed
from replay.rebuild import rebuild
from replay.rebuild_lane import Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import FastAPI

    from storage.database import Workspace
    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio

QUEUE = BY_NAME["ticket_queue"]
PATH = "/views/ticket_queue/rebuild"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(builds, "NOTE_SECONDS", 0.02)


@pytest.fixture
async def workspace(desk: DeskOverHttp) -> Workspace:
    await desk.open()
    await desk.catch_up()
    return await desk.database.workspace(desk.workspace)


def events(text: str) -> list[tuple[str, str | None, Any]]:
    """Read a stream of events: the kind, the id and what is told of each; a heartbeat is a kind of its own."""
    found: list[tuple[str, str | None, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "" in fields:
            found.append(("heartbeat", None, fields[""]))
        elif "event" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


async def test_what_the_last_rebuild_came_to_is_told_with_its_comparison(
    desk: DeskOverHttp, workspace: Workspace
) -> None:
    report = await rebuild(workspace, QUEUE)
    told = (await desk.get(PATH, role=Role.DEVELOPER)).json()
    assert told["report"] == report.as_json()
    assert told["report"]["comparison"]["rows"] == {"equal": 1, "changed": 0, "only_old": 0, "only_new": 0}
    assert {name: told[name] for name in ("view", "phase", "running", "done", "total", "seconds_left", "error")} == {
        "view": "ticket_queue",
        "phase": "done",
        "running": False,
        "done": await desk.head(),
        "total": await desk.head(),
        "seconds_left": None,
        "error": None,
    }
    assert told["finished_at"] is not None
    answer = await desk.get(f"{PATH}/events", role=Role.DEVELOPER)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert "no-cache" in answer.headers["Cache-Control"]
    ((kind, number, content),) = events(answer.text)
    assert (kind, content) == ("end", told)
    again = await desk.get(f"{PATH}/events", role=Role.DEVELOPER, headers={"Last-Event-ID": number})
    assert again.status_code == 204


@pytest.mark.usefixtures("workspace")
async def test_what_was_never_rebuilt_is_not_found(desk: DeskOverHttp) -> None:
    for path in (PATH, f"{PATH}/events", "/views/nothing/rebuild", "/views/nothing/rebuild/events"):
        answer = await desk.get(path, role=Role.DEVELOPER)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


async def test_samples_are_not_for_every_role(desk: DeskOverHttp, workspace: Workspace) -> None:
    await rebuild(workspace, QUEUE)
    for role, status in ((Role.CUSTOMER, 403), (Role.AGENT, 403), (Role.AUDITOR, 200), (Role.ADMINISTRATOR, 200)):
        assert (await desk.get(PATH, role=role)).status_code == status
        assert (await desk.get(f"{PATH}/events", role=role)).status_code == status


async def test_a_rebuild_is_followed_as_it_goes(
    desk: DeskOverHttp, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", 0.0)
    look, looks = builds.last_run, 0

    async def counted(*arguments: Any) -> Any:
        nonlocal looks
        found = await look(*arguments)
        looks += 1
        return found

    monkeypatch.setattr(rebuild_routes, "last_run", counted)
    standing = Standing(done=10, total=40, rate=10.0)
    async with claimed(Site(workspace, QUEUE, "a developer"), standing):
        watching = asyncio.create_task(desk.get(f"{PATH}/events", role=Role.DEVELOPER))
        for phase, done in ((Phase.READING, 20), (Phase.COMPARING, 40)):
            standing.phase, standing.done = phase, done
            await noted(desk, phase, done)
            seen = looks
            await until(lambda seen=seen: looks > seen + 3)  # type: ignore[misc]
        assert not watching.done()
        standing.fail("it was told to")
    found = events((await asyncio.wait_for(watching, 10)).text)
    kinds = [kind for kind, _, _ in found]
    assert kinds[-1] == "end"
    assert set(kinds[:-1]) == {"progress", "heartbeat"}
    told = [content for kind, _, content in found if kind == "progress"]
    assert {("reading", 20, 2.0), ("comparing", 40, 0.0)} <= {
        (one["phase"], one["done"], one["seconds_left"]) for one in told
    }
    assert all(one["report"] is None for one in told)
    assert (found[-1][2]["phase"], found[-1][2]["error"]) == ("failed", "it was told to")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to be true."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it is not this program's to say when
            await asyncio.sleep(0.01)


async def noted(desk: DeskOverHttp, phase: Phase, done: int) -> None:
    """Wait until that is what the desk tells."""
    async with asyncio.timeout(10):
        while True:
            told = (await desk.get(PATH, role=Role.DEVELOPER)).json()
            if (told["phase"], told["done"], told["running"]) == (phase, done, True):
                return
            await asyncio.sleep(0.01)


async def test_a_rebuild_that_was_cut_off_is_not_waited_for(
    desk: DeskOverHttp, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(builds, "_RELEASE", "SELECT")
    async with claimed(Site(workspace, QUEUE, "a developer"), Standing()):
        pass
    found = events((await asyncio.wait_for(desk.get(f"{PATH}/events", role=Role.DEVELOPER), 10)).text)
    assert found[-1][0] == "end"
    assert (found[-1][2]["phase"], found[-1][2]["running"]) == ("reading", False)


@pytest.fixture
async def under_way(workspace: Workspace) -> AsyncIterator[None]:
    async with claimed(Site(workspace, QUEUE, "a developer"), Standing()):
        yield


@pytest.mark.usefixtures("under_way")
async def test_nobody_who_follows_keeps_a_server_from_ending(desk: DeskOverHttp, app: FastAPI) -> None:
    watching = asyncio.create_task(desk.get(f"{PATH}/events", role=Role.DEVELOPER))
    await until(lambda: app.state.followers > 0)
    app.state.ending.set()
    answer = await asyncio.wait_for(watching, 10)
    assert [kind for kind, _, _ in events(answer.text)] == ["progress"]
    assert app.state.followers == 0


@pytest.mark.usefixtures("under_way")
async def test_a_stream_ends_by_itself_and_there_are_not_too_many(
    desk: DeskOverHttp, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LONGEST_SECONDS", 0.1)
    answer = await asyncio.wait_for(desk.get(f"{PATH}/events", role=Role.DEVELOPER), 10)
    assert [kind for kind, _, _ in events(answer.text)] == ["progress"]
    app.state.followers = following.MOST_FOLLOWERS
    answer = await desk.get(f"{PATH}/events", role=Role.DEVELOPER)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/busy")


async def test_a_view_of_which_another_version_is_there_is_said_to_be_absent(
    desk: DeskOverHttp, workspace: Workspace
) -> None:
    async with desk.database.pool.connection() as connection:
        await connection.execute(
            f"UPDATE {workspace.schema}.views SET version = 0 WHERE name = 'ticket_queue'".encode()
        )
    assert (await desk.get("/health/ready", role=None)).json()["absent_views"] == ["ticket_queue"]
    told = {view["name"]: view["state"] for view in (await desk.get("/views")).json()["views"]}
    assert told == {view.name: "absent" if view is QUEUE else "live" for view in VIEWS}
    answer = await desk.get("/queue")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/view-behind")
    assert "`desk rebuild ticket_queue`" in answer.json()["detail"]
