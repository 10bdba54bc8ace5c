"""A supervisor asks from a screen what would have become of tickets, watches, reads, and changes their mind."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from api import following
from domain.event import Role
from replay import what_if_jobs
from replay.what_if import what_if
from replay.what_if_asked import Asked
from replay.what_if_report import Report
from tests.api.test_rebuild_routes import events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from storage.database import Workspace
    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio

PATH = "/sla/what-if"
QUICK = {
    "name": "快速",
    "targets": [{"metric": "first_reply", "amount": 60, "unit": "calendar"}],
}
SUPERVISOR = Role.SUPERVISOR


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.02)


@pytest.fixture(autouse=True)
async def _ended(app: FastAPI) -> AsyncIterator[None]:
    """Leave no process behind, as a server that ends."""
    yield
    app.state.ending.set()
    await asyncio.gather(*app.state.what_ifs.going())


@pytest.fixture
async def workspace(desk: DeskOverHttp) -> Workspace:
    for _ in range(3):
        await desk.open()
    await desk.catch_up()
    return await desk.database.workspace(desk.workspace)


async def asked(desk: DeskOverHttp, body: Any = None) -> str:
    """Ask, and give where it is told."""
    answer = await desk.post(PATH, body or {"policies": [QUICK]}, role=SUPERVISOR)
    assert answer.status_code == 202, answer.text
    location = answer.headers["Location"]
    told = answer.json()
    assert location == f"{PATH}/{told['id']}"
    assert (told["phase"], told["report"], told["done"]) == ("waiting", None, 0)
    return str(location)


async def ended(desk: DeskOverHttp, path: str) -> list[tuple[str, str | None, Any]]:
    """Follow until the end, and give all that was told."""
    answer = await asyncio.wait_for(desk.get(f"{path}/events", role=SUPERVISOR), 60)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    return events(answer.text)


async def test_what_is_asked_is_answered_as_the_command_line_does(desk: DeskOverHttp, workspace: Workspace) -> None:
    path = await asked(desk)
    told = await ended(desk, path)
    assert {kind for kind, _, _ in told[:-1]} <= {"progress", "heartbeat"}
    kind, number, end = told[-1]
    assert (kind, end["phase"], end["error"]) == ("end", "done", None)
    assert (end["done"], end["total"], end["asked_by"]) == (3, 3, str(desk.actors[SUPERVISOR]))
    assert (await desk.get(path, role=SUPERVISOR)).json() == end
    report = Report.model_validate(end["report"])
    as_asked = Asked.model_validate(end["asked"])
    assert as_asked.as_of is not None
    directly = await what_if(workspace, as_asked, now=as_asked.as_of)
    assert report.model_copy(update={"seconds": 0.0}) == directly.model_copy(update={"seconds": 0.0})
    assert report.given == ("policy 快速, and no other",)
    again = await desk.get(f"{path}/events", role=SUPERVISOR, headers={"Last-Event-ID": number})
    assert again.status_code == 204
    shown = await desk.get(f"{path}/page", role=SUPERVISOR)
    assert shown.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
    assert "快速" in shown.text
    (listed,) = (await desk.get(PATH, role=SUPERVISOR)).json()["items"]
    assert listed == {**end, "report": None}


async def test_only_who_supervises_may_ask_or_read(desk: DeskOverHttp, other_desk: DeskOverHttp) -> None:
    path = await asked(desk)
    for role in Role:
        allowed = role in {Role.SUPERVISOR, Role.ADMINISTRATOR}
        assert (await desk.get(path, role=role)).status_code == (200 if allowed else 403)
        assert (await desk.get(PATH, role=role)).status_code == (200 if allowed else 403)
        if not allowed:
            for answer in (
                await desk.post(PATH, {"policies": [QUICK]}, role=role),
                await desk.get(f"{path}/events", role=role),
                await desk.get(f"{path}/page", role=role),
                await desk.request("DELETE", path, role=role),
            ):
                assert answer.status_code == 403
    assert (await other_desk.get(path, role=SUPERVISOR)).status_code == 404
    assert (await other_desk.request("DELETE", path, role=SUPERVISOR)).status_code == 404
    assert (await other_desk.get(PATH, role=SUPERVISOR)).json() == {"items": []}


@pytest.mark.parametrize(
    ("body", "status", "problem", "words"),
    [
        ({}, 422, "invalid-input", "give policies, calendars or both"),
        ({"policies": []}, 422, "invalid-input", "#/policies"),
        (
            {"policy": {"targets": [{"metric": "wishes", "amount": 1}]}},
            422,
            "invalid-input",
            "#/policy/targets/0/metric",
        ),
        ({"policies": [QUICK, QUICK]}, 422, "invalid-input", "a name of its own"),
        ({"policy": QUICK, "policies": [QUICK]}, 422, "invalid-input", "not both"),
        ({"policy": QUICK, "opened_from": "2026-01-01T00:00:00"}, 422, "invalid-input", "#/opened_from"),
        ({"policy": QUICK, "flips": 100_000}, 422, "invalid-input", "#/flips"),
        ({"policy": QUICK | {"calendar": "office"}}, 422, "unknown-calendar", "office"),
        (
            {
                "policy": QUICK,
                "calendars": [{"name": "office", "time_zone": "UTC", "hours": {"mon": [["09:00", "17:00"]]}}],
            },
            422,
            "nothing-to-compare",
            "office",
        ),
    ],
)
async def test_what_cannot_be_asked_is_refused_at_once(
    desk: DeskOverHttp, body: Any, status: int, problem: str, words: str
) -> None:
    answer = await desk.post(PATH, body, role=SUPERVISOR)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{problem}")
    assert words in answer.text
    assert (await desk.get(PATH, role=SUPERVISOR)).json() == {"items": []}


async def test_what_was_never_asked_is_not_found(desk: DeskOverHttp) -> None:
    missing = f"{PATH}/{uuid4()}"
    for path in (missing, f"{missing}/events", f"{missing}/page"):
        answer = await desk.get(path, role=SUPERVISOR)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
    assert (await desk.request("DELETE", missing, role=SUPERVISOR)).status_code == 404


@asynccontextmanager
async def held_up(workspace: Workspace) -> AsyncIterator[None]:
    """Keep everybody from reading the queue, so that what-ifs last for as long as this does."""
    async with await workspace.database.connect("test") as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {workspace.schema}.views IN ACCESS EXCLUSIVE MODE".encode())
        yield


async def at_work(desk: DeskOverHttp, path: str) -> dict[str, Any]:
    """Wait until a process is at it."""
    async with asyncio.timeout(60):
        while True:
            told: dict[str, Any] = (await desk.get(path, role=SUPERVISOR)).json()
            if told["running"]:
                return told
            await asyncio.sleep(0.02)


def processes() -> list[int]:
    """Give the processes that answer what-ifs for this one."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"replay.what_if_worker" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


async def none_left() -> None:
    async with asyncio.timeout(30):
        while processes():  # noqa: ASYNC110 - it is not this program's to say when
            await asyncio.sleep(0.02)


async def test_one_that_is_cancelled_ends_and_is_told_as_such_until_it_is_forgotten(
    desk: DeskOverHttp, workspace: Workspace
) -> None:
    async with held_up(workspace):
        path = await asked(desk)
        waiting = await asked(desk)
        await at_work(desk, path)
        watching = asyncio.create_task(ended(desk, path))
        for one in (waiting, path):
            assert (await desk.request("DELETE", one, role=SUPERVISOR)).status_code == 204
        assert (await watching)[-1][2]["phase"] == "cancelled"
        await none_left()
    for one in (waiting, path):
        told = (await desk.get(one, role=SUPERVISOR)).json()
        assert (told["phase"], told["running"], told["report"]) == ("cancelled", False, None)
        assert (await desk.request("DELETE", one, role=SUPERVISOR)).status_code == 204
        assert (await desk.get(one, role=SUPERVISOR)).status_code == 404


async def test_one_whose_process_was_killed_is_begun_again_by_whoever_asks_and_in_the_end_given_up(
    desk: DeskOverHttp, workspace: Workspace
) -> None:
    async with held_up(workspace):
        path = await asked(desk)
        for _ in range(what_if_jobs.MOST_ATTEMPTS):
            await at_work(desk, path)
            for pid in processes():
                os.kill(pid, signal.SIGKILL)
            await none_left()
            async with workspace.database.pool.connection() as connection:  # as when the lease has run out
                await connection.execute(f"UPDATE {workspace.schema}.what_ifs SET leased_until = now()".encode())
        told = (await ended(desk, path))[-1][2]
    assert (told["phase"], told["running"]) == ("failed", False)
    assert "3 times" in told["error"]


async def test_a_server_that_ends_leaves_what_it_was_at_to_others(
    desk: DeskOverHttp, app: FastAPI, workspace: Workspace
) -> None:
    async with held_up(workspace):
        path = await asked(desk)
        await at_work(desk, path)
        app.state.ending.set()
        await none_left()
        (job,) = await what_if_jobs.listed(workspace)
        assert (job.phase, job.running) == ("waiting", False)
    app.state.ending.clear()
    assert (await ended(desk, path))[-1][2]["phase"] == "done"


async def test_so_many_may_wait_and_answers_are_forgotten_in_the_end(
    desk: DeskOverHttp, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(what_if_jobs, "MOST_WAITING", 2)
    monkeypatch.setattr(what_if_jobs, "MOST_KEPT", 2)
    async with held_up(workspace):
        first, second = await asked(desk), await asked(desk)
        answer = await desk.post(PATH, {"policies": [QUICK]}, role=SUPERVISOR)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/busy")
        await desk.request("DELETE", first, role=SUPERVISOR)
        third = await asked(desk)
        await desk.request("DELETE", second, role=SUPERVISOR)
        fourth = await asked(desk)
        await desk.request("DELETE", third, role=SUPERVISOR)
        await desk.request("DELETE", fourth, role=SUPERVISOR)
    kept = {one["id"] for one in (await desk.get(PATH, role=SUPERVISOR)).json()["items"]}
    assert kept == {one.rpartition("/")[2] for one in (second, third, fourth)}
