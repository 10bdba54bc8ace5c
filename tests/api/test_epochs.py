"""Positions, lists and waits of before a restore or a failover, as callers meet them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.event import Role
from storage.database import Database
from storage.epochs import renew

if TYPE_CHECKING:
    from storage.settings import Settings
    from tests.api.conftest import DeskOverHttp

LOST = (409, "/problems/log-epoch-changed")


async def told(desk: DeskOverHttp, path: str, **more: str) -> tuple[int, str]:
    answer = await desk.get(path, params=more, role=Role.SUPERVISOR)
    return answer.status_code, answer.json().get("type", "")


async def test_positions_that_a_new_epoch_does_not_take_over_are_refused_wherever_they_are_taken(
    desk: DeskOverHttp, settings: Settings
) -> None:
    tickets = [await desk.open() for _ in range(3)]
    await desk.catch_up()
    epoch = (await desk.get("/log")).json()["epoch"]
    first, lost = (f"{tickets[number]['position']}.{epoch}" for number in (0, 2))
    page = (await desk.get("/queue", params={"limit": 1, "sort": "number"})).json()
    async with await Database.open(settings, role="owner") as owner:
        await renew(await owner.workspace("alpha"), "the disk was put back", trusted=tickets[0]["position"])
    number = tickets[0]["number"]
    for path, name in (
        ("/queue", "after"), ("/queue/counts", "after"), ("/sla-clocks", "after"), ("/audit-trail", "after"),
        ("/customers", "after"), (f"/tickets/{number}/sla", "after"), ("/queue/counts", "at"),
        ("/sla-clocks/counts", "at"), (f"/tickets/{number}", "as_of_position"),
    ):  # fmt: skip
        assert await told(desk, path, **{name: lost}) == LOST, path
        assert (await told(desk, path, **{name: first}))[1] != LOST[1], path
    assert (await told(desk, "/queue", limit="1", sort="number", cursor=page["next_cursor"]))[0] == 410
    renewed = (await desk.get("/log")).json()
    assert renewed["epoch"] != epoch
    assert (await told(desk, "/queue", after=renewed["token"]))[0] == 200


async def test_a_command_says_what_it_was_decided_on_and_is_refused_where_that_is_lost(
    desk: DeskOverHttp, settings: Settings
) -> None:
    ticket = await desk.open()
    read = await desk.get(f"/tickets/{ticket['number']}")
    basis = {"Log-Position": read.headers["Log-Position"], "If-Match": read.headers["ETag"]}
    path = f"/tickets/{ticket['number']}/add-note"
    assert (await desk.post(path, {"text": "a"}, headers={"Log-Position": basis["Log-Position"]})).status_code == 200
    async with await Database.open(settings, role="owner") as owner:
        await renew(await owner.workspace("alpha"), "the disk was put back")
    answer = await desk.post(path, {"text": "b"}, headers=basis)
    assert (answer.status_code, answer.json()["type"]) == LOST
    assert answer.json()["epoch"] == (await desk.get("/log")).json()["epoch"]
    assert (await desk.post(path, {"text": "b"}, headers={"Log-Position": "nonsense"})).status_code == 400


async def test_a_position_beyond_the_log_is_told_apart_from_one_that_a_view_has_not_reached(
    desk: DeskOverHttp,
) -> None:
    await desk.catch_up()
    head = await desk.head()
    answer = await desk.get("/queue", params={"after": head + 1})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/position-not-in-log")
    assert (answer.json()["wanted"], answer.json()["head"]) == (head + 1, head)
