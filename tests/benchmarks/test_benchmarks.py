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

from projections.registry import BY_NAME
from storage.settings import project_root
from tests.benchmarks import (
    append,
    beside,
    breaches,
    catch_up,
    commands,
    deadlines,
    delayed,
    growth,
    history,
    hot_ticket,
    instants,
    memory,
    paced,
    processes,
    queue_page,
    rebuild,
    visible,
    what_if,
)
from tests.benchmarks.machine import figures_line
from tests.benchmarks.sides import PlainSetting

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
        bench_settings, seconds=0.5, warm_up_seconds=0.5, concurrency=8, plain_settings=(PlainSetting(2, 5),)
    )

    assert_figures(figures, "commands", "ours_per_second", "plain_per_second", "views_behind_seconds")
    assert set(figures["ours_by_command"]) >= {"open", "assign", "reply", "solve", "close"}
    assert set(figures["plain_by_setting"]) == {"workers_2_pool_5"}
    assert {"ticket_queue", "sla_clock", "audit_trail"} <= set(figures["views"])
    for used in (figures["ours_processor_seconds"], figures["plain_processor_seconds"]["workers_2_pool_5"]):
        assert used["client"] > 0
        assert not processes.SHOWN or len(used["workers"]) == len(used["connections_by_worker"]) == 2


async def test_the_queue_is_read_while_it_is_rebuilt(bench_settings: Settings) -> None:
    figures = await beside.main(bench_settings, events=3_000, seconds=0.5, rate=20)

    assert_figures(figures, "rebuild_beside", "ratio", "rebuilds")
    for told in ("idle", "during"):
        assert set(figures[f"{told}_milliseconds"]) == {"p50", "p95", "p99", "max"}


async def test_commands_by_a_timetable_tell_how_soon_they_are_answered_and_seen(bench_settings: Settings) -> None:
    figures = await paced.main(
        bench_settings, rate=80, plain_rate=40, seconds=1, warm_up_seconds=0.5, connections=8, workers=1
    )

    assert_figures(figures, "commands_paced", "ours_answered_per_second", "plain_answered_per_second")
    for told in ("ours", "ours_visible", "ours_read_back", "plain", "plain_at_rate", "pgbench"):
        assert set(figures[f"{told}_milliseconds"]) == {"p50", "p95", "p99", "max"}


async def test_a_hot_ticket_takes_everybodys_commands_without_telling_of_a_conflict(bench_settings: Settings) -> None:
    figures = await hot_ticket.main(
        bench_settings,
        seconds=0.5,
        warm_up_seconds=0.2,
        concurrency=8,
        plain_settings=(PlainSetting(1, 5, cache=True),),
    )

    assert_figures(figures, "hot_ticket", "ours_per_second", "plain_per_second")
    assert figures["ours_conflicts_told"] == 0


async def test_memory_is_told_for_each_worker_as_commands_go_by(bench_settings: Settings) -> None:
    if not processes.SHOWN:
        pytest.skip("this system has no /proc to read a process's memory from")

    figures = await memory.main(bench_settings, commands=200, plain_commands=50, concurrency=8, samples=2, workers=1)

    assert_figures(figures, "memory", "ours_mebibytes", "plain_mebibytes", "growth")
    assert [sample["commands"] for sample in figures["ours_samples"]] == [0, 100, 200]
    assert all(len(sample["resident"]) == 1 for sample in figures["ours_samples"])


async def test_growth_gives_the_rates_of_a_large_and_of_a_small_log(bench_settings: Settings) -> None:
    figures = await growth.main(
        bench_settings, stored=12_000, few=1_200, seconds=0.4, warm_up_seconds=0.1, concurrency=8, rounds=2
    )

    assert_figures(figures, "growth", "ours_events_per_second", "small_events_per_second", "mebibytes")
    assert len(figures["ours_by_round"]) == len(figures["small_by_round"]) == 2


async def test_history_gives_delays_of_a_large_and_of_a_small_log(bench_settings: Settings) -> None:
    figures = await history.main(bench_settings, stored=3_000, few=1_500, tickets=2, rounds=2)

    assert_figures(figures, "history", "ratio_over_http", "ratio_to_select", "mebibytes")
    assert figures["tickets"] == 2
    for told in ("told", "over_http", "selected", "small_told", "small_over_http", "small_selected", "first"):
        assert set(figures[f"{told}_milliseconds"]) == {"p50", "p95", "p99", "max"}


async def test_deadlines_give_rates_of_ours_of_walking_and_of_adding(settings: Settings) -> None:
    figures = await deadlines.main(settings, deadlines=200, walked=60, rounds=1)

    found = json.loads(figures_line(figures))
    assert found["benchmark"] == "deadlines"
    for name in ("deadlines", "short_deadlines", "times_between", "working_days", "additions", "walks"):
        assert found[f"{name}_per_second"] > 0
    assert found["ratio"] > 0
    assert found["ratio_to_addition"] > 0


async def test_delayed_appends_give_rates_from_one_process_and_from_several(
    bench_settings: Settings, server: Server
) -> None:
    with psycopg.connect(server.administrator) as connection:
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if row != (True,):
        pytest.skip("only a superuser may delay the flushes of a server")

    figures = await delayed.main(bench_settings, seconds=0.2, warm_up_seconds=0.1, concurrency=8, processes=(1, 2))

    assert_figures(figures, "append_delayed", "ours_events_per_second", "plain_events_per_second")
    assert set(figures["ours_by_processes"]) == {"1", "2"}
    assert set(figures["one_commit_milliseconds"]) == {"without", "with"}


async def test_as_of_gives_delays_of_the_queue_at_any_instant_and_of_the_live_one(bench_settings: Settings) -> None:
    figures = await instants.main(bench_settings, events=3_000, looks=3)

    assert_figures(
        figures, "as_of", "ratio_to_live", "fold_prefix_seconds", "past_bytes_per_event", "log_bytes_per_event"
    )
    for told in (figures, *figures["other_questions"].values()):
        for name in ("as_of", "occurred_as_of", "live"):
            assert set(told[f"{name}_milliseconds"]) == {"p50", "p95", "p99", "max"}
        assert told["items_a_page"] <= 50


async def test_pages_of_the_queue_are_told_in_postgres_and_over_http(bench_settings: Settings) -> None:
    figures = await queue_page.main(
        bench_settings, tickets=20_000, seconds=0.5, warm_up_seconds=0.5, concurrency=4, workers=2
    )

    assert_figures(figures, "queue_page", "ours_per_second", "plain_per_second", "pgbench_per_second", "queries")
    for told in ("ours", "ours_postgres", "plain"):
        assert set(figures[f"{told}_milliseconds"]) == {"p50", "p95", "p99", "max"}
    assert figures["items_a_page"] > 1


async def test_visible_tells_how_soon_a_change_is_in_the_queue(bench_settings: Settings) -> None:
    figures = await visible.main(bench_settings, commands=16)

    assert_figures(figures, "visible", "commands")
    for told in ("ours_visible", "ours_answered", "bare_visible", "bare_commit"):
        assert set(figures[f"{told}_milliseconds"]) == {"p50", "p95", "p99", "max"}


async def test_rebuild_gives_our_rate_the_projection_runners_and_a_copys(bench_settings: Settings) -> None:
    figures = await rebuild.main(bench_settings, events=2_000, runner_events=100, runs=1)

    assert_figures(
        figures, "rebuild", "ours_events_per_second", "plain_events_per_second", "copy_out_rows_per_second", "mebibytes"
    )
    assert figures["events"] == 2_000
    if processes.SHOWN:
        assert figures["memory_mebibytes"] > 0
        assert figures["memory_growth"] > 0


async def test_rebuilding_all_views_together_gives_the_same_figures(bench_settings: Settings) -> None:
    figures = await rebuild.main(bench_settings, events=2_000, runner_events=100, runs=1, every=True)

    assert_figures(
        figures, "rebuild_all", "ours_events_per_second", "plain_events_per_second", "copy_out_rows_per_second"
    )
    assert set(figures["views"]) == set(BY_NAME)


async def test_catch_up_gives_the_rates_of_one_live_view_and_of_all_of_them(bench_settings: Settings) -> None:
    figures = await catch_up.main(bench_settings, events=2_000, runner_events=100)

    assert_figures(figures, "catch_up", "ours_events_per_second", "all_views_events_per_second", "ratio_to_copy_out")


async def test_breaches_gives_our_rate_and_how_late_they_are(bench_settings: Settings) -> None:
    figures = await breaches.main(bench_settings, tickets=300, minute=1.0)

    assert_figures(figures, "breaches", "ours_per_second", "plain_per_second", "seconds", "visible_seconds")
    assert set(figures["late_milliseconds"]) == {"p50", "p95", "p99", "max"}
    assert figures["tickets"] == 300


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


async def test_what_if_tells_how_long_comparing_takes_and_only_reading(bench_settings: Settings) -> None:
    figures = await what_if.main(bench_settings, tickets=1_500)

    assert_figures(figures, "what_if", "seconds", "tickets_per_second", "plain_tickets_per_second", "facts_a_ticket")
    assert set(figures["seconds_by_axis"]) == {"as-known", "as-corrected"}
    assert figures["tickets"] == 1_500
