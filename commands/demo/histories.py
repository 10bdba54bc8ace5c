"""The life of one demo ticket: who did what when, up to now and no further."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from commands.demo.texts import ANSWERS, ESCALATIONS, SERVICE, THANKS, WAITS, Matter
from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.priority import Priority
from domain.status import Status
from domain.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from domain.agent import Agent
    from domain.customer import Customer
    from domain.service_levels import Book
    from domain.team import Team

CONTACT: Final = (Channel.EMAIL, Channel.WEB, Channel.CHAT, Channel.PHONE, Channel.SELF_SERVICE)
CONTACT_SHARES: Final = (40, 20, 15, 15, 10)
CLOSES_AFTER: Final = timedelta(days=3)
CLIENT: Final = "desk demo"


class NotYet(Exception):
    """The next step of a history lies in the future."""


@dataclass(slots=True)
class Staff:
    """Who can act, and what the desk promises."""

    teams: Mapping[str, Team]
    members: Mapping[str, Sequence[Agent]]
    lead: Agent
    book: Book


class History:
    """One ticket under way; each step lets some time pass first, and the history ends where now is reached."""

    def __init__(self, random: Random, staff: Staff, customer: Customer, matter: Matter, *, now: datetime) -> None:
        self.random = random
        self.staff = staff
        self.customer = customer
        self.matter = matter
        self.now = now
        self.at = now
        self.channel = random.choices(CONTACT, CONTACT_SHARES)[0]
        self.places = {
            "floor": random.randint(2, 18),
            "order": f"{random.choice('ABKR')}{random.randint(100_000, 999_999)}",
            "device": f"{random.choice(('LT', 'PR', 'AP'))}-{random.randint(1000, 9999)}",
        }
        self.agent = random.choice(staff.members[matter.team])

    def tell(self, opened_at: datetime) -> Ticket:
        """Live the ticket through from its opening."""
        ticket = self._open(opened_at)
        with suppress(NotYet):
            self._live(ticket)
        return ticket

    def _open(self, at: datetime) -> Ticket:
        self.at = at
        matter, random = self.matter, self.random
        taken_down = self.channel is Channel.PHONE
        act = self._staff(self.agent) if taken_down else self._customer()
        graded = random.random()
        priority = matter.priority if graded < 0.8 else random.choice(list(Priority))  # noqa: PLR2004 - a share
        return Ticket.open(
            ticket_id=self._id(),
            requester_id=self.customer.id,
            subject=self._text(matter.subject),
            body=self._text(matter.body),
            channel=self.channel,
            type=matter.type,
            priority=priority,
            category=matter.category if taken_down else None,
            custom_fields={"floor": str(self.places["floor"])} if "{floor}" in matter.subject + matter.body else None,
            opened_by_agent=taken_down,
            tier=self.customer.tier,
            book=self.staff.book,
            act=act,
        )

    def _live(self, ticket: Ticket) -> None:
        matter, random = self.matter, self.random
        self._pass(minutes=(4, 600))
        first_line = matter.team != SERVICE and self._chance(35)
        if first_line:
            helper = random.choice(self.staff.members[SERVICE])
            ticket.assign(
                agent=helper, team=self.staff.teams[SERVICE], act=self._staff(self.staff.lead, Role.TEAM_LEAD)
            )
            self._pass(minutes=(10, 240))
            self._hand_over(ticket, helper)
            self._pass(minutes=(5, 120))
            ticket.assign(agent=self.agent, act=self._staff(self.agent))
        else:
            ticket.assign(agent=self.agent, team=self.staff.teams[matter.team], act=self._staff(self.agent))
        act = self._staff(self.agent)
        ticket.categorise(category=matter.category, act=act)
        ticket.choose_terms(book=self.staff.book, act=act)
        ticket.tag(tags=matter.tags, act=self._staff(self.agent))
        if self._chance(12):
            raised = Priority.URGENT if ticket.priority is Priority.HIGH else Priority.HIGH
            ticket.change_priority(priority=raised, act=self._staff(self.staff.lead, Role.TEAM_LEAD))
        self._talk(ticket)
        self._wait(ticket)
        self._solve(ticket)
        if self._chance(15):
            self._pass(hours=(3, 60))
            self._says(ticket, matter.again)
            self._pass(hours=(1, 20))
            self._solve(ticket)
        elif self._chance(10):
            self._pass(hours=(1, 24))
            ticket.reopen(act=self._staff(self.agent))
            self._pass(hours=(1, 20))
            self._solve(ticket)
        if ticket.status is Status.SOLVED:
            self._later(CLOSES_AFTER)
            ticket.close(act=self._system())

    def _hand_over(self, ticket: Ticket, helper: Agent) -> None:
        """Give the ticket to the team that knows, upwards or aside."""
        if self._chance(50):
            reason = ESCALATIONS[self.matter.language]
            team = self.staff.teams[self.matter.team]
            ticket.escalate(level=2, team=team, act=self._staff(helper, reason=reason))
        else:
            ticket.transfer(team=self.staff.teams[self.matter.team], act=self._staff(helper))

    def _talk(self, ticket: Ticket) -> None:
        lines = self.matter.talk[: self.random.randint(1, len(self.matter.talk))]
        for turn, line in enumerate(lines):
            if turn % 2 == 0:
                self._pass(minutes=(5, 300))
                self._replies(ticket, line)
                if turn == 0 and self._chance(45):
                    ticket.add_note(text=self._text(self.matter.note), act=self._staff(self.agent))
                if turn + 1 < len(lines):
                    ticket.set_pending(act=self._staff(self.agent))
            else:
                self._pass(hours=(1, 30))
                self._says(ticket, line)

    def _wait(self, ticket: Ticket) -> None:
        language = self.matter.language
        if self._chance(25):
            self._pass(minutes=(5, 90))
            reason = None if self._chance(50) else self._text(self.matter.note)
            ticket.put_on_hold(third_party=self.matter.third_party, act=self._staff(self.agent, reason=reason))
            self._pass(hours=(6, 120))
            ticket.resume(act=self._staff(self.agent))
        elif self._chance(25):
            self._pass(minutes=(5, 90))
            self._replies(ticket, WAITS[language])
            wake_at = self.at + timedelta(days=5)
            ticket.set_pending(wake_at=wake_at, act=self._staff(self.agent))
            self._pass(hours=(2, 72))
            self._says(ticket, ANSWERS[language])

    def _solve(self, ticket: Ticket) -> None:
        matter = self.matter
        self._pass(minutes=(20, 900))
        self._replies(ticket, matter.solution)
        ticket.solve(resolution_code=matter.resolution_code, act=self._staff(self.agent))
        if self._chance(20):
            self._pass(hours=(1, 20))
            # Even a word of thanks opens the ticket again; the agent solves it once more.
            self._says(ticket, self.random.choice(THANKS[matter.language]))
            self._pass(minutes=(5, 120))
            ticket.solve(resolution_code=matter.resolution_code, act=self._staff(self.agent))

    def _replies(self, ticket: Ticket, text: str) -> None:
        ticket.reply(text=self._text(text), agent_id=self.agent.id, act=self._staff(self.agent))

    def _says(self, ticket: Ticket, text: str) -> None:
        channel = Channel.EMAIL if self.channel is Channel.PHONE else self.channel
        ticket.record_customer_message(text=self._text(text), channel=channel, act=self._customer())

    # Time and circumstances

    def _pass(self, *, minutes: tuple[int, int] = (0, 0), hours: tuple[int, int] = (0, 0)) -> None:
        seconds = self.random.randint(minutes[0] * 60, minutes[1] * 60) + self.random.randint(
            hours[0] * 3600, hours[1] * 3600
        )
        self._later(timedelta(seconds=seconds))

    def _later(self, time: timedelta) -> None:
        self.at += time
        if self.at > self.now:
            raise NotYet

    def _chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def _id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def _text(self, text: str) -> str:
        return text.format_map(self.places)

    def _staff(self, agent: Agent, role: Role = Role.AGENT, *, reason: str | None = None) -> Act:
        by = Provenance(actor_id=agent.id, role=role, channel=Channel.WEB, client=CLIENT, command_id=self._id())
        return Act(self.at, by, reason=reason)

    def _customer(self) -> Act:
        channel = Channel.EMAIL if self.channel is Channel.PHONE else self.channel
        by = Provenance(
            actor_id=self.customer.id, role=Role.CUSTOMER, channel=channel, client=CLIENT, command_id=self._id()
        )
        return Act(self.at, by)

    def _system(self) -> Act:
        by = Provenance(
            actor_id=SYSTEM_ACTOR, role=Role.SYSTEM, channel=Channel.SYSTEM, client=CLIENT, command_id=self._id()
        )
        return Act(self.at, by)
