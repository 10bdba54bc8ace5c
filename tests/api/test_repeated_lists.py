"""A list that is asked for again is answered by a shorter way, and with the same."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter
from pydantic_core import from_json

from api.repeated_routes import LONGEST_HELD, RepeatedRoute
from api.view_routes import QueueCounts, QueuePage, QueueThenPage
from domain.event import Role

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tests.api.conftest import DeskOverHttp

QUERIES = (
    "", "sort=due&limit=50", "status=open&status=new&sort=priority", "agent=me", "agent=unassigned&limit=1",
    "agent=me&agent=unassigned", "limit=3&nobody=knows", "tag=vip", "tag=%E4%BC%9A%E8%AE%AE", "sort=opened&status=new",
    # What is refused
    "limit=0", "limit=x", "status=burning", "team=first", "sort=random", "cursor=nonsense", "as_of=yesterday",
    "after=soon", "tag=a%00b", "agent=",
)  # fmt: skip


async def told(desk: DeskOverHttp, path: str, **more: Any) -> tuple[int, Any, dict[str, str]]:
    answer = await desk.get(path, **more)
    content = answer.json()
    if answer.status_code >= 400:
        del content["instance"]  # the request's id
    kept = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "content-length"}}
    return answer.status_code, content, kept


@pytest.mark.parametrize("path", ["/queue", "/queue/counts"])
async def test_the_second_answer_is_the_first(desk: DeskOverHttp, path: str) -> None:
    for number in range(5):
        ticket = await desk.open(tags=["vip", "会议"][: number % 3], priority=("low", "urgent")[number % 2])
        if number % 2:
            await desk.done(f"/tickets/{ticket['id']}/assign", {"agent_id": desk.ids["agent"]})
    await desk.catch_up()
    statuses = set()
    for query in QUERIES:
        first = await told(desk, f"{path}?{query}")
        assert [await told(desk, f"{path}?{query}") for _ in range(2)] == [first, first], query
        statuses.add(first[0])
    assert statuses == {200, 400, 422}


async def test_what_is_answered_is_as_documented(desk: DeskOverHttp) -> None:
    """Read by the documented model and written out by it again, an answer is the same."""
    for _ in range(3):
        await desk.open(tags=["vip"])
    await desk.catch_up()
    pages: dict[str, Any] = {
        "/queue?sort=due&limit=2": QueuePage,
        f"/queue?as_of={await desk.head()}": QueueThenPage,
        "/queue/counts": QueueCounts,
    }
    for path, model in pages.items():
        for _ in range(2):
            body = (await desk.get(path)).content
            adapter = TypeAdapter(model)
            assert from_json(adapter.dump_json(adapter.validate_json(body, strict=True))) == from_json(body)


async def test_a_known_question_is_still_answered_to_each_caller_for_himself(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    await desk.done(f"/tickets/{ticket['id']}/assign", {"agent_id": desk.ids["agent"]})
    await desk.catch_up()
    for _ in range(2):
        assert len((await desk.get("/queue?agent=me")).json()["items"]) == 1
        assert (await desk.get("/queue?agent=me", role=Role.SUPERVISOR)).json()["items"] == []
        assert (await desk.get("/queue?agent=me", role=Role.CUSTOMER)).status_code == 403
        assert (await desk.get("/queue?agent=me", role=None)).status_code == 401
        assert (await desk.request("POST", "/queue?agent=me")).status_code == 405


async def test_long_questions_are_not_remembered(desk: DeskOverHttp, app: FastAPI) -> None:
    await desk.catch_up()
    (route,) = [one for one in app.routes if isinstance(one, RepeatedRoute) and one.path == "/queue"]
    for length, known in ((LONGEST_HELD, True), (LONGEST_HELD + 1, False)):
        query = "tag=a&nobody=".ljust(length, "x")
        assert (await desk.get(f"/queue?{query}")).status_code == 200
        assert route.knows(query.encode()) is known


async def test_a_new_name_is_shown_within_a_moment(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    await desk.done(f"/tickets/{ticket['id']}/assign", {"agent_id": desk.ids["agent"]})
    await desk.catch_up()
    assert (await desk.get("/queue")).json()["names"][desk.ids["agent"]] == "Ann Lee"
    await desk.done(f"/agents/{desk.ids['agent']}/rename", {"name": "Ann Ray"}, role=Role.ADMINISTRATOR)
    await desk.catch_up()
    deadline = time.monotonic() + 10
    while (await desk.get("/queue")).json()["names"][desk.ids["agent"]] != "Ann Ray":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
