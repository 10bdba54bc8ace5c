"""A page put together from what was written before is the page that is read anew."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from pydantic_core import from_json, to_json

from domain.event import ERASED
from projections import queue_pages
from projections.directory import names, names_written
from projections.queue_pages import first_page
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from projections.ticket_queue import SORTS, QueueFilter, list_told
from replay.rebuild import rebuild
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from projections.queue_pages import Stamp, Written
    from storage.database import Workspace
    from storage.settings import Settings

QUEUE = BY_NAME["ticket_queue"]


async def desk_in(workspace: Workspace, seed: int, *, steps: int = 200) -> DeskDays:
    desk = DeskDays(seed, tickets=25)
    await record(workspace, [*desk.first(), *desk.more(steps)])
    await Runner(workspace.database, VIEWS, "us").catch_up(workspace)
    return desk


async def require_same(workspace: Workspace, tickets: QueueFilter, sort: str, limit: int) -> None:
    """Hold a page that may be put together against the same one read at once."""
    page = await first_page(workspace, tickets, sort=sort, limit=limit)
    told = await list_told(workspace, tickets, sort=sort, limit=limit, cursor=None)
    assert [from_json(item.text) for item in page.items] == from_json(to_json(told.items))
    assert [set(item.people.values()) for item in page.items] == [
        {row["agent_id"], row["team_id"], row["requester_id"]} - {None} for row in told.items
    ]
    assert (page.position, page.cursor) == (told.position, told.cursor)


def kept(workspace: Workspace) -> dict[Stamp, Written]:
    return queue_pages._kept[workspace].written


async def test_while_everything_changes_pages_are_as_if_they_were_read_anew(alpha: Workspace) -> None:
    desk = await desk_in(alpha, 11)
    runner = Runner(alpha.database, VIEWS, "us")
    chance = random.Random(3)  # noqa: S311 - repeatable questions
    filters = (
        QueueFilter(),
        QueueFilter(statuses=["open", "pending"]),
        QueueFilter(teams=[team.id for team in desk.teams], statuses=["solved", "closed", "open"]),
        QueueFilter(agent="unassigned"),
    )
    for _ in range(25):
        for _ in range(4):
            await require_same(alpha, chance.choice(filters), chance.choice(list(SORTS)), chance.choice((1, 7, 50)))
        await record(alpha, desk.more(chance.choice((1, 5, 30))))
        await runner.catch_up(alpha)


async def test_a_ticket_is_read_again_only_when_it_has_changed(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await desk_in(alpha, 12)
    asked: list[int] = []
    write = queue_pages._write

    async def noted(workspace: Workspace, numbers: Sequence[int]) -> Any:
        asked.extend(numbers)
        return await write(workspace, numbers)

    monkeypatch.setattr(queue_pages, "_write", noted)
    await first_page(alpha, QueueFilter(), sort="number", limit=200)
    assert len(asked) == len(desk.tickets)
    asked.clear()
    await first_page(alpha, QueueFilter(), sort="updated", limit=10)
    assert asked == []
    changed = desk.open()
    await record(alpha, changed.collect_events())  # type: ignore[arg-type]
    await Runner(alpha.database, VIEWS, "us").catch_up(alpha)
    await first_page(alpha, QueueFilter(), sort="number", limit=200)
    assert len(asked) == 1


async def test_a_page_of_which_a_ticket_changes_while_it_is_put_together_is_read_at_once(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await desk_in(alpha, 13)
    write = queue_pages._write

    async def late(workspace: Workspace, numbers: Sequence[int]) -> Any:
        for ticket in desk.tickets:
            ticket.add_note(text="Meanwhile.", act=desk.act())
            await record(alpha, ticket.collect_events())  # type: ignore[arg-type]
        await Runner(alpha.database, VIEWS, "us").catch_up(alpha)
        return await write(workspace, numbers)

    monkeypatch.setattr(queue_pages, "_write", late)
    page = await first_page(alpha, QueueFilter(), sort="due", limit=20)
    assert page.position == (await alpha.log.head()).position
    told = await list_told(alpha, QueueFilter(), sort="due", limit=20, cursor=None)
    assert [from_json(item.text) for item in page.items] == from_json(to_json(told.items))


async def test_what_is_erased_is_gone_from_pages_with_the_keys(alpha: Workspace, settings: Settings) -> None:
    desk = await desk_in(alpha, 14)
    people = {one.id.int: one.id for one in (*desk.customers, *desk.teams, *desk.agents)} | {1: UUID(int=1)}
    written = from_json(await names_written(alpha, people))
    assert written == {str(one): name for one, name in (await names(alpha, people.values())).items()}
    assert len(written) == len(people) - 1
    page = await first_page(alpha, QueueFilter(), sort="number", limit=50)
    assert ERASED not in {from_json(item.text)["subject"] for item in page.items}
    async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as owner:
        await owner.execute("DELETE FROM ws_alpha.personal_keys")
    alpha.keyring.forget()
    for _ in range(2):
        page = await first_page(alpha, QueueFilter(), sort="number", limit=50)
        assert {from_json(item.text)["subject"] for item in page.items} == {ERASED}
    assert kept(alpha) == {}
    for _ in range(2):
        written = from_json(await names_written(alpha, people))
        assert {written[str(one.id)] for one in (*desk.customers, *desk.agents)} == {ERASED}


async def test_a_row_changed_by_hand_is_shown_as_it_is_and_after_a_rebuild_as_it_should_be(alpha: Workspace) -> None:
    await desk_in(alpha, 15)

    async def categories() -> set[str | None]:
        page = await first_page(alpha, QueueFilter(), sort="number", limit=50)
        return {from_json(item.text)["category"] for item in page.items}

    before = await categories()
    place = f'"{alpha.schema}"."{QUEUE.label}"'
    async with alpha.database.pool.connection() as connection:
        await connection.execute(f"UPDATE {place} SET category = 'bent'".encode())
    assert await categories() == {"bent"}
    await rebuild(alpha, QUEUE, lambda _: None, workers=1)
    assert await categories() == before


async def test_only_so_many_tickets_are_kept(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk_in(alpha, 16)
    monkeypatch.setattr(queue_pages, "TICKETS_HELD", 5)
    for sort in SORTS:
        await require_same(alpha, QueueFilter(), sort, 50)
        assert len(kept(alpha)) == 5


async def test_what_was_kept_in_another_epoch_is_not_believed(alpha: Workspace) -> None:
    await desk_in(alpha, 17)
    await require_same(alpha, QueueFilter(), "number", 50)
    before = kept(alpha)
    alpha.log.epochs.known = "another"
    await first_page(alpha, QueueFilter(), sort="number", limit=50)
    assert kept(alpha) is not before
