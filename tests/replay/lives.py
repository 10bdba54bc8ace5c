"""Streams for these tests: written through the domain and the log, as the commands do it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from domain.agent import Agent
from domain.customer import Customer
from domain.event import Act, Channel, Provenance, Role
from domain.priority import Priority
from domain.team import Team
from domain.ticket import Ticket
from storage.append import Submission
from storage.codec import encode

if TYPE_CHECKING:
    from domain.event import Aggregate
    from storage.append import Appended
    from storage.database import Workspace

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def act(
    actor: UUID,
    minutes: float = 0,
    *,
    role: Role = Role.AGENT,
    channel: Channel = Channel.WEB,
    reason: str | None = None,
    on_behalf_of: UUID | None = None,
) -> Act:
    provenance = Provenance(
        actor_id=actor, role=role, channel=channel, client="test", command_id=uuid4(), on_behalf_of=on_behalf_of
    )
    return Act(NOON + timedelta(minutes=minutes), provenance, reason, "192.0.2.7")


async def append(workspace: Workspace, *aggregates: Aggregate) -> Appended:
    """Record what happened to the aggregates, all in one command."""
    events: list[Any] = [event for one in aggregates for event in one.collect_events()]
    await workspace.keyring.ensure({event.subject_of(field) for event in events for field in event.personal_values()})
    return await workspace.log.append(Submission([encode(event, workspace.keyring) for event in events]))


class Cast:
    """Two teams, an agent and a customer."""

    def __init__(self) -> None:
        by = act(uuid4(), role=Role.ADMINISTRATOR)
        self.first_line = Team.create(team_id=uuid4(), name="First line", act=by)
        self.network = Team.create(team_id=uuid4(), name="网络组", act=by)
        self.ann = Agent.create(
            agent_id=uuid4(), name="Ann Lee", email="ann@desk.example", teams=[self.first_line], act=by
        )
        self.wang = Customer.register(
            customer_id=uuid4(), name="王小明", email="wang@firm.example", phone="+86 10 5550 0101", act=by
        )

    async def recorded(self, workspace: Workspace) -> Cast:
        await append(workspace, self.first_line, self.network, self.ann, self.wang)
        return self

    def open(self, *, channel: Channel = Channel.WEB) -> Ticket:
        return Ticket.open(
            ticket_id=uuid4(),
            requester_id=self.wang.id,
            subject="打印机不工作",
            body="三楼打印机卡纸。\nPlease hurry.",
            channel=Channel.EMAIL,
            tags=("printer",),
            act=act(self.wang.id, role=Role.CUSTOMER, channel=channel),
        )

    def lived(self) -> Ticket:
        """Give a ticket of eight events, none recorded yet; the fifth is a wrong priority and the last corrects it."""
        ticket = self.open()
        ann = self.ann.id
        ticket.assign(agent=self.ann, team=self.first_line, act=act(ann, 1))
        ticket.reply(text="Have you tried tray 2?", agent_id=ann, act=act(ann, 2))
        ticket.add_note(text="Customer sounded tired", act=act(ann, 3))
        ticket.change_priority(priority=Priority.LOW, act=act(ann, 4))
        ticket.escalate(level=2, team=self.network, act=act(ann, 5, reason="needs the network people"))
        ticket.solve(resolution_code="fixed", act=act(ann, 6))
        ticket.correct(
            corrected_version=5, note="clicked the wrong one", field="priority", value="high", act=act(ann, 7)
        )
        return ticket
