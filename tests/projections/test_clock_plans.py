"""Lists of clocks come from indexes in their order, also with the clocks of a million tickets.

Asked over new connections, whose plans the server tells, as long as it takes for plans to be kept.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
import pytest
import uvloop
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from domain.sla_clocks import ClockState
from domain.sla_terms import Metric
from projections.bookkeeping import prepare
from projections.registry import VIEWS
from projections.sla_clock import VIEW, ClockFilter, list_clocks
from tests.conftest import new_database
from tests.projections.test_queue_plans import LIMIT, SETTLED
from tests.storage.plans import TELL_PLANS, Plan, PlansMade
from tests.storage.test_plans import SCHEMA, Process, id_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.settings import Settings
    from tests.conftest import Server

TICKETS: Final = 1_000_000
TABLE: Final = VIEW.label
NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
SOON: Final = timedelta(minutes=30)
RUNNING: Final = f"{TABLE}_due_at_ticket_id_metric_idx"
EVERY: Final = f"{TABLE}_due_at_ticket_id_metric_idx1"
TEAM, AGENT = f"{TABLE}_team_id_due_at_idx", f"{TABLE}_agent_id_due_at_idx"


class Asked(NamedTuple):
    """A list, and the indexes that may be used for it."""

    clocks: ClockFilter
    by: set[str]


LISTS: Final[dict[str, Asked]] = {
    "all": Asked(ClockFilter(), {EVERY}),
    "running and due soon": Asked(ClockFilter(states=[ClockState.ACTIVE], due_within=SOON), {RUNNING}),
    "one metric, running and due soon": Asked(
        ClockFilter(states=[ClockState.ACTIVE], metrics=[Metric.FIRST_REPLY], due_within=SOON), {RUNNING}
    ),
    "running": Asked(ClockFilter(states=[ClockState.ACTIVE]), {RUNNING}),
    "due soon or overdue": Asked(ClockFilter(due_within=SOON), {EVERY, RUNNING}),
    "a team's, running and due soon": Asked(
        ClockFilter(states=[ClockState.ACTIVE], teams=[id_of(3)], due_within=SOON), {RUNNING, TEAM}
    ),
    "an agent's, running and due soon": Asked(
        ClockFilter(states=[ClockState.ACTIVE], agent=id_of(5), due_within=SOON), {RUNNING, AGENT}
    ),
    # Of one in fifty, so that going by the instants of all finds fifty soon enough.
    "a team's": Asked(ClockFilter(teams=[id_of(3)]), {TEAM, EVERY}),
    "an agent's": Asked(ClockFilter(agent=id_of(5)), {AGENT}),
}


@pytest.fixture(scope="module")
def plans(
    server: Server, template: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[Plan]]]:
    with (
        new_database(server, "clock_plans", template=template) as name,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        yield runner.run(made(server.settings(name, tmp_path_factory.mktemp("clock_plans"), key_file)))


async def made(settings: Settings) -> dict[str, list[Plan]]:
    found: dict[str, list[Plan]] = {}
    quiet = replace(settings, pool_size=1)
    async with AsyncExitStack() as stack:
        owner = await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True)
        await stack.enter_async_context(owner)
        first = await Process.start(quiet, stack)
        await prepare(first.workspace, VIEWS)
        cursor = await owner.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = %s AND indexname NOT LIKE '%%pkey'",
            (SCHEMA, TABLE),
        )
        for (index,) in await cursor.fetchall():
            await owner.execute(SQL("DROP INDEX {}").format(Identifier(SCHEMA, index)))
        await owner.execute(_in_place(_FILL), {"last": TICKETS, "now": NOW})
        await VIEW.shelf(SCHEMA).create_indexes(owner)
        await owner.execute(_in_place("ANALYZE {place}"))
        telling = make_conninfo(settings.database_url or "", options=TELL_PLANS)
        fresh = await Process.start(replace(quiet, database_url=telling), stack)
        cursor = await owner.execute("SELECT oid::int8, relname FROM pg_class")
        names: dict[int, str] = dict(await cursor.fetchall())
        plans = PlansMade()
        for connection in await fresh.connections():
            plans.hear(connection)
        for name, asked in LISTS.items():
            with plans.forgotten():
                for _ in range(SETTLED):
                    await list_clocks(fresh.workspace, asked.clocks, now=NOW, limit=LIMIT)
            found[name] = [plan for plan in plans.plans(names) if any(scan.table == TABLE for scan in plan.scans)]
    return found


def _in_place(statement: str) -> Any:
    return SQL(statement).format(place=Identifier(SCHEMA, TABLE))


# Of a hundred tickets twelve are worked at, of which each has one clock that runs or waits, and some have a second.
_FILL: Final = """
INSERT INTO {place} (ticket_id, metric, since, number, status, priority, team_id, agent_id, serial, started_at, due_at,
                     ended_at, fulfilled, paused_at, target_amount, target_unit, end_of_day, manual, allowed, used, runs_since)
SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, metric, 0, n, CASE WHEN open THEN 'open' ELSE 'closed' END,
       'normal', ('00000000-0000-4000-8000-' || lpad(to_hex(n / 100 %% 50), 12, '0'))::uuid,
       ('00000000-0000-4000-8000-' || lpad(to_hex(n / 100 %% 500), 12, '0'))::uuid, 1, opened, due,
       CASE WHEN NOT open THEN due - interval '1 hour' * (n %% 5 - 1) END, NOT open,
       CASE WHEN open AND n %% 3 = 0 THEN opened END, 3600, 'calendar', false, false, 3600000000, 0, opened
FROM generate_series(1, %(last)s::bigint) n
CROSS JOIN LATERAL (SELECT n * 79 %% 100 < 12 AS open) s
CROSS JOIN LATERAL (SELECT metric FROM unnest(ARRAY['total_resolution', 'first_reply']) metric
                    WHERE metric = 'total_resolution' OR (open AND n %% 2 = 0)) m
CROSS JOIN LATERAL (SELECT CASE WHEN open THEN %(now)s::timestamptz + (n * 7919 %% 200000 - 40000) * interval '1 s'
                           ELSE %(now)s::timestamptz - (%(last)s - n) * interval '30 s' END AS due) d
CROSS JOIN LATERAL (SELECT due - interval '1 day' AS opened) o
"""


@pytest.mark.parametrize("name", LISTS)
def test_clocks_of_a_million_tickets_are_listed_from_an_index(plans: dict[str, list[Plan]], name: str) -> None:
    assert plans[name]
    for plan in plans[name]:
        scans = {scan for scan in plan.scans if scan.table == TABLE}
        assert "SEQSCAN" not in {scan.kind for scan in scans}
        assert {scan.by for scan in plan.scans if scan.by and scan.by.startswith(TABLE)} <= LISTS[name].by
