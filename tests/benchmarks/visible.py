"""How soon a change is in the queue after its command was answered, when commands come one at a time."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import httpx
import psycopg

from projections.ticket_queue import VIEW
from storage.database import Database
from storage.settings import Settings
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.sides import HOST, desk, make_people, views_caught_up

if TYPE_CHECKING:
    from types import TracebackType

    from tests.benchmarks.sides import People

COMMANDS = 400
PAUSES = (0.01, 0.08)  # seconds between a command that was seen and the next, so that the views rest in between
LOOK_SECONDS = 0.0002  # between two looks, which is what a delay may be told too large by, with the look itself
LONGEST_SECONDS = 10.0
LIFE = ("assign", "reply", "add-note", "reply", "solve", "close")


async def main(settings: Settings, *, commands: int = COMMANDS, workers: int = 1) -> dict[str, Any]:
    """Send a command, wait until the queue has it, and send the next; all views are kept up meanwhile.

    `ratio` is the p50 of a bare follower over ours: a process that is notified of each committed row, and copies it to
    a second table in a transaction of its own. Raises MeasurementError.
    """
    async with ground(settings) as place:
        address = place.settings.database_url or ""
        async with await Database.open(place.settings) as database:
            workspace = await database.workspace(WORKSPACE)
            people = await make_people(workspace)
            async with desk(place.settings, workers) as service:
                await views_caught_up(workspace, [])
                say(f"visible: desk serve, {workers} worker(s), {commands} commands, one at a time")
                base = f"http://{HOST}:{service.port}"
                answered, seen = await asyncio.to_thread(_ours, base, address, workspace.schema, people, commands)
        say(f"visible: answered in {milliseconds(answered)}, in the queue {milliseconds(seen)} after that")
        committed, followed = await asyncio.to_thread(_bare, await place.database(), commands)
        say(f"visible: a bare commit {milliseconds(committed)}, followed {milliseconds(followed)} after that")
    ours, bare = milliseconds(seen), milliseconds(followed)
    return {
        "benchmark": "visible",
        "ratio": round(bare["p50"] / ours["p50"], 2),
        "ours_visible_milliseconds": ours,
        "ours_answered_milliseconds": milliseconds(answered),
        "bare_visible_milliseconds": bare,
        "bare_commit_milliseconds": milliseconds(committed),
        "commands": commands,
        "workers": workers,
        "server": place.durability,
    }


def _ours(base: str, address: str, schema: str, people: People, commands: int) -> tuple[list[float], list[float]]:
    """Send commands; gives the seconds until each was answered, and from then until the view had it."""
    chance = random.Random(1)  # noqa: S311 - repeatable load, no secret
    statement = f'SELECT position FROM "{schema}".views WHERE name = %s AND version = %s'.encode()
    answered, seen = [], []
    ticket, steps = "", list[str]()
    headers = {"Authorization": f"Bearer {people.token}"}
    with (
        psycopg.connect(address, autocommit=True) as looking,
        httpx.Client(base_url=base, headers=headers, timeout=LONGEST_SECONDS) as client,
    ):
        for _ in range(commands):
            time.sleep(chance.uniform(*PAUSES))
            command = steps.pop(0) if steps else "open"
            path = "/tickets" if command == "open" else f"/tickets/{ticket}/{command}"
            started = time.monotonic()
            answer = client.post(path, json=_body(command, people, chance))
            acknowledged = time.monotonic()
            if answer.status_code not in {200, 201}:
                message = f"{command}: {answer.status_code} {answer.text}"
                raise MeasurementError(message)
            told = answer.json()
            if command == "open":
                ticket, steps = told["id"], list(LIFE)
            _wait_for(looking, statement, (VIEW.name, VIEW.version), told["position"])
            answered.append(acknowledged - started)
            seen.append(time.monotonic() - acknowledged)
    return answered, seen


def _body(command: str, people: People, chance: random.Random) -> dict[str, Any]:
    match command:
        case "open":
            return {
                "subject": "VPN down",
                "body": "Since the update.",
                "requester_id": chance.choice(people.requesters),
            }
        case "assign":
            return {"agent_id": chance.choice(people.agents), "team_id": chance.choice(people.teams)}
        case "reply" | "add-note":
            return {"text": "We are looking into it."}
        case "solve":
            return {"resolution_code": "fixed"}
        case _:
            return {}


def _wait_for(looking: psycopg.Connection[Any], statement: bytes, values: tuple[Any, ...], wanted: int) -> None:
    """Look until a position is reached. Raises MeasurementError."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        row = looking.execute(statement, values, prepare=True).fetchone()
        if row is not None and row[0] is not None and row[0] >= wanted:
            return
        if time.monotonic() > deadline:
            message = f"position {wanted} was not seen in {LONGEST_SECONDS:g} s"
            raise MeasurementError(message)
        time.sleep(LOOK_SECONDS)


class _Follower:
    """Copies each committed row to a second table as soon as it is notified, over a connection of its own."""

    def __init__(self, address: str) -> None:
        self._connection = psycopg.connect(address, autocommit=True)
        self._connection.execute("LISTEN rows")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _follow(self) -> None:
        while not self._stop.is_set():
            if list(self._connection.notifies(timeout=0.1, stop_after=1)):
                self._connection.execute(
                    "INSERT INTO seen SELECT * FROM made WHERE number > (SELECT coalesce(max(number), 0) FROM seen)",
                    prepare=True,
                )


def _bare(address: str, rows: int) -> tuple[list[float], list[float]]:
    """Commit rows one at a time; gives the seconds of each commit, and from then until the follower had copied it."""
    chance = random.Random(1)  # noqa: S311 - repeatable load, no secret
    committed, seen = [], []
    with psycopg.connect(address, autocommit=True) as making, psycopg.connect(address, autocommit=True) as looking:
        making.execute("CREATE TABLE made (number bigint PRIMARY KEY, state text)")
        making.execute("CREATE TABLE seen (number bigint PRIMARY KEY, state text)")
        with _Follower(address):
            for number in range(1, rows + 1):
                time.sleep(chance.uniform(*PAUSES))
                started = time.monotonic()
                with making.transaction():
                    making.execute("INSERT INTO made VALUES (%s, %s)", (number, "x" * 400), prepare=True)
                    making.execute("NOTIFY rows")
                done = time.monotonic()
                _wait_for(looking, b"SELECT max(number) FROM seen", (), number)
                committed.append(done - started)
                seen.append(time.monotonic() - done)
    return committed, seen


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
