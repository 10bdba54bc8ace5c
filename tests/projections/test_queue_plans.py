"""The lists on an agent's screen are read from indexes in their order, however many tickets there are.

Each is asked for over connections that have planned it while the queue was empty, once it holds some tickets and the
server has taken no statistics; and over new ones, whose plans the server tells, with a million.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
import pytest
import uvloop
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from projections.bookkeeping import prepare
from projections.registry import VIEWS
from projections.ticket_queue import VIEW, QueueFilter, list_tickets
from tests.conftest import new_database
from tests.storage.plans import TELL_PLANS, Plan, PlansMade
from tests.storage.test_plans import SCHEMA, Process, id_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from storage.settings import Settings
    from tests.conftest import Server

FEW, MANY = 20_000, 1_000_000
LIMIT: Final = 50
SETTLED: Final = 14  # times: psycopg prepares, and five later the server plans for any parameters
UNFINISHED: Final = ["new", "open", "pending", "on_hold"]
NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
SOON: Final = timedelta(minutes=30)
TEAM, OTHER, AGENT = id_of(3), id_of(4), id_of(5)
TABLE = VIEW.label
BY_TEAM = {"updated": "team_id_status_updated_at_number", "due": "team_id_status_coalesce_number",
           "priority": "team_id_status_urgency_rank_opened_at_numbe"}  # fmt: skip
BY_STATUS = {"updated": "status_updated_at_number", "due": "status_coalesce_number",
             "priority": "status_urgency_rank_opened_at_number"}  # fmt: skip


class Asked(NamedTuple):
    """A list, and the indexes that may be used for it."""

    tickets: QueueFilter
    sort: str
    by: set[str]


LISTS: Final[dict[str, Asked]] = {
    **{f"team and status by {sort}": Asked(QueueFilter(teams=[TEAM], statuses=["open"]), sort, {index})
       for sort, index in BY_TEAM.items()},
    **{f"team and what is unfinished by {sort}": Asked(QueueFilter(teams=[TEAM], statuses=UNFINISHED), sort, {index})
       for sort, index in BY_TEAM.items()},
    **{f"two teams and two statuses by {sort}":
       Asked(QueueFilter(teams=[TEAM, OTHER], statuses=["open", "new"]), sort, {index})
       for sort, index in BY_TEAM.items()},
    **{f"nobody's of a team by {sort}":
       Asked(QueueFilter(teams=[TEAM], agent="unassigned", statuses=["open"]), sort, {index})
       for sort, index in BY_TEAM.items()},
    "team by updated": Asked(QueueFilter(teams=[TEAM]), "updated", {BY_TEAM["updated"]}),
    "team by due": Asked(QueueFilter(teams=[TEAM]), "due", {BY_TEAM["due"], BY_STATUS["due"]}),
    "agent and status": Asked(QueueFilter(agent=AGENT, statuses=["open"]), "updated",
                              {"agent_id_status_updated_at_number"}),
    "agent": Asked(QueueFilter(agent=AGENT), "updated", {"agent_id_status_updated_at_number"}),
    **{f"status by {sort}": Asked(QueueFilter(statuses=["open"]), sort, {index}) for sort, index in BY_STATUS.items()},
    **{f"what is unfinished by {sort}": Asked(QueueFilter(statuses=UNFINISHED), sort, {index})
       for sort, index in BY_STATUS.items()},
    "status by opened": Asked(QueueFilter(statuses=["open"]), "opened", {BY_STATUS["priority"]}),
    "closed by updated": Asked(QueueFilter(statuses=["closed"]), "updated", {BY_STATUS["updated"]}),
    "every ticket by updated": Asked(QueueFilter(), "updated", {BY_STATUS["updated"]}),
    "every ticket by due": Asked(QueueFilter(), "due", {BY_STATUS["due"]}),
    "what is unfinished and due soon by due": Asked(QueueFilter(statuses=UNFINISHED, due_within=SOON), "due", {BY_STATUS["due"]}),
    "a team's due soon by due": Asked(QueueFilter(teams=[TEAM], statuses=UNFINISHED, due_within=SOON), "due", {BY_TEAM["due"]}),
    "due soon by due": Asked(QueueFilter(due_within=SOON), "due", {BY_STATUS["due"]}),
    "every ticket by number": Asked(QueueFilter(), "number", {"number"}),
}  # fmt: skip


@dataclass
class Queue:
    """What was seen: the pages looked at for connections from the beginning, with few tickets; the plans of new ones with many."""

    pages: dict[str, int] = field(default_factory=dict)
    plans: dict[str, list[Plan]] = field(default_factory=dict)


async def looked_at(
    process: Process, question: Callable[[Process], Awaitable[object]], owner: psycopg.AsyncConnection[Any]
) -> int:
    """Give how many pages of the queue and its indexes the server looks at for one asking."""
    seen = []
    for _ in range(2):
        await question(process)
        async with process.database.pool.connection() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
        cursor = await owner.execute(
            "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_all_tables"
            " WHERE schemaname = %s AND relname = %s",
            (SCHEMA, TABLE),
        )
        seen += await cursor.fetchall()
    return int(seen[1][0] - seen[0][0])


def ask(name: str) -> Callable[[Process], Awaitable[object]]:
    asked = LISTS[name]
    return lambda process: list_tickets(process.workspace, asked.tickets, sort=asked.sort, limit=LIMIT, now=NOW)


@pytest.fixture(scope="module")
def queue(server: Server, template: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    with (
        new_database(server, "queue_plans", template=template) as name,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        yield runner.run(filled(server.settings(name, tmp_path_factory.mktemp("queue_plans"), key_file)))


async def filled(settings: Settings) -> Queue:
    queue = Queue()
    quiet = replace(settings, pool_size=1)
    telling = make_conninfo(settings.database_url or "", options=TELL_PLANS)
    async with AsyncExitStack() as stack:
        owner = await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True)
        await stack.enter_async_context(owner)
        unbroken = await Process.start(quiet, stack)
        await prepare(unbroken.workspace, VIEWS)
        # Statistics make the server plan anew, and what is kept from the beginning is in question.
        await owner.execute(_in_place("ALTER TABLE {place} SET (autovacuum_enabled = off)"))
        for name in LISTS:
            for _ in range(SETTLED):
                await ask(name)(unbroken)
        await owner.execute(_in_place(_FILL), {"first": 1, "last": FEW})
        for name in LISTS:
            queue.pages[name] = await looked_at(unbroken, ask(name), owner)
        cursor = await owner.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = %s AND indexname NOT LIKE '%%pkey'",
            (SCHEMA, TABLE),
        )
        for (index,) in await cursor.fetchall():
            await owner.execute(SQL("DROP INDEX {}").format(Identifier(SCHEMA, index)))
        await owner.execute(_in_place(_FILL), {"first": FEW + 1, "last": MANY})
        await VIEW.shelf(SCHEMA).create_indexes(owner)
        await owner.execute(_in_place("ANALYZE {place}"))
        fresh = await Process.start(replace(quiet, database_url=telling), stack)
        cursor = await owner.execute("SELECT oid::int8, relname FROM pg_class")
        names: dict[int, str] = dict(await cursor.fetchall())
        made = PlansMade()
        for connection in await fresh.connections():
            made.hear(connection)
        for name in LISTS:
            with made.forgotten():
                for _ in range(SETTLED):
                    await ask(name)(fresh)
            queue.plans[name] = [plan for plan in made.plans(names) if any(scan.table == TABLE for scan in plan.scans)]
    return queue


def _in_place(statement: str) -> Any:
    return SQL(statement).format(place=Identifier(SCHEMA, TABLE))


_FILL: Final = """
INSERT INTO {place} (ticket_id, since, number, version, status, priority, urgency_rank, type, tags, team_id, agent_id,
                     requester_id, channel, level, opened_at, updated_at, due_at, timer_at, timeline)
SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 0, n, 1, status, 'normal', n / 7 %% 4, 'task',
       '{{}}', ('00000000-0000-4000-8000-' || lpad(to_hex(n / 100 %% 50), 12, '0'))::uuid,
       CASE WHEN n %% 5 > 0 THEN ('00000000-0000-4000-8000-' || lpad(to_hex(n / 100 %% 500), 12, '0'))::uuid END,
       ('00000000-0000-4000-8000-' || lpad(to_hex(n %% 20000), 12, '0'))::uuid, 'email', 0,
       timestamptz '2026-01-01Z' + n * interval '7 s', timestamptz '2026-01-01Z' + n * interval '9 s',
       CASE WHEN status NOT IN ('solved', 'closed') THEN timestamptz '2026-01-01Z' + n * 7919 %% 9000000 * interval '1 s' END,
       CASE WHEN n %% 50 = 0 THEN timestamptz '2026-01-01Z' + n * 7919 %% 9000000 * interval '1 s' END, ''
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
CROSS JOIN LATERAL (SELECT CASE WHEN n * 79 %% 100 < 1 THEN 'new' WHEN n * 79 %% 100 < 7 THEN 'open'
    WHEN n * 79 %% 100 < 11 THEN 'pending' WHEN n * 79 %% 100 < 12 THEN 'on_hold'
    WHEN n * 79 %% 100 < 20 THEN 'solved' ELSE 'closed' END AS status) s
"""


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_a_million_tickets_comes_from_an_index_in_order(queue: Queue, name: str) -> None:
    assert queue.plans[name]
    for plan in queue.plans[name]:
        scans = {scan for scan in plan.scans if scan.table == TABLE}
        assert {scan.kind for scan in scans} == {"INDEXSCAN"}
        assert {scan.by for scan in scans} <= {f"{TABLE}_{index}_idx" for index in LISTS[name].by}
        assert not plan.sorts


@pytest.mark.parametrize("name", LISTS)
def test_a_list_planned_while_the_queue_was_empty_looks_at_little_more_than_it_gives(queue: Queue, name: str) -> None:
    # A page or two of an index and one of the table a row, and the way down to each part of the list. All have 900.
    assert queue.pages[name] <= 200
