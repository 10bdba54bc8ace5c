"""A ticket: what it knows of itself, and the rules by which it takes commands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from domain import ticket_events as events
from domain import ticket_refusals as refusals
from domain.attachment import NamedAttachment, event_fields
from domain.event import Act, Channel, Role, known
from domain.priority import Grade, Priority, determine
from domain.service_levels import EMPTY_BOOK, Attributes, Book
from domain.status import MOVES, TARGETS, Status, allowed_commands
from domain.ticket_breach_events import SlaAnnouncementsAsked
from domain.ticket_events import LinkKind, TicketEvent, TicketType
from domain.ticket_promises import PromisedTicket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from domain.agent import Agent
    from domain.customer_events import Tier
    from domain.sla_announcements import Announcement
    from domain.team import Team

HIGHEST_LEVEL = 3
MOST_TAGS = 100
MOST_CUSTOM_FIELDS = 100
MOST_CCS = 100
AGENT_ROLES = frozenset({Role.AGENT, Role.TEAM_LEAD, Role.SUPERVISOR, Role.ADMINISTRATOR})


class Ticket(PromisedTicket):
    """One request to the desk, from opening to closing. Its texts are in its events only; it counts them.

    A closed ticket takes nothing but notes, links and corrections. An import is exempt from that and records
    what happened to the ticket in the source's own time.
    """

    TOPIC: ClassVar[str] = "ticket"
    Event = TicketEvent

    def __init__(self) -> None:
        """Start from nothing known; the opening event fills in what has no value here."""
        super().__init__()
        self.requester_id: UUID
        self.subject: str = ""
        self.channel: Channel
        self.type: TicketType
        self.category: str | None = None
        self.tags: tuple[str, ...] = ()
        self.custom_fields: Mapping[str, str] = {}
        self.priority: Priority
        self.impact: Grade | None = None
        self.urgency: Grade | None = None
        self.status: Status = Status.NEW
        self.wake_at: datetime | None = None
        self.third_party: str | None = None
        self.resolution_code: str | None = None
        self.opened_at: datetime
        self.solved_at: datetime | None = None
        self.closed_at: datetime | None = None
        self.opened_by_agent: bool = False
        self.agent_id: UUID | None = None
        self.team_id: UUID | None = None
        self.level: int = 0
        self.replies: int = 0
        self.notes: int = 0
        self.customer_messages: int = 0
        self.cc_ids: frozenset[UUID] = frozenset()
        self.cc_addresses: frozenset[str] = frozenset()
        self.links: frozenset[tuple[UUID, LinkKind]] = frozenset()
        self.corrections: Mapping[tuple[int, str | None], tuple[str, str | None]] = {}
        self.foreign_id: str | None = None
        self.follow_up_of: UUID | None = None

    # Opening and people

    @classmethod
    def open(
        cls,
        *,
        ticket_id: UUID,
        requester_id: UUID,
        subject: str,
        body: str,
        channel: Channel,
        type: TicketType = TicketType.QUESTION,  # noqa: A002 - the word of the desk
        priority: Priority | None = None,
        impact: Grade | None = None,
        urgency: Grade | None = None,
        category: str | None = None,
        tags: Iterable[str] = (),
        custom_fields: Mapping[str, str] | None = None,
        attachments: Sequence[NamedAttachment] = (),
        foreign_id: str | None = None,
        opened_by_agent: bool | None = None,
        follow_up_of: UUID | None = None,
        tier: Tier | None = None,
        book: Book = EMPTY_BOOK,
        act: Act,
    ) -> Self:
        """Open a ticket for a customer. Without a priority, impact and urgency give one; without either it is normal.

        `opened_by_agent` follows from the actor's role unless it is given. `tier` is the customer's, and `book` has the
        policies that the ticket may go by. Raises PriorityUndetermined where one of impact and urgency is missing,
        AttachmentTooLarge and TooMany.
        """
        tags = tuple(sorted(set(tags)))
        refusals.require_at_most(MOST_TAGS, tags, "tags")
        refusals.require_at_most(MOST_CUSTOM_FIELDS, custom_fields or {}, "custom fields")
        if priority is None and impact is None and urgency is None:
            priority = Priority.NORMAL
        priority = determine(priority, impact, urgency)
        return cls.start(
            events.Opened,
            aggregate_id=ticket_id,
            act=act,
            requester_id=requester_id,
            subject=subject,
            body=body,
            channel=channel,
            type=type,
            priority=priority,
            impact=impact,
            urgency=urgency,
            category=category,
            tags=tags,
            custom_fields=dict(custom_fields) if custom_fields else None,
            **event_fields(attachments),
            foreign_id=foreign_id,
            opened_by_agent=act.by.role in AGENT_ROLES if opened_by_agent is None else opened_by_agent,
            follow_up_of=follow_up_of,
            status=Status.NEW,
            tier=tier,
            terms=book.choose(Attributes(priority, tier, type, channel, None, category, tags)),
        )

    def assign(self, *, agent: Agent | None = None, team: Team | None = None, act: Act) -> None:
        """Give the ticket to an agent, a team or both; a new ticket becomes open.

        An agent without a team leaves the team as it is; another team without an agent clears the agent.
        Raises TicketClosed, NobodyNamed, AgentInactive, TeamInactive.
        """
        self._admit("assign", act)
        if agent is None and team is None:
            raise refusals.NobodyNamed(("agent", "team"))
        if agent is not None:
            agent.require_active()
        if team is not None:
            team.require_active()
        team_id = self.team_id if team is None else team.id
        if agent is not None:
            agent_id: UUID | None = agent.id
        else:
            agent_id = self.agent_id if team_id == self.team_id else None
        status = self._moved_by("assign")
        if (agent_id, team_id, status) != (self.agent_id, self.team_id, self.status):
            self._record(
                events.Assigned,
                act,
                agent_id=agent_id,
                previous_agent_id=self.agent_id,
                team_id=team_id,
                previous_team_id=self.team_id,
                status=status,
                previous_status=self.status,
            )

    def unassign(self, *, act: Act) -> None:
        """Take the agent off; the team keeps the ticket. Raises TicketClosed."""
        self._admit("unassign", act)
        if self.agent_id is not None:
            self._record(events.Unassigned, act, previous_agent_id=self.agent_id)

    def transfer(self, *, team: Team, act: Act) -> None:
        """Hand the ticket to another team, where no agent has it yet. Raises TicketClosed, TeamInactive."""
        self._admit("transfer", act)
        team.require_active()
        if team.id != self.team_id:
            self._record(
                events.Transferred,
                act,
                team_id=team.id,
                previous_team_id=self.team_id,
                previous_agent_id=self.agent_id,
            )

    def escalate(self, *, level: int, team: Team, act: Act) -> None:
        """Call in a higher level of support, in `team`; an agent of another team is cleared.

        Raises TicketClosed, LevelUnknown, TeamInactive, LevelNotHigher, and ReasonRequired where `act` has no reason.
        """
        self._admit("escalate", act)
        if not 1 <= level <= HIGHEST_LEVEL:
            raise refusals.LevelUnknown(level, 1, HIGHEST_LEVEL)
        if not act.reason:
            raise refusals.ReasonRequired
        team.require_active()
        if (level, team.id) == (self.level, self.team_id):
            return
        if level <= self.level:
            raise refusals.LevelNotHigher(level, self.level)
        self._record(
            events.Escalated,
            act,
            level=level,
            previous_level=self.level,
            team_id=team.id,
            previous_team_id=self.team_id,
            agent_id=self.agent_id if team.id == self.team_id else None,
            previous_agent_id=self.agent_id,
        )

    def de_escalate(self, *, level: int, act: Act) -> None:
        """Go back to a lower level, 0 being none; team and agent stay.

        Raises TicketClosed, LevelUnknown, LevelNotLower.
        """
        self._admit("de-escalate", act)
        if not 0 <= level < HIGHEST_LEVEL:
            raise refusals.LevelUnknown(level, 0, HIGHEST_LEVEL - 1)
        if level > self.level:
            raise refusals.LevelNotLower(level, self.level)
        if level != self.level:
            self._record(events.DeEscalated, act, level=level, previous_level=self.level)

    # Messages

    def reply(self, *, text: str, agent_id: UUID, attachments: Sequence[NamedAttachment] = (), act: Act) -> None:
        """Answer the customer; a new ticket becomes open. Raises TicketClosed, AttachmentTooLarge, TooMany."""
        self._admit("reply", act)
        self._record(
            events.Replied,
            act,
            text=text,
            **event_fields(attachments),
            agent_id=agent_id,
            first_reply=self.replies == 0,
            status=self._moved_by("reply"),
            previous_status=self.status,
        )

    def add_note(self, *, text: str, attachments: Sequence[NamedAttachment] = (), act: Act) -> None:
        """Write what the customer does not see, also to a closed ticket. Raises AttachmentTooLarge, TooMany."""
        self._record(events.NoteAdded, act, text=text, **event_fields(attachments))

    def record_customer_message(
        self,
        *,
        text: str,
        channel: Channel,
        author_id: UUID | None = None,
        attachments: Sequence[NamedAttachment] = (),
        act: Act,
    ) -> None:
        """Take in what a customer wrote, the requester unless `author_id` says who; a waiting or solved ticket opens.

        Raises TicketClosed, upon which a follow-up is to be opened; AttachmentTooLarge, TooMany.
        """
        self._admit("record-customer-message", act)
        self._record(
            events.CustomerMessageReceived,
            act,
            text=text,
            channel=channel,
            **event_fields(attachments),
            author_id=author_id or self.requester_id,
            status=self._moved_by("record-customer-message"),
            previous_status=self.status,
            previous_solved_at=self.solved_at,
        )

    # What it is about

    def change_priority(
        self, *, priority: Priority | None = None, impact: Grade | None = None, urgency: Grade | None = None, act: Act
    ) -> None:
        """Set the priority, or the impact and urgency that it follows from; what is not given stays.

        A priority that is given overrides the matrix. Raises TicketClosed, PriorityUndetermined.
        """
        self._admit("change-priority", act)
        impact, urgency = impact or self.impact, urgency or self.urgency
        priority = determine(priority, impact, urgency)
        if (priority, impact, urgency) != (self.priority, self.impact, self.urgency):
            self._record(
                events.PriorityChanged,
                act,
                priority=priority,
                previous_priority=self.priority,
                impact=impact,
                previous_impact=self.impact,
                urgency=urgency,
                previous_urgency=self.urgency,
            )

    def categorise(self, *, category: str | None, act: Act) -> None:
        """Put the ticket under a category, or under none. Raises TicketClosed."""
        self._admit("categorise", act)
        if category != self.category:
            self._record(events.Categorised, act, category=category, previous_category=self.category)

    def tag(self, *, tags: Iterable[str], act: Act) -> None:
        """Put tags on. Raises TicketClosed, TooMany."""
        self._admit("tag", act)
        after = tuple(sorted({*self.tags, *tags}))
        refusals.require_at_most(MOST_TAGS, after, "tags")
        if after != self.tags:
            self._record(events.Tagged, act, tags=after, previous_tags=self.tags)

    def untag(self, *, tags: Iterable[str], act: Act) -> None:
        """Take tags off. Raises TicketClosed."""
        self._admit("untag", act)
        after = tuple(sorted(set(self.tags).difference(tags)))
        if after != self.tags:
            self._record(events.Untagged, act, tags=after, previous_tags=self.tags)

    def set_custom_field(self, *, name: str, value: str | None, act: Act) -> None:
        """Fill in a field of the desk's own; None empties it. Raises TicketClosed, TooMany."""
        self._admit("set-custom-field", act)
        previous = self.custom_fields.get(name)
        if value == previous:
            return
        refusals.require_at_most(MOST_CUSTOM_FIELDS, {*self.custom_fields, name}, "custom fields")
        self._record(events.CustomFieldSet, act, name=name, value=value, previous_value=known(previous))

    def change_subject(self, *, subject: str, act: Act) -> None:
        """Rewrite the subject line. Raises TicketClosed."""
        self._admit("change-subject", act)
        if subject != self.subject:
            self._record(events.SubjectChanged, act, subject=subject, previous_subject=known(self.subject))

    def change_type(self, *, type: TicketType, act: Act) -> None:  # noqa: A002 - the word of the desk
        """Make it another kind of work. Raises TicketClosed."""
        self._admit("change-type", act)
        if type is not self.type:
            self._record(events.TypeChanged, act, type=type, previous_type=self.type)

    def change_requester(self, *, requester_id: UUID, act: Act) -> None:
        """Make it another customer's ticket. Raises TicketClosed."""
        self._admit("change-requester", act)
        if requester_id != self.requester_id:
            self.record(
                events.RequesterChanged, act, requester_id=requester_id, previous_requester_id=self.requester_id
            )

    def add_cc(self, *, customer_id: UUID | None = None, address: str | None = None, act: Act) -> None:
        """Let a customer or an address have copies, one of the two. Raises TicketClosed, NobodyNamed, TooMany."""
        self._admit("add-cc", act)
        if not self._has_cc(customer_id, address):
            refusals.require_at_most(MOST_CCS - 1, (*self.cc_ids, *self.cc_addresses), "copies")
            self._record(events.CcAdded, act, cc_id=customer_id, address=address)

    def remove_cc(self, *, customer_id: UUID | None = None, address: str | None = None, act: Act) -> None:
        """Let a customer or an address have no more copies, one of the two. Raises TicketClosed, NobodyNamed."""
        self._admit("remove-cc", act)
        if self._has_cc(customer_id, address):
            self._record(events.CcRemoved, act, cc_id=customer_id, address=address)

    # Moves

    def set_pending(self, *, wake_at: datetime | None = None, act: Act) -> None:
        """Wait for the requester; a pending ticket may get another wake-up, or none.

        Raises TicketClosed, MoveNotAllowed, WakeUpNotLater.
        """
        again = self.status is Status.PENDING
        if not again:
            self._require_move("set-pending", act)
        if wake_at is not None and wake_at <= act.at:
            raise refusals.WakeUpNotLater(wake_at.isoformat(), act.at.isoformat())
        if not again or wake_at != self.wake_at:
            self._record_move(events.SetPending, "set-pending", act, wake_at=wake_at, previous_wake_at=self.wake_at)

    def put_on_hold(self, *, third_party: str, act: Act) -> None:
        """Wait for a third party; one on hold may come to wait for another. Raises TicketClosed, MoveNotAllowed."""
        again = self.status is Status.ON_HOLD
        if not again:
            self._require_move("put-on-hold", act)
        if not again or third_party != self.third_party:
            self._record_move(
                events.PutOnHold,
                "put-on-hold",
                act,
                third_party=third_party,
                previous_third_party=known(self.third_party),
            )

    def resume(self, *, act: Act) -> None:
        """End a wait; an open ticket stays as it is. Raises TicketClosed, MoveNotAllowed."""
        if self.status is not Status.OPEN:
            self._require_move("resume", act)
            self._record_move(events.Resumed, "resume", act)

    def solve(self, *, resolution_code: str, act: Act) -> None:
        """Hold the ticket for solved; the same code again changes nothing. Raises TicketClosed, MoveNotAllowed."""
        if self.status is not Status.SOLVED or resolution_code != self.resolution_code:
            self._require_move("solve", act)
            self._record_move(events.Solved, "solve", act, resolution_code=resolution_code, replied=self.replies > 0)

    def reopen(self, *, act: Act) -> None:
        """Take a solved ticket up again; an open one stays as it is. Raises TicketClosed, MoveNotAllowed."""
        if self.status is not Status.OPEN:
            self._require_move("reopen", act)
            self._record_move(events.Reopened, "reopen", act, previous_solved_at=self.solved_at)

    def close(self, *, act: Act) -> None:
        """Make a solved ticket final; a closed one stays as it is. Raises MoveNotAllowed."""
        if self.status is not Status.CLOSED:
            self._require_move("close", act)
            self._record_move(events.Closed, "close", act)

    def record_source_status(self, *, status: Status, source_status: str, act: Act) -> None:
        """Record a move of a foreign desk that ours would forbid. Raises NotFromASource unless it is an import."""
        if act.by.channel is not Channel.IMPORT:
            raise refusals.NotFromASource
        if status is not self.status:
            self._record(
                events.SourceStatusRecorded,
                act,
                status=status,
                previous_status=self.status,
                source_status=source_status,
                previous_solved_at=self.solved_at,
            )

    # The record itself

    def link(self, *, other_ticket_id: UUID, kind: LinkKind, act: Act) -> None:
        """Say what another ticket is to this one, also when this one is closed. Raises LinkedToItself."""
        if other_ticket_id == self.id:
            raise refusals.LinkedToItself(self.id)
        if (other_ticket_id, kind) not in self.links:
            self._record(events.Linked, act, other_ticket_id=other_ticket_id, kind=kind)

    def correct(
        self, *, corrected_version: int, note: str, field: str | None = None, value: str | None = None, act: Act
    ) -> None:
        """Say what is wrong with an earlier event, also when the ticket is closed; the event stays as it is.

        Raises NoSuchVersion, CorrectionWithoutField.
        """
        if not 1 <= corrected_version <= self.version:
            raise refusals.NoSuchVersion(corrected_version, self.version)
        if value is not None and field is None:
            raise refusals.CorrectionWithoutField
        if self.corrections.get((corrected_version, field)) != (note, value):
            self._record(
                events.EventCorrected, act, corrected_version=corrected_version, note=note, field=field, value=value
            )

    # Said by the desk itself, whatever the status

    def announce(self, announcement: Announcement, *, act: Act) -> None:
        """Put on record what its clocks have come to, as of the instant at which they did, also when it is closed."""
        self._record(announcement.event_class, replace(act, at=announcement.at), **announcement.fields)

    def ask_for_announcements(self, *, act: Act) -> None:
        """Let an imported ticket's clocks be announced as any other's."""
        self._record(SlaAnnouncementsAsked, act)

    def allowed_commands(self) -> tuple[str, ...]:
        """List the commands that the status of the ticket leaves open."""
        return allowed_commands(self.status)

    # Used by the commands and the events above

    def take_status(self, status: Status, at: datetime) -> None:
        """Enter a status as of an instant, leaving behind what belonged to the one before."""
        if status is self.status:
            return
        self.status = status
        self.wake_at = None
        self.third_party = None
        if status is Status.SOLVED:
            self.solved_at = at
        elif status is not Status.CLOSED:
            self.solved_at = None
            self.resolution_code = None
        self.closed_at = at if status is Status.CLOSED else None

    def _require_move(self, command: str, act: Act) -> None:
        self._admit(command, act)
        if command not in MOVES[self.status]:
            raise refusals.MoveNotAllowed(self.status, command)

    def _moved_by(self, command: str) -> Status:
        return MOVES[self.status].get(command, self.status)

    def _has_cc(self, customer_id: UUID | None, address: str | None) -> bool:
        if (customer_id is None) == (address is None):
            raise refusals.NobodyNamed(("customer", "address"))
        return customer_id in self.cc_ids or address in self.cc_addresses

    def _record_move(self, event_class: type[TicketEvent], command: str, act: Act, **fields: Any) -> None:
        self._record(event_class, act, status=TARGETS[command], previous_status=self.status, **fields)
