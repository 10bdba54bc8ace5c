"""Commands sent by a timetable: they come when they come, as people do, whether or not others were answered.

A delay counts from the moment the command was due, so that a stall is felt by everybody who comes during it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from pydantic_core import from_json

from tests.benchmarks.client import Plan, Run
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.lives import Ticket, steps_of
from tests.benchmarks.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.client import Person

SHORTEST_SLEEP = 0.001  # seconds; what is due sooner is sent together, a little late, rather than by spinning


class Timetable(Run):
    """Commands are due at the instants of a Poisson process; those that find no connection free wait for one.

    Each connection is that of one person, who works on a ticket of one's own as long as it lives, as in `commands`.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.resting: deque[Person] = deque()
        self.due: deque[float] = deque()
        self.own: dict[Person, Ticket] = {}
        self.next_at = 0.0
        self.late: list[float] = []
        self.most_waiting = 0
        self.in_time = 0
        self.looks = Looks(plan)

    async def send_all(self) -> None:
        """Connect also the one who reads back."""
        if self.plan.looks_per_second:
            await self.looks.connect(self.fail)
        await super().send_all()
        self.looks.close()
        self.result.per_second = round(self.in_time / self.plan.seconds, 1)
        self.result.timetable = {
            "due_per_second": self.plan.rate,
            "sent_late_milliseconds": milliseconds(self.late),
            "most_waiting_for_a_connection": self.most_waiting,
            "never_sent": len(self.due),
            "read_back_milliseconds": milliseconds(self.looks.delays),
        }

    def joined(self, person: Person) -> None:
        """Begin when everybody has connected."""
        self.resting.append(person)
        if len(self.resting) == self.plan.concurrency:
            self.begin()
            self.next_at = time.monotonic()
            self._tick()

    def free(self, person: Person, head: bytes) -> None:
        """Let whoever waited longest have the connection; else it rests."""
        ticket = person.ticket
        if person.command == "open" and len(self.shared) < self.plan.shared_tickets:
            self.shared.append(ticket.reference)
        elif ticket.steps:
            self.own[person] = ticket
        self.looks.maybe(head, person.position)
        self.resting.append(person)
        if time.monotonic() >= self.stop_at:
            self._leave_if_all_rest()
        elif self.due:
            self._send_due()

    def choose(self, person: Person) -> tuple[Ticket, str]:
        """Choose the next command for this person's ticket, or now and then one for a ticket that everybody answers."""
        if self.shared and self.chance.random() * self.plan.shared_one_in < 1:
            return self.everybodys(), "reply"
        ticket = self.own.pop(person, None) or Ticket(steps=steps_of(self.chance))
        return ticket, ticket.steps.popleft()

    def note(self, person: Person, version: int, position: int, now: float, *, changed: bool) -> None:
        """Take down one right answer: of all that were due while measuring, however late it comes."""
        self.acknowledged.append((person.ticket.reference, version, position, now))
        assert changed
        if person.due_at >= self.counted_from:
            self.delays.append(now - person.due_at)
            self.by_command[person.command] += 1
        if self.counted_from <= now < self.stop_at:
            self.in_time += 1

    def over(self, now: float) -> bool:
        """Tell whether the time is up."""
        return bool(self.result.wrong) or now >= self.stop_at

    def conclude(self) -> None:
        """Count those that were due and never sent with the time they had waited, which was not yet all."""
        self.delays += [self.stop_at - due_at for due_at in self.due if due_at >= self.counted_from]
        super().conclude()

    def _tick(self) -> None:
        now = time.monotonic()
        if self.over(now):
            self._leave_if_all_rest()
            return
        while self.next_at <= now:
            self.due.append(self.next_at)
            self.next_at += self.chance.expovariate(self.plan.rate)
        self._send_due()
        asyncio.get_running_loop().call_later(max(self.next_at - now, SHORTEST_SLEEP), self._tick)

    def _send_due(self) -> None:
        now = time.monotonic()
        while self.due and self.resting:
            due_at = self.due.popleft()
            if due_at >= self.counted_from:
                self.late.append(now - due_at)
            person = self.resting.popleft()
            person.send(*self.choose(person), due_at)
        self.most_waiting = max(self.most_waiting, len(self.due))

    def _leave_if_all_rest(self) -> None:
        if len(self.resting) == len(self.people) and not self.done.done():
            self.done.set_result(None)


class Looks:
    """Somebody who now and then reads the queue back, waiting until it has what was just acknowledged."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._wire: Wire | None = None
        self._next_at = time.monotonic() + plan.warm_up_seconds
        self._acknowledged_at = 0.0
        self._position = 0
        self._busy = True
        self.delays: list[float] = []

    async def connect(self, fail: Callable[[str], None]) -> None:
        """Connect; `fail` hears of what went wrong."""
        self._fail = fail
        self._wire = wire = Wire(self._answered, fail)
        await asyncio.get_running_loop().create_connection(lambda: wire, self._plan.host, self._plan.port)
        self._busy = False

    def maybe(self, head: bytes, position: int) -> None:
        """Read back what an answer acknowledged, if it is time to."""
        now = time.monotonic()
        if self._busy or self._wire is None or now < self._next_at:
            return
        start = head.lower().index(b"log-position: ") + 14
        after = head[start : head.index(b"\r\n", start)]
        self._next_at = now + 1 / self._plan.looks_per_second
        self._busy, self._acknowledged_at, self._position = True, now, position
        host = f"{self._plan.host}:{self._plan.port}".encode()
        self._wire.send(
            b"GET /queue?limit=1&after=%b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n\r\n"
            % (after, host, self._plan.token.encode())
        )

    def close(self) -> None:
        """End the connection."""
        if self._wire is not None:
            self._wire.close()

    def _answered(self, status: int, _head: bytes, body: bytes) -> None:
        self._busy = False
        if status != 200 or from_json(body)["position"] < self._position:
            self._fail(f"the queue after {self._position}: {status} {body[:500].decode(errors='replace')}")
        else:
            self.delays.append(time.monotonic() - self._acknowledged_at)
