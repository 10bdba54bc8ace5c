"""A view whose code has changed is built beside the live one, compared, put in place, and put back again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from projections import bookkeeping
from projections.bookkeeping import ViewsNotReady, reached, view_status
from projections.listing import CursorExpired
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from projections.table import Column
from projections.ticket_queue import list_tickets
from replay import building, builds, comparison, rebuild_lane
from replay.builds import Phase, last_run
from replay.pruning import prune
from replay.rebuild import RebuildRefused, RebuildStopped, UnknownColumns, rebuild
from replay.rollback import NothingKept, roll_back
from replay.swapping import Swap
from tests.projections.desk_days import DeskDays, record, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from projections.table import Rows
    from projections.view import View
    from storage.codec import Recorded
    from storage.database import Workspace

# Rows of folds that are not the release's are what these tests are about.
pytestmark = pytest.mark.spoils_views

QUEUE = BY_NAME["ticket_queue"]
LABEL = QUEUE.label
NEXT = replace(QUEUE, version=QUEUE.version + 1)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_lane, "PAGE_EVENTS", 37)
    monkeypatch.setattr(building, "NEAR_EVENTS", 20)
    monkeypatch.setattr(builds, "LEASE_SECONDS", 0.4)
    monkeypatch.setattr(builds, "RENEW_SECONDS", 0.1)


async def desk_in(workspace: Workspace, seed: int, steps: int = 200) -> DeskDays:
    desk = DeskDays(seed, tickets=25)
    await record(workspace, [*desk.first(), *desk.more(steps)])
    await catch_up(workspace)
    return desk


async def catch_up(workspace: Workspace, *views: View) -> None:
    runner = Runner(workspace.database, views or VIEWS, "live")
    await runner.catch_up(workspace)
    await runner.release()


async def tables(workspace: Workspace, view: View = QUEUE) -> list[str]:
    """Name what there is of a view, without its name."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename LIKE %s",
            (workspace.schema, f"{view.name}_v%"),
        )
        return sorted([name.removeprefix(f"{view.name}_") for (name,) in await cursor.fetchall()])


def folding(change: Callable[[Rows], Any], view: View = QUEUE, **fields: Any) -> View:
    """Give a view whose fold changes its rows in one more way."""

    def fold(rows: Rows, recorded: Iterable[Recorded], *told: Any) -> Rows:
        changed = view.fold(rows, recorded, *told)
        change(changed)
        return changed

    return replace(view, fold=fold, follow=None, **fields)


def high_is_urgent(rows: Rows) -> None:
    for row in rows.values():
        if row["priority"] == "high":
            row["urgency_rank"] = 0


async def test_a_dry_run_reports_what_a_changed_fold_does_and_changes_nothing(alpha: Workspace) -> None:
    await desk_in(alpha, 1)
    live, there = await rows_of(alpha, LABEL), await tables(alpha)
    report = await rebuild(alpha, folding(high_is_urgent), dry_run=True)
    place = QUEUE.table.names.index("priority")
    high = sum(row[place] == "high" for row in live)
    assert 0 < high < len(live)
    found = report.comparison
    assert found is not None
    assert (found.equal, found.changed, found.only_old, found.only_new) == (len(live) - high, high, 0, 0)
    assert [(column.name, column.rows) for column in found.columns] == [("urgency_rank", high)]
    assert {(sample.old, sample.new) for sample in found.columns[0].samples} == {(1, 0)}
    assert found.position == (await alpha.log.head()).position
    assert not report.swapped
    assert await rows_of(alpha, LABEL) == live
    assert await tables(alpha) == there
    run = await last_run(alpha, QUEUE)
    assert run is not None
    assert (run.phase, run.running, run.report) == (Phase.DONE, False, report.as_json())


async def test_nothing_is_put_in_place_that_differs_otherwise_than_allowed(alpha: Workspace) -> None:
    await desk_in(alpha, 2)
    live, there = await rows_of(alpha, LABEL), await tables(alpha)
    changed = folding(high_is_urgent)
    for expected in ([], ["priority", "status"]):
        with pytest.raises(RebuildRefused, match="urgency_rank differs") as refused:
            await rebuild(alpha, changed, expected=expected)
        assert refused.value.report.comparison is not None
        assert await rows_of(alpha, LABEL) == live
        assert await tables(alpha) == there
        run = await last_run(alpha, QUEUE)
        assert run is not None
        assert (run.phase, run.error) == (Phase.REFUSED, str(refused.value))
    with pytest.raises(UnknownColumns, match="urgency_rnk"):
        await rebuild(alpha, changed, expected=["urgency_rnk"])
    assert (await rebuild(alpha, changed, expected=["urgency_rank", "priority"])).swapped
    assert await rows_of(alpha, LABEL) != live
    assert (await rebuild(alpha, changed, expected=[])).swapped  # nothing differs any more


async def test_a_view_that_was_put_in_place_goes_back_and_forth_and_catches_up_each_time(alpha: Workspace) -> None:
    desk = await desk_in(alpha, 3)
    page = await list_tickets(alpha, limit=3)
    await record(alpha, desk.more(20))
    await catch_up(alpha)
    await rebuild(alpha, folding(high_is_urgent))
    changed = await rows_of(alpha, LABEL)
    with pytest.raises(CursorExpired):  # its rows were others
        await list_tickets(alpha, limit=3, cursor=page.cursor)
    await record(alpha, desk.more(100))
    await catch_up(alpha)
    later, stood = await rows_of(alpha, LABEL), await reached(alpha, QUEUE)
    assert later != changed
    done = await roll_back(alpha, QUEUE)
    assert done.kept_at < done.position == stood[0]
    assert await reached(alpha, QUEUE) == stood
    assert await rows_of(alpha, f"{LABEL}_kept") == later
    back = await rows_of(alpha, LABEL)
    await rebuild(alpha, QUEUE, dry_run=True, expected=[])  # as if never changed
    await roll_back(alpha, QUEUE)
    assert await rows_of(alpha, LABEL) == later
    assert await rows_of(alpha, f"{LABEL}_kept") == back


async def test_a_rollback_says_when_the_rows_are_of_other_code(alpha: Workspace) -> None:
    await desk_in(alpha, 3)
    await rebuild(alpha, folding(high_is_urgent))
    assert (await roll_back(alpha, QUEUE)).other_code  # nobody noted who made what a runner filled
    await rebuild(alpha, QUEUE)
    await rebuild(alpha, QUEUE)
    assert not (await roll_back(alpha, QUEUE)).other_code


async def test_without_anything_kept_a_rollback_says_what_there_is(alpha: Workspace) -> None:
    await desk_in(alpha, 4)
    with pytest.raises(NothingKept, match="it was not rebuilt"):
        await roll_back(alpha, QUEUE)
    await rebuild(alpha, NEXT)
    with pytest.raises(NothingKept, match=f"Version {QUEUE.version} is still there, .* run the release that has it"):
        await roll_back(alpha, NEXT)


async def test_a_kept_table_of_other_columns_is_not_put_back(alpha: Workspace) -> None:
    await desk_in(alpha, 4)
    await rebuild(alpha, QUEUE)
    wider = replace(QUEUE.table, columns=(*QUEUE.table.columns, Column("room", "text")))
    with pytest.raises(NothingKept, match="other columns"):
        await roll_back(alpha, replace(QUEUE, table=wider))


async def test_a_new_version_is_absent_until_it_is_built_whole_beside_the_old_one(alpha: Workspace) -> None:
    desk = await desk_in(alpha, 5)
    wider = replace(
        QUEUE.table,
        columns=(*[column for column in QUEUE.table.columns if column.name != "level"], Column("room", "text")),
    )

    def other_columns(rows: Rows) -> None:
        for row in rows.values():
            row["room"] = "4.12"

    def with_level(rows: Rows, recorded: Iterable[Recorded], *told: Any) -> Rows:
        return QUEUE.fold({key: {"level": 0, **row} for key, row in rows.items()}, recorded, *told)

    view = folding(other_columns, replace(NEXT, table=wider, fold=with_level, follow=None))
    others = [one for one in VIEWS if one.name != QUEUE.name]
    await catch_up(alpha, view, *others)
    assert await tables(alpha) == [f"v{QUEUE.version}", f"v{QUEUE.version}_past"]
    (status,) = await view_status(alpha, [view])
    assert status.state == "absent"
    with pytest.raises(ViewsNotReady, match="`desk rebuild ticket_queue`"):
        await reached(alpha, view)
    old = await rows_of(alpha, LABEL)

    with pytest.raises(RebuildRefused, match="room was added; level was removed"):
        await rebuild(alpha, view, expected=[])
    assert (await view_status(alpha, [view]))[0].state == "absent"
    await record(alpha, desk.more(60))  # which nobody takes into the old version any more
    report = await rebuild(alpha, view, expected=["room", "level"])
    assert report.comparison is not None
    assert report.comparison.equal == len(old)
    assert report.comparison.position < report.position == (await alpha.log.head()).position
    assert await reached(alpha, view) == (report.position, "live")
    assert await rows_of(alpha, LABEL) == old
    await record(alpha, desk.more(60))
    await catch_up(alpha, view)
    await catch_up(alpha, QUEUE)  # an older process still can
    assert await reached(alpha, view) == await reached(alpha, QUEUE)
    assert len(await rows_of(alpha, view.label)) == len(await rows_of(alpha, LABEL)) >= len(old)
    await rebuild(alpha, view, expected=[])


async def test_a_new_version_is_made_at_once_where_there_is_nothing_to_fold(alpha: Workspace) -> None:
    await catch_up(alpha, QUEUE)
    await catch_up(alpha, NEXT)
    assert await reached(alpha, NEXT) == (0, "live")


async def test_a_view_that_stopped_is_compared_where_it_stopped(alpha: Workspace) -> None:
    desk = DeskDays(6)
    head = await record(alpha, [*desk.first(), *desk.more(150)])

    def stumbling(rows: Rows) -> None:
        if any(row["since"] > 100 for row in rows.values()):
            message = "cannot count so far"
            raise ValueError(message)

    await catch_up(alpha, folding(stumbling))
    stood, state = await reached(alpha, QUEUE)
    assert (stood < head, state) == (True, bookkeeping.FAILED)
    report = await rebuild(alpha, QUEUE, expected=[])
    assert report.comparison is not None
    assert (report.comparison.position, report.position) == (stood, head)
    assert await reached(alpha, QUEUE) == (head, bookkeeping.LIVE)


async def test_what_is_kept_and_what_older_versions_had_is_dropped_when_asked(alpha: Workspace) -> None:
    await desk_in(alpha, 7)
    assert await prune(alpha, VIEWS) == []
    await rebuild(alpha, QUEUE)
    kept = await prune(alpha, VIEWS, dry_run=True)
    assert [(one.table, one.spared) for one in kept] == [(f"{LABEL}_kept", None)]
    assert kept[0].size > 8192
    assert f"{LABEL}_kept" in {f"{QUEUE.name}_{name}" for name in await tables(alpha)}
    assert await prune(alpha, VIEWS) == kept
    assert await prune(alpha, VIEWS) == []
    with pytest.raises(NothingKept):
        await roll_back(alpha, QUEUE)
    old = await rows_of(alpha, LABEL)
    # Nothing is dropped that people may be looking at.
    assert [one.spared for one in await prune(alpha, [NEXT])] == [
        f"version {NEXT.version} is not there yet; `desk rebuild ticket_queue` makes it"
    ] * 2
    await rebuild(alpha, QUEUE)
    await rebuild(alpha, NEXT)
    older = Runner(alpha.database, [QUEUE], "the release before")
    await older.catch_up(alpha)
    async with alpha.database.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO ledgerdesk.runners VALUES ('the release before', '{}', now() + interval '1 minute')"
        )
    assert {one.spared for one in await prune(alpha, [NEXT])} == {
        "the release before, of an older release, keeps it up"
    }
    await older.release()
    assert [one.table for one in await prune(alpha, [NEXT])] == [LABEL, f"{LABEL}_kept", f"{LABEL}_past"]
    assert await tables(alpha) == [f"v{NEXT.version}", f"v{NEXT.version}_past"]
    assert await rows_of(alpha, NEXT.label) == old
    # The release before finds nothing of its own, and does not begin from nothing beside what is there.
    await catch_up(alpha, QUEUE)
    with pytest.raises(ViewsNotReady):
        await reached(alpha, QUEUE)
    await rebuild(alpha, QUEUE, expected=[])
    assert await rows_of(alpha, LABEL) == old


class Killed(BaseException):
    pass


STEPS: list[tuple[type, str, str]] = [
    (building.Builder, "begin", "after"),
    (building.Builder, "compare", "before"),
    (building.Builder, "compare", "after"),
    (building.Builder, "index", "before"),
    (building.Builder, "index", "after"),
    (Swap, "_swap", "before"),
    (Swap, "_swap", "in"),
    (Swap, "put_in_place", "after"),
]


@pytest.mark.parametrize("version", [QUEUE, NEXT], ids=["the same version", "a new version"])
@pytest.mark.parametrize(("owner", "name", "when"), STEPS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_rebuild_killed_anywhere_ends_the_same_when_it_is_repeated(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: str, version: View
) -> None:
    desk = await desk_in(alpha, 8)
    view = folding(high_is_urgent, version)
    live = await rows_of(alpha, LABEL)
    monkeypatch.setattr(builds, "_RELEASE", "SELECT")  # nothing is cleared away by a process that is killed
    done = getattr(owner, name)

    async def killed(self: Any, *arguments: Any, **named: Any) -> None:
        if when != "before":
            await done(self, *arguments, **named)
        raise Killed

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            with pytest.raises(Killed):
                await rebuild(alpha, view)
        await record(alpha, desk.more(5))
        await catch_up(alpha)
    if name != "put_in_place":
        assert len(await rows_of(alpha, LABEL)) >= len(live)
        assert (await reached(alpha, QUEUE))[0] == (await alpha.log.head()).position
    report = await rebuild(alpha, view)
    assert report.swapped
    assert report.comparison is not None
    assert [one.name for one in report.comparison.columns] in (["urgency_rank"], [])
    built = await rows_of(alpha, view.label)
    assert report.rows == len(built)
    await rebuild(alpha, view, expected=[])
    assert await rows_of(alpha, view.label) == built
    left = {f"v{QUEUE.version}", f"v{QUEUE.version}_past", f"v{view.version}", f"v{view.version}_past"}
    assert set(await tables(alpha)) == left | {f"v{view.version}_kept"}


@pytest.mark.parametrize(("owner", "name", "when"), [step for step in STEPS if step[0] is Swap])
async def test_a_rollback_killed_anywhere_ends_the_same_when_it_is_repeated(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: str
) -> None:
    await desk_in(alpha, 9)
    before = await rows_of(alpha, LABEL)
    await rebuild(alpha, folding(high_is_urgent))
    changed = await rows_of(alpha, LABEL)
    monkeypatch.setattr(builds, "_RELEASE", "SELECT")
    done = getattr(owner, name)

    async def killed(self: Any, *arguments: Any) -> None:
        if when != "before":
            await done(self, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            await roll_back(alpha, QUEUE)
    swapped = when == "after"
    assert await rows_of(alpha, LABEL) == (before if swapped else changed)
    await roll_back(alpha, QUEUE)
    assert await rows_of(alpha, LABEL) == (changed if swapped else before)


async def test_what_was_compared_stands_when_the_run_is_gone_on_with_from_beyond_the_live_view(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await desk_in(alpha, 10)
    await record(alpha, desk.more(80))  # the live view is behind, and nobody keeps it up
    stood, _ = await reached(alpha, QUEUE)
    view = folding(high_is_urgent)

    async def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(building.Builder, "index", killed)
        with pytest.raises(Killed):
            await rebuild(alpha, view)
    with pytest.raises(RebuildRefused):
        await rebuild(alpha, view, expected=[])
    with monkeypatch.context() as patch:
        patch.setattr(building.Builder, "index", killed)
        with pytest.raises(Killed):
            await rebuild(alpha, view)
    report = await rebuild(alpha, view)
    assert report.resumed_at > stood
    assert report.comparison is not None
    assert report.comparison.position == stood
    assert [one.name for one in report.comparison.columns] == ["urgency_rank"]


async def test_a_build_beyond_a_view_that_was_set_back_is_begun_anew(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 11)

    async def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(building.Builder, "compare", killed)
        with pytest.raises(Killed):
            await rebuild(alpha, QUEUE)
    async with alpha.database.pool.connection() as connection:
        await connection.execute(
            f"UPDATE {alpha.schema}.views SET position = 100 WHERE name = 'ticket_queue';"
            f"DELETE FROM {alpha.schema}.{LABEL} WHERE since > 100".encode()
        )
    report = await rebuild(alpha, QUEUE)
    assert report.resumed_at == 0
    assert report.comparison is not None
    assert report.comparison.position == 100


async def test_the_live_view_goes_on_while_rows_are_compared(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await desk_in(alpha, 12)
    compare = comparison.compare

    async def slowly(*arguments: Any, **named: Any) -> Any:
        await record(alpha, desk.more(30))
        await catch_up(alpha)
        assert (await reached(alpha, QUEUE))[0] == (await alpha.log.head()).position
        return await compare(*arguments, **named)

    monkeypatch.setattr(building, "compare", slowly)
    report = await rebuild(alpha, QUEUE, expected=[])
    assert report.comparison is not None
    assert report.comparison.position < report.position


async def test_both_tables_are_compared_at_one_position_however_the_live_one_moves(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await desk_in(alpha, 14)
    reach, moved = building.Builder.reach, 0

    async def overtaken(self: Any, target: int) -> None:
        nonlocal moved
        await reach(self, target)
        if not moved:
            moved = await record(alpha, desk.more(12))
            await catch_up(alpha)

    monkeypatch.setattr(building.Builder, "reach", overtaken)
    report = await rebuild(alpha, QUEUE, expected=[])
    assert report.comparison is not None
    assert report.comparison.position == moved > 0


async def test_a_connection_that_is_lost_ends_the_run_with_a_sentence_and_the_next_goes_on(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk_in(alpha, 13)
    index = building.Builder.index

    async def cut_off(self: Any) -> None:
        await self.connection.close()
        await index(self)

    with monkeypatch.context() as patch:
        patch.setattr(building.Builder, "index", cut_off)
        with pytest.raises(RebuildStopped, match="another run goes on from there"):
            await rebuild(alpha, QUEUE)
    run = await last_run(alpha, QUEUE)
    assert run is not None
    assert (run.phase, run.running) == (Phase.FAILED, False)
    assert (await rebuild(alpha, QUEUE)).resumed_at > 0
