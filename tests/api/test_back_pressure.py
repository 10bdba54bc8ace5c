"""A log that stalls costs its callers a wait or a plain refusal, never the server; and callers may go at any moment."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from domain.event import Role
from tests.api.test_metrics import scraped
from tests.api.test_server import PATIENCE, issue, running, stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import pytest

    from tests.api.conftest import DeskOverHttp

BOUND = 20
ASKED = 120


@contextmanager
def stalled(environment: dict[str, str]) -> Iterator[Callable[[], bool]]:
    """Hold the log of alpha as a writer that hangs does; give what tells whether somebody waits for it."""
    url = environment["DATABASE_URL"]
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as looker:
        holder.execute("SELECT ws_alpha.lock_log()")

        def somebody_waits() -> bool:
            found = looker.execute(
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
                "WHERE d.datname = current_database() AND locktype = 'advisory' AND NOT granted"
            ).fetchone()
            return found is not None and found[0] > 0

        yield somebody_waits
        holder.rollback()


def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


async def test_while_the_log_stalls_what_is_beyond_the_queue_is_refused_at_once_and_the_rest_carried_out(
    environment: dict[str, str],
) -> None:
    environment = environment | {"DESK_WAITING_COMMANDS": str(BOUND)}
    headers = {"Authorization": f"Bearer {issue(environment)}"}
    with running(environment, "serve") as (process, address, _):
        limits = httpx.Limits(max_connections=ASKED + 10)
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=PATIENCE, limits=limits) as client:

            def create(number: int) -> Awaitable[httpx.Response]:
                return client.post("/teams", json={"name": f"Team {number}"}, headers={"Idempotency-Key": f"{number}"})

            async def under_way(*tasks: asyncio.Task[httpx.Response]) -> None:
                deadline = time.monotonic() + PATIENCE
                while not (somebody_waits() or all(task.done() for task in tasks)):
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.02)

            with stalled(environment) as somebody_waits:
                first = asyncio.ensure_future(create(0))
                await under_way(first)
                others = [asyncio.ensure_future(create(number)) for number in range(1, ASKED)]
                refused: list[httpx.Response] = []
                for answered in asyncio.as_completed(others):
                    refused.append(await answered)
                    if len(refused) == ASKED - BOUND:
                        break
                for answer in refused:
                    assert answer.status_code == 503, answer.text
                    assert answer.json()["type"] == "/problems/busy"
                    assert int(answer.headers["Retry-After"]) >= 1
                # No more is waiting than may, nobody else is answered, and what does not need the log goes on.
                assert sum(task.done() for task in others) == len(refused)
                assert not first.done()
                assert (await client.get("/log")).json()["position"] == 0
                told = scraped((await client.get("/metrics")).text)
                assert told("desk_append_waiting_commands", workspace="alpha") == BOUND - 1
                assert told("desk_append_busy_total", workspace="alpha") == len(refused)
            done = [answer for answer in await asyncio.gather(first, *others) if answer.status_code == 201]
            assert len(done) == BOUND
            assert sorted(answer.json()["position"] for answer in done) == list(range(1, BOUND + 1))
            again = [await create(number) for number in range(ASKED)]
            assert {answer.status_code for answer in again} == {201}
            assert sum(answer.json()["replayed"] for answer in again) == BOUND
            assert (await client.get("/log")).json()["position"] == ASKED
        stop(process)


async def test_a_log_that_does_not_answer_in_time_is_told_so_and_asked_again_the_command_is_done_once(
    desk: DeskOverHttp, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await desk.head()
    given: dict[str, Any] = {"headers": {"Idempotency-Key": "late"}, "role": Role.ADMINISTRATOR}
    with monkeypatch.context() as impatient, stalled(environment):
        impatient.setattr("storage.log.APPEND_TIMEOUT", 0.3)
        answer = await desk.post("/teams", {"name": "Late"}, **given)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    await desk.done("/teams", {"name": "Late"}, **given)
    assert await desk.head() == before + 1


async def test_what_is_refused_while_the_log_stalls_leaves_nothing_in_the_process(
    desk: DeskOverHttp, environment: dict[str, str]
) -> None:
    log = (await desk.database.workspace("alpha")).log
    log.waiting_commands = BOUND
    before = len(asyncio.all_tasks())
    with stalled(environment):
        commands = [
            asyncio.create_task(desk.post("/teams", {"name": f"Team {number}"}, role=Role.ADMINISTRATOR))
            for number in range(BOUND * 10)
        ]
        deadline = time.monotonic() + PATIENCE
        while sum(not command.done() for command in commands) > BOUND:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert log.waiting <= BOUND
        waiting = [command for command in commands if not command.done()]
        assert len(asyncio.all_tasks()) <= before + 2 * len(waiting)
    answers = await asyncio.gather(*commands)
    assert {answer.status_code for answer in answers} == {201, 503}
    assert sum(answer.status_code == 201 for answer in answers) == len(waiting)


def test_a_caller_that_goes_away_has_its_command_carried_out_once_or_not_at_all(environment: dict[str, str]) -> None:
    token = issue(environment)
    headers = {"Authorization": f"Bearer {token}"}
    with running(environment, "serve") as (process, address, _), httpx.Client(base_url=address) as client:
        port = int(address.rpartition(":")[2])

        def request(number: int) -> bytes:
            body = json.dumps({"name": f"Team {number}"}).encode()
            return (
                b"POST /teams HTTP/1.1\r\nHost: desk\r\nContent-Type: application/json\r\nIdempotency-Key: %d\r\n"
                b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
            ) % (number, token.encode(), len(body), body)

        def say(said: bytes, *, abruptly: bool) -> None:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(said)
                if abruptly:  # the server meets a reset instead of an end
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def position() -> int:
            told: dict[str, Any] = client.get("/log", headers=headers).json()
            return int(told["position"])

        for number in range(10):
            say(request(number), abruptly=bool(number % 2))
        with stalled(environment) as somebody_waits:
            for number in range(10, 20):
                say(request(number), abruptly=bool(number % 2))
            # Those that were read have gone while their commands wait for the log.
            until(somebody_waits)
        # Cut off in the head, in the body, and before the last byte.
        for number in range(20, 30):
            whole = request(number)
            for end in (20, len(whole) - 10, len(whole) - 1):
                say(whole[:end], abruptly=bool(number % 2))
        again = [
            client.post("/teams", json={"name": f"Team {number}"}, headers=headers | {"Idempotency-Key": f"{number}"})
            for number in range(30)
        ]
        assert {answer.status_code for answer in again} == {201}
        assert not any(answer.json()["replayed"] for answer in again[20:])
        assert position() == 30
        assert sorted(answer.json()["position"] for answer in again) == list(range(1, 31))
        assert client.get("/health/ready").status_code == 200
        stop(process)
