"""Many people at once sending commands to a desk over HTTP, in a process of its own, checking every answer.

A library client would cost more than the server it measures, so requests are written and answers read by hand
over kept connections: HTTP/1.1 with Content-Length, as both services answer.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

SUBJECTS = (
    "Printer on the third floor prints blank pages",
    "无法登录公司邮箱，提示密码错误",
    "VPN drops every few minutes since the update",
    "新员工入职需要开通系统权限",
    "Invoice shows the wrong delivery address",
    "会议室投影仪没有信号",
)
SENTENCES = (
    "It worked until yesterday evening and nothing was changed on our side since.",
    "已经重启过电脑，问题仍然存在，请尽快处理。",
    "Two colleagues in the same room see exactly the same thing.",
    "附上错误截图，今天下午三点前需要解决。",
    "Please call before twelve, the line is staffed in the morning only.",
)
CATEGORIES = ("hardware", "software", "network", "access", "billing")
TICKETS_EACH = 3
"""Tickets a person works on by turns."""
LONGEST_ANSWER_SECONDS = 60.0
LEAST_EACH = 40  # commands measured for each connection, however slow the machine is: several lives of a ticket


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
    shared_tickets: int
    shared_one_in: int
    acknowledged: str
    """File to write `ticket version position` of every acknowledged command to."""


@dataclass(slots=True)
class Result:
    """What came back. Rates and delays are of the time after the warm-up."""

    commands: int = 0
    seconds: float = 0.0
    per_second: float = 0.0
    acknowledged: int = 0
    conflicts_told: int = 0
    by_command: dict[str, int] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Ticket:
    """One ticket being worked on: the commands still to come and the version acknowledged last."""

    reference: str
    steps: deque[str]
    version: int = 0
    level: int = 0
    shared: bool = False


@dataclass(slots=True)
class Run:
    """What all connections of a run share."""

    plan: Plan
    chance: random.Random
    counted_from: float = 0.0
    stop_at: float = 0.0
    last_at: float = 0.0
    failed: bool = False
    result: Result = field(default_factory=Result)
    acknowledged: list[tuple[str, int, int]] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    by_command: Counter[str] = field(default_factory=Counter)
    shared: list[str] = field(default_factory=list)
    requests: int = 0

    def over(self, now: float) -> bool:
        """Tell whether enough was measured: the time is up, and a ticket's life or more was answered for everybody."""
        return self.failed or (now >= self.stop_at and len(self.delays) >= LEAST_EACH * self.plan.concurrency)


def steps_of(chance: random.Random) -> deque[str]:
    """Lay out the life of one ticket: five or six commands in the middle, opened first and closed last."""
    steps = ["open", "assign", "reply"]
    if chance.choice((True, False)):
        steps.append("escalate")
    steps.extend(["reply"] * chance.choice((0, 1, 1, 2)))
    steps.extend(["solve", "close"])
    return deque(steps)


class Person(asyncio.Protocol):
    """One connection: sends a command, checks its answer, sends the next."""

    def __init__(self, run: Run, number: int, done: asyncio.Future[None]) -> None:
        self.run = run
        self.number = number
        self.done = done
        self.transport: asyncio.Transport | None = None
        self.received = b""
        self.tickets: list[Ticket] = []
        self.ticket: Ticket
        self.command = ""
        self.sent_at = 0.0
        self.request = b""
        self.position = 0
        self.head = (
            f"Host: {run.plan.host}:{run.plan.port}\r\nAuthorization: Bearer {run.plan.token}\r\n"
            "Content-Type: application/json\r\nIdempotency-Key: "
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection; nobody sends before all are connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def next(self) -> None:
        """Choose a command by the ticket's life and send it."""
        run = self.run
        if run.over(time.perf_counter()):
            self.finish()
            return
        chance = run.chance
        if run.shared and chance.randrange(run.plan.shared_one_in) == 0:
            self.ticket = Ticket(chance.choice(run.shared), deque(), shared=True)
            self.command = "reply"
        else:
            if len(self.tickets) < TICKETS_EACH:
                self.tickets.append(Ticket("", steps_of(chance)))
                self.ticket = self.tickets[-1]
            else:
                self.ticket = chance.choice(self.tickets)
            self.command = self.ticket.steps.popleft()
            if not self.ticket.steps:
                self.tickets.remove(self.ticket)
        path = "/tickets" if self.command == "open" else f"/tickets/{self.ticket.reference}/{self.command}"
        body = json.dumps(self.body(), ensure_ascii=False).encode()
        run.requests += 1
        key = f"{run.plan.seed}-{self.number}-{run.requests}"
        head = f"POST {path} HTTP/1.1\r\n{self.head}{key}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.request = head.encode() + body
        self.sent_at = time.perf_counter()
        self.send()

    def send(self) -> None:
        """Send the command, or send it again after a conflict."""
        assert self.transport is not None
        self.transport.write(self.request)

    def body(self) -> dict[str, Any]:
        """Make up the command's values."""
        chance, plan = self.run.chance, self.run.plan
        match self.command:
            case "open":
                return {
                    "subject": chance.choice(SUBJECTS),
                    "body": " ".join(chance.sample(SENTENCES, 3)),
                    "requester_id": chance.choice(plan.requesters),
                    "channel": "email",
                    "type": "incident",
                    "priority": chance.choice(("low", "normal", "high", "urgent")),
                    "category": chance.choice(CATEGORIES),
                    "tags": ["bench"],
                }
            case "assign":
                return {"agent_id": chance.choice(plan.agents), "team_id": chance.choice(plan.teams)}
            case "reply":
                return {"text": " ".join(chance.sample(SENTENCES, 2))}
            case "escalate":
                self.ticket.level += 1
                return {
                    "level": self.ticket.level,
                    "team_id": chance.choice(plan.teams),
                    "reason": "needs a specialist",
                }
            case "solve":
                return {"resolution_code": "fixed"}
            case _:
                return {}

    def data_received(self, data: bytes) -> None:
        """Collect one whole answer."""
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.received[:end].lower()
        start = head.find(b"content-length:")
        if start < 0:
            self.fail(f"an answer without Content-Length: {head!r}")
            return
        length = int(head[start + 15 : (head + b"\r\n").index(b"\r\n", start)])
        if len(self.received) < end + 4 + length:
            return
        body, self.received = self.received[end + 4 :], b""
        self.answered(int(head[9:12]), head, body)

    def answered(self, status: int, head: bytes, body: bytes) -> None:
        """Check the answer and go on; any surprise ends the run."""
        run, ticket = self.run, self.ticket
        if status in {409, 412} and b"conflict" in body:
            run.result.conflicts_told += 1
            self.send()
            return
        if status != (201 if self.command == "open" else 200):
            self.fail(f"{self.command} on version {ticket.version}: {status} {body.decode()}")
            return
        answer = json.loads(body)
        version, position = answer["version"], int(str(answer["position"]).partition(".")[0])
        if f'etag: "{version}"'.encode() not in head or f"log-position: {position}".encode() not in head:
            self.fail(
                f"{self.command}: ETag or Log-Position does not say version {version}, position {position}: {head!r}"
            )
        elif position <= self.position:
            self.fail(f"{self.command}: position {position} is not after {self.position}")
        elif not ticket.shared and version != ticket.version + 1:
            self.fail(f"{self.command}: version {version} does not follow {ticket.version}")
        else:
            now = time.perf_counter()
            ticket.version, self.position = version, position
            if self.command == "open":
                ticket.reference = answer["id"]
            run.acknowledged.append((ticket.reference, version, position))
            if now >= run.counted_from and not run.over(now):
                run.last_at = now
                run.delays.append(now - self.sent_at)
                run.by_command[self.command] += 1
            if len(run.shared) < run.plan.shared_tickets and self.command == "open" and self.tickets:
                # Given up by its opener: from now on everybody replies to it and nobody closes it.
                self.tickets.remove(ticket)
                run.shared.append(ticket.reference)
            self.next()

    def fail(self, why: str) -> None:
        """Note a wrong answer and end the run for all."""
        self.run.result.wrong.append(why)
        self.run.failed = True
        self.finish()

    def finish(self) -> None:
        """Close the connection."""
        if not self.done.done():
            self.done.set_result(None)
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that the server ended as a wrong answer."""
        if not self.done.done():
            self.run.result.wrong.append(f"{self.command}: the connection ended: {exc}")
            self.done.set_result(None)


async def send(plan: Plan) -> Result:
    """Send commands as the plan says; every answer is checked as it comes."""
    run = Run(plan=plan, chance=random.Random(plan.seed))  # noqa: S311 - repeatable load, no secret
    loop = asyncio.get_running_loop()
    finished: list[asyncio.Future[None]] = [loop.create_future() for _ in range(plan.concurrency)]
    people = []
    for number, done in enumerate(finished):
        _, person = await loop.create_connection(partial(Person, run, number, done), plan.host, plan.port)
        people.append(person)
    run.counted_from = time.perf_counter() + plan.warm_up_seconds
    run.stop_at = run.counted_from + plan.seconds
    for person in people:
        person.next()
    _, unanswered = await asyncio.wait(finished, timeout=plan.warm_up_seconds + plan.seconds + LONGEST_ANSWER_SECONDS)
    result = run.result
    if unanswered:
        result.wrong.append(f"{len(unanswered)} commands were not answered within {LONGEST_ANSWER_SECONDS:.0f} s")
    result.commands = len(run.delays)
    result.seconds = max(plan.seconds, run.last_at - run.counted_from)
    result.per_second = round(result.commands / result.seconds, 1)
    result.acknowledged = len(run.acknowledged)
    result.by_command = dict(sorted(run.by_command.items()))
    delays = sorted(run.delays)
    if delays:
        result.milliseconds = {
            name: round(delays[min(len(delays) - 1, int(len(delays) * share))] * 1000, 2)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        }
    lines = (f"{ticket} {version} {position}\n" for ticket, version, position in run.acknowledged)
    Path(plan.acknowledged).write_text("".join(lines), encoding="ascii")  # noqa: ASYNC240 - the run is over
    return result


def main() -> None:
    """Read the plan as JSON from standard input, send, print the result as JSON."""
    plan = Plan(**json.load(sys.stdin))
    sys.stdout.write(json.dumps(asdict(asyncio.run(send(plan)))) + "\n")


if __name__ == "__main__":
    main()
