"""The process of the load client: reads its plan, sends, and says when the measured time begins and ends."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from dataclasses import asdict

import uvloop

from tests.benchmarks.client import OneTicket, Plan, Result, Run, tell
from tests.benchmarks.timetable import Timetable


async def send(plan: Plan) -> Result:
    """Send commands as the plan says; every answer is checked as it comes."""
    run: Run = Timetable(plan) if plan.rate else OneTicket(plan) if plan.together else Run(plan)
    await run.send_all()
    return run.result


def main() -> None:
    """Read the plan as JSON from standard input, send, print the result as JSON."""
    plan = Plan(**json.load(sys.stdin))
    # Nothing here is in cycles, and a collection would look like a slow answer.
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(send(plan))
    tell(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
