"""A desk whose days are told by the minute, to see what the timer makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from commands.timer.noticing import Noticing
from domain.agent import Agent
from domain.customer import Customer
from domain.event import Act, Channel, Provenance, Role
from domain.service_levels import ServiceLevels
from domain.sla_policy import PolicyTerms, Step, Target, Unit
from domain.sla_terms import Metric
from domain.team import Team
from domain.ticket import Ticket
from storage.codec import decode, encode
from tests.projections.desk_days import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commands.timer.noticing import Noticed
    from domain.calendar import CalendarTerms
    from domain.event import Event
    from domain.service_levels import OpenTickets
    from storage.append import NewEvent
    from storage.database import Workspace

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""Long ago: whatever falls due around it has done so by now."""


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


def replies_within(count: float, *steps: Step, metric: Metric = Metric.FIRST_REPLY) -> PolicyTerms:
    """Promise a metric within so many minutes, at any hour."""
    target = Target(metric=metric, amount=int(count * 60), unit=Unit.CALENDAR, steps=steps)
    return PolicyTerms(targets=(target,))


class TimedDesk:
    """A desk; every method takes the minute after noon at which somebody acts."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.levels = ServiceLevels.unwritten(NOON)
        self.noticing = Noticing(workspace)
        act = self.act(-1000)
        self.team = Team.create(team_id=uuid4(), name="Network", act=act)
        self.other_team = Team.create(team_id=uuid4(), name="Backbone", act=act)
        self.agent = Agent.create(agent_id=uuid4(), name="Bob", teams=[self.team], act=act)
        self.customer = Customer.register(customer_id=uuid4(), name="Ann", email="ann@firm.example", act=act)

    @classmethod
    async def at(cls, workspace: Workspace) -> TimedDesk:
        """Open a desk with two teams, an agent and a customer."""
        desk = cls(workspace)
        await desk.keep(desk.team, desk.other_team, desk.agent, desk.customer)
        return desk

    def act(self, at: float, role: Role = Role.AGENT, channel: Channel = Channel.API, **more: Any) -> Act:
        return Act(minutes(at), Provenance(actor_id=uuid4(), role=role, channel=channel), more.get("reason"))

    async def keep(self, *changed: Any) -> None:
        """Record what has happened to these."""
        await record(self.workspace, [event for one in changed for event in one.collect_events()])

    async def rows(self, changed: Any) -> list[NewEvent]:
        """Give what has happened to something as it would be recorded."""
        events = list(changed.collect_events())
        await self.workspace.keyring.ensure({subject for event in events for subject in event.data_subjects()})
        return [encode(event, self.workspace.keyring) for event in events]

    async def adopt(
        self,
        terms: PolicyTerms | CalendarTerms,
        *,
        at: float = -100,
        name: str = "all",
        open_tickets: OpenTickets = "keep",
    ) -> None:
        act = self.act(at, Role.SUPERVISOR)
        if isinstance(terms, PolicyTerms):
            self.levels.adopt_policy(name=name, terms=terms, open_tickets=open_tickets, act=act)
        else:
            self.levels.adopt_calendar(name=name, terms=terms, open_tickets=open_tickets, act=act)
        await self.keep(self.levels)

    async def ticket(self, at: float = 0, *, channel: Channel = Channel.EMAIL, **fields: Any) -> Ticket:
        """Open a ticket as a customer does, by an import where `channel` says so."""
        opened = self.opening(at, channel, **fields)
        await self.keep(opened)
        return opened

    def opening(self, at: float = 0, channel: Channel = Channel.EMAIL, **fields: Any) -> Ticket:
        """Open a ticket that is yet to be recorded."""
        return Ticket.open(
            ticket_id=uuid4(),
            requester_id=self.customer.id,
            subject="Printer on fire",
            body="It smokes.",
            channel=channel,
            book=self.levels.book,
            act=self.act(at, Role.CUSTOMER, channel),
            **fields,
        )

    async def reply(self, ticket: Ticket, at: float) -> None:
        await self.happen(ticket, lambda act: ticket.reply(text="Unplug it.", agent_id=self.agent.id, act=act), at)

    async def happen(self, ticket: Ticket, step: Any, at: float) -> None:
        """Let something happen to a ticket after what others have recorded."""
        await self.refresh(ticket)
        step(self.act(at))
        await self.keep(ticket)

    async def refresh(self, ticket: Ticket) -> None:
        """Take in what others have recorded of a ticket."""
        for row in await self.workspace.log.stream(ticket.id, after=ticket.version):
            decode(row).event.mutate(ticket)

    async def notice(self, *tickets: Ticket, at: float, carried: int = 0) -> list[Noticed]:
        """Look at tickets as the timer does when so many minutes have passed."""
        ids = [ticket.id for ticket in tickets]
        batch = await self.noticing.notice(ids, minutes(at), now=minutes(at), carried=carried)
        return await batch.settled()

    async def told(self, ticket: Ticket) -> list[tuple[str, float]]:
        """Give what the desk itself put on a ticket's record: what, and of which minute."""
        return [
            (event.TOPIC.removeprefix("ticket."), (event.timestamp - NOON) / timedelta(minutes=1))
            for event in await self.events(ticket)
            if event.by.channel is Channel.SYSTEM
        ]

    async def events(self, ticket: Ticket) -> Sequence[Any]:
        rows = await self.workspace.log.stream(ticket.id)
        await self.workspace.keyring.load(rows)
        found: list[Event] = [decode(row, self.workspace.keyring).event for row in rows]
        return found
