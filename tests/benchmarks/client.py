"""Many people at once sending commands to a desk over HTTP, checking every answer."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from tests.benchmarks.delays import milliseconds
from tests.benchmarks.lives import TOGETHER, Ticket, bodies, steps_of
from tests.benchmarks.wire import Wire

TICKETS_EACH = 3
"""Tickets a person works on by turns."""
LONGEST_ANSWER_SECONDS = 60.0
LEAST_EACH = 40  # commands measured for each connection, however slow the machine is: several lives of a ticket
COUNTING, COUNTED = "counting", "counted"
"""What the client says when the measured time begins and when it is over; the result follows in one line of JSON."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to send, as whom, how much, and about whom."""

    host: str
    port: int
    token: str
    concurrency: int
    warm_up_seconds: float
    seconds: float
    seed: int
    agents: list[str]
    teams: list[str]
    requesters: list[str]
    acknowledged: str
    """File to write `ticket version position instant` of every acknowledged event to; the clock is time.monotonic."""
    shared_tickets: int = 0
    shared_one_in: int = 0
    commands: int = 0
    """Where given, so many are measured instead of so many seconds."""
    rate: float = 0.0
    """Where given, commands are due by a timetable of so many a second, whether or not others were answered."""
    looks_per_second: float = 0.0
    """With a timetable: how often what was just acknowledged is read back, waiting for it."""
    together: bool = False
    """Everybody works on one ticket."""


@dataclass(slots=True)
class Result:
    """What came back. Rates and delays are of the time after the warm-up."""

    commands: int = 0
    seconds: float = 0.0
    per_second: float = 0.0
    processor_seconds: float = 0.0
    acknowledged: int = 0
    conflicts_told: int = 0
    changed_nothing: int = 0
    by_command: dict[str, int] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    timetable: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Person:
    """One connection: sends a command and checks its answer."""

    def __init__(self, run: Run, number: int) -> None:
        plan = run.plan
        self.run = run
        self.tickets: list[Ticket] = []
        self.ticket = Ticket()
        self.command = ""
        self.due_at = 0.0
        self.request = b""
        self.position = 0
        self.sent = 0
        self.wire = Wire(self.answered, run.fail)
        self.head = (
            f" HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nAuthorization: Bearer {plan.token}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: {plan.seed}-{number}-"
        ).encode()

    def send(self, ticket: Ticket, command: str, due_at: float) -> None:
        """Send a command; its delay counts from `due_at`."""
        made = self.run.bodies[command]
        body = made[int(self.run.chance.random() * len(made))]
        self.sent += 1
        path = b"/tickets" if command == "open" else f"/tickets/{ticket.reference}/{command}".encode()
        self.ticket, self.command, self.due_at = ticket, command, due_at
        self.request = b"POST %b%b%d\r\nContent-Length: %d\r\n\r\n%b" % (path, self.head, self.sent, len(body), body)
        self.wire.send(self.request)

    def answered(self, status: int, head: bytes, body: bytes) -> None:
        """Check the answer and go on; any surprise ends the run."""
        run, ticket, command = self.run, self.ticket, self.command
        if status in {409, 412} and b"conflict" in body.lower():
            run.result.conflicts_told += 1
            self.wire.send(self.request)
            return
        if status != (201 if command == "open" else 200):
            run.fail(f"{command} on version {ticket.version}: {status} {body.decode(errors='replace')}")
            return
        answer = from_json(body)
        version, position = answer["version"], answer["position"]
        changed = answer.get("changed", True)
        lower = head.lower()
        if b'etag: "%d"\r\n' % version not in lower or b"log-position: %d" % position not in lower:
            run.fail(f"{command}: ETag or Log-Position does not say version {version}, position {position}: {head!r}")
        elif position <= self.position and (changed or position < self.position):
            run.fail(f"{command}: position {position} is not after {self.position}")
        elif not ticket.shared and (version != ticket.version + 1 or not changed):
            run.fail(f"{command}: version {version} does not follow {ticket.version}")
        else:
            ticket.version, self.position = version, position
            if command == "open":
                ticket.reference = answer["id"]
            run.note(self, version, position, time.monotonic(), changed=changed)
            run.free(self, head)


class Run:
    """What all connections of a run share: everybody sends the next command when the one before was answered."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)  # noqa: S311 - repeatable load, no secret
        self.bodies = bodies(self.chance, plan.agents, plan.teams, plan.requesters)
        self.people: list[Person] = []
        self.shared: list[str] = []
        self.counted_from = self.stop_at = self.last_at = 0.0
        self.processor_before = 0.0
        self.result = Result()
        self.acknowledged: list[tuple[str, int, int, float]] = []
        self.delays: list[float] = []
        self.by_command: Counter[str] = Counter()
        self.working = plan.concurrency
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send_all(self) -> None:
        """Connect everybody, send until enough was measured, and write down what was acknowledged."""
        plan, loop = self.plan, asyncio.get_running_loop()
        for number in range(plan.concurrency):
            person = Person(self, number)
            self.people.append(person)
            await loop.create_connection(lambda one=person: one.wire, plan.host, plan.port)  # type: ignore[misc]
            # At once: workers that share a socket divide connections by who is free to take one.
            self.joined(person)
        answered = -1
        while not self.done.done():
            if answered == (answered := self.answered):
                self.fail(f"nothing was answered for {LONGEST_ANSWER_SECONDS:.0f} s")
            await asyncio.wait([self.done], timeout=LONGEST_ANSWER_SECONDS)
        tell(COUNTED)
        for person in self.people:
            person.wire.close()
        self.conclude()

    @property
    def answered(self) -> int:
        """Commands answered so far, the warm-up's included."""
        return len(self.acknowledged) + self.result.changed_nothing

    def begin(self) -> None:
        """Begin the warm-up, after which it is counted."""
        self.counted_from = time.monotonic() + self.plan.warm_up_seconds
        self.stop_at = self.counted_from + self.plan.seconds
        asyncio.get_running_loop().call_later(self.plan.warm_up_seconds, self._count)

    def _count(self) -> None:
        self.processor_before = time.process_time()
        tell(COUNTING)

    def joined(self, person: Person) -> None:
        """Let a person begin who has just connected."""
        if len(self.people) == 1:
            self.begin()
        self.next(person)

    def free(self, person: Person, _head: bytes) -> None:
        """Go on with a person whose command was answered."""
        self.next(person)

    def next(self, person: Person) -> None:
        """Let a person send what comes next; the last one to stop ends the run."""
        now = time.monotonic()
        if self.over(now):
            # While others still wait for an answer, an idle connection would be ended by the server.
            person.wire.close()
            self.leave()
            return
        person.send(*self.choose(person), now)

    def choose(self, person: Person) -> tuple[Ticket, str]:
        """Choose a command by the life of one of a person's tickets; now and then a reply to one of everybody's."""
        random, tickets = self.chance.random, person.tickets
        if self.shared and random() * self.plan.shared_one_in < 1:
            return self.everybodys(), "reply"
        if len(tickets) < TICKETS_EACH:
            tickets.append(Ticket(steps=steps_of(self.chance)))
            place = len(tickets) - 1
        else:
            place = int(random() * len(tickets))
        ticket = tickets[place]
        command = ticket.steps.popleft()
        if not ticket.steps:
            del tickets[place]
        return ticket, command

    def everybodys(self) -> Ticket:
        """Give one of the tickets that everybody replies to."""
        return Ticket(self.shared[int(self.chance.random() * len(self.shared))], shared=True)

    def over(self, now: float) -> bool:
        """Tell whether enough was measured: the time is up, and a ticket's life or more was answered for everybody."""
        if self.result.wrong:
            return True
        if self.plan.commands:
            return len(self.delays) >= self.plan.commands
        return now >= self.stop_at and len(self.delays) >= LEAST_EACH * self.plan.concurrency

    def note(self, person: Person, version: int, position: int, now: float, *, changed: bool) -> None:
        """Take down one right answer."""
        ticket = person.ticket
        if changed:
            self.acknowledged.append((ticket.reference, version, position, now))
        else:
            self.result.changed_nothing += 1
        if now >= self.counted_from and not self.over(now):
            self.last_at = now
            self.delays.append(now - person.due_at)
            self.by_command[person.command] += 1
        if person.command == "open" and len(self.shared) < self.plan.shared_tickets and ticket in person.tickets:
            # Given up by its opener: from now on everybody replies to it and nobody closes it.
            person.tickets.remove(ticket)
            self.shared.append(ticket.reference)

    def leave(self) -> None:
        """Count somebody who is done."""
        self.working -= 1
        if self.working <= 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, why: str) -> None:
        """Note a wrong answer and end the run for all."""
        self.result.wrong.append(why)
        if not self.done.done():
            self.done.set_result(None)

    def conclude(self) -> None:
        """Work out the result and write down what was acknowledged."""
        result = self.result
        result.processor_seconds = round(time.process_time() - self.processor_before, 3)
        result.commands = len(self.delays)
        result.seconds = max(0.0 if self.plan.commands else self.plan.seconds, self.last_at - self.counted_from)
        result.per_second = round(result.commands / result.seconds, 1) if result.seconds > 0 else 0.0
        result.acknowledged = len(self.acknowledged)
        result.by_command = dict(sorted(self.by_command.items()))
        result.milliseconds = milliseconds(self.delays)
        with Path(self.plan.acknowledged).open("w", encoding="ascii") as file:
            file.writelines(
                f"{ticket} {version} {position} {at!r}\n" for ticket, version, position, at in self.acknowledged
            )


class OneTicket(Run):
    """Everybody works on the ticket that the first of them has opened."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.reference = ""
        self.early: list[Person] = []

    def joined(self, person: Person) -> None:
        """Let the first open the ticket and the others begin once it is there."""
        if len(self.people) == 1:
            self.begin()
            person.send(Ticket(), "open", time.monotonic())
        elif self.reference:
            self.next(person)
        else:
            self.early.append(person)

    def free(self, person: Person, head: bytes) -> None:
        """Go on; once the ticket is there, everybody who waits for it does."""
        if person.command == "open":
            self.reference = person.ticket.reference
            for one in self.early:
                self.next(one)
        super().free(person, head)

    def choose(self, _person: Person) -> tuple[Ticket, str]:
        """Choose a command for the one ticket."""
        return Ticket(self.reference, shared=True), TOGETHER[int(self.chance.random() * len(TOGETHER))]

    def over(self, now: float) -> bool:
        """Tell whether the time is up and something was measured."""
        return bool(self.result.wrong) or (now >= self.stop_at and bool(self.delays))


def tell(line: str) -> None:
    """Say something to whoever started this process."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
