"""The demo desk: believable, the same every time, and really recorded."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from commands.customers import EMAIL
from commands.demo import DAYS, DemoDesk, NotEmpty, imagine, load_demo
from commands.desk import Desk
from domain.customer import Customer
from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.status import Status
from domain.team import Team
from domain.ticket import Ticket
from storage.append import Submission
from storage.codec import decode, encode

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
    assert {ticket.terms and ticket.terms.policy for ticket in cast.tickets} == set(cast.levels.book.policies)
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
    with pytest.raises(NotEmpty):
        await load_demo(alpha, NOW)
    assert (await alpha.log.head()).position == made.position


async def test_a_desk_that_people_have_used_gets_no_demo(alpha: Workspace) -> None:
    act = Act(NOW, Provenance(actor_id=SYSTEM_ACTOR, role=Role.ADMINISTRATOR, channel=Channel.API))
    team = Team.create(team_id=uuid4(), name="Ours", act=act)
    await alpha.log.append(Submission([encode(event, alpha.keyring) for event in team.pending_events]))  # type: ignore[arg-type]
    with pytest.raises(NotEmpty, match="has 1 events"):
        await load_demo(alpha, NOW)
    assert (await alpha.log.head()).position == 1


async def test_of_two_loads_at_once_one_makes_the_demo(alpha: Workspace) -> None:
    outcomes = await asyncio.gather(load_demo(alpha, NOW), load_demo(alpha, NOW), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["DemoDesk", "NotEmpty"]
    assert (await alpha.log.head()).position == max(o.position for o in outcomes if isinstance(o, DemoDesk))


LOADED = f"""
    import asyncio
    from datetime import datetime
    from commands.demo import load_demo
    from storage.database import Database
    from storage.settings import Settings

    async def main():
        async with await Database.open(Settings.from_environment()) as database:
            await load_demo(await database.workspace("alpha"), datetime.fromisoformat("{NOW.isoformat()}"))

    asyncio.run(main())
"""


async def test_a_load_killed_half_way_leaves_nothing_and_the_next_one_makes_the_whole_demo(
    alpha: Workspace, beta: Workspace, environment: dict[str, str]
) -> None:
    async with await psycopg.AsyncConnection.connect(environment["DATABASE_URL"]) as watcher:
        # Nobody can write to the log for now, so that the load stops amid its work.
        await watcher.execute(sql.SQL("LOCK TABLE {}.events IN SHARE MODE").format(sql.Identifier(alpha.schema)))
        load = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(LOADED), env=environment, cwd=Path(__file__).parents[2]
        )
        while not await _somebody_waits_for_the_log(watcher, alpha):
            assert load.returncode is None
            await asyncio.sleep(0.05)
        load.kill()
        assert await load.wait() == -signal.SIGKILL
    made = await load_demo(alpha, NOW)
    assert made == await load_demo(beta, NOW)
    assert await _what_lies(alpha) == await _what_lies(beta)


async def _somebody_waits_for_the_log(watcher: psycopg.AsyncConnection[Any], workspace: Workspace) -> bool:
    cursor = await watcher.execute(
        "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass", [f"{workspace.schema}.events"]
    )
    return await cursor.fetchone() is not None


async def _what_lies(workspace: Workspace) -> list[tuple[Any, ...]]:
    """Give the log without its salts and recorded times."""
    found = []
    rows = await workspace.log.page(0, 10_000)
    await workspace.keyring.load(rows)
    for row in rows:
        event = decode(row, workspace.keyring).event
        found.append((row.position, row.stream, row.version, row.topic, event))
    return found
