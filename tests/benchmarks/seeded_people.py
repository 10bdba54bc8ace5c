"""The teams, agents and customers of a made-up desk, and what they leave in its log beside their events."""

from __future__ import annotations

import random
from itertools import chain
from typing import TYPE_CHECKING, Final
from uuid import UUID

from commands.customers import EMAIL, PHONE, normal_contact
from commands.identity import stream_id_for
from domain.agent import Agent
from domain.customer import Customer
from domain.customer_events import Tier
from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.team import Team

if TYPE_CHECKING:
    from datetime import datetime

    from domain.event import Aggregate, Event

MOST_CUSTOMERS: Final = 20_000
MOST_AGENTS: Final = 200
TEAMS: Final = ("First line", "Network", "Workplace", "Applications", "Accounts", "现场支持", "Billing", "Night shift")
FAMILIES: Final = (("王", "wang"), ("李", "li"), ("García", "garcia"), ("Müller", "mueller"), ("Okafor", "okafor"))
GIVEN: Final = (("芳", "fang"), ("伟", "wei"), ("Ada", "ada"), ("Jonas", "jonas"), ("Chidi", "chidi"), ("Inés", "ines"))
FIRMS: Final = 300


class People:
    """Who is there before the first ticket. So few events as are asked for may not even be all of theirs."""

    def __init__(self, events: int, seed: int, until: datetime) -> None:
        self._chance = random.Random(f"people {seed}")  # noqa: S311 - repeatable people, no secret
        self._act = Act(until, Provenance(actor_id=SYSTEM_ACTOR, role=Role.SYSTEM, channel=Channel.COMMAND_LINE))
        self.teams = [Team.create(team_id=self._id(), name=name, act=self._act) for name in TEAMS]
        self.agents = [self._agent(number) for number in range(min(MOST_AGENTS, 4 + events // 1_000))]
        self.customers = [self._customer(number) for number in range(min(MOST_CUSTOMERS, 6 + events // 100))]

    def events(self, most: int) -> list[Event]:
        """Give their first events, as many as there may be."""
        everybody: list[Aggregate] = [*self.teams, *self.agents, *self.customers]
        return list(chain.from_iterable(one.collect_events() for one in everybody))[:most]  # type: ignore[return-value]

    def contacts(self) -> list[tuple[str, str, UUID]]:
        """Give what customers claim: of which kind, in its normal form, and who."""
        return [
            (kind, normal_contact(kind, value), one.id)
            for one in self.customers
            for kind, value in ((EMAIL, one.email), (PHONE, one.phone))
            if value is not None
        ]

    def _agent(self, number: int) -> Agent:
        name, _ = self._name()
        return Agent.create(
            agent_id=self._id(),
            name=name,
            email=f"agent{number}@desk.example",
            teams=self._chance.sample(self.teams, self._chance.choice((1, 1, 2))),
            act=self._act,
        )

    def _customer(self, number: int) -> Customer:
        chance = self._chance
        name, latin = self._name()
        foreign_id = f"crm:{100_000 + number}" if number % 5 == 0 else None
        return Customer.register(
            customer_id=self._id() if foreign_id is None else stream_id_for("customer", foreign_id),
            name=name,
            email=f"{latin}{number}@firm{number % FIRMS}.example" if number % 20 else None,
            phone=f"+86 138 {number // 10_000:04} {number % 10_000:04}" if number % 3 == 0 else None,
            language=chance.choice(("zh-CN", "en", "de", "es", None)),
            tier=chance.choices(tuple(Tier), (12, 4, 2, 1))[0],
            organisation=f"Firm {number % FIRMS}" if number % 4 else None,
            foreign_id=foreign_id,
            act=self._act,
        )

    def _name(self) -> tuple[str, str]:
        (family, latin), (given, latin_given) = self._chance.choice(FAMILIES), self._chance.choice(GIVEN)
        name = f"{family}{given}" if family.isascii() is False and len(family) == 1 else f"{given} {family}"
        return name, f"{latin_given}.{latin}"

    def _id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)
