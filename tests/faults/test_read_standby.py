"""Reads answered from a standby: whoever wrote reads what they wrote, however far behind it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from storage.database import LOST_IN_A_ROW, once_more
from storage.embedded import OWNER
from tests.faults.test_failover import Desk, servers, serving, until

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import httpx

    from tests.faults.pair import Pair

__all__ = ["servers"]


async def meanwhile(desk: Desk, asking: Awaitable[httpx.Response]) -> httpx.Response:
    """Ask while the standby replays nothing; it is answered once the standby goes on."""
    asked = asyncio.ensure_future(asking)
    await asyncio.wait([asked], timeout=0.3)
    assert not asked.done()
    desk.servers.standby.query("SELECT pg_wal_replay_resume()")
    return await asked


async def test_lists_and_tickets_are_read_from_a_standby_that_is_waited_for(servers: Pair) -> None:
    standby = f"host='{servers.standby.host}' user={OWNER} dbname=ledgerdesk"
    async with serving(servers, DESK_READ_DATABASE_URL=standby) as desk:

        def stop_replaying() -> None:
            servers.standby.query("SELECT pg_wal_replay_pause()")

        first = await desk.command("first")
        assert (await desk.http.get("/teams", params={"after": first.token})).status_code == 200
        seen = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'desk' AND datname = 'ledgerdesk'"
        assert servers.standby.query(seen) != []
        await until(lambda: servers.standby.query("SELECT count(*) FROM ws_main.log_epochs") == [(1,)], "it follows")

        # Commands are decided on the primary, and lists are what the standby has, until it is asked for more.
        stop_replaying()
        second = await desk.command("second")
        third = await desk.command("third")
        assert (third.position, third.replayed) == (3, False)
        names = [item["name"] for item in (await desk.http.get("/teams")).json()["items"]]
        assert names == ["Team first"]
        page = await meanwhile(desk, desk.http.get("/teams", params={"after": second.token}))
        assert page.status_code == 200, page.text
        assert {"Team first", "Team second"} <= {item["name"] for item in page.json()["items"]}

        # One thing is waited for by the position that the answer to the command named.
        stop_replaying()
        made = await desk.http.post("/teams", json={"name": "Made just now"})
        path = f"/teams/{made.json()['id']}"
        assert (await desk.http.get(path)).status_code == 404
        asking = desk.http.get(path, headers={"Log-Position": made.headers["Log-Position"]})
        read = await meanwhile(desk, asking)
        assert (read.status_code, read.json()["name"]) == (200, "Made just now")

        # What the log does not have is not waited for as though it were on its way.
        for answer in (
            await desk.http.get("/teams", params={"after": "99"}),
            await desk.http.get(path, headers={"Log-Position": "99"}),
        ):
            assert (answer.status_code, answer.json()["type"]) == (409, "/problems/position-not-in-log")


@pytest.mark.parametrize("state", ["40001", "57P01", None])
async def test_a_reading_that_was_in_the_way_of_what_is_replayed_is_repeated(state: str | None) -> None:
    attempts = 0

    async def read() -> str:
        nonlocal attempts
        attempts += 1
        if attempts <= LOST_IN_A_ROW:
            raise psycopg.errors.lookup(state) if state else psycopg.OperationalError
        return "read"

    assert await once_more(read) == "read"


async def test_a_reading_is_not_repeated_for_ever_nor_when_it_was_refused() -> None:
    for error in (psycopg.errors.SerializationFailure, psycopg.errors.QueryCanceled):

        async def read(error: type[psycopg.Error] = error) -> None:
            raise error

        with pytest.raises(error):
            await once_more(read)
