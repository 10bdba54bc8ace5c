"""A log of believable tickets, made fast and the same for the same seed (but for salts, nonces and keys)."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg import AsyncConnection

from domain.agent import Agent
from domain.customer import Customer
from domain.event import Act, Channel, Provenance, Role
from domain.priority import Priority
from domain.team import Team
from domain.ticket import Ticket
from domain.ticket_events import TicketType
from storage.codec import encode
from storage.database import reach
from tests.benchmarks.ground import MeasurementError, say
from tests.benchmarks.lives import CATEGORIES, SENTENCES, SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from domain.event import Event
    from storage.database import Workspace
    from storage.settings import Settings

STARTED_AT = datetime(2026, 1, 5, 7, 0, tzinfo=UTC)
BETWEEN_EVENTS = timedelta(seconds=7)
TICKETS_AT_ONCE = 2_000  # so that the events of a ticket lie apart in the log, as they do in life
COPY = """
COPY {schema}.events (notification_id, originator_id, originator_version, topic, state, personal, recorded_at)
FROM STDIN (FORMAT binary)
"""
COLUMN_TYPES = ("int8", "uuid", "int8", "text", "bytea", "bytea", "timestamptz")


class Desk:
    """Teams, agents and customers, and the tickets that pass between them. A ticket has six events in the middle."""

    def __init__(self, events: int, *, seed: int) -> None:
        self.events = events
        self.chance = random.Random(seed)  # noqa: S311 - repeatable events, no secret
        self.at = STARTED_AT
        self.teams = [Team.create(team_id=self._id(), name=f"Team {n}", act=self._by_desk()) for n in range(1, 9)]
        self.agents = [
            Agent.create(
                agent_id=self._id(), name=f"Agent {n}", email=f"agent{n}@desk.example", teams=[self._team()],
                act=self._by_desk(),
            )
            for n in range(1, min(60, 3 + events // 1000) + 1)
        ]  # fmt: skip
        self.customers = [
            Customer.register(
                customer_id=self._id(), name=f"客户 {n}", email=f"customer{n}@firm.example", act=self._by_desk()
            )
            for n in range(1, min(2000, 5 + events // 50) + 1)
        ]

    def __iter__(self) -> Iterator[Event]:
        """Give the events in the order in which they are recorded."""
        given = 0
        for one in (*self.teams, *self.agents, *self.customers):
            for event in one.collect_events():
                yield event  # type: ignore[misc]  # the library's type of pending events is wider
                given += 1
        living: list[tuple[Ticket, Iterator[None]]] = []
        while given < self.events:
            if len(living) < min(TICKETS_AT_ONCE, 1 + self.events // 20):
                ticket = self._open()
                living.append((ticket, self._life(ticket)))
            else:
                place = self.chance.randrange(len(living))
                ticket, life = living[place]
                if next(life, life) is life:
                    living[place] = living[-1]
                    living.pop()
            for event in ticket.collect_events():
                if given < self.events:
                    yield event  # type: ignore[misc]
                    given += 1

    def _open(self) -> Ticket:
        chance = self.chance
        customer = chance.choice(self.customers)
        return Ticket.open(
            ticket_id=self._id(),
            requester_id=customer.id,
            subject=chance.choice(SUBJECTS),
            body=" ".join(chance.sample(SENTENCES, 3)),
            channel=chance.choice((Channel.EMAIL, Channel.PHONE, Channel.WEB)),
            type=chance.choice(tuple(TicketType)),
            priority=chance.choice(tuple(Priority)),
            category=chance.choice(CATEGORIES),
            tags=chance.sample(("vip", "site-2", "laptop", "会议室"), chance.randrange(3)),
            act=self._by_customer(customer.id),
        )

    def _life(self, ticket: Ticket) -> Iterator[None]:
        """Take a ticket from its assignment to its end; one event a step, mostly."""
        chance = self.chance
        agent = chance.choice(self.agents)
        ticket.assign(agent=agent, team=self._team(), act=self._by_agent(agent.id))
        yield
        for _ in range(chance.choice((1, 1, 2))):
            ticket.reply(text=" ".join(chance.sample(SENTENCES, 2)), agent_id=agent.id, act=self._by_agent(agent.id))
            yield
        for step in chance.sample(self._between(ticket, agent), chance.choice((0, 0, 1, 1, 2, 3))):
            step()
            yield
        ticket.solve(resolution_code=chance.choice(("fixed", "explained", "duplicate")), act=self._by_agent(agent.id))
        yield
        if chance.randrange(20) == 0:
            ticket.reopen(act=self._by_agent(agent.id))
            yield
            ticket.solve(resolution_code="fixed", act=self._by_agent(agent.id))
            yield
        ticket.close(act=self._by_agent(agent.id))
        yield

    def _between(self, ticket: Ticket, agent: Agent) -> list[Callable[[], None]]:
        text = self.chance.choice(SENTENCES)
        return [
            lambda: ticket.record_customer_message(
                text=text, channel=Channel.EMAIL, act=self._by_customer(ticket.requester_id)
            ),
            lambda: ticket.add_note(text=text, act=self._by_agent(agent.id)),
            lambda: ticket.change_priority(priority=self.chance.choice(tuple(Priority)), act=self._by_agent(agent.id)),
            lambda: ticket.tag(tags=("seen",), act=self._by_agent(agent.id)),
            lambda: ticket.set_pending(act=self._by_agent(agent.id)),
            lambda: ticket.escalate(
                level=ticket.level + 1, team=self._team(), act=self._by_agent(agent.id, "needs a specialist")
            ),
        ]

    def _team(self) -> Team:
        return self.chance.choice(self.teams)

    def _id(self) -> UUID:
        return UUID(int=self.chance.getrandbits(128), version=4)

    def _act(self, actor: UUID, role: Role, channel: Channel, reason: str | None = None) -> Act:
        self.at += BETWEEN_EVENTS
        return Act(self.at, Provenance(actor_id=actor, role=role, channel=channel, command_id=self._id()), reason)

    def _by_desk(self) -> Act:
        return self._act(UUID(int=0), Role.SYSTEM, Channel.SYSTEM)

    def _by_agent(self, agent: UUID, reason: str | None = None) -> Act:
        return self._act(agent, Role.AGENT, Channel.WEB, reason)

    def _by_customer(self, customer: UUID) -> Act:
        return self._act(customer, Role.CUSTOMER, Channel.EMAIL)


async def fill(settings: Settings, workspace: Workspace, events: int, *, seed: int = 1) -> None:
    """Put a log of `events` events into an empty workspace by COPY, as the owner. Raises MeasurementError."""
    if (await workspace.log.head()).position:
        message = f"workspace {workspace.name} has events already"
        raise MeasurementError(message)
    desk = Desk(events, seed=seed)
    await workspace.keyring.ensure([one.id for one in (*desk.agents, *desk.customers)])
    started = time.perf_counter()
    async with reach(settings, "owner") as address:
        async with (
            await AsyncConnection.connect(address, autocommit=True) as connection,
            connection.cursor() as cursor,
            cursor.copy(COPY.format(schema=workspace.schema).encode()) as copy,
        ):
            copy.set_types(COLUMN_TYPES)
            for position, event in enumerate(desk, start=1):
                stream, version, topic, state, personal = encode(event, workspace.keyring)
                await copy.write_row((position, stream, version, topic, state, personal, desk.at))
                if position % 50_000 == 0:
                    rate = position / (time.perf_counter() - started)
                    say(f"seeding: {position:,} of {events:,} events, {rate:,.0f}/s")
        async with await AsyncConnection.connect(address, autocommit=True) as connection:
            await connection.execute(f"VACUUM ANALYZE {workspace.schema}.events".encode())
