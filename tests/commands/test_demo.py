"""The demo desk: believable, the same every time, and really recorded."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from commands.customers import EMAIL
from commands.demo import DAYS, imagine, load_demo
from commands.desk import Desk
from domain.customer import Customer
from domain.status import Status
from domain.ticket import Ticket
from storage.append import LogError

if TYPE_CHECKING:
    from storage.database import Workspace

NOW = datetime(2024, 5, 15, 14, 30, tzinfo=UTC)


def test_the_same_seed_and_moment_give_the_same_desk_and_others_another() -> None:
    one, same, other = imagine(NOW, 7), imagine(NOW, 7), imagine(NOW, 8)
    assert [ticket.pending_events for ticket in one.tickets] == [ticket.pending_events for ticket in same.tickets]
    assert {ticket.id for ticket in one.tickets}.isdisjoint(ticket.id for ticket in other.tickets)


@pytest.mark.parametrize("seed", range(5))
def test_the_desk_is_small_varied_and_lies_in_the_last_weeks(seed: int) -> None:
    cast = imagine(NOW, seed)
    assert (len(cast.teams), len(cast.agents), len(cast.customers), len(cast.tickets)) == (4, 12, 60, 300)
    assert set(Counter(ticket.status for ticket in cast.tickets)) == set(Status)
    events = [event for ticket in cast.tickets for event in ticket.pending_events]
    assert all(NOW - timedelta(days=DAYS, hours=1) <= event.timestamp <= NOW for event in events)
    for ticket in cast.tickets:
        times = [event.timestamp for event in ticket.pending_events]
        assert times == sorted(times)
    assert len({type(event) for event in events}) > 14
    emails = [customer.email for customer in cast.customers]
    assert len(set(emails)) == len(emails)
    subjects = "".join(ticket.subject for ticket in cast.tickets)
    assert "{" not in subjects
    assert any("\u4e00" <= letter <= "\u9fff" for letter in subjects)


async def test_the_demo_desk_is_recorded_and_can_be_worked_on(alpha: Workspace) -> None:
    made = await load_demo(alpha, NOW)
    assert (await alpha.log.head()).position == made.position
    desk = Desk(alpha)
    ticket = await desk.load(Ticket, made.ticket_ids[-1])
    assert ticket.requester_id == made.customer_id
    customer = await desk.load(Customer, made.customer_id)
    assert customer.email is not None
    assert await desk.holder(EMAIL, customer.email) == customer.id
    rows = await alpha.log.page(0, 10_000, topics=["ticket.opened"])
    assert [row.stream for row in rows] == list(made.ticket_ids)


async def test_a_desk_that_has_the_demo_takes_it_no_second_time(alpha: Workspace) -> None:
    made = await load_demo(alpha, NOW)
    with pytest.raises(LogError):
        await load_demo(alpha, NOW)
    assert (await alpha.log.head()).position == made.position
