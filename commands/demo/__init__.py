"""A small believable desk to try things on: made up, the same for the same seed and moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from commands.customers import EMAIL, PHONE, normal_contact
from commands.demo.histories import CLIENT, History, Staff
from commands.demo.people import (
    FAMILY_NAMES,
    FAMILY_NAMES_ZH,
    GIVEN_NAMES,
    GIVEN_NAMES_ZH,
    ORGANISATIONS,
    WORKERS,
)
from commands.demo.promises import promised
from commands.demo.texts import MATTERS, TEAMS
from commands.desk import Desk
from domain.agent import Agent
from domain.customer import Customer
from domain.customer_events import Tier
from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.team import Team
from storage.append import Claim, LogError, Submission
from storage.codec import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.event import Aggregate, Event
    from domain.service_levels import ServiceLevels
    from domain.ticket import Ticket
    from storage.append import NewEvent
    from storage.database import Workspace

CUSTOMERS: Final = 60
TICKETS: Final = 300
DAYS: Final = 28
OPENING_HOUR, CLOSING_HOUR = 7, 18  # UTC; most people write while they work
SEED: Final = 20_240


class NotEmpty(LogError):
    """Something is recorded in the workspace already; it gets no demo desk."""

    def __init__(self, workspace: Workspace, events: int) -> None:
        super().__init__(f"the workspace {workspace.name} has {events} events and gets no demo desk")


class DemoDesk(NamedTuple):
    """What was made, and who may be acted as: the lead works at the service desk, the supervisor over all."""

    team_ids: tuple[UUID, ...]
    agent_ids: tuple[UUID, ...]
    customer_ids: tuple[UUID, ...]
    ticket_ids: tuple[UUID, ...]
    agent_id: UUID
    lead_id: UUID
    supervisor_id: UUID
    customer_id: UUID
    position: int
    """The last position of the log that the demo takes up."""


class Cast(NamedTuple):
    """Everybody of a demo desk and everything that happened there, not recorded yet."""

    teams: tuple[Team, ...]
    agents: tuple[Agent, ...]
    customers: tuple[Customer, ...]
    tickets: tuple[Ticket, ...]
    levels: ServiceLevels


async def load_demo(workspace: Workspace, now: datetime | None = None, seed: int = SEED) -> DemoDesk:
    """Fill an empty workspace with a demo desk whose last weeks end `now`, which is this moment unless it is given.

    It is recorded whole or not at all: a load that was killed leaves nothing and can be run again, and no other
    command gets in between. Raises NotEmpty where anything is recorded already, and LogUnavailable.
    """
    cast = imagine(now or datetime.now(UTC), seed)
    people: Sequence[Aggregate] = (*cast.agents, *cast.customers)
    await workspace.keyring.ensure({person.id for person in people})
    submission = _submission(Desk(workspace), (cast.levels, *cast.teams, *cast.agents, *cast.customers, *cast.tickets))
    async with workspace.log.exclusively() as append:
        recorded = (await workspace.log.head()).position
        if recorded:
            raise NotEmpty(workspace, recorded)
        appended = await append(submission)
    return DemoDesk(
        team_ids=tuple(team.id for team in cast.teams),
        agent_ids=tuple(agent.id for agent in cast.agents),
        customer_ids=tuple(customer.id for customer in cast.customers),
        ticket_ids=tuple(ticket.id for ticket in cast.tickets),
        agent_id=cast.agents[2].id,
        lead_id=cast.agents[0].id,
        supervisor_id=cast.agents[1].id,
        customer_id=cast.tickets[-1].requester_id,
        position=appended.position,
    )


def imagine(now: datetime, seed: int = SEED) -> Cast:
    """Make the whole desk up; the same `now` and `seed` give the same desk. `now` is aware."""
    random = Random(seed)  # noqa: S311 - a made-up desk keeps no secrets
    now = now.astimezone(UTC).replace(microsecond=0)
    began = now - timedelta(days=DAYS + 14)
    system = Act(began, Provenance(actor_id=SYSTEM_ACTOR, role=Role.SYSTEM, channel=Channel.SYSTEM, client=CLIENT))
    teams = {name: Team.create(team_id=_id(random), name=name, act=system) for name in TEAMS}
    agents = tuple(
        Agent.create(
            agent_id=_id(random),
            name=worker.name,
            email=worker.email,
            teams=[teams[name] for name in worker.teams],
            act=system,
        )
        for worker in WORKERS
    )
    members = {
        name: [agent for agent, worker in zip(agents, WORKERS, strict=True) if name in worker.teams] for name in TEAMS
    }
    levels = promised(system)
    staff = Staff(teams, members, agents[0], levels.book)
    customers = {
        language: [_customer(random, language, number, system) for number in range(CUSTOMERS // 2)]
        for language in ("en", "zh-CN")
    }
    tickets = []
    for opened_at in sorted(_moment(random, now) for _ in range(TICKETS)):
        matter = random.choice(MATTERS)
        customer = random.choice(customers[matter.language])
        tickets.append(History(random, staff, customer, matter, now=now).tell(opened_at))
    everybody = tuple(customer for of_language in customers.values() for customer in of_language)
    return Cast(tuple(teams.values()), agents, everybody, tuple(tickets), levels)


def _customer(random: Random, language: str, number: int, act: Act) -> Customer:
    if language == "en":
        given = GIVEN_NAMES[number % len(GIVEN_NAMES)]
        family = random.choice(FAMILY_NAMES)
        name, local = f"{given} {family}", f"{given}.{family}".lower()
        phone = f"+44 20 7946 {number:04}"
    else:
        name = random.choice(FAMILY_NAMES_ZH) + random.choice(GIVEN_NAMES_ZH)
        local = "kehu"
        phone = f"+86 138 0013 8{number:03}"
    tier = random.choices(list(Tier), (60, 22, 12, 6))[0]
    return Customer.register(
        customer_id=_id(random),
        name=name,
        email=f"{local}{number:02}@{'mail' if language == 'en' else 'kehu'}.example",
        phone=phone,
        language=language,
        tier=tier,
        organisation=random.choice(ORGANISATIONS[language]),
        act=act,
    )


def _moment(random: Random, now: datetime) -> datetime:
    """Pick when a ticket is opened: on working days and in working hours mostly, more of them lately."""
    while True:
        ago = timedelta(days=DAYS * random.random() ** 2, seconds=60)
        at = (now - ago).replace(microsecond=0)
        at_work = at.weekday() < 5 and OPENING_HOUR <= at.hour < CLOSING_HOUR  # noqa: PLR2004 - Saturday
        if at_work or random.random() < 0.15:  # noqa: PLR2004 - a share
            return at


def _id(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)


def _submission(desk: Desk, aggregates: Sequence[Aggregate]) -> Submission:
    """Make everything into one submission, aggregate after aggregate."""
    rows: list[NewEvent] = []
    claims: list[Claim] = []
    for aggregate in aggregates:
        events: Sequence[Event] = aggregate.pending_events  # type: ignore[assignment]
        rows += [encode(event, desk.workspace.keyring) for event in events]
        contacts = ((EMAIL, aggregate.email), (PHONE, aggregate.phone)) if isinstance(aggregate, Customer) else ()
        claims += [
            Claim(kind, desk.claim_key(kind, normal_contact(kind, value)), aggregate.id)
            for kind, value in contacts
            if value is not None
        ]
    return Submission(rows, {aggregate.id: 0 for aggregate in aggregates}, claims)
