"""The commands of a ticket: what a caller may say, and what the desk reads to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from commands.desk import NotFound
from commands.execution import Decision, command
from commands.instants import Instant
from commands.request import EVERYBODY, Command, UnknownReference
from domain.agent import Agent
from domain.attachment import MOST_IN_A_MESSAGE, Attachment, NamedAttachment
from domain.contact import EmailAddress
from domain.customer import Customer
from domain.event import Channel, Role
from domain.priority import Grade, Priority
from domain.sla_terms import Metric
from domain.team import Team
from domain.text import Label, Subject, Tag, Text, printable_line
from domain.ticket import MOST_CUSTOM_FIELDS, MOST_TAGS, Ticket
from domain.ticket_events import LinkKind, TicketType
from domain.ticket_refusals import NobodyNamed, TicketClosed
from storage import attachments as stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.customer_events import Tier

ForeignId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,40}:\S", max_length=200),
    AfterValidator(printable_line),
]
"""`source:identifier`: who knows the thing under which name."""

Attachments = Annotated[tuple[UUID, ...], Field(max_length=MOST_IN_A_MESSAGE, description="ids of uploaded files")]
Level = Annotated[int, Field(ge=0, le=3, strict=True)]


class TicketCommand(Command):
    """A command to a ticket; the reason, where one is given, is kept with what happened."""

    reason: Text | None = None
    occurred_at: Annotated[
        Instant | None,
        Field(description="When it happened, in the past; for credentials with the scope backdate."),
    ] = None


class OpenTicket(TicketCommand):
    """Open a ticket for a customer."""

    requester_id: UUID | None = Field(None, description="the customer; a customer opens for oneself")
    subject: Subject
    body: Text
    channel: Channel = Channel.API
    type: TicketType = TicketType.QUESTION
    priority: Priority | None = None
    impact: Grade | None = None
    urgency: Grade | None = None
    category: Label | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=MOST_TAGS)] = ()
    custom_fields: Annotated[dict[Label, Text], Field(default_factory=dict, max_length=MOST_CUSTOM_FIELDS)]
    attachments: Attachments = ()
    foreign_id: ForeignId | None = None


class AssignTicket(TicketCommand):
    """Give the ticket to an agent, a team or both."""

    agent_id: UUID | None = None
    team_id: UUID | None = None


class UnassignTicket(TicketCommand):
    """Take the agent off the ticket; the team keeps it."""


class TransferTicket(TicketCommand):
    """Hand the ticket to another team."""

    team_id: UUID


class EscalateTicket(TicketCommand):
    """Call in a higher level of support."""

    level: Annotated[int, Field(ge=1, le=3, strict=True)]
    team_id: UUID
    reason: Text


class DeEscalateTicket(TicketCommand):
    """Go back to a lower level of support."""

    level: Level = 0


class ReplyToCustomer(TicketCommand):
    """Answer the customer."""

    text: Text
    attachments: Attachments = ()


class AddNote(TicketCommand):
    """Write a note that the customer does not see."""

    text: Text
    attachments: Attachments = ()


class RecordCustomerMessage(TicketCommand):
    """Take in what a customer wrote; on a closed ticket it opens a linked follow-up, whose id is answered."""

    text: Text
    channel: Channel = Channel.API
    author_id: UUID | None = Field(None, description="the requester, unless somebody else wrote")
    attachments: Attachments = ()


class ChangePriority(TicketCommand):
    """Set the priority, or the impact and urgency that it follows from."""

    priority: Priority | None = None
    impact: Grade | None = None
    urgency: Grade | None = None


class CategoriseTicket(TicketCommand):
    """Put the ticket under a category, or under none."""

    category: Label | None


class SetPending(TicketCommand):
    """Wait for the requester, at most until a wake-up where one is given."""

    wake_at: Instant | None = None


class PutOnHold(TicketCommand):
    """Wait for a third party."""

    third_party: Label


class ResumeTicket(TicketCommand):
    """End a wait."""


class SolveTicket(TicketCommand):
    """Hold the ticket for solved."""

    resolution_code: Label


class ReopenTicket(TicketCommand):
    """Take a solved ticket up again."""


class CloseTicket(TicketCommand):
    """Make a solved ticket final."""


class TagTicket(TicketCommand):
    """Put tags on."""

    tags: Annotated[tuple[Tag, ...], Field(min_length=1, max_length=MOST_TAGS)]


class UntagTicket(TicketCommand):
    """Take tags off."""

    tags: Annotated[tuple[Tag, ...], Field(min_length=1, max_length=MOST_TAGS)]


class SetCustomField(TicketCommand):
    """Fill in a field of the desk's own; null empties it."""

    name: Label
    value: Text | None


class ChangeSubject(TicketCommand):
    """Rewrite the subject line."""

    subject: Subject


class ChangeType(TicketCommand):
    """Make it another kind of work."""

    type: TicketType


class SetDueDate(TicketCommand):
    """Say when a metric is due, whatever its policy says; null lets the policy say again."""

    metric: Metric
    due_at: Instant | None
    reason: Text


class ChangeRequester(TicketCommand):
    """Make it another customer's ticket."""

    requester_id: UUID


class AddCc(TicketCommand):
    """Let a customer or an address have copies."""

    customer_id: UUID | None = None
    address: EmailAddress | None = None


class RemoveCc(TicketCommand):
    """Let a customer or an address have no more copies."""

    customer_id: UUID | None = None
    address: EmailAddress | None = None


class LinkTicket(TicketCommand):
    """Say what another ticket is to this one."""

    other_ticket_id: UUID
    kind: LinkKind = LinkKind.RELATED


class CorrectEvent(TicketCommand):
    """Say what is wrong with an earlier event; nothing is overwritten."""

    corrected_version: Annotated[int, Field(ge=1, strict=True)]
    note: Text
    field: Label | None = None
    value: Text | None = None


@command("ticket", "open", roles=EVERYBODY, creates=True)
async def open_ticket(decision: Decision, ticket_id: UUID, command: OpenTicket) -> Ticket:  # noqa: D103
    requester_id = command.requester_id
    if decision.caller.role is Role.CUSTOMER:
        if requester_id not in {None, decision.caller.actor_id}:
            raise NotFound("customer", str(requester_id))  # noqa: EM101 - a kind, not a message
        requester_id = decision.caller.actor_id
    if requester_id is None:
        raise NobodyNamed(("requester_id",))
    requester = await decision.reference(Customer, requester_id, "requester_id")
    return Ticket.open(
        ticket_id=ticket_id,
        requester_id=requester.id,
        subject=command.subject,
        body=command.body,
        channel=command.channel,
        type=command.type,
        priority=command.priority,
        impact=command.impact,
        urgency=command.urgency,
        category=command.category,
        tags=command.tags,
        custom_fields=command.custom_fields,
        attachments=await _files(decision, command.attachments),
        foreign_id=command.foreign_id,
        tier=requester.tier,
        book=await decision.book(),
        act=decision.act,
    )


@command("ticket", "assign")
async def assign(decision: Decision, ticket: Ticket, command: AssignTicket) -> None:  # noqa: D103
    agent = await decision.optional(Agent, command.agent_id, "agent_id")
    team = await decision.optional(Team, command.team_id, "team_id")
    ticket.assign(agent=agent, team=team, act=decision.act)
    await _choose_terms(decision, ticket)


@command("ticket", "unassign")
async def unassign(decision: Decision, ticket: Ticket, command: UnassignTicket) -> None:  # noqa: ARG001, D103
    ticket.unassign(act=decision.act)


@command("ticket", "transfer")
async def transfer(decision: Decision, ticket: Ticket, command: TransferTicket) -> None:  # noqa: D103
    ticket.transfer(team=await decision.reference(Team, command.team_id, "team_id"), act=decision.act)
    await _choose_terms(decision, ticket)


@command("ticket", "escalate")
async def escalate(decision: Decision, ticket: Ticket, command: EscalateTicket) -> None:  # noqa: D103
    team = await decision.reference(Team, command.team_id, "team_id")
    ticket.escalate(level=command.level, team=team, act=decision.act)
    await _choose_terms(decision, ticket)


@command("ticket", "de-escalate")
async def de_escalate(decision: Decision, ticket: Ticket, command: DeEscalateTicket) -> None:  # noqa: D103
    ticket.de_escalate(level=command.level, act=decision.act)


@command("ticket", "reply")
async def reply(decision: Decision, ticket: Ticket, command: ReplyToCustomer) -> None:  # noqa: D103
    files = await _files(decision, command.attachments)
    ticket.reply(text=command.text, agent_id=decision.caller.actor_id, attachments=files, act=decision.act)


@command("ticket", "add-note")
async def add_note(decision: Decision, ticket: Ticket, command: AddNote) -> None:  # noqa: D103
    ticket.add_note(text=command.text, attachments=await _files(decision, command.attachments), act=decision.act)


@command("ticket", "record-customer-message", roles=EVERYBODY)
async def record_customer_message(  # noqa: D103
    decision: Decision, ticket: Ticket, command: RecordCustomerMessage
) -> Ticket | None:
    author_id = command.author_id
    if decision.caller.role is Role.CUSTOMER:
        author_id = decision.caller.actor_id
    elif author_id is not None:
        await decision.reference(Customer, author_id, "author_id")
    files = await _files(decision, command.attachments)
    try:
        ticket.record_customer_message(
            text=command.text, channel=command.channel, author_id=author_id, attachments=files, act=decision.act
        )
    except TicketClosed:
        follow_up = Ticket.open(
            ticket_id=decision.request.new_id(),
            requester_id=author_id or ticket.requester_id,
            subject=ticket.subject,
            body=command.text,
            channel=command.channel,
            type=ticket.type,
            priority=ticket.priority,
            category=ticket.category,
            tags=ticket.tags,
            attachments=files,
            opened_by_agent=False,
            follow_up_of=ticket.id,
            tier=await _tier(decision, author_id or ticket.requester_id),
            book=await decision.book(),
            act=decision.act,
        )
        ticket.link(other_ticket_id=follow_up.id, kind=LinkKind.FOLLOW_UP, act=decision.act)
        decision.add(follow_up)
        return follow_up
    return None


@command("ticket", "change-priority")
async def change_priority(decision: Decision, ticket: Ticket, command: ChangePriority) -> None:  # noqa: D103
    ticket.change_priority(priority=command.priority, impact=command.impact, urgency=command.urgency, act=decision.act)
    await _choose_terms(decision, ticket)


@command("ticket", "categorise")
async def categorise(decision: Decision, ticket: Ticket, command: CategoriseTicket) -> None:  # noqa: D103
    ticket.categorise(category=command.category, act=decision.act)
    await _choose_terms(decision, ticket)


@command("ticket", "set-pending")
async def set_pending(decision: Decision, ticket: Ticket, command: SetPending) -> None:  # noqa: D103
    ticket.set_pending(wake_at=command.wake_at, act=decision.act)


@command("ticket", "put-on-hold")
async def put_on_hold(decision: Decision, ticket: Ticket, command: PutOnHold) -> None:  # noqa: D103
    ticket.put_on_hold(third_party=command.third_party, act=decision.act)


@command("ticket", "resume")
async def resume(decision: Decision, ticket: Ticket, command: ResumeTicket) -> None:  # noqa: ARG001, D103
    ticket.resume(act=decision.act)


@command("ticket", "solve")
async def solve(decision: Decision, ticket: Ticket, command: SolveTicket) -> None:  # noqa: D103
    ticket.solve(resolution_code=command.resolution_code, act=decision.act)


@command("ticket", "reopen")
async def reopen(decision: Decision, ticket: Ticket, command: ReopenTicket) -> None:  # noqa: ARG001, D103
    ticket.reopen(act=decision.act)


@command("ticket", "close")
async def close(decision: Decision, ticket: Ticket, command: CloseTicket) -> None:  # noqa: ARG001, D103
    ticket.close(act=decision.act)


@command("ticket", "tag")
async def tag(decision: Decision, ticket: Ticket, command: TagTicket) -> None:  # noqa: D103
    ticket.tag(tags=command.tags, act=decision.act)
    await _choose_terms(decision, ticket)


@command("ticket", "untag")
async def untag(decision: Decision, ticket: Ticket, command: UntagTicket) -> None:  # noqa: D103
    ticket.untag(tags=command.tags, act=decision.act)
    await _choose_terms(decision, ticket)


@command("ticket", "set-custom-field")
async def set_custom_field(decision: Decision, ticket: Ticket, command: SetCustomField) -> None:  # noqa: D103
    ticket.set_custom_field(name=command.name, value=command.value, act=decision.act)


@command("ticket", "change-subject")
async def change_subject(decision: Decision, ticket: Ticket, command: ChangeSubject) -> None:  # noqa: D103
    ticket.change_subject(subject=command.subject, act=decision.act)


@command("ticket", "change-type")
async def change_type(decision: Decision, ticket: Ticket, command: ChangeType) -> None:  # noqa: D103
    ticket.change_type(type=command.type, act=decision.act)
    await _choose_terms(decision, ticket)


@command("ticket", "change-requester")
async def change_requester(decision: Decision, ticket: Ticket, command: ChangeRequester) -> None:  # noqa: D103
    customer = await decision.reference(Customer, command.requester_id, "requester_id")
    ticket.change_requester(requester_id=customer.id, act=decision.act)
    await _choose_terms(decision, ticket, customer.tier)


@command("ticket", "set-due-date")
async def set_due_date(decision: Decision, ticket: Ticket, command: SetDueDate) -> None:  # noqa: D103
    ticket.set_due_date(metric=command.metric, due_at=command.due_at, act=decision.act)


@command("ticket", "add-cc")
async def add_cc(decision: Decision, ticket: Ticket, command: AddCc) -> None:  # noqa: D103
    await decision.optional(Customer, command.customer_id, "customer_id")
    ticket.add_cc(customer_id=command.customer_id, address=command.address, act=decision.act)


@command("ticket", "remove-cc")
async def remove_cc(decision: Decision, ticket: Ticket, command: RemoveCc) -> None:  # noqa: D103
    ticket.remove_cc(customer_id=command.customer_id, address=command.address, act=decision.act)


@command("ticket", "link")
async def link(decision: Decision, ticket: Ticket, command: LinkTicket) -> None:  # noqa: D103
    if command.other_ticket_id != ticket.id:
        await decision.reference(Ticket, command.other_ticket_id, "other_ticket_id")
    ticket.link(other_ticket_id=command.other_ticket_id, kind=command.kind, act=decision.act)


@command("ticket", "correct")
async def correct(decision: Decision, ticket: Ticket, command: CorrectEvent) -> None:  # noqa: D103
    ticket.correct(
        corrected_version=command.corrected_version,
        note=command.note,
        field=command.field,
        value=command.value,
        act=decision.act,
    )


async def _choose_terms(decision: Decision, ticket: Ticket, tier: Tier | None = None) -> None:
    """Let the ticket go by other terms where what this command changed makes other ones hold."""
    if tier is None and ticket.attributes == ticket.attributes_before():
        return
    book = await decision.book()
    if tier is None and not book.policies:
        return  # there is nothing to choose from
    if tier is None and ticket.tier is None and book.asks_for_tiers:
        tier = await _tier(decision, ticket.requester_id)  # opened before tickets kept it
    ticket.choose_terms(book=book, tier=tier, act=decision.act)


async def _tier(decision: Decision, customer_id: UUID) -> Tier | None:
    """Give a customer's tier, None where the desk has no such customer."""
    try:
        return (await decision.load(Customer, customer_id)).tier
    except NotFound:
        return None


async def _files(decision: Decision, ids: Sequence[UUID]) -> list[NamedAttachment]:
    """Give what the event says of uploaded files. Raises UnknownReference."""
    if not ids:
        return []
    known = await stored.describe(decision.desk.workspace, ids)
    files = []
    for attachment_id in dict.fromkeys(ids):
        found = known.get(attachment_id)
        if found is None:
            message = f"attachments names no uploaded file: {attachment_id}"
            raise UnknownReference(message, field="attachments", id=str(attachment_id))
        attachment = Attachment(
            id=found.id, content_type=found.content_type, size=found.size, sha256=found.sha256.hex()
        )
        files.append(NamedAttachment(found.name, attachment))
    return files
