"""An event is passed over only where a view stopped, only with a reason, and that is never forgotten."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from projections import bookkeeping
from projections.bookkeeping import FAILED, LIVE
from projections.extract import Extract
from projections.page import Page
from projections.registry import VIEWS
from projections.runner import Runner
from projections.skipping import SkipRefused, skip, skips
from replay.rebuild import RebuildFailed, RebuildStopped, rebuild
from storage.append import NewEvent, Submission
from tests.projections.desk_days import DeskDays, as_recorded, record, rows_of
from tests.projections.test_folds import folded
from tests.projections.test_runner import QUEUE, failing_at, shown

if TYPE_CHECKING:
    from domain.event import Event
    from projections.view import View
    from storage.database import Database, Workspace

WHY = "Two imports met; the ticket was typed in again by hand."


async def stopped(database: Database, workspace: Workspace) -> tuple[View, list[Event], int]:
    """Give a view that stopped at an event in the middle of a log, the events, and the place of that event."""
    desk = DeskDays(6)
    events = [*desk.first(), *desk.more(80)]
    await record(workspace, events)
    tickets = [position for position, event in enumerate(events, 1) if event.TOPIC.startswith("ticket.")]
    culprit = tickets[len(tickets) // 2]
    view = failing_at(QUEUE, culprit)
    await Runner(database, [view], "runner").catch_up(workspace)
    assert await bookkeeping.reached(workspace, view) == (culprit - 1, FAILED)
    return view, events, culprit


async def passed_over(workspace: Workspace, view: View) -> frozenset[int]:
    async with workspace.database.pool.connection() as connection:
        return await bookkeeping.skipped(connection, workspace.schema, view)


async def test_a_view_told_to_pass_an_event_over_goes_on_without_it_and_it_is_recorded(
    database: Database, alpha: Workspace
) -> None:
    view, events, culprit = await stopped(database, alpha)
    await skip(alpha, view, position=culprit, reason=f"  {WHY} ", by="ann@desk")
    assert await bookkeeping.reached(alpha, view) == (culprit, LIVE)
    await Runner(database, [view], "runner").catch_up(alpha)
    assert await bookkeeping.reached(alpha, view) == (len(events), LIVE)
    recorded = [one for one in as_recorded(events) if one.position != culprit]
    assert await shown(alpha, view, "ticket_id", "since") == {
        (row["ticket_id"], row["since"]) for row in folded(QUEUE, recorded).values()
    }
    (noted,) = await skips(alpha)
    assert noted[:3] == (view.name, view.version, culprit)
    assert (noted.stream, noted.topic) == (events[culprit - 1].originator_id, events[culprit - 1].TOPIC)
    assert "I will not have this" in noted.error
    assert (noted.reason, noted.skipped_by) == (WHY, "ann@desk")


async def test_nothing_but_the_event_at_which_a_view_stopped_is_passed_over(
    database: Database, alpha: Workspace
) -> None:
    view, _, culprit = await stopped(database, alpha)
    for position in (culprit - 1, culprit + 1):
        with pytest.raises(SkipRefused, match=f"stopped at event {culprit}, not at {position}"):
            await skip(alpha, view, position=position, reason=WHY, by="ann")
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(ValueError, match="1 to 500"):
            await skip(alpha, view, position=culprit, reason=reason, by="ann")
    assert await bookkeeping.reached(alpha, view) == (culprit - 1, FAILED)
    assert await bookkeeping.retry(alpha, view)
    with pytest.raises(SkipRefused, match="has not stopped"):
        await skip(alpha, view, position=culprit, reason=WHY, by="ann")
    assert await skips(alpha) == []


async def test_an_event_is_passed_over_once_however_often_that_is_said(database: Database, alpha: Workspace) -> None:
    view, _, culprit = await stopped(database, alpha)
    await skip(alpha, view, position=culprit, reason=WHY, by="ann")
    with pytest.raises(SkipRefused, match="has not stopped"):
        await skip(alpha, view, position=culprit, reason=WHY, by="bob")
    assert [one.skipped_by for one in await skips(alpha)] == ["ann"]


async def test_the_record_of_what_was_passed_over_cannot_be_taken_back(database: Database, alpha: Workspace) -> None:
    view, _, culprit = await stopped(database, alpha)
    await skip(alpha, view, position=culprit, reason=WHY, by="ann")
    for statement in ("DELETE FROM ws_alpha.view_skips", "UPDATE ws_alpha.view_skips SET reason = 'none'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with database.pool.connection() as connection:
                await connection.execute(statement.encode())


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_rebuild_passes_the_event_over_again(database: Database, alpha: Workspace, workers: int) -> None:
    view, events, culprit = await stopped(database, alpha)
    with pytest.raises(RebuildFailed):
        await rebuild(alpha, view, workers=workers)
    await skip(alpha, view, position=culprit, reason=WHY, by="ann")
    await Runner(database, [view], "runner").catch_up(alpha)
    live = await rows_of(alpha, view.label)
    assert (await rebuild(alpha, view, workers=workers)).position == len(events)
    assert await rows_of(alpha, view.label) == live
    assert [one.position for one in await skips(alpha)] == [culprit]


async def test_a_rebuild_that_had_taken_the_event_in_begins_anew_once_it_is_passed_over(
    database: Database, alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, events, culprit = await stopped(database, alpha)
    shadow = view.shelf(alpha.schema, "_build")
    make_indexes = shadow.create_indexes

    async def and_meanwhile(connection: psycopg.AsyncConnection[Any]) -> None:
        await make_indexes(connection)
        if not await skips(alpha):
            await skip(alpha, view, position=culprit, reason=WHY, by="ann")
            await Runner(database, [view], "runner").catch_up(alpha)

    monkeypatch.setattr(shadow, "create_indexes", and_meanwhile)
    # Mended code takes the event in; while it is at that, somebody has the live view pass it over.
    with pytest.raises(RebuildStopped):
        await rebuild(alpha, QUEUE)
    live = await rows_of(alpha, view.label)
    assert (await rebuild(alpha, QUEUE)).position == len(events)
    assert await rows_of(alpha, view.label) == live


async def test_a_new_version_of_the_view_gets_its_chance(database: Database, alpha: Workspace) -> None:
    view, events, culprit = await stopped(database, alpha)
    await skip(alpha, view, position=culprit, reason=WHY, by="ann")
    newer = dataclasses.replace(QUEUE, version=QUEUE.version + 1)
    await rebuild(alpha, newer)
    assert await bookkeeping.reached(alpha, newer) == (len(events), LIVE)
    assert await shown(alpha, newer, "ticket_id", "since") == {
        (row["ticket_id"], row["since"]) for row in folded(QUEUE, as_recorded(events)).values()
    }
    assert [(one.version, one.position) for one in await skips(alpha)] == [(view.version, culprit)]


async def test_whatever_is_passed_over_is_not_even_looked_at(database: Database, alpha: Workspace) -> None:
    """An event of a type that nobody knows stops every view; those told to pass it over fold all the rest."""
    desk = DeskDays(8)
    events = [*desk.first(), *desk.more(30)]
    last = await record(alpha, events)
    await alpha.log.append(Submission(events=[NewEvent(desk.new_id(), 1, "ticket.enchanted", b"{}", None)]))
    await Runner(database, VIEWS, "runner").catch_up(alpha)
    for view in VIEWS:
        await skip(alpha, view, position=last + 1, reason=WHY, by="ann")
        assert await passed_over(alpha, view) == {last + 1}
    later = await record(alpha, desk.more(30))
    await Runner(database, VIEWS, "runner").catch_up(alpha)
    page = Page(await alpha.log.page(0, 1_000))
    for view in VIEWS:
        assert await bookkeeping.reached(alpha, view) == (later, LIVE)
        live = await rows_of(alpha, view.label)
        recorded = page.recorded(view, 0, len(page), {last + 1})
        assert len(live) == len(folded(view, recorded))
        assert list(Extract(view, skipped={last + 1}).recorded(page.rows))[-1].position == recorded[-1].position
        await rebuild(alpha, view)
        assert await rows_of(alpha, view.label) == live
