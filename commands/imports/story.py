"""The life of one foreign ticket, told fact by fact: by the desk's own commands where its rules allow the move."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from commands.identity import stream_id_for
from domain import ticket_events
from domain.agent import Agent
from domain.customer import Customer
from domain.event import SYSTEM_ACTOR, Act, Channel, Event, Provenance, Role
from domain.status import MOVES, Status
from domain.team import Team
from domain.text import MOST_IN_SUBJECT
from domain.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from commands.imports.format import Clock
    from commands.imports.parcel import Told
    from domain.priority import Grade, Priority

Kind = TypeVar("Kind", Agent, Customer, Team)

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_COMMANDS: Final[dict[Status, tuple[str, ...]]] = {
    Status.NEW: (),
    Status.OPEN: ("resume", "reopen"),
    Status.PENDING: ("set-pending",),
    Status.ON_HOLD: ("put-on-hold",),
    Status.SOLVED: ("solve",),
    Status.CLOSED: ("close",),
}
"""The commands that do nothing but move a ticket to a status."""

UNNAMED: Final = "not named by the source"
"""Whom a ticket waits for, or why it was solved, where the source does not say."""


Person = tuple[str, str]
"""How a source knows somebody, or a team: a label that says what it is there, and a name."""


@dataclass(frozen=True, slots=True, eq=False)
class Acquaintance(Generic[Kind]):
    """Somebody, or a team, as first met in a file."""

    who: Kind
    id: UUID


@dataclass(slots=True)
class Source:
    """The foreign desk whose file is being read, with everybody and every team met in it so far."""

    name: str
    ticket_type: ticket_events.TicketType
    clock: Clock
    client: str
    agents: dict[Person, Acquaintance[Agent]] = field(default_factory=dict)
    teams: dict[Person, Acquaintance[Team]] = field(default_factory=dict)
    customers: dict[Person, Acquaintance[Customer]] = field(default_factory=dict)
    _provenances: dict[tuple[Acquaintance[Agent] | None, Acquaintance[Agent] | None], Provenance] = field(
        default_factory=dict
    )

    def provenance(
        self, actor: Acquaintance[Agent] | None = None, on_behalf_of: Acquaintance[Agent] | None = None
    ) -> Provenance:
        """Say who acted, an agent unless nobody is known."""
        place = (actor, on_behalf_of)
        found = self._provenances.get(place)
        if found is None:
            found = self._provenances[place] = Provenance(
                actor_id=SYSTEM_ACTOR if actor is None else actor.id,
                role=Role.SYSTEM if actor is None else Role.AGENT,
                on_behalf_of=None if on_behalf_of is None else on_behalf_of.id,
                channel=Channel.IMPORT,
                client=self.client,
            )
        return found

    def agent(self, who: Person, at: datetime) -> Acquaintance[Agent]:
        """Give an agent, met for the first time at `at` or before."""
        found = self.agents.get(who)
        if found is None:
            known_as = self._known_as(who)
            id_ = stream_id_for("agent", known_as)
            act = Act(at, self.provenance())
            agent = Agent.create(agent_id=id_, name=who[1], foreign_id=known_as, act=act)
            found = self.agents[who] = Acquaintance(agent, id_)
        return found

    def team(self, which: Person, at: datetime) -> Acquaintance[Team]:
        """Give a team, met for the first time at `at` or before."""
        found = self.teams.get(which)
        if found is None:
            known_as = self._known_as(which)
            id_ = stream_id_for("team", known_as)
            act = Act(at, self.provenance())
            team = Team.create(team_id=id_, name=which[1], foreign_id=known_as, act=act)
            found = self.teams[which] = Acquaintance(team, id_)
        return found

    def customer(self, who: Person, at: datetime) -> Acquaintance[Customer]:
        """Give a customer, met for the first time at `at` or before."""
        found = self.customers.get(who)
        if found is None:
            known_as = self._known_as(who)
            id_ = stream_id_for("customer", known_as)
            act = Act(at, self.provenance())
            customer = Customer.register(customer_id=id_, name=who[1], foreign_id=known_as, act=act)
            found = self.customers[who] = Acquaintance(customer, id_)
        return found

    def _known_as(self, who: Person) -> str:
        label, name = who
        return f"{self.name}-{label}:{name}"


class Story:
    """One foreign ticket as it is being told. A format calls `turn` for each moment and then says what happened.

    A fact that changes nothing gives no event.
    """

    def __init__(self, source: Source, case: str) -> None:
        self.source = source
        self.case = case
        self.foreign_id = f"{source.name}:{case}"
        self.ticket_id = stream_id_for("ticket", self.foreign_id)
        self.told: list[Told] = []
        self.met: dict[tuple[type, Person], Acquaintance[Any]] = {}
        """Everybody and every team named so far, in that order."""
        self._provenances: dict[tuple[Person | None, Person | None], Provenance] = {}
        self._ticket: Ticket | None = None
        self._act: Act | None = None
        self._at: datetime = _LONG_AGO

    @property
    def ticket(self) -> Ticket:
        """The ticket, once opened."""
        if self._ticket is None:
            message = "the first row of a case has to open its ticket"
            raise TypeError(message)
        return self._ticket

    @property
    def events(self) -> list[Event]:
        """Everything told of the ticket so far."""
        return [] if self._ticket is None else self._ticket.pending_events  # type: ignore[return-value]

    @property
    def version(self) -> int:
        """How many events that is."""
        return 0 if self._ticket is None else self._ticket.version

    @property
    def act(self) -> Act:
        """The circumstances of what is being told."""
        if self._act is None:
            message = "a format says when and by whom before it says what"
            raise TypeError(message)
        return self._act

    def time(self, text: str) -> datetime:
        """Read a time of the source. Raises RowRefused."""
        return self.source.clock(text)

    def turn(self, at: datetime, *, by: Person | None, for_: Person | None = None) -> None:
        """Go on to another moment: facts from here on happened `at`, by an agent, perhaps for another.

        Without an agent the source does not say who acted, or it was no person.
        """
        self._at = at
        found = self._provenances.get((by, for_))
        if found is None:
            actor = None if by is None else self.agent(by)
            other = None if for_ is None else self.agent(for_)
            found = self._provenances[by, for_] = self.source.provenance(actor, other)
        self._act = Act(at, found)

    # Who

    def agent(self, who: Person) -> Acquaintance[Agent]:
        """Give the agent whom the source knows so."""
        found = self.met.get((Agent, who))
        if found is None:
            found = self.met[Agent, who] = self.source.agent(who, self._at)
        return found

    def team(self, which: Person) -> Acquaintance[Team]:
        """Give the team that the source knows so."""
        found = self.met.get((Team, which))
        if found is None:
            found = self.met[Team, which] = self.source.team(which, self._at)
        return found

    def customer(self, who: Person) -> UUID:
        """Give the customer whom the source knows so."""
        found = self.met.get((Customer, who))
        if found is None:
            found = self.met[Customer, who] = self.source.customer(who, self._at)
        return found.id

    # What

    def opens(
        self,
        *,
        requester: Person,
        subject: str,
        body: str,
        channel: Channel,
        priority: Priority,
        impact: Grade | None = None,
        urgency: Grade | None = None,
        category: str | None = None,
        custom_fields: Mapping[str, str] | None = None,
    ) -> None:
        """Open the ticket. Only what was known at that moment belongs here."""
        if len(subject) > MOST_IN_SUBJECT:
            subject = f"{subject[: MOST_IN_SUBJECT - 1]}…"
        self._ticket = Ticket.open(
            ticket_id=self.ticket_id,
            requester_id=self.customer(requester),
            subject=subject,
            body=body,
            channel=channel,
            type=self.source.ticket_type,
            priority=priority,
            impact=impact,
            urgency=urgency,
            category=category,
            custom_fields=custom_fields,
            foreign_id=self.foreign_id,
            opened_by_agent=channel not in {Channel.EMAIL, Channel.SELF_SERVICE},
            act=self.act,
        )

    def with_(self, agent: Person | None, team: Person | None, *, still_new: bool = False) -> None:
        """Say who has the ticket now, either may be nobody; `still_new` where the source holds it for new all the same."""
        ticket = self.ticket
        agent_ = None if agent is None else self.agent(agent)
        team_ = None if team is None else self.team(team)
        agent_id = None if agent_ is None else agent_.id
        team_id = None if team_ is None else team_.id
        if (agent_id, team_id) == (ticket.agent_id, ticket.team_id):
            return
        stays_new = still_new and ticket.status is Status.NEW
        if (agent_ is not None and stays_new) or (team_id is None and ticket.team_id is not None):
            # By our rules an assigned ticket is open, and no command takes a team off; there it was otherwise.
            ticket.record(
                ticket_events.Assigned,
                self.act,
                requester_id=ticket.requester_id,
                agent_id=agent_id,
                previous_agent_id=ticket.agent_id,
                team_id=team_id,
                previous_team_id=ticket.team_id,
                status=ticket.status,
                previous_status=ticket.status,
            )
        elif agent_ is not None:
            ticket.assign(agent=agent_.who, team=None if team_ is None else team_.who, act=self.act)
        elif team_ is None or team_id == ticket.team_id:
            ticket.unassign(act=self.act)
        elif stays_new or (ticket.status is not Status.NEW and ticket.team_id is not None):
            ticket.transfer(team=team_.who, act=self.act)
        else:
            ticket.assign(team=team_.who, act=self.act)

    def becomes(self, status: Status, said: str, *, code: str = UNNAMED, third_party: str = UNNAMED) -> None:
        """Say which status the ticket has now, `said` being the source's words for it.

        A move that the state machine has is made by its command; another is recorded as the source's.
        """
        ticket, act = self.ticket, self.act
        now = ticket.status
        moves = MOVES[now]
        if status is now and status is not Status.ON_HOLD:
            return
        command = next((command for command in _COMMANDS[status] if command in moves or status is now), None)
        match command:
            case "put-on-hold":
                ticket.put_on_hold(third_party=third_party, act=act)
            case "resume":
                ticket.resume(act=act)
            case "reopen":
                ticket.reopen(act=act)
            case "set-pending":
                ticket.set_pending(act=act)
            case "solve":
                ticket.solve(resolution_code=code, act=act)
            case "close":
                ticket.close(act=act)
            case _:
                self.stands(said, status)

    def stands(self, said: str, status: Status | None = None) -> None:
        """Record the source's own word for where the ticket stands; without a status of ours for it, ours stays."""
        ticket = self.ticket
        ticket.record(
            ticket_events.SourceStatusRecorded,
            self.act,
            requester_id=ticket.requester_id,
            status=ticket.status if status is None else status,
            previous_status=ticket.status,
            source_status=said,
            previous_solved_at=ticket.solved_at,
        )

    def asked_by(self, requester: Person) -> None:
        """Say whose ticket it is."""
        self.ticket.change_requester(requester_id=self.customer(requester), act=self.act)

    def graded(self, priority: Priority, impact: Grade | None = None, urgency: Grade | None = None) -> None:
        """Say how urgent it is; impact and urgency stay where the source has none."""
        self.ticket.change_priority(priority=priority, impact=impact, urgency=urgency, act=self.act)

    def about(self, category: str | None) -> None:
        """Say what it is about."""
        self.ticket.categorise(category=category, act=self.act)

    def field(self, name: str, value: str | None) -> None:
        """Say what a custom field holds now."""
        self.ticket.set_custom_field(name=name, value=value, act=self.act)

    def noted(self, text: str) -> None:
        """Record what the desk has no word of its own for."""
        self.ticket.add_note(text=text, act=self.act)
