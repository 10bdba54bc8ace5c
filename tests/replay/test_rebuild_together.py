"""Views built from one reading of the log are those built each from its own."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from replay import builds, rebuild_lane, rebuild_together
from replay.rebuild import RebuildFailed, RebuildStopped, rebuild
from storage.log_reader import LogReader
from tests.projections.desk_days import DeskDays, record, rows_of
from tests.projections.test_runner import failing_at

if TYPE_CHECKING:
    from projections.bookkeeping import Mark
    from projections.table import Rows
    from replay.builds import Progress
    from storage.database import Workspace

QUEUE, DIRECTORY = BY_NAME["ticket_queue"], BY_NAME["directory"]
PAGE = 40


@pytest.fixture(autouse=True)
def _small_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_lane, "PAGE_EVENTS", PAGE)
    monkeypatch.setattr(rebuild_lane, "HELD_ROWS", 200)
    monkeypatch.setattr(builds, "LEASE_SECONDS", 0.4)
    monkeypatch.setattr(builds, "RENEW_SECONDS", 0.1)


async def desk_in(workspace: Workspace, seed: int) -> dict[str, list[Any]]:
    """Record some days, and give the rows of all views as they are live."""
    desk = DeskDays(seed, tickets=40)
    await record(workspace, [*desk.first(), *desk.more(400)])
    await Runner(workspace.database, VIEWS, "live").catch_up(workspace)
    return await everything_in(workspace)


async def everything_in(workspace: Workspace) -> dict[str, list[Any]]:
    return {view.label: await rows_of(workspace, view.label) for view in VIEWS}


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_all_views_rebuilt_together_equal_the_live_ones_row_for_row(alpha: Workspace, workers: int) -> None:
    live = await desk_in(alpha, 41)
    told: list[Progress] = []
    reports = await rebuild_together.rebuild_together(alpha, VIEWS, told.append, workers=workers)
    head = (await alpha.log.head()).position
    assert [(report.view, report.position) for report in reports] == [(view.name, head) for view in VIEWS]
    assert all(report.comparison is not None and report.comparison.same for report in reports)
    assert await everything_in(alpha) == live
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert (told[-1].done, told[-1].total) == (head, head)


async def test_the_log_is_read_once_for_all_views(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk_in(alpha, 42)
    page_over = LogReader.page_over
    read: list[int] = []

    def counted(self: LogReader, connection: Any, after: int, *arguments: Any) -> Any:
        read.append(after)
        return page_over(self, connection, after, *arguments)

    monkeypatch.setattr(LogReader, "page_over", counted)
    await rebuild_together.rebuild_together(alpha, VIEWS, workers=1)
    assert read == [*range(0, (await alpha.log.head()).position, PAGE)]


@pytest.mark.parametrize("view", [QUEUE, BY_NAME["queue_history"]], ids=lambda view: view.name)
async def test_what_was_killed_while_all_were_filled_is_gone_on_with(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, view: Any
) -> None:
    live = await desk_in(alpha, 43)
    write = rebuild_lane.Lane._write
    parent = os.getpid()

    async def killed(self: Any, ceiling: Mark, before: Rows, changed: Rows) -> None:
        if self._site.view is view and self.position and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        await write(self, ceiling, before, changed)

    monkeypatch.setattr(rebuild_lane, "HELD_ROWS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(rebuild_lane.Lane, "_write", killed)
        with pytest.raises(RebuildStopped, match="status -9"):
            await rebuild_together.rebuild_together(alpha, VIEWS, workers=2)
    assert await everything_in(alpha) == live
    reports = await rebuild_together.rebuild_together(alpha, VIEWS, workers=2)
    assert await everything_in(alpha) == live
    assert all(report.resumed_at > 0 for report in reports)


async def test_views_that_stand_apart_are_filled_together_each_from_where_it_stands(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = await desk_in(alpha, 44)

    class Stopped(BaseException):
        pass

    def stop(progress: Progress) -> None:
        if progress.done >= 3 * PAGE:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(rebuild_lane, "HELD_ROWS", 1)
        patch.setattr(rebuild_lane, "PAGE_EVENTS", PAGE - 7)  # so that it stops within a page of the others
        with pytest.raises(Stopped):
            await rebuild(alpha, BY_NAME["audit_trail"], stop, workers=1)  # which has a row of each event
    monkeypatch.setattr(rebuild_lane, "HELD_ROWS", 10_000)  # so that they go in by COPY, none of them twice
    await rebuild_together.rebuild_together(alpha, VIEWS, workers=1)
    assert await everything_in(alpha) == live


async def test_a_view_that_fails_holds_no_other_up(alpha: Workspace) -> None:
    live = await desk_in(alpha, 45)
    culprit = (await alpha.log.head()).position // 2
    while not QUEUE.wants((await alpha.log.page(culprit - 1, 1))[0].topic):
        culprit += 1
    broken = failing_at(QUEUE, culprit)
    with pytest.raises(RebuildFailed) as failed:
        await rebuild_together.rebuild_together(alpha, [DIRECTORY, broken, BY_NAME["sla_clock"]], workers=1)
    assert failed.value.position == culprit
    assert await everything_in(alpha) == live
    async with alpha.database.pool.connection() as connection:
        cursor = await connection.execute(
            f"SELECT DISTINCT name FROM {alpha.schema}.view_builds WHERE phase = 'done' ORDER BY name".encode()
        )
        assert [row[0] for row in await cursor.fetchall()] == ["directory", "sla_clock"]
