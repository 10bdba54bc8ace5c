"""What stood then is what the events up to then say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from domain.agent import Agent
from domain.customer import Customer
from domain.priority import Priority
from domain.status import Status
from domain.team import Team
from domain.ticket import Ticket
from replay.as_of import BeforeItExisted, NoSuchMoment, as_of
from replay.stream import NoSuchStream
from tests.replay.lives import Cast, act, append

if TYPE_CHECKING:
    from domain.event import Aggregate
    from storage.database import Workspace


def values(aggregate: Aggregate) -> dict[str, Any]:
    return {name: value for name, value in vars(aggregate).items() if name != "_pending_events"}


async def test_as_of_any_version_is_the_fold_of_the_events_before_it(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.lived()
    lived: list[Any] = list(ticket.pending_events)
    appended = await append(alpha, ticket)
    expected: Aggregate | None = None
    for event in lived:
        expected = event.mutate(expected)
        assert expected is not None
        found = await as_of(alpha, Ticket, ticket.id, version=event.originator_version)
        assert values(found.aggregate) == values(expected)
        assert found.position == appended.first_position + event.originator_version - 1
        assert found.last.event.originator_version == event.originator_version
        assert not found.provisional
    assert values((await as_of(alpha, Ticket, ticket.id)).aggregate) == values(ticket)


async def test_as_of_a_position_counts_what_was_recorded_up_to_it_on_any_stream(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    one, other = cast.open(), cast.open()
    positions = []
    for step in (
        None,
        lambda ticket, at: ticket.change_priority(priority=Priority.HIGH, act=act(cast.ann.id, at)),
        lambda ticket, at: ticket.change_priority(priority=Priority.URGENT, act=act(cast.ann.id, at)),
    ):
        for ticket in (one, other):
            if step is not None:
                step(ticket, 1)
            positions.append((await append(alpha, ticket)).position)

    found = [await as_of(alpha, Ticket, one.id, position=position) for position in positions]

    expected = [Priority.NORMAL, Priority.NORMAL, Priority.HIGH, Priority.HIGH, Priority.URGENT, Priority.URGENT]
    assert [then.aggregate.priority for then in found] == expected
    assert [then.position for then in found] == positions
    with pytest.raises(BeforeItExisted, match=f"first recorded at position {positions[1]}"):
        await as_of(alpha, Ticket, other.id, position=positions[0])
    with pytest.raises(NoSuchMoment, match=f"not {positions[-1] + 1}"):
        await as_of(alpha, Ticket, one.id, position=positions[-1] + 1)


async def test_an_instant_is_recorded_time_and_provisional_until_something_later_is_recorded(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.open()
    opened = await append(alpha, ticket)
    instant = opened.recorded_at

    # The ticket occurred long before it was recorded; the instant asks for what the desk knew.
    with pytest.raises(BeforeItExisted):
        await as_of(alpha, Ticket, ticket.id, instant=instant - timedelta(microseconds=1))
    before = await as_of(alpha, Ticket, ticket.id, instant=instant)
    assert (before.position, before.provisional) == (opened.position, True)

    while datetime.now(UTC) <= instant:  # the clock of the same machine, in microseconds
        pass
    ticket.assign(agent=cast.ann, act=act(cast.ann.id, 1))
    assigned = await append(alpha, ticket)
    after = await as_of(alpha, Ticket, ticket.id, instant=instant)
    assert assigned.recorded_at > instant
    assert (after.position, after.provisional, after.aggregate.status) == (opened.position, False, Status.NEW)
    now = await as_of(alpha, Ticket, ticket.id, instant=assigned.recorded_at + timedelta(days=1))
    assert (now.aggregate.status, now.position, now.provisional) == (Status.OPEN, assigned.position, True)


async def test_customers_agents_and_teams_can_be_seen_as_of_then(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    cast.ann.rename(name="Ann Li", act=act(cast.ann.id, 1))
    cast.network.deactivate(act=act(cast.ann.id, 1))
    await append(alpha, cast.ann, cast.network)

    assert (await as_of(alpha, Agent, cast.ann.id, version=1)).aggregate.name == "Ann Lee"
    assert (await as_of(alpha, Agent, cast.ann.id)).aggregate.name == "Ann Li"
    assert (await as_of(alpha, Team, cast.network.id, version=1)).aggregate.active
    assert not (await as_of(alpha, Team, cast.network.id)).aggregate.active
    assert (await as_of(alpha, Customer, cast.wang.id)).aggregate.name == "王小明"


async def test_what_never_was_is_refused_by_name(alpha: Workspace, beta: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.open()
    await append(alpha, ticket)

    with pytest.raises(NoSuchStream, match="there is no ticket"):
        await as_of(alpha, Ticket, uuid4())
    with pytest.raises(NoSuchStream):
        await as_of(alpha, Ticket, cast.ann.id)
    with pytest.raises(NoSuchStream):
        await as_of(beta, Ticket, ticket.id)
    with pytest.raises(NoSuchMoment, match="has come to version 1, not 2"):
        await as_of(alpha, Ticket, ticket.id, version=2)
    with pytest.raises(NoSuchMoment, match="begin at 1"):
        await as_of(alpha, Ticket, ticket.id, version=0)
    with pytest.raises(ValueError, match="not several"):
        await as_of(alpha, Ticket, ticket.id, version=1, position=1)
    with pytest.raises(ValueError, match="zone"):
        await as_of(alpha, Ticket, ticket.id, instant=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused
