"""The process of a client that asks for pages: reads its plan, asks, and says when the measured time begins and ends."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field

import uvloop

from tests.benchmarks.client import COUNTED, COUNTING, tell
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.wire import Wire


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask, as whom, for what by turns, and how many items each answer is to have."""

    host: str
    port: int
    token: str
    paths: list[str]
    items: int
    concurrency: int
    warm_up_seconds: float
    seconds: float


@dataclass(slots=True)
class Result:
    """What came back after the warm-up."""

    pages: int = 0
    per_second: float = 0.0
    bytes_a_page: int = 0
    processor_seconds: float = 0.0
    milliseconds: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


ITEM = b'"ticket_id":'


class Asking:
    """Connections that each ask for a page, any of the plan's, as soon as the one before was answered."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.result = Result()
        self._chance = random.Random(len(plan.paths))  # noqa: S311 - repeatable load, no secret
        head = f" HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nAuthorization: Bearer {plan.token}\r\n\r\n"
        self._requests = [f"GET {path}{head}".encode() for path in plan.paths]
        self._delays: list[float] = []
        self._bytes = 0
        self._counting = False
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask_all(self) -> None:
        """Connect, ask until the time is up, and work out the result."""
        plan, loop, wires = self.plan, asyncio.get_running_loop(), []
        for _ in range(plan.concurrency):
            one = _Connection(self)
            await loop.create_connection(lambda one=one: one.wire, plan.host, plan.port)  # type: ignore[misc]
            wires.append(one.wire)
            one.ask()
        await asyncio.wait([self._stopped], timeout=plan.warm_up_seconds)
        tell(COUNTING)
        processor, started = time.process_time(), time.monotonic()
        self._counting = True
        await asyncio.wait([self._stopped], timeout=plan.seconds)
        self._counting = False
        seconds = time.monotonic() - started
        result = self.result
        result.processor_seconds = round(time.process_time() - processor, 3)
        tell(COUNTED)
        for wire in wires:
            wire.close()
        result.pages = len(self._delays)
        result.per_second = round(result.pages / seconds, 1)
        result.bytes_a_page = self._bytes // max(1, result.pages)
        result.milliseconds = milliseconds(self._delays)

    def request(self) -> bytes:
        """Choose what is asked next."""
        return self._requests[int(self._chance.random() * len(self._requests))]

    def note(self, delay: float, size: int) -> None:
        """Take down a right answer."""
        if self._counting:
            self._delays.append(delay)
            self._bytes += size

    def fail(self, why: str) -> None:
        """Note a wrong answer and end the run."""
        self.result.wrong.append(why)
        if not self._stopped.done():
            self._stopped.set_result(None)


class _Connection:
    def __init__(self, run: Asking) -> None:
        self._run = run
        self._asked_at = 0.0
        self.wire = Wire(self._answered, run.fail)

    def ask(self) -> None:
        self._asked_at = time.monotonic()
        self.wire.send(self._run.request())

    def _answered(self, status: int, _head: bytes, body: bytes) -> None:
        if status != 200 or body.count(ITEM) != self._run.plan.items:
            self._run.fail(f"{status}, {body.count(ITEM)} items: {body[:300].decode(errors='replace')}")
            return
        self._run.note(time.monotonic() - self._asked_at, len(body))
        self.ask()


async def ask(plan: Plan) -> Result:
    """Ask as the plan says."""
    run = Asking(plan)
    await run.ask_all()
    return run.result


def main() -> None:
    """Read the plan as JSON from standard input, ask, print the result as JSON."""
    plan = Plan(**json.load(sys.stdin))
    gc.disable()  # nothing here is in cycles, and a collection would look like a slow answer
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(ask(plan))
    tell(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
