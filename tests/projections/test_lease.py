"""Who keeps which view up: every process comes to the same answer, and a process that works is not taken for dead."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg

from projections import bookkeeping, lease
from projections.bookkeeping import view_status
from projections.lease import Lease, Share, keeper
from projections.registry import VIEWS
from projections.runner import Runner
from projections.waiting import wait_for
from tests.faults.views_from_zero import check_views
from tests.projections.desk_days import DeskDays, record
from tests.projections.test_runner import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

    from storage.database import Database, Workspace
    from storage.settings import Settings

PATIENCE = 20.0  # seconds
VIEW = VIEWS[0]
ALL = frozenset(view.label for view in VIEWS)


async def ticking() -> AsyncIterator[None]:
    """Turn until something holds, or patience is at an end."""
    async with asyncio.timeout(PATIENCE):
        while True:
            yield
            await asyncio.sleep(0.02)


def test_when_a_process_comes_only_its_share_of_the_workspaces_moves() -> None:
    names = [f"workspace_{number}" for number in range(300)]
    two = {"ann": ALL, "bob": ALL}
    three = {"cid": ALL, **two}
    before = {name: keeper(name, VIEW, two) for name in names}
    after = {name: keeper(name, VIEW, three) for name in names}
    assert all(after[name] in {before[name], "cid"} for name in names)
    for process in three:
        assert 60 < list(after.values()).count(process) < 140


def test_the_views_of_a_workspace_stay_together_and_go_only_to_who_has_their_code() -> None:
    living = {"old": ALL, "new": ALL | {"later_v1"}}
    for number in range(50):
        assert len({keeper(f"workspace_{number}", view, living) for view in VIEWS}) == 1
    newer = frozenset({"other_v9"})
    assert keeper("main", VIEW, {"one": ALL, "two": newer}) == "one"
    assert keeper("main", VIEW, {"two": newer}) is None


async def test_two_processes_divide_the_workspaces_and_one_that_stays_has_them_all(
    database: Database, alpha: Workspace, beta: Workspace
) -> None:
    await bookkeeping.prepare(alpha, VIEWS)
    await bookkeeping.prepare(beta, VIEWS)
    here, there = next(
        (f"runner {one}", f"runner {other}")
        for one in range(9)
        for other in range(9)
        if keeper("alpha", VIEW, dict.fromkeys([f"runner {one}", f"runner {other}"], ALL)) == f"runner {one}"
        and keeper("beta", VIEW, dict.fromkeys([f"runner {one}", f"runner {other}"], ALL)) == f"runner {other}"
        and one != other
    )

    async def owned(*owners: str) -> None:
        async for _ in ticking():
            found = [{one.owner for one in await view_status(workspace, VIEWS)} for workspace in (alpha, beta)]
            if found == [{owner} for owner in owners]:
                return

    async with running(Runner(database, VIEWS, here)):
        await owned(here, here)
        async with running(Runner(database, VIEWS, there)):
            await owned(here, there)
            heads = [await record(workspace, DeskDays(1).first()) for workspace in (alpha, beta)]
            for workspace, head in zip((alpha, beta), heads, strict=True):
                assert await wait_for(workspace, VIEW, head, PATIENCE) == head
        await owned(here, here)


async def test_a_process_that_gets_a_view_back_knows_what_another_made_of_it_meanwhile(
    database: Database, alpha: Workspace
) -> None:
    desk = DeskDays(3)
    await record(alpha, desk.first())
    await bookkeeping.prepare(alpha, VIEWS)
    runners = [Runner(database, VIEWS, name) for name in ("ours", "another")]
    for turn in range(12):
        runner = runners[turn % 2]
        await runner._divide([Share(alpha, list(VIEWS))])
        assert await follow(runner, alpha, await record(alpha, desk.more(8)))
        await runner._divide([Share(alpha, [], list(VIEWS))])
    for runner in runners:
        await runner.release()
    assert await asyncio.to_thread(check_views, database.conninfo, alpha.schema) == []


async def follow(runner: Runner, workspace: Workspace, head: int) -> bool:
    """Let a runner project what it owns, a few events at a time, as between two looks at what it owns."""
    followed = False
    while any(one.position < head for one in await runner._standings([workspace])):
        await runner._serve(workspace)
        followed = True
    return followed


async def leased_until(database: Database) -> float | None:
    async with database.pool.connection() as connection:
        cursor = await connection.execute("SELECT extract(epoch FROM leased_until)::float8 FROM ledgerdesk.runners")
        row = await cursor.fetchone()
    return None if row is None else float(row[0])


def blocked_until(conninfo: str, holds: Callable[[psycopg.Connection[tuple[object, ...]]], bool]) -> None:
    """Keep the event loop from turning until something holds in the database."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while not holds(connection):
            assert time.monotonic() < deadline
            time.sleep(0.02)


async def test_a_fold_that_takes_long_does_not_cost_the_process_its_views(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    said = Lease(database.conninfo, "one", VIEWS, lambda _living, _was_dead: None)
    said.start()
    try:
        async for _ in ticking():
            if await leased_until(database) is not None:
                break
        seen: set[object] = set()

        def renewed_often(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
            seen.update(connection.execute("SELECT leased_until FROM ledgerdesk.runners").fetchall())
            return len(seen) > 5

        blocked_until(database.conninfo, renewed_often)
    finally:
        await said.end()
    assert await leased_until(database) is None


async def test_a_process_that_hangs_does_not_keep_its_views_by_the_word_of_a_thread(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(lease, "HANGS_SECONDS", 0.3)
    heard: list[bool] = []
    said = Lease(database.conninfo, "one", VIEWS, lambda _living, was_dead: heard.append(was_dead))
    said.start()
    try:
        async for _ in ticking():
            if False in heard:
                break
        blocked_until(
            database.conninfo,
            lambda connection: (
                connection.execute("SELECT FROM ledgerdesk.runners WHERE leased_until > now()").fetchone() is None
            ),
        )
        # Once it turns again it is alive, and learns that it had been taken for dead.
        heard.clear()
        async for _ in ticking():
            if True in heard:
                break
    finally:
        await said.end()


async def test_a_lease_outlasts_its_connection(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    said = Lease(database.conninfo, "one", VIEWS, lambda _living, _was_dead: None)
    said.start()
    try:
        async for _ in ticking():
            with psycopg.connect(settings.database_url or "", autocommit=True) as connection:
                if connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'desk lease'"
                ).fetchall():
                    break
        before = await leased_until(database)
        async for _ in ticking():
            if (now := await leased_until(database)) is not None and (before is None or now > before + 0.5):
                break
    finally:
        await said.end()
