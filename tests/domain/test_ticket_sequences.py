"""Any sequence of commands, against a small model that knows the rules in other words."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domain.event import Act, Channel, Event, Rejected
from domain.priority import Grade, Priority
from domain.status import COMMANDS, Status
from domain.ticket import Ticket
from domain.ticket_events import LinkKind, TicketType
from tests.domain.scenario import BY_ANN, BY_IMPORT, CAROL, DAVE, NOON, TICKET, WITHOUT_REASON, a_team, an_agent

if TYPE_CHECKING:
    from collections.abc import Callable

AGENTS = [UUID(int=0x3100 + n) for n in range(3)]
TEAMS = [UUID(int=0x4100 + n) for n in range(3)]
GONE_AGENT, GONE_TEAM = AGENTS[-1], TEAMS[-1]

agents = st.sampled_from([None, *AGENTS])
teams = st.sampled_from(TEAMS)
few_words = st.sampled_from(["a", "b", "火", "[erased]"])
tags = st.lists(few_words, max_size=3)
grades = st.sampled_from([None, *Grade])
priorities = st.sampled_from([None, *Priority])
attempts = st.booleans()

RANK = {"low": 0, "medium": 1, "high": 2}


def by_the_matrix(impact: str, urgency: str) -> str:
    """Half the sum of the ranks, in words of its own: 4 urgent, 3 high, 2 normal, less low."""
    return {4: "urgent", 3: "high", 2: "normal"}.get(RANK[impact] + RANK[urgency], "low")


def tells_old_and_new(event: Event, before: dict[str, object], after: dict[str, object]) -> None:
    """Every `previous_x` of an event is what the ticket had, and its `x` is what the ticket has then."""
    for name in type(event).model_fields:
        current = name.removeprefix("previous_")
        if current == name or current not in before:
            continue
        # What reads like an erased value is taken for one, and is not copied.
        old = None if name in event.PERSONAL and before[current] == "[erased]" else before[current]
        assert getattr(event, name) == old, name
        if current in type(event).model_fields:
            assert getattr(event, current) == after[current], current


@dataclass
class Model:
    """A ticket as plain values. A rule returns the problem that it expects, or None."""

    status: str = "new"
    agent: UUID | None = None
    team: UUID | None = None
    level: int = 0
    priority: str = "normal"
    impact: str | None = None
    urgency: str | None = None
    subject: str = "a"
    requester: UUID = CAROL
    tags: set[str] = field(default_factory=set)
    fields: dict[str, str] = field(default_factory=dict)
    copies: set[object] = field(default_factory=set)
    links: set[object] = field(default_factory=set)
    wake_at: object = None
    third_party: object = None
    code: object = None
    replies: int = 0
    messages: int = 0
    notes: int = 0

    def enter(self, status: str) -> None:
        if status != self.status:
            self.wake_at = self.third_party = None
            if status not in {"solved", "closed"}:
                self.code = None
        self.status = status


class TicketMachine(RuleBasedStateMachine):
    """Drives ticket and model side by side."""

    ticket: Ticket
    model: Model
    events: list[Event]
    now = NOON

    @initialize(impact=grades, urgency=grades, priority=priorities)
    def open(self, impact: Grade | None, urgency: Grade | None, priority: Priority | None) -> None:
        if priority is None and (impact is None) != (urgency is None):
            impact = urgency = None
        self.ticket = Ticket.open(
            ticket_id=TICKET,
            requester_id=CAROL,
            subject="a",
            body="b",
            channel=Channel.EMAIL,
            impact=impact,
            urgency=urgency,
            priority=priority,
            act=BY_ANN,
        )
        self.model = Model(impact=impact, urgency=urgency)
        if priority is not None:
            self.model.priority = str(priority)
        elif impact is not None and urgency is not None:
            self.model.priority = by_the_matrix(impact, urgency)
        self.events = []

    def act(self) -> Act:
        self.now += timedelta(minutes=7)
        return Act(self.now, BY_ANN.by, reason="because")

    def expect(self, problem: str | None, command: Callable[[], None], *, appends: bool) -> None:
        """Give the command: refused by `problem` with nothing done, or done with one event or none."""
        before, version = copy(self.ticket).__dict__, self.ticket.version
        try:
            command()
        except Rejected as refusal:
            assert refusal.problem == problem  # noqa: PT017 - a refusal is one of two right outcomes
            json.dumps(refusal.details)
            assert self.ticket.__dict__ == before
        else:
            assert problem is None
            assert self.ticket.version == version + appends

    def closed(self) -> str | None:
        return "ticket-closed" if self.model.status == "closed" else None

    @rule(agent=agents, team=st.none() | teams)
    def assign(self, agent: UUID | None, team: UUID | None) -> None:
        m = self.model
        problem = self.closed()
        if problem is None and agent is None and team is None:
            problem = "nobody-named"
        if problem is None and agent == GONE_AGENT:
            problem = "agent-inactive"
        if problem is None and team == GONE_TEAM:
            problem = "team-inactive"
        before = (m.agent, m.team, m.status)
        if problem is None:
            if agent is not None:
                m.agent = agent
            elif team != m.team:
                m.agent = None
            m.team = team or m.team
            if m.status == "new":
                m.status = "open"
        who = None if agent is None else an_agent(agent, active=agent != GONE_AGENT)
        where = None if team is None else a_team(team, active=team != GONE_TEAM)
        self.expect(
            problem,
            lambda: self.ticket.assign(agent=who, team=where, act=self.act()),
            appends=before != (m.agent, m.team, m.status),
        )

    @rule()
    def unassign(self) -> None:
        problem, had = self.closed(), self.model.agent
        if problem is None:
            self.model.agent = None
        self.expect(problem, lambda: self.ticket.unassign(act=self.act()), appends=had is not None)

    @rule(team=teams)
    def transfer(self, team: UUID) -> None:
        m, problem = self.model, self.closed()
        if problem is None and team == GONE_TEAM:
            problem = "team-inactive"
        changed = team != m.team
        if problem is None and changed:
            m.team, m.agent = team, None
        where = a_team(team, active=team != GONE_TEAM)
        self.expect(problem, lambda: self.ticket.transfer(team=where, act=self.act()), appends=changed)

    @rule(team=teams, level=st.integers(-1, 4), with_reason=st.booleans() | st.just(value=True))
    def escalate(self, team: UUID, level: int, with_reason: bool) -> None:  # noqa: FBT001 - drawn
        m, problem = self.model, self.closed()
        same = (team, level) == (m.team, m.level)
        if problem is None:
            if level not in {1, 2, 3}:
                problem = "level-unknown"
            elif not with_reason:
                problem = "reason-required"
            elif team == GONE_TEAM:
                problem = "team-inactive"
            elif level <= m.level and not same:
                problem = "level-not-higher"
        if problem is None and not same:
            m.agent = m.agent if team == m.team else None
            m.team, m.level = team, level
        act = self.act() if with_reason else WITHOUT_REASON
        where = a_team(team, active=team != GONE_TEAM)
        self.expect(problem, lambda: self.ticket.escalate(level=level, team=where, act=act), appends=not same)

    @rule(level=st.integers(-1, 4))
    def de_escalate(self, level: int) -> None:
        m, problem = self.model, self.closed()
        if problem is None and level not in {0, 1, 2}:
            problem = "level-unknown"
        if problem is None and level > m.level:
            problem = "level-not-lower"
        changed = level != m.level
        if problem is None:
            m.level = level
        self.expect(problem, lambda: self.ticket.de_escalate(level=level, act=self.act()), appends=changed)

    @rule()
    def reply(self) -> None:
        m, problem = self.model, self.closed()
        if problem is None:
            m.replies += 1
            m.status = "open" if m.status == "new" else m.status
        self.expect(problem, lambda: self.ticket.reply(text="x", agent_id=AGENTS[0], act=self.act()), appends=True)

    @rule()
    def note(self) -> None:
        self.model.notes += 1
        self.expect(None, lambda: self.ticket.add_note(text="x", act=self.act()), appends=True)

    @rule()
    def message(self) -> None:
        m, problem = self.model, self.closed()
        if problem is None:
            m.messages += 1
            if m.status != "new":
                m.enter("open")
        self.expect(
            problem,
            lambda: self.ticket.record_customer_message(text="x", channel=Channel.CHAT, act=self.act()),
            appends=True,
        )

    @rule(priority=priorities, impact=grades, urgency=grades)
    def change_priority(self, priority: Priority | None, impact: Grade | None, urgency: Grade | None) -> None:
        m, problem = self.model, self.closed()
        new_impact, new_urgency = impact or m.impact, urgency or m.urgency
        new_priority = str(priority) if priority else None
        if new_priority is None and new_impact and new_urgency:
            new_priority = by_the_matrix(new_impact, new_urgency)
        if problem is None and new_priority is None:
            problem = "priority-undetermined"
        changed = (new_priority, new_impact, new_urgency) != (m.priority, m.impact, m.urgency)
        if problem is None and new_priority is not None:
            m.priority, m.impact, m.urgency = new_priority, new_impact, new_urgency
        self.expect(
            problem,
            lambda: self.ticket.change_priority(priority=priority, impact=impact, urgency=urgency, act=self.act()),
            appends=changed,
        )

    @rule(hours=st.none() | st.integers(-1, 2))
    def set_pending(self, hours: int | None) -> None:
        m = self.model
        act = self.act()
        wake_at = None if hours is None else act.at + timedelta(hours=hours)
        problem = self.closed() or ("move-not-allowed" if m.status == "solved" else None)
        if problem is None and hours is not None and hours <= 0:
            problem = "wake-up-not-later"
        changed = m.status != "pending" or wake_at != m.wake_at
        if problem is None:
            m.enter("pending")
            m.wake_at = wake_at
        self.expect(problem, lambda: self.ticket.set_pending(wake_at=wake_at, act=act), appends=changed)

    @rule(party=few_words)
    def put_on_hold(self, party: str) -> None:
        m = self.model
        problem = self.closed() or ("move-not-allowed" if m.status == "solved" else None)
        changed = m.status != "on_hold" or party != m.third_party
        if problem is None:
            m.enter("on_hold")
            m.third_party = party
        self.expect(problem, lambda: self.ticket.put_on_hold(third_party=party, act=self.act()), appends=changed)

    @rule()
    def resume(self) -> None:
        m = self.model
        problem = self.closed() or ("move-not-allowed" if m.status in {"new", "solved"} else None)
        changed = m.status != "open"
        if problem is None:
            m.enter("open")
        self.expect(problem, lambda: self.ticket.resume(act=self.act()), appends=changed)

    @rule(code=few_words)
    def solve(self, code: str) -> None:
        m = self.model
        problem, changed = self.closed(), m.status != "solved"
        if m.status == "solved" and code != m.code:
            problem = "move-not-allowed"
        if problem is None:
            m.enter("solved")
            m.code = code
        self.expect(problem, lambda: self.ticket.solve(resolution_code=code, act=self.act()), appends=changed)

    @rule()
    def reopen(self) -> None:
        m = self.model
        problem = self.closed() or ("move-not-allowed" if m.status not in {"solved", "open"} else None)
        changed = m.status != "open"
        if problem is None:
            m.enter("open")
        self.expect(problem, lambda: self.ticket.reopen(act=self.act()), appends=changed)

    @rule()
    def close(self) -> None:
        m = self.model
        problem = None if m.status in {"solved", "closed"} else "move-not-allowed"
        changed = m.status != "closed"
        if problem is None:
            m.enter("closed")
        self.expect(problem, lambda: self.ticket.close(act=self.act()), appends=changed)

    @rule(status=st.sampled_from(Status))
    def move_at_the_source(self, status: Status) -> None:
        changed = status != self.model.status
        self.model.enter(str(status))
        act = Act(self.act().at, BY_IMPORT.by)
        self.expect(
            None,
            lambda: self.ticket.record_source_status(status=status, source_status="?", act=act),
            appends=changed,
        )

    @rule(words=tags)
    def tag(self, words: list[str]) -> None:
        m, problem = self.model, self.closed()
        changed = bool(set(words) - m.tags)
        if problem is None:
            m.tags |= set(words)
        self.expect(problem, lambda: self.ticket.tag(tags=words, act=self.act()), appends=changed)

    @rule(words=tags)
    def untag(self, words: list[str]) -> None:
        m, problem = self.model, self.closed()
        changed = bool(set(words) & m.tags)
        if problem is None:
            m.tags -= set(words)
        self.expect(problem, lambda: self.ticket.untag(tags=words, act=self.act()), appends=changed)

    @rule(name=few_words, value=st.none() | few_words)
    def set_custom_field(self, name: str, value: str | None) -> None:
        m, problem = self.model, self.closed()
        changed = m.fields.get(name) != value
        if problem is None:
            m.fields.pop(name, None)
            if value is not None:
                m.fields[name] = value
        self.expect(
            problem, lambda: self.ticket.set_custom_field(name=name, value=value, act=self.act()), appends=changed
        )

    @rule(subject=few_words)
    def change_subject(self, subject: str) -> None:
        problem, changed = self.closed(), subject != self.model.subject
        if problem is None:
            self.model.subject = subject
        self.expect(problem, lambda: self.ticket.change_subject(subject=subject, act=self.act()), appends=changed)

    @rule(requester=st.sampled_from([CAROL, DAVE]))
    def change_requester(self, requester: UUID) -> None:
        problem, changed = self.closed(), requester != self.model.requester
        if problem is None:
            self.model.requester = requester
        self.expect(
            problem, lambda: self.ticket.change_requester(requester_id=requester, act=self.act()), appends=changed
        )

    @rule(who=st.sampled_from([CAROL, DAVE, "a@example.org"]), add=st.booleans())
    def copy_to(self, who: UUID | str, add: bool) -> None:  # noqa: FBT001 - drawn
        problem, changed = self.closed(), (who in self.model.copies) is not add
        if problem is None:
            self.model.copies = self.model.copies | {who} if add else self.model.copies - {who}
        named = {"customer_id": who} if isinstance(who, UUID) else {"address": who}
        command = self.ticket.add_cc if add else self.ticket.remove_cc
        self.expect(problem, lambda: command(act=self.act(), **named), appends=changed)

    @rule(other=st.sampled_from([TICKET, UUID(int=9)]), kind=st.sampled_from(LinkKind))
    def link(self, other: UUID, kind: LinkKind) -> None:
        problem, changed = None, (other, kind) not in self.model.links
        if other == TICKET:
            problem = "linked-to-itself"
        else:
            self.model.links.add((other, kind))
        self.expect(
            problem, lambda: self.ticket.link(other_ticket_id=other, kind=kind, act=self.act()), appends=changed
        )

    @rule(version=st.integers(-1, 60), name=st.none() | few_words, value=st.none() | few_words)
    def correct(self, version: int, name: str | None, value: str | None) -> None:
        problem = None
        if not 1 <= version <= self.ticket.version:
            problem = "no-such-version"
        elif value is not None and name is None:
            problem = "correction-without-field"
        note = f"at {self.now}"
        self.expect(
            problem,
            lambda: self.ticket.correct(corrected_version=version, note=note, field=name, value=value, act=self.act()),
            appends=True,
        )

    @rule(kind=st.sampled_from(TicketType))
    def change_type(self, kind: TicketType) -> None:
        changed = kind is not self.ticket.type
        self.expect(self.closed(), lambda: self.ticket.change_type(type=kind, act=self.act()), appends=changed)

    @rule(category=st.none() | few_words)
    def categorise(self, category: str | None) -> None:
        changed = category != self.ticket.category
        self.expect(self.closed(), lambda: self.ticket.categorise(category=category, act=self.act()), appends=changed)

    @invariant()
    def ticket_and_model_agree(self) -> None:
        t, m = self.ticket, self.model
        assert (t.status, t.agent_id, t.team_id, t.level) == (m.status, m.agent, m.team, m.level)
        assert (t.priority, t.impact, t.urgency) == (m.priority, m.impact, m.urgency)
        assert (t.subject, t.requester_id, t.custom_fields) == (m.subject, m.requester, m.fields)
        assert t.tags == tuple(sorted(m.tags))
        assert t.cc_ids | t.cc_addresses == m.copies
        assert t.links == m.links
        assert (t.wake_at, t.third_party, t.resolution_code) == (m.wake_at, m.third_party, m.code)
        assert (t.replies, t.customer_messages, t.notes) == (m.replies, m.messages, m.notes)
        assert (t.closed_at is not None) == (m.status == "closed")
        assert m.status != "solved" or t.solved_at is not None
        assert set(t.allowed_commands()) <= set(COMMANDS)

    @invariant()
    def what_was_stored_gives_the_same_ticket(self) -> None:
        self.events.extend(self.ticket.collect_events())  # type: ignore[arg-type]
        folded: Ticket | None = None
        for event in self.events:
            stored = type(event).from_state(
                stream=event.originator_id,
                version=event.originator_version,
                state=json.loads(event.state_json()),
                personal=event.personal_values(),
            )
            assert stored == event
            before = {} if folded is None else copy(folded).__dict__
            folded = stored.mutate(folded)
            assert folded is not None
            tells_old_and_new(event, before, folded.__dict__)
        assert folded == self.ticket


TestTicketSequences = pytest.mark.pure(TicketMachine.TestCase)
TestTicketSequences.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
