"""Breaks desks for a long time: `python -m tests.faults.soak`, or `make soak`.

SOAK_SECONDS says how long (1200), SOAK_SEED which mishaps (else drawn and printed), SOAK_CLIENTS how many people are
at work (10). A chapter is a fresh desk that is broken for several rounds; chapter n uses the seed n above the first, so
that one that failed can be repeated alone. Which mishaps happen, and their order and lengths, follow from the seed; how
the processes of two machines interleave does not.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from random import Random

import uvloop

from tests.faults.mishaps import LONG
from tests.faults.rounds import carry_out, drawn, trial

ROUNDS = 5  # of a chapter; the log of one desk is judged whole after each
MISHAPS = (4, 10)  # of a round


async def soak(seed: int, seconds: float, clients: int) -> None:
    """Go through chapters until the time is up. Raises AssertionError at the first thing that is wrong."""
    deadline = time.monotonic() + seconds
    chapter = rounds = commands = lost = 0
    while time.monotonic() < deadline:
        chance = Random(f"{seed} soak")  # noqa: S311 - to be repeated, not to be secret
        together = bool(chance.getrandbits(1))
        say(f"chapter {chapter}, seed {seed}: {'embedded PostgreSQL' if together else 'PostgreSQL behind a wire'}")
        async with trial(seed, together=together, clients=clients, small_disk=chance.random() < 0.5) as made:
            mishaps = drawn(seed, ROUNDS * MISHAPS[1], LONG)
            for number in range(1, ROUNDS + 1):
                several = [mishaps.pop() for _ in range(chance.randint(*MISHAPS))]
                report = await carry_out(made, several)
                rounds += 1
                say(f"  round {number}: {report.line()}")
                if time.monotonic() > deadline:
                    break
            commands += report.commands
            lost += report.lost_replies
        chapter += 1
        seed += 1
    say(f"{rounds} rounds, {commands} commands, {lost} replies lost and found again: nothing wrong")


def main() -> int:
    """Soak as the environment says; the exit status is 1 when a guarantee was broken."""
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1_000_000))
    seconds = float(os.environ.get("SOAK_SECONDS") or 1200)
    clients = int(os.environ.get("SOAK_CLIENTS") or 10)
    say(f"soaking for {seconds:.0f} s; repeat with SOAK_SEED={seed} SOAK_SECONDS={seconds:.0f} SOAK_CLIENTS={clients}")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(soak(seed, seconds, clients))
    except AssertionError as failure:
        say("\n".join([f"FAILED: {failure}", *getattr(failure, "__notes__", ())]))
        say("repeat the chapter with SOAK_SEED set to its seed")
        return 1
    return 0


def say(line: str) -> None:
    """Tell the person waiting."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
