"""Each benchmark runs end to end, however small, and ends in figures by name; times are not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from storage.settings import project_root
from tests.benchmarks import append, commands, rebuild
from tests.benchmarks.machine import figures_line

if TYPE_CHECKING:
    from typing import Any

    from storage.settings import Settings
    from tests.conftest import Server


@pytest.fixture
def bench_settings(server: Server, settings: Settings) -> Settings:
    """Point at the run's server as somebody who may make databases there, as benchmarks make their own."""
    return replace(settings, database_url=server.administrator)


def databases(server: Server) -> set[str]:
    with psycopg.connect(server.administrator) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}


async def test_append_gives_our_rate_the_recorders_and_pgbenchs(bench_settings: Settings, server: Server) -> None:
    before = databases(server)

    figures = await append.main(bench_settings, seconds=0.2, warm_up_seconds=0.1)

    assert_figures(
        figures,
        "append",
        "ours_events_per_second",
        "plain_events_per_second",
        "pgbench_rows_per_second",
        "ratio_to_pgbench",
    )
    assert set(figures["plain_by_setting"]) == {"pool_5", "pool_20"}
    assert databases(server) == before


async def test_commands_gives_our_rate_and_the_plain_services(bench_settings: Settings) -> None:
    figures = await commands.main(
        bench_settings, seconds=0.5, warm_up_seconds=0.5, concurrency=8, plain_settings=((2, 5),)
    )

    assert_figures(figures, "commands", "ours_per_second", "plain_per_second", "views_behind_seconds")
    assert set(figures["ours_by_command"]) >= {"open", "assign", "reply", "solve", "close"}
    assert set(figures["plain_by_setting"]) == {"workers_2_pool_5"}
    assert {"ticket_queue", "sla_clock", "audit_trail"} <= set(figures["views"])


async def test_rebuild_gives_our_rate_the_projection_runners_and_a_copys(bench_settings: Settings) -> None:
    figures = await rebuild.main(bench_settings, events=2_000, runner_events=100, runs=1)

    assert_figures(
        figures, "rebuild", "ours_events_per_second", "plain_events_per_second", "copy_out_rows_per_second", "mebibytes"
    )
    assert figures["events"] == 2_000


def test_the_machine_is_described_by_a_command() -> None:
    output = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.machine"], cwd=project_root(), env=dict(os.environ),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert {"processor", "cores", "memory_gib", "system", "python", "packages"} <= set(json.loads(output))


def assert_figures(figures: dict[str, Any], name: str, *positive: str) -> None:
    line = figures_line(figures)
    assert "\n" not in line
    found = json.loads(line)
    assert found["benchmark"] == name
    assert found["machine"]["cores"] >= 1
    assert set(found["server"]) >= {"fsync", "synchronous_commit"}
    for key in ("ratio", *positive):
        assert found[key] > 0, key
