"""Lists and counts agree, and a list that was begun goes on as it was."""

from __future__ import annotations

import random
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from domain.status import Status
from projections import bookkeeping, selection
from projections.bookkeeping import ViewsNotReady
from projections.listing import CursorExpired, CursorInvalid
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from projections.ticket_queue import SORTS, QueueEntry, QueueFilter, count_tickets, find_ticket, list_tickets
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.ticket import Ticket
    from projections.listing import Listing
    from storage.database import Workspace

QUEUE = BY_NAME["ticket_queue"]


async def desk_in(workspace: Workspace, seed: int, *, tickets: int = 40, steps: int = 500) -> DeskDays:
    desk = DeskDays(seed, tickets=tickets)
    await record(workspace, [*desk.first(), *desk.more(steps)])
    await Runner(workspace.database, VIEWS, "us").catch_up(workspace)
    return desk


async def every_page(
    workspace: Workspace, tickets: QueueFilter, *, sort: str = "updated", limit: int = 7, cursor: str | None = None
) -> tuple[list[QueueEntry], int]:
    """Page through a list to its end."""
    found: list[QueueEntry] = []
    while True:
        page = await list_tickets(workspace, tickets, sort=sort, limit=limit, cursor=cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found, page.position


NEVER = datetime.max.replace(tzinfo=UTC)
ORDERS: dict[str, Callable[[QueueEntry], Any]] = {
    "updated": lambda one: (-one.updated_at.timestamp(), -one.number),
    "due": lambda one: (one.due_at or NEVER, one.number),
    "opened": lambda one: (one.opened_at, one.number),
    "priority": lambda one: (["urgent", "high", "normal", "low"].index(one.priority), one.opened_at, one.number),
    "number": lambda one: one.number,
}


@pytest.mark.parametrize("sort", SORTS)
async def test_pages_follow_each_other_without_gaps_in_every_order(alpha: Workspace, sort: str) -> None:
    desk = await desk_in(alpha, 1)
    found, position = await every_page(alpha, QueueFilter(), sort=sort, limit=3)
    assert [one.ticket_id for one in found] == [one.ticket_id for one in sorted(found, key=ORDERS[sort])]
    assert {one.ticket_id for one in found} == {ticket.id for ticket in desk.tickets}
    assert len(found) == len(desk.tickets)
    assert {one.due_at is None for one in found} == {True, False}
    assert position == (await alpha.log.head()).position


def fits(ticket: Ticket, tickets: QueueFilter) -> bool:
    """Say what a filter means, apart from SQL."""
    return all(
        (
            tickets.teams is None or ticket.team_id in tickets.teams,
            tickets.agent is None
            or (ticket.agent_id is None if tickets.agent == "unassigned" else ticket.agent_id == tickets.agent),
            tickets.statuses is None or ticket.status in tickets.statuses,
            tickets.priorities is None or ticket.priority in tickets.priorities,
            tickets.types is None or ticket.type in tickets.types,
            tickets.tags is None or set(tickets.tags) <= set(ticket.tags),
            tickets.customer is None or ticket.requester_id == tickets.customer,
            tickets.channel is None or ticket.channel == tickets.channel,
            tickets.category is None or ticket.category == tickets.category,
        )
    )


@pytest.mark.parametrize("most", [selection.MOST_BRANCHES, 2], ids=["merged", "sorted"])
async def test_filters_choose_what_they_say_and_counts_equal_the_lists(
    alpha: Workspace, beta: Workspace, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(selection, "MOST_BRANCHES", most)
    desk = await desk_in(alpha, 2)
    await desk_in(beta, 3, tickets=4, steps=30)
    chance = random.Random(5)  # noqa: S311 - repeatable filters

    def maybe(values: list[Any]) -> Any:
        return chance.choice(values) if chance.random() < 0.35 else None

    seen = 0
    for _ in range(60):
        tickets = QueueFilter(
            teams=maybe([[desk.teams[0].id] * 2, [team.id for team in desk.teams]]),
            agent=maybe(["unassigned", *(agent.id for agent in desk.agents)]),
            statuses=maybe([["open", "open"], ["new", "open", "pending"], ["closed", "solved"], [], list(Status)]),
            priorities=maybe([["urgent"], ["low", "normal"]]),
            types=maybe([["incident"], ["question", "task", "problem"]]),
            tags=maybe([["vip"], ["会议室"], ["vip", "laptop"]]),
            customer=maybe([customer.id for customer in desk.customers]),
            channel=maybe(["email", "phone"]),
            category=maybe(["hardware", "network"]),
        )
        wanted = {ticket.id: ticket for ticket in desk.tickets if fits(ticket, tickets)}
        sort = chance.choice(list(SORTS))
        found, _ = await every_page(alpha, tickets, sort=sort)
        assert [one.ticket_id for one in found] == [one.ticket_id for one in sorted(found, key=ORDERS[sort])]
        assert {one.ticket_id for one in found} == set(wanted)
        assert len(found) == len(wanted)
        seen += len(found)
        for by, name in (("status", "status"), ("team", "team_id"), ("agent", "agent_id"), ("priority", "priority")):
            counts = await count_tickets(alpha, tickets, by=by)  # type: ignore[arg-type]
            listed: dict[Any, int] = {}
            for one in found:
                listed[getattr(one, name)] = listed.get(getattr(one, name), 0) + 1
            assert counts.counts == listed
    assert seen > 50  # the filters were not all empty


@pytest.mark.parametrize("sort", SORTS)
async def test_a_list_that_was_begun_goes_on_as_it_was_while_everything_changes(alpha: Workspace, sort: str) -> None:
    desk = await desk_in(alpha, 4)
    runner = Runner(alpha.database, VIEWS, "us")
    for tickets in (QueueFilter(), QueueFilter(statuses=["open", "pending"]), QueueFilter(agent="unassigned")):
        before, position = await every_page(alpha, tickets, sort=sort)
        counts = await count_tickets(alpha, tickets)
        page = await list_tickets(alpha, tickets, sort=sort, limit=2)
        found, cursor = list(page.items), page.cursor
        while cursor is not None:
            await record(alpha, desk.more(40))
            await runner.catch_up(alpha)
            page = await list_tickets(alpha, tickets, sort=sort, limit=3, cursor=cursor)
            assert page.position == position
            found += page.items
            cursor = page.cursor
        assert found == before
        assert (await count_tickets(alpha, tickets, at=position)).counts == counts.counts
        assert (await every_page(alpha, tickets, sort=sort))[1] > position


async def test_a_list_begun_before_what_is_kept_is_refused(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await desk_in(alpha, 4)
    page = await list_tickets(alpha, limit=2)
    await record(alpha, desk.more(100))
    await Runner(alpha.database, VIEWS, "us").catch_up(alpha)
    later = await list_tickets(alpha, limit=2)
    await bookkeeping.prune(alpha, QUEUE)
    assert (await list_tickets(alpha, limit=2, cursor=page.cursor)).position == page.position
    monkeypatch.setattr(bookkeeping, "PAST_SECONDS", 0)
    await bookkeeping.prune(alpha, QUEUE)
    with pytest.raises(CursorExpired):
        await list_tickets(alpha, limit=2, cursor=page.cursor)
    with pytest.raises(CursorExpired):
        await count_tickets(alpha, at=page.position)
    assert (await list_tickets(alpha, limit=2, cursor=later.cursor)).items


async def test_a_cursor_is_of_one_list_only(alpha: Workspace, beta: Workspace) -> None:
    await desk_in(alpha, 4)
    await desk_in(beta, 4)
    cursor = (await list_tickets(alpha, limit=2)).cursor
    assert cursor is not None
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?# ")
    for other in ({"tickets": QueueFilter(statuses=["open"])}, {"sort": "number"}):
        with pytest.raises(CursorInvalid):
            await list_tickets(alpha, cursor=cursor, **other)
    with pytest.raises(CursorExpired):  # another log, so another epoch
        await list_tickets(beta, cursor=cursor)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "!!!", "é", "\0", "a" * 5_000, "bnVsbA", "W10",
        urlsafe_b64encode(b'["ticket_queue_v3",1,2,3,4,5]').decode(),
        urlsafe_b64encode(b'{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}').decode(),
        urlsafe_b64encode(b'["ticket_queue_v3","e",99999999999999999999,"d",[1],null]').decode(),
        urlsafe_b64encode(b'["ticket_queue_v3","e",true,"d",[1],null]').decode(),
        urlsafe_b64encode(b'["audit_trail_v1","e",1,"d",[1],null]').decode(),
    ],
)  # fmt: skip
async def test_what_is_not_a_cursor_is_refused(alpha: Workspace, text: str) -> None:
    await bookkeeping.prepare(alpha, VIEWS)
    with pytest.raises(CursorInvalid):
        await list_tickets(alpha, cursor=text)


async def test_a_cursor_bent_by_hand_never_breaks_the_query(alpha: Workspace) -> None:
    await desk_in(alpha, 4)
    where = QueueFilter().where()
    epoch = await alpha.log.epoch()
    bent: tuple[list[Any], ...] = (
        [1, 2],
        ["yesterday", 2],
        ["2026-01-01T00:00:00", 1],
        [None, None],
        [{}, []],
        ["infinity", 1],
        [1],
    )
    for last in bent:
        digest = where.digest("updated")
        text = f'["{QUEUE.label}","{epoch}",3,"{digest}",{last},null]'.replace("'", '"').replace("None", "null")
        with pytest.raises(CursorInvalid):
            await list_tickets(alpha, cursor=urlsafe_b64encode(text.encode()).decode())


async def test_an_empty_list_names_its_position_too(alpha: Workspace) -> None:
    await desk_in(alpha, 4)
    page: Listing[QueueEntry] = await list_tickets(alpha, QueueFilter(statuses=[]))
    assert (page.items, page.cursor) == ([], None)
    assert page.position == (await alpha.log.head()).position
    assert (await count_tickets(alpha, QueueFilter(statuses=[]))).counts == {}


async def test_subjects_are_stored_sealed_and_shown_open(alpha: Workspace) -> None:
    desk = await desk_in(alpha, 4)
    ticket = desk.tickets[0]
    entry, _ = await find_ticket(alpha, ticket.id)
    assert entry is not None
    assert entry.subject == ticket.subject
    async with alpha.database.pool.connection() as connection:
        cursor = await connection.execute(f'SELECT subject_sealed FROM "{alpha.schema}"."{QUEUE.label}"'.encode())
        sealed = [row[0] for row in await cursor.fetchall()]
    assert sealed
    assert not any(ticket.subject in token for ticket in desk.tickets for token in sealed)
    assert await find_ticket(alpha, desk.new_id()) == (None, (await alpha.log.head()).position)


async def test_before_a_view_exists_its_lists_say_so(beta: Workspace) -> None:
    with pytest.raises(ViewsNotReady):
        await list_tickets(beta)
    with pytest.raises(ViewsNotReady):
        await count_tickets(beta)
    (status,) = await bookkeeping.view_status(beta, [QUEUE])
    assert status.state == "absent"
