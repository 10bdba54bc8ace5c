"""Varied days at a desk, for views to fold: the same for the same seed."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from domain.agent import Agent
from domain.customer import Customer
from domain.customer_events import Tier
from domain.event import Act, Channel, Provenance, Rejected, Role
from domain.priority import Priority
from domain.service_levels import ServiceLevels
from domain.sla_announcements import announcements
from domain.sla_terms import Metric
from domain.status import Status
from domain.team import Team
from domain.ticket import Ticket
from domain.ticket_events import LinkKind, TicketEvent, TicketType
from domain.ticket_sla_events import TermsCause
from domain.ticket_timeline import after
from storage.append import Submission
from storage.codec import Recorded, encode
from tests.projections.desk_levels import some_calendar, some_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from domain.event import Event
    from domain.service_levels import Book
    from domain.ticket_timeline import Timeline
    from storage.database import Workspace

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class DeskDays:
    """A small desk on which anything may happen next. Refused moves are simply not made."""

    def __init__(self, seed: int, *, tickets: int = 12, levels: ServiceLevels | None = None) -> None:
        """`levels` are those of another desk in the same log: there is one stream of them."""
        self.chance = random.Random(seed)  # noqa: S311 - repeatable events, no secret
        self.at = NOON
        self.teams = [Team.create(team_id=self.new_id(), name=f"Team {n}", act=self.act()) for n in range(3)]
        self.agents = [
            Agent.create(
                agent_id=self.new_id(), name=f"Agent {n}", teams=[self.chance.choice(self.teams)], act=self.act()
            )
            for n in range(4)
        ]
        self.customers = [
            Customer.register(customer_id=self.new_id(), name=f"客户 {n}", email=f"c{n}@firm.example", act=self.act())
            for n in range(3)
        ]
        self.levels = levels or ServiceLevels.unwritten(self.at)
        self.tickets: list[Ticket] = []
        self._timelines: dict[UUID, Timeline] = {}
        self._room = tickets

    def new_id(self) -> UUID:
        """Give a fresh id."""
        return UUID(int=self.chance.getrandbits(128), version=4)

    def act(self, role: Role = Role.AGENT, reason: str | None = "as agreed") -> Act:
        """Give circumstances, mostly later than the last ones: times of foreign histories step back now and then."""
        self.at += timedelta(minutes=self.chance.choice((-3, 0, 5, 40, 600)))
        by = Provenance(actor_id=self.new_id(), role=role, channel=self.chance.choice((Channel.WEB, Channel.API)))
        return Act(self.at, by, reason)

    def first(self) -> list[Event]:
        """Give the events by which teams, agents and customers came."""
        return [event for one in (*self.teams, *self.agents, *self.customers) for event in one.collect_events()]  # type: ignore[misc]

    def more(self, steps: int) -> list[Event]:
        """Let `steps` things be tried and give the events that came of them."""
        found: list[Event] = []
        for _ in range(steps):
            if len(self.tickets) < self._room and (not self.tickets or self.chance.random() < 0.2):
                self.tickets.append(self.open())
            changed: Any = self.chance.choice(self.tickets)
            which = self.chance.random()
            if which < 0.05:
                changed = self._people()
            elif which < 0.08:
                self._adopt()
            else:
                self._step(changed)
            found += self.levels.collect_events()  # type: ignore[arg-type]
            for one in (self.tickets[-1], changed):
                events: Sequence[Any] = one.collect_events()
                found += events
                for event in events:
                    if isinstance(event, TicketEvent):
                        self._timelines[one.id] = after(self._timelines.get(one.id), event)
        return found

    @property
    def book(self) -> Book:
        """The calendars and policies that have been adopted."""
        return self.levels.book

    def timeline(self, ticket: Ticket) -> Timeline | None:
        """Give what has happened to a ticket as far as clocks ask; None where its opening has not been given yet."""
        return self._timelines.get(ticket.id)

    def open(self, **fields: Any) -> Ticket:
        """Open a ticket; fields not given fall as they may."""
        chance = self.chance
        given: dict[str, Any] = {
            "ticket_id": self.new_id(),
            "requester_id": chance.choice(self.customers).id,
            "subject": chance.choice(("Printer on fire", "打印机着火", "VPN down")),
            "body": "Please help.",
            "channel": chance.choice((Channel.EMAIL, Channel.PHONE)),
            "type": chance.choice(tuple(TicketType)),
            "priority": chance.choice(tuple(Priority)),
            "category": chance.choice((None, "hardware")),
            "tags": chance.sample(("vip", "laptop", "会议室"), chance.randrange(3)),
            "tier": chance.choice((None, *Tier)),
            "book": self.book,
            "act": self.act(chance.choice((Role.AGENT, Role.CUSTOMER))),
        }
        return Ticket.open(**(given | fields))

    def _adopt(self) -> None:
        """Adopt a calendar or a policy, by which the open tickets go or do not, or retire one."""
        chance, act = self.chance, self.act(Role.ADMINISTRATOR)
        match chance.randrange(5):
            case 0 | 1:
                terms = some_calendar(chance, self.at.date())
                with suppress(Rejected):  # far in the future nobody knows the hours
                    self.levels.adopt_calendar(name=chance.choice(("office", "hotline")), terms=terms, act=act)
            case 4 if self.book.in_force:
                self.levels.retire_policy(name=chance.choice(self.book.in_force), act=act)
            case _:
                calendar = chance.choice((None, *sorted(self.book.calendars)))
                policy = some_policy(chance, calendar, [team.id for team in self.teams])
                self.levels.adopt_policy(name=chance.choice(("gold", "plain")), terms=policy, act=act)

    def _people(self) -> Any:
        chance, act = self.chance, self.act()
        customer, agent = chance.choice(self.customers), chance.choice(self.agents)
        match chance.randrange(3):
            case 0:
                customer.change_tier(tier=chance.choice(tuple(Tier)), act=act)
                return customer
            case 1:
                agent.rename(name=f"Agent {chance.randrange(100)}", act=act)
                return agent
            case _:
                customer.join_organisation(organisation=chance.choice(("Acme", "Ming")), act=act)
                return customer

    def _step(self, ticket: Ticket) -> None:
        chance, act = self.chance, self.act()
        agent, team = chance.choice(self.agents), chance.choice(self.teams)
        steps: Sequence[Callable[[], None]] = (
            lambda: ticket.assign(agent=agent, team=team, act=act),
            lambda: ticket.assign(agent=agent, act=act),
            lambda: ticket.unassign(act=act),
            lambda: ticket.transfer(team=team, act=act),
            lambda: ticket.escalate(level=chance.randrange(1, 4), team=team, act=act),
            lambda: ticket.de_escalate(level=chance.randrange(3), act=act),
            lambda: ticket.reply(text="We look into it.", agent_id=agent.id, act=act),
            lambda: ticket.reply(text="Try again now.", agent_id=agent.id, act=act),
            lambda: ticket.add_note(text="Odd.", act=act),
            lambda: ticket.record_customer_message(text="Still broken", channel=Channel.EMAIL, act=act),
            lambda: ticket.change_priority(priority=chance.choice(tuple(Priority)), act=act),
            lambda: ticket.categorise(category=chance.choice((None, "network")), act=act),
            lambda: ticket.tag(tags=["seen"], act=act),
            lambda: ticket.untag(tags=["vip"], act=act),
            lambda: ticket.set_custom_field(name="room", value=chance.choice((None, "4.12")), act=act),
            lambda: ticket.change_subject(subject=f"Subject {chance.randrange(9)}", act=act),
            lambda: ticket.change_type(type=chance.choice(tuple(TicketType)), act=act),
            lambda: ticket.change_requester(requester_id=chance.choice(self.customers).id, act=act),
            lambda: ticket.add_cc(address="copy@firm.example", act=act),
            lambda: ticket.remove_cc(address="copy@firm.example", act=act),
            lambda: ticket.set_pending(wake_at=chance.choice((None, self.at + timedelta(days=1))), act=act),
            lambda: ticket.put_on_hold(third_party="Vendor", act=act),
            lambda: ticket.resume(act=act),
            lambda: ticket.solve(resolution_code="fixed", act=act),
            lambda: ticket.reopen(act=act),
            lambda: ticket.close(act=act) if chance.random() < 0.3 else None,
            lambda: ticket.record_source_status(
                status=chance.choice(tuple(Status)), source_status="Awaiting", act=_imported(act)
            ),
            lambda: ticket.link(other_ticket_id=self.new_id(), kind=LinkKind.RELATED, act=act),
            lambda: ticket.correct(corrected_version=1, note="Typo", act=act),
            lambda: ticket.go_by(
                self.book.choose(ticket.attributes), tier=ticket.tier, cause=TermsCause.POLICY_ADOPTED, act=act
            ),
            lambda: ticket.set_due_date(
                metric=chance.choice(tuple(Metric)), due_at=chance.choice((None, act.at + timedelta(days=2))), act=act
            ),
            lambda: self._announce(ticket, act),
            lambda: self._announce(ticket, act),
        )
        try:
            chance.choice(steps)()
            if ticket.attributes != ticket.attributes_before():
                ticket.choose_terms(book=self.book, act=act)
        except Rejected:
            return

    def _announce(self, ticket: Ticket, act: Act) -> None:
        by = act.by.model_copy(update={"role": Role.SYSTEM, "channel": Channel.SYSTEM})
        timeline = self.timeline(ticket)
        for announcement in () if timeline is None else announcements(timeline, self.book, act.at):
            ticket.announce(announcement, act=Act(announcement.at, by))


def _imported(act: Act) -> Act:
    return Act(act.at, act.by.model_copy(update={"channel": Channel.IMPORT}), act.reason)


def as_recorded(events: Iterable[Event], *, after: int = 0) -> list[Recorded]:
    """Give events the places they would have in a log."""
    return [Recorded(event, position, NOON) for position, event in enumerate(events, start=after + 1)]


async def record(workspace: Workspace, events: Sequence[Event]) -> int:
    """Append events to a workspace's log, a command each few, and give the last position."""
    await workspace.keyring.ensure(
        {event.subject_of(name) for event in events for name in event.PERSONAL if getattr(event, name) is not None}
    )
    rows = [encode(event, workspace.keyring) for event in events]
    position = 0
    for start in range(0, len(rows), 50):
        position = (await workspace.log.append(Submission(events=rows[start : start + 50]))).position
    return position


async def rows_of(workspace: Workspace, table: str) -> list[tuple[Any, ...]]:
    """Give every row of a table, in a total order."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            f'SELECT t.*, t::text AS whole FROM "{workspace.schema}"."{table}" t ORDER BY whole'.encode()
        )
        return [tuple(row) for row in await cursor.fetchall()]
