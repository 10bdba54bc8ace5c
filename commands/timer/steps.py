"""Escalation steps: ordinary commands of the desk itself, with what fell due as their cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from commands.catalogue import COMMANDS
from commands.desk import NotFound
from commands.execution import Decision
from commands.request import Caller, Request
from commands.tickets import AddNote, AssignTicket, EscalateTicket, TicketCommand, TransferTicket
from domain.event import SYSTEM_ACTOR, Channel, Provenance, Rejected, Role
from domain.ticket_refusals import NobodyNamed

if TYPE_CHECKING:
    from commands.desk import Desk
    from commands.timer.taking import Moment
    from domain.sla_announcements import Announcement
    from domain.sla_policy import Step
    from domain.ticket import Ticket

CALLER: Final = Caller(UUID(int=0), Role.SYSTEM, SYSTEM_ACTOR, channel=Channel.SYSTEM, client="timer")


def by_the_desk(command_id: UUID, *, cause: UUID | None = None, correlation: UUID | None = None) -> Provenance:
    """Say that the desk itself did it, and what for."""
    return Provenance(
        actor_id=CALLER.actor_id,
        role=CALLER.role,
        channel=CALLER.channel,
        client=CALLER.client,
        command_id=command_id,
        correlation_id=correlation,
        causation_id=cause,
    )


async def take_step(
    desk: Desk, ticket: Ticket, fell_due: Announcement, by: Provenance, guards: dict[UUID, int], moment: Moment
) -> None:
    """Do to a ticket what a step asks for; one that the desk refuses leaves a note that says so.

    `guards` take in what was read to decide. The command is decided now: nobody had the ticket at another level before.
    """
    step, why = fell_due.step, _why(fell_due)
    if step is None:
        return
    try:
        name, command = _command(step, ticket, why)
        await _decide(desk, ticket, name, command, by, guards, moment)
    except (Rejected, NotFound) as refusal:
        note = AddNote(text=f"{why} {_ASKED[step.action]} was refused: {refusal}.")
        await _decide(desk, ticket, "add-note", note, by, guards, moment)


async def _decide(
    desk: Desk,
    ticket: Ticket,
    name: str,
    command: TicketCommand,
    cause: Provenance,
    guards: dict[UUID, int],
    moment: Moment,
) -> None:
    """Let an ordinary command decide on a ticket. Raises its refusals."""
    command_id = uuid5(cause.command_id or ticket.id, name)
    request = Request(CALLER, moment.now, command_id, cause.correlation_id, cause.command_id)
    decision = Decision(desk, request, command, moment.epoch)
    await COMMANDS["ticket", name].decide(decision, ticket, command)
    guards.update(decision.guards)


def _command(step: Step, ticket: Ticket, why: str) -> tuple[str, TicketCommand]:
    """Give the command that a step means for a ticket, by name. Raises NobodyNamed."""
    match step.action:
        case "raise_level":
            team_id = step.team_id or ticket.team_id
            if team_id is None or step.level is None:
                raise NobodyNamed(("team_id",))
            return "escalate", EscalateTicket(level=step.level, team_id=team_id, reason=why)
        case "reassign" if step.agent_id is not None:
            return "assign", AssignTicket(agent_id=step.agent_id, team_id=step.team_id, reason=why)
        case "reassign" if step.team_id is not None:
            return "transfer", TransferTicket(team_id=step.team_id, reason=why)
        case "reassign":
            raise NobodyNamed(("agent_id", "team_id"))
        case _:
            return "add-note", AddNote(text=step.note or why)


def _why(fell_due: Announcement) -> str:
    fields = fell_due.fields
    metric = str(fields["metric"]).replace("_", " ").capitalize()
    terms = fields["terms"]
    policy = "" if terms is None or terms.policy is None else f" by {terms.policy}, version {terms.policy_version}"
    return f"{metric} due at {fields['due_at']:%Y-%m-%d %H:%M:%S} UTC{policy}."


_ASKED: Final = {
    "notify": "The note that is to follow",
    "raise_level": "The higher level that is to follow",
    "reassign": "The reassignment that is to follow",
}
