"""What can happen to a ticket. Stored for good: a changed shape needs a new `class_version` and an upcaster."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar
from uuid import UUID

from pydantic import AwareDatetime

from domain.attachment import Attachment
from domain.customer_events import Tier
from domain.event import Change, Channel, Created, Event, Lift, Personal, Sealed, with_defaults
from domain.priority import Grade, Priority
from domain.sla_terms import SlaTerms
from domain.status import Status

if TYPE_CHECKING:
    from domain.ticket import Ticket


class TicketType(StrEnum):
    """What kind of work a ticket is."""

    QUESTION = "question"
    INCIDENT = "incident"
    PROBLEM = "problem"
    TASK = "task"


class LinkKind(StrEnum):
    """What another ticket is to this one."""

    RELATED = "related"
    DUPLICATE_OF = "duplicate_of"
    CAUSED_BY = "caused_by"
    PARENT_OF = "parent_of"
    CHILD_OF = "child_of"
    FOLLOW_UP = "follow_up"


PersonalText = Annotated[str, Personal("requester_id")]
PersonalTextOrNone = Annotated[str | None, Personal("requester_id")]
PersonalNames = Annotated[tuple[str, ...] | Sealed | None, Personal("requester_id")]
PersonalFields = Annotated[dict[str, str] | Sealed | None, Personal("requester_id")]


class TicketEvent(Event):
    """Base of what happens to a ticket; `requester_id` is the requester after the event."""

    CIRCUMSTANCES: ClassVar[frozenset[str]] = Event.CIRCUMSTANCES | {"requester_id"}

    requester_id: UUID


class Opened(TicketEvent, Created):
    """A ticket came to be. `channel` is how the contact came in; `follow_up_of` a closed ticket that this continues.

    `tier` is the requester's then, `terms` what the ticket goes by: without them, that of a desk without policies.
    """

    TOPIC: ClassVar[str] = "ticket.opened"
    class_version: ClassVar[int] = 2
    upcast_v1_v2: ClassVar[Lift] = staticmethod(with_defaults)
    CIRCUMSTANCES: ClassVar[frozenset[str]] = Event.CIRCUMSTANCES | {"opened_by_agent"}

    subject: PersonalText
    body: PersonalText
    channel: Channel
    type: TicketType
    priority: Priority
    impact: Grade | None
    urgency: Grade | None
    category: str | None
    tags: tuple[str, ...]
    custom_fields: PersonalFields
    attachments: tuple[Attachment, ...]
    attachment_names: PersonalNames
    foreign_id: str | None
    opened_by_agent: bool
    follow_up_of: UUID | None
    status: Status
    previous_status: Status | None = None
    tier: Tier | None = None
    terms: SlaTerms | None = None

    def apply(self, ticket: Ticket) -> None:
        """Take the first values."""
        ticket.requester_id = self.requester_id
        ticket.subject = self.subject
        ticket.channel = self.channel
        ticket.type = self.type
        ticket.priority = self.priority
        ticket.impact = self.impact
        ticket.urgency = self.urgency
        ticket.category = self.category
        ticket.tags = self.tags
        ticket.custom_fields = self.custom_fields if isinstance(self.custom_fields, dict) else {}
        ticket.foreign_id = self.foreign_id
        ticket.follow_up_of = self.follow_up_of
        ticket.status = self.status
        ticket.opened_at = self.timestamp
        ticket.opened_by_agent = self.opened_by_agent
        ticket.tier = self.tier
        ticket.terms = self.terms


class Assigned(TicketEvent):
    """The ticket was given to an agent, a team or both; the fields hold both as they are afterwards."""

    TOPIC: ClassVar[str] = "ticket.assigned"

    agent_id: UUID | None
    previous_agent_id: UUID | None
    team_id: UUID | None
    previous_team_id: UUID | None
    status: Status
    previous_status: Status

    def apply(self, ticket: Ticket) -> None:
        """Take agent, team and status."""
        ticket.agent_id = self.agent_id
        ticket.team_id = self.team_id
        ticket.status = self.status


class Unassigned(TicketEvent):
    """The agent was taken off; the team keeps the ticket."""

    TOPIC: ClassVar[str] = "ticket.unassigned"

    agent_id: None = None
    previous_agent_id: UUID

    def apply(self, ticket: Ticket) -> None:
        """Clear the agent."""
        ticket.agent_id = None


class Transferred(TicketEvent):
    """Another team took the ticket over; nobody in it has it yet."""

    TOPIC: ClassVar[str] = "ticket.transferred"

    team_id: UUID
    previous_team_id: UUID | None
    agent_id: None = None
    previous_agent_id: UUID | None

    def apply(self, ticket: Ticket) -> None:
        """Take the team and clear the agent."""
        ticket.team_id = self.team_id
        ticket.agent_id = None


class Escalated(TicketEvent):
    """A higher level of support was called in; the reason says why. The agent is cleared where the team changes."""

    TOPIC: ClassVar[str] = "ticket.escalated"

    level: int
    previous_level: int
    team_id: UUID
    previous_team_id: UUID | None
    agent_id: UUID | None
    previous_agent_id: UUID | None

    def apply(self, ticket: Ticket) -> None:
        """Take level, team and agent."""
        ticket.level = self.level
        ticket.team_id = self.team_id
        ticket.agent_id = self.agent_id


class DeEscalated(TicketEvent):
    """A lower level of support suffices; level 0 is none."""

    TOPIC: ClassVar[str] = "ticket.de_escalated"

    level: int
    previous_level: int

    def apply(self, ticket: Ticket) -> None:
        """Take the level."""
        ticket.level = self.level


class Replied(TicketEvent):
    """An agent answered the customer, visibly to the customer."""

    TOPIC: ClassVar[str] = "ticket.replied"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = TicketEvent.CIRCUMSTANCES | {"agent_id", "first_reply"}

    text: PersonalText
    attachments: tuple[Attachment, ...]
    attachment_names: PersonalNames
    agent_id: UUID
    first_reply: bool
    status: Status
    previous_status: Status

    def apply(self, ticket: Ticket) -> None:
        """Count the reply and take the status."""
        ticket.replies += 1
        ticket.status = self.status


class NoteAdded(TicketEvent):
    """Somebody of the desk wrote a note that the customer does not see."""

    TOPIC: ClassVar[str] = "ticket.note_added"

    text: PersonalText
    attachments: tuple[Attachment, ...]
    attachment_names: PersonalNames

    def apply(self, ticket: Ticket) -> None:
        """Count the note."""
        ticket.notes += 1


class CustomerMessageReceived(TicketEvent):
    """A customer wrote; what was waiting or solved is open again. The text is about its author."""

    TOPIC: ClassVar[str] = "ticket.customer_message_received"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = TicketEvent.CIRCUMSTANCES | {"author_id", "channel"}

    text: Annotated[str, Personal("author_id")]
    channel: Channel
    attachments: tuple[Attachment, ...]
    attachment_names: Annotated[tuple[str, ...] | Sealed | None, Personal("author_id")]
    author_id: UUID
    status: Status
    previous_status: Status
    previous_solved_at: AwareDatetime | None

    def apply(self, ticket: Ticket) -> None:
        """Count the message and take the status."""
        ticket.customer_messages += 1
        ticket.take_status(self.status, self.timestamp)


class PriorityChanged(TicketEvent):
    """The priority, or the impact and urgency behind it, changed."""

    TOPIC: ClassVar[str] = "ticket.priority_changed"

    priority: Priority
    previous_priority: Priority
    impact: Grade | None
    previous_impact: Grade | None
    urgency: Grade | None
    previous_urgency: Grade | None

    def apply(self, ticket: Ticket) -> None:
        """Take the three."""
        ticket.priority = self.priority
        ticket.impact = self.impact
        ticket.urgency = self.urgency


class Categorised(TicketEvent):
    """The ticket was put under a category, or under none."""

    TOPIC: ClassVar[str] = "ticket.categorised"

    category: str | None
    previous_category: str | None

    def apply(self, ticket: Ticket) -> None:
        """Take the category."""
        ticket.category = self.category


class StatusEvent(TicketEvent):
    """Base of what does little else than move a ticket."""

    status: Status
    previous_status: Status

    def apply(self, ticket: Ticket) -> None:
        """Take the status."""
        ticket.take_status(self.status, self.timestamp)


class SetPending(StatusEvent):
    """The desk waits for the requester, at most until `wake_at` where one is set."""

    TOPIC: ClassVar[str] = "ticket.set_pending"

    wake_at: AwareDatetime | None
    previous_wake_at: AwareDatetime | None

    def apply(self, ticket: Ticket) -> None:
        """Take status and wake-up."""
        super().apply(ticket)
        ticket.wake_at = self.wake_at


class PutOnHold(StatusEvent):
    """The desk waits for a third party."""

    TOPIC: ClassVar[str] = "ticket.put_on_hold"

    third_party: PersonalText
    previous_third_party: PersonalTextOrNone

    def apply(self, ticket: Ticket) -> None:
        """Take status and third party."""
        super().apply(ticket)
        ticket.third_party = self.third_party


class Resumed(StatusEvent):
    """The wait is over and the desk works on the ticket again."""

    TOPIC: ClassVar[str] = "ticket.resumed"


class Solved(StatusEvent):
    """The desk holds the ticket for solved. `replied` says whether the customer had ever been answered."""

    TOPIC: ClassVar[str] = "ticket.solved"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = TicketEvent.CIRCUMSTANCES | {"replied"}

    resolution_code: str
    replied: bool

    def apply(self, ticket: Ticket) -> None:
        """Take status and resolution."""
        super().apply(ticket)
        ticket.resolution_code = self.resolution_code


class Reopened(StatusEvent):
    """The desk found the ticket not solved after all."""

    TOPIC: ClassVar[str] = "ticket.reopened"

    previous_solved_at: AwareDatetime | None


class Closed(StatusEvent):
    """The ticket became final."""

    TOPIC: ClassVar[str] = "ticket.closed"


class SourceStatusRecorded(StatusEvent):
    """A foreign desk moved its ticket in a way that ours does not: recorded as what happened there.

    `source_status` is the word of the source, `status` ours for it.
    """

    TOPIC: ClassVar[str] = "ticket.source_status_recorded"

    source_status: str
    previous_solved_at: AwareDatetime | None


class TagsEvent(TicketEvent):
    """Base of what happens to tags; `tags` are all of them afterwards, sorted."""

    tags: tuple[str, ...]
    previous_tags: tuple[str, ...]

    def apply(self, ticket: Ticket) -> None:
        """Take the tags."""
        ticket.tags = self.tags


class Tagged(TagsEvent):
    """Tags were put on."""

    TOPIC: ClassVar[str] = "ticket.tagged"


class Untagged(TagsEvent):
    """Tags were taken off."""

    TOPIC: ClassVar[str] = "ticket.untagged"


class CustomFieldSet(TicketEvent):
    """A field of the desk's own was filled in, or emptied where `value` is None."""

    TOPIC: ClassVar[str] = "ticket.custom_field_set"

    name: str
    value: PersonalTextOrNone
    previous_value: PersonalTextOrNone

    def changes(self) -> tuple[Change, ...]:
        """Name the custom field itself."""
        return (Change(f"custom_fields.{self.name}", self.previous_value, self.value, personal=True),)

    def apply(self, ticket: Ticket) -> None:
        """Take the value."""
        others = {name: value for name, value in ticket.custom_fields.items() if name != self.name}
        ticket.custom_fields = others if self.value is None else {**others, self.name: self.value}


class SubjectChanged(TicketEvent):
    """The subject line was rewritten."""

    TOPIC: ClassVar[str] = "ticket.subject_changed"

    subject: PersonalText
    previous_subject: PersonalTextOrNone

    def apply(self, ticket: Ticket) -> None:
        """Take the subject."""
        ticket.subject = self.subject


class TypeChanged(TicketEvent):
    """The ticket turned out to be another kind of work."""

    TOPIC: ClassVar[str] = "ticket.type_changed"

    type: TicketType
    previous_type: TicketType

    def apply(self, ticket: Ticket) -> None:
        """Take the type."""
        ticket.type = self.type


class RequesterChanged(TicketEvent):
    """The ticket is another customer's; what comes after is personal to that one."""

    TOPIC: ClassVar[str] = "ticket.requester_changed"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = Event.CIRCUMSTANCES

    previous_requester_id: UUID

    def apply(self, ticket: Ticket) -> None:
        """Take the requester."""
        ticket.requester_id = self.requester_id


class CcAdded(TicketEvent):
    """Somebody is to get a copy of what is sent: a customer, or a bare address."""

    TOPIC: ClassVar[str] = "ticket.cc_added"

    cc_id: UUID | None
    address: PersonalTextOrNone

    def apply(self, ticket: Ticket) -> None:
        """Add to the list."""
        if self.cc_id is not None:
            ticket.cc_ids |= {self.cc_id}
        if self.address is not None:
            ticket.cc_addresses |= {self.address}


class CcRemoved(TicketEvent):
    """A customer or an address gets no copies any more."""

    TOPIC: ClassVar[str] = "ticket.cc_removed"

    cc_id: UUID | None
    address: PersonalTextOrNone

    def changes(self) -> tuple[Change, ...]:
        """List what was removed as the old value."""
        return tuple(change._replace(old=change.new, new=None) for change in super().changes())

    def apply(self, ticket: Ticket) -> None:
        """Take off the list."""
        ticket.cc_ids -= {self.cc_id}
        ticket.cc_addresses -= {self.address}


class Linked(TicketEvent):
    """Another ticket was found to belong to this one; `kind` says what the other is to this."""

    TOPIC: ClassVar[str] = "ticket.linked"

    other_ticket_id: UUID
    kind: LinkKind

    def apply(self, ticket: Ticket) -> None:
        """Add the link."""
        ticket.links |= {(self.other_ticket_id, self.kind)}


class EventCorrected(TicketEvent):
    """An earlier event of this ticket is wrong; it stays as it is, and readers should believe this instead.

    `field` and `value` name the corrected value where it is one; `note` says it in words.
    """

    TOPIC: ClassVar[str] = "ticket.event_corrected"

    corrected_version: int
    note: PersonalText
    field: str | None
    value: PersonalTextOrNone

    def apply(self, ticket: Ticket) -> None:
        """Remember the last word on that field of that event."""
        ticket.corrections = {**ticket.corrections, (self.corrected_version, self.field): (self.note, self.value)}
