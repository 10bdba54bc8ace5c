"""Everything of a customer is in one list: across tickets, newest first, with what is personal opened on reading."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from psycopg import AsyncConnection

from domain.customer_events import CustomerEvent
from domain.event import ERASED, Channel
from domain.ticket_events import CustomerMessageReceived, RequesterChanged, TicketEvent
from projections.customer_history import VIEW, Happening, HistoryFilter, Kind, list_history
from projections.registry import VIEWS
from projections.runner import Runner
from storage.database import reach
from tests.projections.desk_days import NOON, DeskDays, as_recorded, record
from tests.projections.test_folds import folded

if TYPE_CHECKING:
    from domain.event import Event
    from storage.database import Workspace
    from storage.settings import Settings
    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio


def concerns(event: Event, customer: UUID) -> bool:
    """Say whom an event concerns, apart from the fold."""
    if isinstance(event, CustomerEvent):
        return event.originator_id == customer
    if not isinstance(event, TicketEvent):
        return False
    ids = {event.requester_id}
    if isinstance(event, CustomerMessageReceived):
        ids.add(event.author_id)
    if isinstance(event, RequesterChanged):
        ids.add(event.previous_requester_id)
    if event.TOPIC in {"ticket.cc_added", "ticket.cc_removed"}:
        ids.add(event.cc_id)  # type: ignore[attr-defined]
    return customer in ids


async def desk_in(workspace: Workspace) -> tuple[DeskDays, list[Event]]:
    desk = DeskDays(41)
    events = [*desk.first(), *desk.more(250)]
    ticket, (ann, ben, _) = desk.open(requester_id=desk.customers[0].id), desk.customers
    ticket.record_customer_message(text="Mine, too", channel=Channel.EMAIL, author_id=ben.id, act=desk.act())
    ticket.add_cc(customer_id=ben.id, act=desk.act())
    ticket.change_requester(requester_id=ben.id, act=desk.act())
    ticket.remove_cc(customer_id=ben.id, act=desk.act())
    ticket.change_requester(requester_id=ann.id, act=desk.act())
    events += ticket.collect_events()  # type: ignore[arg-type]
    await record(workspace, events)
    await Runner(workspace.database, VIEWS, "us").catch_up(workspace)
    return desk, events


async def whole(workspace: Workspace, which: HistoryFilter, *, limit: int = 17) -> list[Happening]:
    found: list[Happening] = []
    cursor = None
    while True:
        page = await list_history(workspace, which, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found


async def test_a_customer_has_every_event_that_concerns_that_customer_newest_first(alpha: Workspace) -> None:
    desk, events = await desk_in(alpha)
    for customer in desk.customers:
        found = await whole(alpha, HistoryFilter(customer=customer.id))
        expected = [(event.timestamp, place, event) for place, event in enumerate(events, start=1)]
        assert [(one.occurred_at, one.position, one.event.event) for one in found if one.event] == sorted(
            (one for one in expected if concerns(one[2], customer.id)), key=lambda one: one[:2], reverse=True
        )
        assert len(found) > 30


async def test_a_history_is_narrowed_by_ticket_kind_and_period(alpha: Workspace) -> None:
    desk, _ = await desk_in(alpha)
    customer = desk.customers[0].id
    everything = await whole(alpha, HistoryFilter(customer=customer))
    assert {one.kind for one in everything} >= set(Kind) - {Kind.PEOPLE}
    one, other = sorted({item.ticket_id for item in everything if item.ticket_id}, key=str)[:2]
    begin, end = everything[-10].occurred_at, everything[10].occurred_at
    assert [item async for item in _of(alpha, customer, tickets=[one])] == [i for i in everything if i.ticket_id == one]
    assert [item async for item in _of(alpha, customer, tickets=[one, other], kinds=[Kind.STATUS])] == [
        item for item in everything if item.ticket_id in {one, other} and item.kind is Kind.STATUS
    ]
    assert [item async for item in _of(alpha, customer, occurred_from=begin, occurred_before=end)] == [
        item for item in everything if begin <= item.occurred_at < end
    ]


async def _of(workspace: Workspace, customer: UUID, **which: Any) -> Any:
    for one in await whole(workspace, HistoryFilter(customer=customer, **which)):
        yield one


async def test_what_was_before_a_change_of_requester_stays_with_the_one_before() -> None:
    desk = DeskDays(2)
    ann, ben, _ = (customer.id for customer in desk.customers)
    ticket = desk.open(requester_id=ann)
    ticket.change_requester(requester_id=ben, act=desk.act())
    ticket.reply(text="Dear Ben", agent_id=desk.agents[0].id, act=desk.act())
    rows = folded(VIEW, as_recorded(ticket.collect_events())).values()  # type: ignore[arg-type]
    assert {(row["customer_id"], row["topic"]) for row in rows} == {
        (ann, "ticket.opened"),
        (ann, "ticket.requester_changed"),
        (ben, "ticket.requester_changed"),
        (ben, "ticket.replied"),
    }


async def test_a_list_that_was_begun_goes_on_as_it_was(alpha: Workspace) -> None:
    desk, _ = await desk_in(alpha)
    which = HistoryFilter(customer=desk.customers[0].id)
    before = await whole(alpha, which)
    first = await list_history(alpha, which, limit=5)
    # What is recorded later may have occurred long before.
    desk.at = NOON - timedelta(days=400)
    late = desk.open(requester_id=desk.customers[0].id)
    await record(alpha, late.collect_events())  # type: ignore[arg-type]
    await Runner(alpha.database, VIEWS, "us").catch_up(alpha)
    rest = await list_history(alpha, which, limit=1_000, cursor=first.cursor)
    assert first.items + rest.items == before
    assert (await whole(alpha, which))[-1].ticket_id == late.id


@pytest.mark.spoils_views
async def test_nothing_personal_is_in_the_table_and_what_is_erased_reads_so(
    alpha: Workspace, settings: Settings
) -> None:
    desk, _ = await desk_in(alpha)
    ann, ben, _ = (customer.id for customer in desk.customers)
    async with alpha.database.pool.connection() as connection:
        cursor = await connection.execute(f"SELECT t::text FROM {alpha.schema}.{VIEW.label} t".encode())
        table = "\n".join(row[0] for row in await cursor.fetchall())
    assert "Please" not in table
    assert "客户" not in table

    async def bodies() -> set[str]:
        found = await whole(alpha, HistoryFilter(customer=ann, kinds=[Kind.OPENED]))
        return {one.event.event.body for one in found if one.event is not None}

    assert await bodies() == {"Please help."}
    async with (
        reach(settings, "owner") as address,
        await AsyncConnection.connect(address, autocommit=True) as owner,
    ):
        await owner.execute(f"DELETE FROM {alpha.schema}.personal_keys WHERE subject_id = %s".encode(), (ann,))
        alpha.keyring.forget()
        assert await bodies() == {ERASED}
        messages = await whole(alpha, HistoryFilter(customer=ben, kinds=[Kind.MESSAGE]))
        assert "Mine, too" in {one.event.event.text for one in messages if one.event is not None}
        position = messages[0].position
        await owner.execute(f"DELETE FROM {alpha.schema}.events WHERE notification_id = %s".encode(), (position,))
        (gone, *others) = await whole(alpha, HistoryFilter(customer=ben, kinds=[Kind.MESSAGE]))
        assert (gone.event, gone.unreadable) == (None, "missing_event")
        assert all(one.event is not None for one in others)


async def test_an_agent_on_the_phone_sees_customer_tickets_and_what_was_said_on_one_screen(desk: DeskOverHttp) -> None:
    customer = desk.ids["customer"]
    one = await desk.open(subject="打印机着火", channel="phone")
    await desk.done(f"/tickets/{one['id']}/reply", {"text": "请稍等。"})
    other = await desk.open(subject="VPN down")
    await desk.done(f"/tickets/{other['id']}/solve", {"resolution_code": "fixed"})
    await desk.catch_up()
    path = f"/customers/{customer}/history"
    told = (await desk.get(path, params={"after": await desk.head()})).json()
    assert told["customer"]["name"] == "王小明"
    assert told["tickets_by_status"] == {"open": 1, "solved": 1}
    assert [(item["kind"], item["entry"] and item["entry"]["event"]) for item in told["items"]] == [
        ("status", "solved"), ("opened", "opened"), ("reply", "replied"), ("opened", "opened"),
        ("customer", "registered"),
    ]  # fmt: skip
    assert told["items"][2]["entry"]["message"]["text"] == "请稍等。"
    assert told["items"][2]["entry"]["actor"]["name"] == "Ann Lee"
    assert told["tickets"][one["id"]] == {
        "number": one["number"], "subject": "打印机着火", "status": "open", "priority": "normal", "requester_id": customer,
    }  # fmt: skip
    page = (await desk.get(path, params={"kind": ["reply", "status"], "ticket": one["number"], "limit": 1})).json()
    assert [item["entry"]["event"] for item in page["items"]] == ["replied"]
    assert page["next_cursor"] is None
    assert (await desk.get(f"/customers/{UUID(int=7)}/history")).status_code == 404
    assert (await desk.get(path, params={"kind": "satisfaction"})).status_code == 422
