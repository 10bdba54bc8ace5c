"""The desk is broken in every way we can think of, under clients that go on; nothing may be lost, doubled or hidden."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.faults import mishaps
from tests.faults.rounds import Report, carry_out, drawn, trial

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/cwd").exists(), reason="only /proc shows which processes there are to be killed"
)
SEED = int(os.environ.get("SOAK_SEED", "1"))
CLIENTS = 6

TOGETHER = (
    mishaps.postgres_killed,
    mishaps.projection_killed,
    mishaps.disk_full,
    mishaps.backend_killed,
    mishaps.desk_killed,
)
APART = (mishaps.disk_full, *(mishap for mishap in mishaps.ALL if mishap not in TOGETHER))


def test_a_desk_with_its_own_postgres_keeps_its_record_when_any_part_of_it_is_killed() -> None:
    report = endure(TOGETHER, together=True)
    assert report.acknowledged > 0


def test_a_desk_with_a_postgres_elsewhere_keeps_its_record_whatever_happens_to_either_and_between_them() -> None:
    report = endure(APART, together=False)
    assert report.acknowledged > 0
    assert report.cut_after_commit > 0


def endure(among: Sequence[mishaps.Mishap], *, together: bool) -> Report:
    """Have each of the mishaps once, in the order that the seed gives, in a loop like the desk's own."""

    async def run() -> Report:
        async with trial(SEED, together=together, clients=CLIENTS, small_disk=not together) as made:
            return await carry_out(made, drawn(SEED, len(among), among))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(run())
    print(report.line())  # noqa: T201 - shown with a failure, and by `pytest -s`
    return report
