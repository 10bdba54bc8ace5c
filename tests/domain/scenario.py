"""Given these events, when this command, then these events or that refusal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from uuid import UUID

from domain import agent, customer, customer_events, team, ticket, ticket_events
from domain.event import Act, Aggregate, Channel, Created, Event, Provenance, Rejected, Role
from domain.event_history import example_of
from domain.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
TICKET, OTHER_TICKET = UUID(int=0x1001), UUID(int=0x1002)
CAROL, DAVE = UUID(int=0x2001), UUID(int=0x2002)
ANN, BOB = UUID(int=0x3001), UUID(int=0x3002)
FIRST_LINE, NETWORK = UUID(int=0x4001), UUID(int=0x4002)

BY_ANN = Act(NOON, Provenance(actor_id=ANN, role=Role.AGENT, channel=Channel.API), reason="because")
WITHOUT_REASON = Act(NOON, BY_ANN.by)
BY_IMPORT = Act(NOON, Provenance(actor_id=ANN, role=Role.SYSTEM, channel=Channel.IMPORT))

AGGREGATES: dict[type[Event], type[Aggregate]] = {
    ticket_events.Opened: ticket.Ticket,
    customer_events.Registered: customer.Customer,
    agent.AgentCreated: agent.Agent,
    team.TeamCreated: team.Team,
}
STATUS_AFTER: dict[type[Event], Status] = {
    ticket_events.Opened: Status.NEW,
    ticket_events.Assigned: Status.OPEN,
    ticket_events.Replied: Status.OPEN,
    ticket_events.CustomerMessageReceived: Status.OPEN,
    ticket_events.SetPending: Status.PENDING,
    ticket_events.PutOnHold: Status.ON_HOLD,
    ticket_events.Resumed: Status.OPEN,
    ticket_events.Solved: Status.SOLVED,
    ticket_events.Reopened: Status.OPEN,
    ticket_events.Closed: Status.CLOSED,
}
OPENED: dict[str, Any] = {
    "originator_id": TICKET,
    "requester_id": CAROL,
    "subject": "Printer on fire",
    "priority": "normal",
    "impact": None,
    "urgency": None,
    "category": None,
    "tags": (),
    "custom_fields": None,
    "attachments": (),
    "attachment_names": None,
    "follow_up_of": None,
}

A = TypeVar("A", bound=Aggregate)


class Then(Generic[A]):
    """What came of a command."""

    def __init__(self, aggregate: A, refusal: Rejected | None) -> None:
        self.aggregate = aggregate
        self.refusal = refusal

    def then(self, event_class: type[Event], **fields: Any) -> A:
        """One event of this class, with these fields among its own."""
        assert self.refusal is None, f"refused: {self.refusal}"
        (event,) = self.aggregate.pending_events
        assert type(event) is event_class
        assert {name: getattr(event, name) for name in fields} == fields
        return self.aggregate

    def then_nothing(self) -> None:
        """No event and no refusal."""
        assert self.refusal is None, f"refused: {self.refusal}"
        assert self.aggregate.pending_events == []

    def then_rejected(self, refusal_class: type[Rejected], **details: Any) -> Rejected:
        """No event and this refusal, with these among its details."""
        assert self.aggregate.pending_events == []
        assert type(self.refusal) is refusal_class
        assert {name: self.refusal.details.get(name) for name in details} == details
        return self.refusal


class Given(Generic[A]):
    """An aggregate with a past."""

    def __init__(self, aggregate: A) -> None:
        self.aggregate = aggregate

    def given(self, event_class: type[Event], **fields: Any) -> Self:
        """Add to the past; what is not given follows from the aggregate as it stands, or from the example."""
        stands = self.aggregate
        for name in event_class.model_fields:
            current = name.removeprefix("previous_")
            if name not in fields and hasattr(stands, current) and (current != name or name == "requester_id"):
                fields[name] = getattr(stands, current)
        if event_class in STATUS_AFTER:
            fields.setdefault("status", STATUS_AFTER[event_class])
        event = _made(event_class, stands.id, stands.version + 1, fields)
        event.mutate(stands)
        return self

    def when(self, command: Callable[[A], object]) -> Then[A]:
        """Give it a command."""
        try:
            command(self.aggregate)
        except Rejected as refusal:
            return Then(self.aggregate, refusal)
        return Then(self.aggregate, None)


def given(event_class: type[Created], **fields: Any) -> Given[Any]:
    """Begin a past."""
    if event_class is ticket_events.Opened:
        fields = {**OPENED, "status": Status.NEW, **fields}
    aggregate_class = AGGREGATES[event_class]
    fields["originator_topic"] = aggregate_class.TOPIC
    event = _made(event_class, fields.pop("originator_id", TICKET), 1, fields)
    return Given(event.mutate(None))


def ticket_in(status: Status) -> Given[ticket.Ticket]:
    """Begin with a ticket that came into a status in the shortest way."""
    past = given(ticket_events.Opened)
    if status is Status.NEW:
        return past
    past.given(ticket_events.Assigned, agent_id=ANN, team_id=FIRST_LINE)
    match status:
        case Status.PENDING:
            past.given(ticket_events.SetPending, wake_at=None)
        case Status.ON_HOLD:
            past.given(ticket_events.PutOnHold, third_party="ACME")
        case Status.SOLVED | Status.CLOSED:
            past.given(ticket_events.Solved, resolution_code="fixed", replied=False)
    if status is Status.CLOSED:
        past.given(ticket_events.Closed)
    return past


def an_agent(agent_id: UUID, *, active: bool = True) -> agent.Agent:
    """Make an agent who is there, or no longer."""
    past = given(agent.AgentCreated, originator_id=agent_id, name="Somebody", email=None, team_ids=())
    if not active:
        past.given(agent.AgentDeactivated)
    found: agent.Agent = past.aggregate
    return found


def a_team(team_id: UUID, *, active: bool = True) -> team.Team:
    """Make a team that is there, or no longer."""
    past = given(team.TeamCreated, originator_id=team_id, name="Some team")
    if not active:
        past.given(team.TeamDeactivated)
    found: team.Team = past.aggregate
    return found


def later(**duration: float) -> Act:
    """The same actor at a later time."""
    return Act(NOON + timedelta(**duration), BY_ANN.by, reason="because")


def _made(event_class: type[Event], stream: UUID, version: int, fields: dict[str, Any]) -> Event:
    example = dict(example_of(event_class))
    circumstances = {"originator_id": stream, "originator_version": version, "timestamp": NOON, "by": BY_ANN.by}
    return event_class.model_validate({**example, **circumstances, **fields})
