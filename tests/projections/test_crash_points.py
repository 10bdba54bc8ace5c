"""Whatever fails while views are kept up, wherever it does and however often, their rows come to be the same."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from psycopg.sql import SQL, Identifier

from projections import bookkeeping, runner
from projections.bookkeeping import view_status
from projections.registry import VIEWS
from projections.runner import Runner
from projections.waiting import wait_for
from tests.faults.views_from_zero import check_views
from tests.projections.desk_days import DeskDays, record
from tests.projections.test_runner import running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import pytest

    from storage.database import Workspace

SOME = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
OWNER = "the one process that there is"
EVENTS = 150


class Killed(BaseException):
    """The process is no more."""


class Steps:
    """Counts what is asked of the server, and lets the process die at one of the steps.

    A step is a statement before it is sent, the same when it was carried out, a row of a copy, or the end of a
    transaction: what was asked may have been done, and who asked will not know.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self.taken = 0

    def take(self) -> None:
        """Die, if this is the step to die at."""
        self.taken += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Killed

    @contextmanager
    def counted(self, patched: pytest.MonkeyPatch) -> Iterator[None]:
        """Count what psycopg is asked for."""

        def around(call: Callable[..., Awaitable[Any]], *, before: bool = True) -> Callable[..., Awaitable[Any]]:
            async def stepping(*args: Any, **kwargs: Any) -> Any:
                if before:
                    self.take()
                answer = await call(*args, **kwargs)
                self.take()
                return answer

            return stepping

        with patched.context() as patch:
            patch.setattr(psycopg.AsyncCursor, "execute", around(psycopg.AsyncCursor.execute))
            patch.setattr(psycopg.AsyncCopy, "write_row", around(psycopg.AsyncCopy.write_row))
            patch.setattr(
                psycopg.AsyncTransaction, "__aexit__", around(psycopg.AsyncTransaction.__aexit__, before=False)
            )
            yield


async def set_back(workspace: Workspace) -> None:
    """Empty every view, as if the log had just been imported."""
    async with workspace.database.pool.connection() as connection, connection.transaction():
        for view in VIEWS:
            shelf = view.shelf(workspace.schema)
            for place in (shelf.place, *([shelf.past] if view.table.keeps_past else [])):
                await connection.execute(SQL("TRUNCATE {}").format(place))
        await connection.execute(
            SQL("UPDATE {}.views SET position = 0, recorded_at = NULL, kept_from = 0").format(
                Identifier(workspace.schema)
            )
        )


async def logged(workspace: Workspace) -> None:
    """Have a log and views of it, once."""
    if (await workspace.log.head()).position == 0:
        desk = DeskDays(71, tickets=25)
        await record(workspace, ([*desk.first(), *desk.more(2 * EVENTS)])[:EVENTS])
        await Runner(workspace.database, VIEWS, OWNER).catch_up(workspace)


@SOME
@given(
    deaths=some.lists(some.tuples(some.integers(0, 50), some.booleans()), min_size=1, max_size=30),
    page=some.sampled_from((7, 20, 60, 110)),
    together=some.sampled_from((100, 20, 0)),
)
@example(deaths=[(step, False) for step in range(60)], page=3, together=100)  # at every step of a page, in turn
@example(deaths=[(step, True) for step in range(60)], page=3, together=0)
async def test_a_process_that_dies_at_any_step_leaves_nothing_half_done(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, deaths: list[tuple[int, bool]], page: int, together: int
) -> None:
    """`deaths` are numbers of steps after which it dies, and whether what it had in memory is lost with it."""
    await logged(alpha)
    await set_back(alpha)
    steps, one = Steps(), Runner(alpha.database, VIEWS, OWNER)
    with monkeypatch.context() as patch, steps.counted(monkeypatch):
        patch.setattr(runner, "FIRST_PAGE", page)
        patch.setattr(runner, "LARGEST_PAGE", page)
        patch.setattr(runner, "TOGETHER", together)
        for steps.left, forgets in deaths:
            try:
                await one.catch_up(alpha)
            except Killed:
                if forgets:
                    one = Runner(alpha.database, VIEWS, OWNER)
        steps.left = None
        await one.catch_up(alpha)
    assert steps.taken > EVENTS / page
    assert await asyncio.to_thread(check_views, alpha.database.conninfo, alpha.schema) == []
    assert all(status.lag_events == 0 and status.failure is None for status in await view_status(alpha, VIEWS))


async def test_what_another_process_made_of_the_rows_is_gone_on_from(alpha: Workspace) -> None:
    """Views go from process to process and back, and what one remembers of their rows may be long past."""
    desk = DeskDays(72, tickets=8)
    await record(alpha, desk.first())
    await bookkeeping.prepare(alpha, VIEWS)
    ours, others = Runner(alpha.database, VIEWS, "we"), Runner(alpha.database, VIEWS, "others")
    for owner in (ours, others, ours, others, ours):
        head = await record(alpha, desk.more(25))
        async with running(owner):
            for view in VIEWS:
                await wait_for(alpha, view, head, 20)
        assert await asyncio.to_thread(check_views, alpha.database.conninfo, alpha.schema) == []
