"""How soon a ticket's whole history is told, from a log of millions of events and from one of thousands, by turns."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import AsyncConnection, sql
from pydantic_core import from_json

from commands.desk import Desk
from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.ticket import Ticket
from replay.history import history
from storage.append import Submission
from storage.codec import encode
from storage.credentials import issue
from storage.database import Database
from storage.migrations import create_workspace
from storage.settings import Settings
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.ground import MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.seed import fill
from tests.benchmarks.sides import HOST, desk
from tests.benchmarks.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    from domain.event import Event
    from storage.database import Workspace
    from tests.benchmarks.sides import Service

STORED = 10_000_000
FEW = 10_000
EVENTS = 50
TICKETS = 20
ROUNDS = 20
SMALL, LARGE = "small", "large"
PATHS = ("first", "told", "over_http", "selected")

LONGEST = """
SELECT count(*), originator_id FROM {schema}.events WHERE starts_with(topic, 'ticket.')
GROUP BY originator_id HAVING count(*) <= %s ORDER BY 1 DESC, 2 LIMIT %s
"""
SELECT = """
SELECT notification_id, originator_id, originator_version, topic, state, personal, recorded_at
FROM {schema}.events WHERE originator_id = %s ORDER BY originator_version
"""


async def main(
    settings: Settings, *, stored: int = STORED, few: int = FEW, tickets: int = TICKETS, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Tell tickets of 50 events in two logs by turns; `ratio` is the large log's median over the small one's.

    They are the longest of either log that have no more events, and were brought to as many with notes at its end.
    Raises MeasurementError.
    """
    async with ground(settings) as place, await Database.open(place.settings) as database:
        logs: dict[str, Log] = {}
        for name, events in ((SMALL, few), (LARGE, stored)):
            await create_workspace(place.settings, name)
            workspace = await database.workspace(name)
            say(f"history: seeding {events:,} events")
            await fill(place.settings, workspace, events)
            logs[name] = Log(workspace, await issue(database, name, Role.AUDITOR, SYSTEM_ACTOR, label="bench"))
        small, large = logs[SMALL], logs[LARGE]
        await small.take_longest(tickets)
        await large.take_longest(len(small.tickets))
        await place.checkpoint()
        async with (
            desk(place.settings, 1, views=False) as service,
            await AsyncConnection.connect(database.conninfo, autocommit=True) as bare,
        ):
            for number in range(rounds):
                # The other one first every other time.
                for _, log in sorted(logs.items(), reverse=number % 2 == 0):
                    await log.measure(service, bare)
                say(f"history: round {number + 1} of {rounds}")
        mebibytes = await large.mebibytes()
    return {
        "benchmark": "history",
        "ratio": round(large.middle("told") / small.middle("told"), 2),
        "ratio_over_http": round(large.middle("over_http") / small.middle("over_http"), 2),
        "ratio_to_select": round(large.middle("told") / large.middle("selected"), 1),
        **{f"{path}_milliseconds": milliseconds(large.seconds[path]) for path in PATHS},
        **{f"small_{path}_milliseconds": milliseconds(small.seconds[path]) for path in PATHS},
        "events": EVENTS,
        "tickets": len(small.tickets),
        "stored": stored,
        "small_stored": few,
        "mebibytes": round(mebibytes),
        "server": place.durability,
    }


class Chosen(NamedTuple):
    """A ticket whose history is asked for, and the positions of its events."""

    id: UUID
    positions: list[int]


@dataclass
class Log:
    """One of the two logs, the tickets asked for, and how long each way of asking took."""

    workspace: Workspace
    token: str
    tickets: list[Chosen] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {path: [] for path in PATHS})

    def middle(self, path: str) -> float:
        """Give the median of a way of asking, in seconds."""
        return median(self.seconds[path])

    async def take_longest(self, most: int) -> None:
        """Choose the tickets with the most events, but no more than wanted, and bring each to so many."""
        for _, stream in await self._ask(LONGEST, EVENTS, most):
            await self._take(stream)

    async def measure(self, service: Service, bare: AsyncConnection[Any]) -> None:
        """Ask for each ticket in every way, one request at a time, and check every answer. Raises MeasurementError."""
        statement = sql.SQL(SELECT).format(schema=sql.Identifier(self.workspace.schema))
        again = bool(self.seconds["told"])
        async with _asking(service, self.token) as ask:
            for ticket in self.tickets:
                began = time.perf_counter()
                life = await history(self.workspace, ticket.id, kind="ticket")
                told = time.perf_counter()
                rows = await (await bare.execute(statement, (ticket.id,), prepare=True, binary=True)).fetchall()
                selected = time.perf_counter()
                answer = await ask(f"/tickets/{ticket.id}/history")
                answered = time.perf_counter()
                if not again:
                    # Nothing of the ticket was in the server's memory yet, nor were statements prepared: told apart.
                    self.seconds["first"].append(told - began)
                    self.seconds["told"].append(await self._once_more(ticket))
                else:
                    self.seconds["told"].append(told - began)
                self.seconds["selected"].append(selected - told)
                self.seconds["over_http"].append(answered - selected)
                found = {
                    "told": [entry.position for entry in life.entries],
                    "selected": [row[0] for row in rows],
                    "over_http": [entry["position"] for entry in from_json(answer)["entries"]],
                }
                for path, positions in found.items():
                    if positions != ticket.positions:
                        message = f"the history of {ticket.id} {path} is not that of its {EVENTS} events"
                        raise MeasurementError(message)

    async def _once_more(self, ticket: Chosen) -> float:
        began = time.perf_counter()
        await history(self.workspace, ticket.id, kind="ticket")
        return time.perf_counter() - began

    async def mebibytes(self) -> float:
        """Give the size of the log's table with its indexes."""
        ((size,),) = await self._ask("SELECT pg_total_relation_size(%s)", f'"{self.workspace.schema}".events')
        return float(size) / 2**20

    async def _take(self, stream: UUID) -> None:
        """Bring a ticket to the wanted number of events with notes, as the desk records them, and choose it."""
        ticket = await Desk(self.workspace).load(Ticket, stream)
        by = Provenance(actor_id=SYSTEM_ACTOR, role=Role.SYSTEM, channel=Channel.SYSTEM)
        while ticket.version < EVENTS:
            ticket.add_note(text=f"Looked at again, still the same ({ticket.version}).", act=Act(datetime.now(UTC), by))
        events: list[Event] = list(ticket.collect_events())  # type: ignore[arg-type]
        if events:
            await self.workspace.keyring.ensure(set().union(*(event.data_subjects() for event in events)))
            await self.workspace.log.append(Submission([encode(event, self.workspace.keyring) for event in events]))
        rows = await self.workspace.log.stream(stream)
        self.tickets.append(Chosen(stream, [row.position for row in rows]))

    async def _ask(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        text = sql.SQL(statement).format(schema=sql.Identifier(self.workspace.schema))
        async with self.workspace.database.pool.connection() as connection:
            return await (await connection.execute(text, parameters)).fetchall()


@asynccontextmanager
async def _asking(service: Service, token: str) -> AsyncIterator[Callable[[str], Awaitable[bytes]]]:
    """Give a way to ask over one kept connection, a request at a time, with a credential. Raises MeasurementError."""
    waiting: list[asyncio.Future[bytes]] = []

    def answered(status: int, _: bytes, body: bytes) -> None:
        if status == 200:
            waiting.pop().set_result(body)
        else:
            ended(f"the answer was {status}: {body.decode(errors='replace')}")

    def ended(why: str) -> None:
        if waiting:
            waiting.pop().set_exception(MeasurementError(why))

    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: Wire(answered, ended), HOST, service.port)

    async def ask(path: str) -> bytes:
        waiting.append(loop.create_future())
        future = waiting[0]
        wire.send(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        return await future

    try:
        yield ask
    finally:
        wire.close()


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
