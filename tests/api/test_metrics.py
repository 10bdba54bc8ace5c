"""What a desk counts, as a monitoring system meets it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import psycopg
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo

from api.timer import Timer
from domain.event import Role
from storage import metrics
from tests.api.test_server import PATIENCE, issue, running, stop
from tests.commands.timed_desk import TimedDesk, replies_within

if TYPE_CHECKING:
    import pytest

    from storage.database import Workspace
    from storage.settings import Settings
    from tests.api.conftest import DeskOverHttp


class Scrape(NamedTuple):
    """What was read at once: sample name and labels → value."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def __call__(self, name: str, **labels: str) -> float:
        """Give a value; 0 for what was never counted."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def sum(self, name: str) -> float:
        """Add up a name over all its labels."""
        return sum(value for (found, _), value in self.samples.items() if found == name)


def scraped(text: str) -> Scrape:
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )


async def scrape(desk: DeskOverHttp) -> Scrape:
    answer = await desk.get("/metrics", role=Role.DEVELOPER)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return scraped(answer.text)


async def test_commands_are_counted_by_what_came_of_them(desk: DeskOverHttp) -> None:
    opened = await desk.open()
    before = await scrape(desk)
    tag = f"/tickets/{opened['id']}/tag"
    for _ in range(2):
        await desk.done(tag, {"tags": ["a"]})
        await desk.done(tag, {"tags": ["b"]}, headers={"Idempotency-Key": "k"})
    assert (await desk.post(tag, {"tags": []})).status_code == 422
    assert (await desk.post(tag, {"tags": ["c"]}, headers={"If-Match": '"1"'})).status_code == 412
    assert (await desk.post("/tickets/none/tag", {"tags": ["c"]})).status_code == 404
    assert (await desk.post(f"/tickets/{opened['id']}/close")).status_code == 409
    after = await scrape(desk)

    def counted(command: str, outcome: str) -> float:
        labels = {"workspace": "alpha", "command": command, "outcome": outcome}
        return after("desk_commands_total", **labels) - before("desk_commands_total", **labels)

    assert counted("ticket.tag", "done") == 2
    assert counted("ticket.tag", "unchanged") == 1
    assert counted("ticket.tag", "replayed") == 1
    assert counted("ticket.tag", "refused") == 3
    assert counted("ticket.close", "refused") == 1
    assert counted("ticket.tag", "failed") == 0
    appends = after("desk_append_seconds_count", workspace="alpha") - before(
        "desk_append_seconds_count", workspace="alpha"
    )
    commands = after("desk_append_batch_commands_sum", workspace="alpha") - before(
        "desk_append_batch_commands_sum", workspace="alpha"
    )
    assert 1 <= appends <= commands == 6  # refusals that stand on what a ticket is are confirmed there as well


async def test_the_lag_of_views_is_told(desk: DeskOverHttp) -> None:
    await desk.catch_up()
    await desk.open()
    told = await scrape(desk)
    head = await desk.head()
    assert told("desk_log_position", workspace="alpha") == head
    for view in ("ticket_queue", "sla_clock", "audit_trail", "directory"):
        assert told("desk_view_lag_events", workspace="alpha", view=view) == 1
        assert told("desk_view_lag_seconds", workspace="alpha", view=view) > 0
        assert told("desk_view_stopped", workspace="alpha", view=view) == 0


async def test_how_late_the_timer_is_and_what_it_recorded_is_told(desk: DeskOverHttp, alpha: Workspace) -> None:
    before = await scrape(desk)
    timed = await TimedDesk.at(alpha)
    await timed.adopt(replies_within(60))
    await timed.ticket()
    await timed.adopt(replies_within(50), at=30, open_tickets="move")
    await desk.catch_up()
    late = await scrape(desk)
    assert late("desk_timer_lag_seconds", workspace="alpha") > 0
    assert late("desk_timer_adoptions_waiting", workspace="alpha") == 2
    assert late("desk_timer_adoption_tickets_left", workspace="alpha") == 0
    timer = Timer(lambda: [alpha])
    for _ in range(2):
        await timer.round()
        await desk.catch_up()
    after = await scrape(desk)
    assert after("desk_timer_lag_seconds", workspace="alpha") == 0
    assert after("desk_timer_adoptions_waiting", workspace="alpha") == 0
    for topic in ("ticket.sla_breached", "ticket.sla_terms_changed"):
        labels = {"workspace": "alpha", "topic": topic}
        assert after("desk_timer_events_total", **labels) - before("desk_timer_events_total", **labels) == 1


async def test_what_cannot_be_read_and_what_is_too_large_is_counted(desk: DeskOverHttp, settings: Settings) -> None:
    opened, other = await desk.open(), await desk.open()
    before = await scrape(desk)
    with psycopg.connect(make_conninfo(settings.database_url or ""), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ws_alpha.events SELECT notification_id + 100, originator_id, 3, topic, state, personal, "
            "recorded_at FROM ws_alpha.events WHERE originator_id = %s",
            (opened["id"],),
        )
    assert (await desk.get(f"/tickets/{opened['id']}")).status_code == 500
    assert (await desk.get(f"/tickets/{opened['id']}/history")).status_code == 200
    assert (await desk.post(f"/tickets/{opened['id']}/tag", {"tags": ["a"]})).status_code == 500
    desk.database.largest_event = 4096
    assert (await desk.post(f"/tickets/{other['id']}/reply", {"text": "x" * 5000})).status_code == 413
    after = await scrape(desk)

    def grown(name: str, **labels: str) -> float:
        return after(name, workspace="alpha", **labels) - before(name, workspace="alpha", **labels)

    assert grown("desk_unreadable_events_total", reason="missing_event") == 3
    assert grown("desk_events_too_large_total") == 1
    assert grown("desk_commands_total", command="ticket.tag", outcome="failed") == 1
    assert grown("desk_commands_total", command="ticket.reply", outcome="refused") == 1


async def test_a_view_that_stops_shows(desk: DeskOverHttp, settings: Settings) -> None:
    before = await scrape(desk)
    with psycopg.connect(make_conninfo(settings.database_url or ""), autocommit=True) as connection:
        connection.execute("UPDATE ws_alpha.events SET topic = 'team.vanished' WHERE topic = 'team.created'")
    await desk.catch_up()
    after = await scrape(desk)
    assert after("desk_view_stopped", workspace="alpha", view="directory") == 1
    labels = {"workspace": "alpha", "reason": "unknown_event"}
    assert after("desk_unreadable_events_total", **labels) > before("desk_unreadable_events_total", **labels)


async def test_the_metrics_are_for_those_who_look_after_the_desk_and_of_their_own_workspace(
    desk: DeskOverHttp, other_desk: DeskOverHttp
) -> None:
    await desk.open()
    await other_desk.open()
    assert (await desk.get("/metrics", role=None)).status_code == 401
    for role in (Role.CUSTOMER, Role.AGENT):
        assert (await desk.get("/metrics", role=role)).status_code == 403
    for role in (Role.AUDITOR, Role.DEVELOPER, Role.SUPERVISOR, Role.ADMINISTRATOR):
        assert (await desk.get("/metrics", role=role)).status_code == 200
    for one, name in ((desk, "alpha"), (other_desk, "beta")):
        told = await scrape(one)
        workspaces = {value for _, labels in told.samples for key, value in labels if key == "workspace"}
        assert workspaces == {name}
        assert told("desk_pool_connections", state="idle") + told("desk_pool_connections", state="used") >= 1


def test_workers_are_added_up_and_those_that_die_leave_their_counts_to_those_that_follow(
    environment: dict[str, str], tmp_path: Path
) -> None:
    headers = {"Authorization": f"Bearer {issue(environment)}", "Connection": "close"}
    with running(environment | {"TMPDIR": str(tmp_path)}, "serve", "--workers", "2") as (process, address, _):

        def read() -> Scrape:
            return scraped(httpx.get(f"{address}/metrics", headers=headers, timeout=PATIENCE).text)

        for number in range(30):
            answer = httpx.post(f"{address}/teams", json={"name": f"Team {number}"}, headers=headers)
            assert answer.status_code == 201, answer.text
        labels = {"workspace": "alpha", "command": "team.create", "outcome": "done"}
        # Whichever worker is asked.
        assert {read()("desk_commands_total", **labels) for _ in range(20)} == {30}
        (directory,) = tmp_path.glob(f"{metrics.PREFIX}*")
        files = {file.name for file in directory.iterdir()}
        assert {"counter_http-1.db", "counter_http-2.db"} <= files
        for worker in children(process.pid):
            os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        told = None
        while told is None and time.monotonic() < deadline:
            try:
                told = read()
            except httpx.TransportError:
                time.sleep(0.05)
        assert told is not None
        assert told("desk_commands_total", **labels) == 30
        httpx.post(f"{address}/teams", json={"name": "Another"}, headers=headers).raise_for_status()
        assert read()("desk_commands_total", **labels) == 31
        assert {file.name for file in directory.iterdir() if file.name.startswith("counter")} <= files
        stop(process)
    assert list(tmp_path.glob(f"{metrics.PREFIX}*")) == []


def children(process: int) -> list[int]:
    """Give the processes that serve for a supervising one."""
    listed = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,args="], text=True)  # noqa: S607 - whichever there is
    lines = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(pid) for pid, parent, line in lines if int(parent) == process and "spawn_main" in line]


def test_files_go_with_their_server_or_when_that_was_killed_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone, others = tmp_path / f"{metrics.PREFIX}999999999-x", tmp_path / f"{metrics.PREFIX}{os.getpid()}-x"
    for directory in (gone, others, tmp_path / "else"):
        directory.mkdir()
    with metrics.shared():
        assert not gone.exists()
        assert others.exists()
        (ours,) = {str(path) for path in tmp_path.glob(f"{metrics.PREFIX}*")} - {str(others)}
        assert os.environ[metrics.SHARED] == ours
        # What a process counted outlives it, the level it stood at does not.
        for name in ("counter_http-1.db", "gauge_livesum_http-1.db", "gauge_livesum_http-2.db"):
            (Path(ours) / name).touch()
        metrics.ended("http-1")
        assert {file.name for file in Path(ours).iterdir()} == {"counter_http-1.db", "gauge_livesum_http-2.db"}
    assert metrics.SHARED not in os.environ
    assert {path.name for path in tmp_path.iterdir()} == {others.name, "else"}
