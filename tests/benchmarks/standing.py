"""A desk whose queue holds many tickets as they stand, put there without their history, which lists never ask for."""

from __future__ import annotations

import random
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.sql import SQL, Identifier
from pydantic_core import to_json

from domain.agent import Agent
from domain.customer import Customer
from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.team import Team
from projections.registry import VIEWS
from projections.runner import Runner
from projections.ticket_queue import VIEW
from storage.append import Submission
from storage.codec import encode
from storage.keyring import SALT_BYTES
from tests.benchmarks.ground import say
from tests.benchmarks.lives import SUBJECTS
from tests.benchmarks.seeded_course import STARTED_AT

if TYPE_CHECKING:
    from domain.event import Aggregate
    from storage.database import Workspace

TEAMS = 50
AGENTS = 500
TICKETS_A_CUSTOMER = 50
EVENTS_AT_ONCE = 500
TICKETS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose tickets they are."""

    teams: list[UUID]
    agents: list[UUID]
    customers: list[UUID]


async def let_stand(workspace: Workspace, tickets: int, *, seed: int = 1) -> Standing:
    """Record people in an empty workspace, and put tickets into its queue: four in five closed, the rest at work.

    Subjects are sealed under the keys of the requesters. Every ticket counts as true of the log's end. The view's
    statistics are taken. The workspace is opened as the application.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable tickets, no secret
    who = await _people(workspace, chance, max(10, tickets // TICKETS_A_CUSTOMER))
    await Runner(workspace.database, VIEWS).catch_up(workspace)
    await workspace.keyring.ensure(who.customers)
    shelf = VIEW.shelf(workspace.schema)
    position = (await workspace.log.head()).position
    started = time.perf_counter()
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = %s AND indexname NOT LIKE %s",
            (workspace.schema, shelf.name, "%pkey"),
        )
        for (index,) in await cursor.fetchall():
            await connection.execute(SQL("DROP INDEX {}").format(Identifier(workspace.schema, index)))
        for first in range(0, tickets, TICKETS_AT_ONCE):
            numbers = range(first + 1, min(first + TICKETS_AT_ONCE, tickets) + 1)
            ids = [UUID(int=chance.getrandbits(128), version=4) for _ in numbers]
            requesters = [chance.choice(who.customers) for _ in numbers]
            subjects = [
                _sealed(workspace, requester, ticket, f"{chance.choice(SUBJECTS)} ({number})")
                for number, ticket, requester in zip(numbers, ids, requesters, strict=True)
            ]
            values = {
                "numbers": list(numbers), "ids": ids, "requesters": requesters, "subjects": subjects,
                "teams": who.teams, "agents": who.agents, "position": position, "started": STARTED_AT,
            }  # fmt: skip
            await connection.execute(SQL(_FILL).format(place=shelf.place), values)
        say(f"standing: {tickets:,} tickets in {time.perf_counter() - started:.0f} s; now their indexes")
        await shelf.create_indexes(connection)
        await connection.execute(SQL("VACUUM ANALYZE {}").format(shelf.place))
    say(f"standing: {time.perf_counter() - started:.0f} s in all")
    return who


async def _people(workspace: Workspace, chance: random.Random, customers: int) -> Standing:
    def one() -> UUID:
        return UUID(int=chance.getrandbits(128), version=4)

    act = Act(STARTED_AT, Provenance(actor_id=SYSTEM_ACTOR, role=Role.SYSTEM, channel=Channel.SYSTEM))
    teams = [Team.create(team_id=one(), name=f"Team {n}", act=act) for n in range(TEAMS)]
    agents = [Agent.create(agent_id=one(), name=f"Agent {n}", teams=[teams[n % TEAMS]], act=act) for n in range(AGENTS)]
    registered = [Customer.register(customer_id=one(), name=f"客户 {n}", act=act) for n in range(customers)]
    everybody: list[Aggregate] = [*teams, *agents, *registered]
    await workspace.keyring.ensure([one.id for one in everybody])
    events: list[Any] = [event for one in everybody for event in one.collect_events()]
    for first in range(0, len(events), EVENTS_AT_ONCE):
        some = [encode(event, workspace.keyring) for event in events[first : first + EVENTS_AT_ONCE]]
        await workspace.log.append(Submission(some))
    return Standing([one.id for one in teams], [one.id for one in agents], [one.id for one in registered])


def _sealed(workspace: Workspace, requester: UUID, ticket: UUID, subject: str) -> str:
    """Give a subject as the queue keeps that of a ticket's first event."""
    plain = bytes(SALT_BYTES) + to_json(subject)
    return f"1.subject.{b64encode(workspace.keyring.seal(requester, ticket, 1, 'subject', plain)).decode()}"


# Numbers spread by multiplying: of a hundred tickets one is new, six open, four pending, one on hold, eight solved and
# eighty closed, whichever team they are of. Those at work have an agent, but for one in six, and are due when they are.
_FILL = """
INSERT INTO {place} (
    ticket_id, since, number, version, subject_sealed, status, priority, urgency_rank, type, category, tags, team_id,
    agent_id, requester_id, channel, level, foreign_id, opened_at, updated_at, solved_at, wake_at, due_at, timeline)
SELECT id, %(position)s, n, 6, subject, status, (ARRAY['urgent', 'high', 'normal', 'low'])[1 + rank], rank,
       (ARRAY['question', 'incident', 'problem', 'task'])[1 + n %% 4],
       (ARRAY['hardware', 'network', 'software', NULL])[1 + n %% 4],
       CASE n %% 3 WHEN 0 THEN '{{}}' WHEN 1 THEN '{{vip}}' ELSE '{{laptop,site-2}}' END::text[],
       team, agent, requester, 'email', 0, NULL, opened_at, opened_at + age / 3,
       CASE WHEN finished THEN opened_at + age / 3 END, NULL,
       CASE WHEN NOT finished THEN opened_at + promised END,
       format('[%%s,false,"new",["normal",null,"task","email",null,null,[]],null,%%s,[[%%s,"t",%%s],[%%s,"r",null],[%%s,"s",%%s]]]',
              us, us - 1, us + 1000, to_json(team), us + 7000000000, us + 9000000000, to_json(status))
FROM unnest(%(numbers)s::bigint[], %(ids)s::uuid[], %(requesters)s::uuid[], %(subjects)s::text[])
     u (n, id, requester, subject)
CROSS JOIN LATERAL (SELECT (n * 7919) %% 100 AS share, (n * 31) %% 4 AS rank, n * interval '7 seconds' AS age) s
CROSS JOIN LATERAL (SELECT
    CASE WHEN share < 1 THEN 'new' WHEN share < 7 THEN 'open' WHEN share < 11 THEN 'pending'
         WHEN share < 12 THEN 'on_hold' WHEN share < 20 THEN 'solved' ELSE 'closed' END AS status,
    share >= 12 AS finished,
    (%(teams)s::uuid[])[1 + n / 100 %% array_length(%(teams)s::uuid[], 1)] AS team,
    CASE WHEN share >= 1 AND n / 100 %% 6 > 0 THEN
        (%(agents)s::uuid[])[1 + n / 100 %% array_length(%(agents)s::uuid[], 1)] END AS agent,
    %(started)s::timestamptz + age AS opened_at,
    (ARRAY[interval '8 hours', '2 days', '5 days', '10 days'])[1 + rank] AS promised) v
CROSS JOIN LATERAL (SELECT (extract(epoch FROM opened_at) * 1000000)::bigint AS us) w
"""
