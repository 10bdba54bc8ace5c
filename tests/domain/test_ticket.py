"""What a ticket does with its commands."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from domain import ticket_events as events
from domain import ticket_refusals as refusals
from domain.agent import AgentInactive
from domain.attachment import MOST_BYTES, Attachment, AttachmentTooLarge, NamedAttachment
from domain.event import ERASED, Act, Change, Channel, Provenance, Role, Sealed
from domain.priority import MATRIX, Grade, Priority, PriorityUndetermined
from domain.status import Status
from domain.team import TeamInactive
from domain.ticket import MOST_TAGS, Ticket
from tests.domain.scenario import (
    ANN,
    BOB,
    BY_ANN,
    CAROL,
    DAVE,
    FIRST_LINE,
    NETWORK,
    NOON,
    OTHER_TICKET,
    TICKET,
    WITHOUT_REASON,
    a_team,
    an_agent,
    given,
    later,
    ticket_in,
)

pytestmark = pytest.mark.pure

PHOTO = Attachment(id=UUID(int=0x5001), content_type="image/jpeg", size=MOST_BYTES, sha256="00" * 32)


def opened(**fields: object) -> Ticket:
    values = {
        "ticket_id": TICKET,
        "requester_id": CAROL,
        "subject": "打印机着火了",
        "body": "请尽快来。",
        "channel": Channel.EMAIL,
        "act": BY_ANN,
    }
    return Ticket.open(**{**values, **fields})  # type: ignore[arg-type]


# Opening


def test_opening_gives_a_new_ticket_at_version_1() -> None:
    ticket = opened(tags=["b", "a", "b"], custom_fields={"floor": "3"}, category="hardware")
    assert (ticket.status, ticket.version, ticket.opened_at, ticket.requester_id) == (Status.NEW, 1, NOON, CAROL)
    assert (ticket.tags, ticket.custom_fields, ticket.category) == (("a", "b"), {"floor": "3"}, "hardware")
    assert ticket.priority is Priority.NORMAL


@pytest.mark.parametrize(("impact", "urgency"), list(MATRIX))
def test_impact_and_urgency_give_the_priority(impact: Grade, urgency: Grade) -> None:
    assert opened(impact=impact, urgency=urgency).priority is MATRIX[impact, urgency]


def test_the_matrix_never_lowers_a_priority_for_more_impact_or_urgency() -> None:
    order, grades = list(Priority), list(Grade)
    for (impact, urgency), priority in MATRIX.items():
        for higher in grades[grades.index(impact) :]:
            assert order.index(MATRIX[higher, urgency]) >= order.index(priority)
        for higher in grades[grades.index(urgency) :]:
            assert order.index(MATRIX[impact, higher]) >= order.index(priority)


def test_a_given_priority_overrides_the_matrix() -> None:
    ticket = opened(priority=Priority.LOW, impact=Grade.HIGH, urgency=Grade.HIGH)
    assert (ticket.priority, ticket.impact, ticket.urgency) == (Priority.LOW, Grade.HIGH, Grade.HIGH)


def test_impact_without_urgency_gives_no_priority() -> None:
    with pytest.raises(PriorityUndetermined) as refused:
        opened(impact=Grade.HIGH)
    assert refused.value.details == {"missing": ["urgency"]}


@pytest.mark.parametrize(
    ("role", "by_agent"), [(Role.CUSTOMER, False), (Role.AGENT, True), (Role.SUPERVISOR, True), (Role.SYSTEM, False)]
)
def test_who_opened_a_ticket_follows_from_the_role(role: Role, by_agent: bool) -> None:  # noqa: FBT001
    act = Act(NOON, Provenance(actor_id=ANN, role=role, channel=Channel.WEB))
    assert opened(act=act).opened_by_agent is by_agent
    assert opened(act=act, opened_by_agent=not by_agent).opened_by_agent is not by_agent


def test_a_follow_up_knows_the_ticket_that_it_continues() -> None:
    assert opened(follow_up_of=OTHER_TICKET).follow_up_of == OTHER_TICKET


def test_the_name_of_an_attachment_is_personal_and_the_rest_is_not() -> None:
    (event,) = opened(attachments=[NamedAttachment("护照.jpg", PHOTO)]).pending_events
    assert isinstance(event, events.Opened)
    assert event.attachments == (PHOTO,)
    assert event.personal_values()["attachment_names"] == ["护照.jpg"]
    assert "护照" not in event.state_json().decode()


def test_an_attachment_may_have_25_mebibytes_and_no_byte_more() -> None:
    too_large = PHOTO.model_copy(update={"size": MOST_BYTES + 1})
    with pytest.raises(AttachmentTooLarge):
        opened(attachments=[NamedAttachment("a", PHOTO), NamedAttachment("b", too_large)])


def test_a_ticket_has_at_most_a_hundred_tags() -> None:
    ticket = opened(tags=map(str, range(MOST_TAGS)))
    with pytest.raises(refusals.TooMany):
        ticket.tag(tags=["one more"], act=BY_ANN)
    with pytest.raises(refusals.TooMany):
        opened(tags=map(str, range(MOST_TAGS + 1)))


# Agents and teams


def test_an_agent_without_a_team_leaves_the_team() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.assign(agent=an_agent(BOB), act=BY_ANN))
        .then(
            events.Assigned,
            agent_id=BOB,
            previous_agent_id=ANN,
            team_id=FIRST_LINE,
            previous_team_id=FIRST_LINE,
            status=Status.OPEN,
        )
    )


def test_another_team_without_an_agent_clears_the_agent() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.assign(team=a_team(NETWORK), act=BY_ANN))
        .then(events.Assigned, agent_id=None, previous_agent_id=ANN, team_id=NETWORK, previous_team_id=FIRST_LINE)
    )


def test_the_same_team_without_an_agent_keeps_the_agent() -> None:
    ticket_in(Status.OPEN).when(lambda t: t.assign(team=a_team(FIRST_LINE), act=BY_ANN)).then_nothing()


def test_the_same_agent_and_team_again_change_nothing() -> None:
    past = ticket_in(Status.OPEN)
    past.when(lambda t: t.assign(agent=an_agent(ANN), team=a_team(FIRST_LINE), act=BY_ANN)).then_nothing()


def test_assigning_a_new_ticket_to_the_team_that_it_was_transferred_to_opens_it() -> None:
    (
        given(events.Opened)
        .given(events.Transferred, team_id=NETWORK, previous_agent_id=None)
        .when(lambda t: t.assign(team=a_team(NETWORK), act=BY_ANN))
        .then(events.Assigned, status=Status.OPEN, previous_status=Status.NEW, team_id=NETWORK)
    )


def test_assigning_to_nobody_is_refused() -> None:
    ticket_in(Status.OPEN).when(lambda t: t.assign(act=BY_ANN)).then_rejected(refusals.NobodyNamed)


def test_an_inactive_agent_gets_no_ticket() -> None:
    (
        ticket_in(Status.NEW)
        .when(lambda t: t.assign(agent=an_agent(BOB, active=False), act=BY_ANN))
        .then_rejected(AgentInactive, agent_id=str(BOB))
    )


def test_an_inactive_team_gets_no_ticket_by_any_way() -> None:
    gone = a_team(NETWORK, active=False)
    for command in (
        lambda t: t.assign(team=gone, act=BY_ANN),
        lambda t: t.assign(agent=an_agent(BOB), team=gone, act=BY_ANN),
        lambda t: t.transfer(team=gone, act=BY_ANN),
        lambda t: t.escalate(level=1, team=gone, act=BY_ANN),
    ):
        ticket_in(Status.OPEN).when(command).then_rejected(TeamInactive, team_id=str(NETWORK))


def test_unassigning_keeps_the_team() -> None:
    ticket = (
        ticket_in(Status.OPEN)
        .when(lambda t: t.unassign(act=BY_ANN))
        .then(events.Unassigned, agent_id=None, previous_agent_id=ANN)
    )
    assert (ticket.agent_id, ticket.team_id) == (None, FIRST_LINE)


def test_a_transfer_clears_the_agent() -> None:
    (
        ticket_in(Status.PENDING)
        .when(lambda t: t.transfer(team=a_team(NETWORK), act=BY_ANN))
        .then(events.Transferred, team_id=NETWORK, previous_team_id=FIRST_LINE, agent_id=None, previous_agent_id=ANN)
    )


def test_a_transfer_to_the_team_that_has_it_changes_nothing() -> None:
    ticket_in(Status.OPEN).when(lambda t: t.transfer(team=a_team(FIRST_LINE), act=BY_ANN)).then_nothing()


# Escalation


def test_escalating_to_another_team_clears_the_agent_and_says_why() -> None:
    ticket = (
        ticket_in(Status.OPEN)
        .when(lambda t: t.escalate(level=2, team=a_team(NETWORK), act=BY_ANN))
        .then(events.Escalated, level=2, previous_level=0, team_id=NETWORK, agent_id=None, reason="because")
    )
    assert (ticket.level, ticket.team_id, ticket.agent_id) == (2, NETWORK, None)


def test_escalating_within_the_team_keeps_the_agent() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.escalate(level=1, team=a_team(FIRST_LINE), act=BY_ANN))
        .then(events.Escalated, agent_id=ANN, previous_agent_id=ANN)
    )


def test_escalating_wants_a_reason() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.escalate(level=1, team=a_team(NETWORK), act=WITHOUT_REASON))
        .then_rejected(refusals.ReasonRequired)
    )


@pytest.mark.parametrize("level", [-1, 0, 4])
def test_there_is_no_level_beyond_1_to_3_to_escalate_to(level: int) -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.escalate(level=level, team=a_team(NETWORK), act=BY_ANN))
        .then_rejected(refusals.LevelUnknown, lowest=1, highest=3)
    )


def test_escalation_only_goes_up_and_de_escalation_only_down() -> None:
    past = ticket_in(Status.OPEN).given(events.Escalated, level=2, team_id=NETWORK, agent_id=None)
    up, down = refusals.LevelNotHigher, refusals.LevelNotLower
    past.when(lambda t: t.escalate(level=2, team=a_team(NETWORK), act=BY_ANN)).then_nothing()
    past.when(lambda t: t.escalate(level=2, team=a_team(FIRST_LINE), act=BY_ANN)).then_rejected(up, current=2)
    past.when(lambda t: t.escalate(level=1, team=a_team(NETWORK), act=BY_ANN)).then_rejected(up, current=2)
    past.when(lambda t: t.de_escalate(level=2, act=BY_ANN)).then_nothing()
    past.when(lambda t: t.de_escalate(level=3, act=BY_ANN)).then_rejected(refusals.LevelUnknown)
    past.when(lambda t: t.de_escalate(level=1, act=BY_ANN)).then(events.DeEscalated, level=1, previous_level=2)
    assert past.aggregate.team_id == NETWORK
    del past.aggregate.pending_events[:]
    past.when(lambda t: t.de_escalate(level=2, act=BY_ANN)).then_rejected(down, current=1)


# Messages


def test_only_the_first_public_reply_is_the_first() -> None:
    ticket = given(events.Opened).aggregate
    for text in ("one", "two"):
        ticket.reply(text=text, agent_id=ANN, act=BY_ANN)
    assert [event.first_reply for event in ticket.pending_events] == [True, False]
    assert (ticket.status, ticket.replies) == (Status.OPEN, 2)


def test_a_note_is_no_reply() -> None:
    ticket = given(events.Opened).aggregate
    ticket.add_note(text="internal", act=BY_ANN)
    ticket.reply(text="public", agent_id=ANN, act=BY_ANN)
    assert ticket.pending_events[-1].first_reply is True


def test_a_message_by_somebody_else_is_personal_to_its_author() -> None:
    ticket = ticket_in(Status.SOLVED).aggregate
    solved_at = ticket.solved_at
    ticket.record_customer_message(text="Still burning", channel=Channel.PHONE, author_id=DAVE, act=later(hours=3))
    (event,) = ticket.pending_events
    assert isinstance(event, events.CustomerMessageReceived)
    assert event.subject_of("text") == DAVE
    assert (event.status, event.previous_status, event.previous_solved_at) == (Status.OPEN, Status.SOLVED, solved_at)
    assert (ticket.solved_at, ticket.resolution_code) == (None, None)


def test_a_message_is_the_requesters_unless_it_says_whose() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.record_customer_message(text="Hello?", channel=Channel.EMAIL, act=BY_ANN))
        .then(events.CustomerMessageReceived, author_id=CAROL, status=Status.OPEN, previous_status=Status.OPEN)
    )


# What it is about


def test_a_grade_that_is_not_given_stays() -> None:
    past = given(events.Opened, impact=Grade.HIGH, urgency=Grade.LOW, priority=Priority.NORMAL)
    past.when(lambda t: t.change_priority(urgency=Grade.HIGH, act=BY_ANN)).then(
        events.PriorityChanged,
        priority=Priority.URGENT,
        previous_priority=Priority.NORMAL,
        impact=Grade.HIGH,
        urgency=Grade.HIGH,
        previous_urgency=Grade.LOW,
    )


def test_changing_one_grade_where_the_other_is_unknown_is_refused() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.change_priority(impact=Grade.HIGH, act=BY_ANN))
        .then_rejected(PriorityUndetermined, missing=["urgency"])
    )


def test_an_overridden_priority_stays_until_the_grades_are_given_again() -> None:
    past = given(events.Opened, impact=Grade.LOW, urgency=Grade.LOW, priority=Priority.URGENT)
    past.when(lambda t: t.change_priority(priority=Priority.URGENT, act=BY_ANN)).then_nothing()
    past.when(lambda t: t.change_priority(impact=Grade.LOW, act=BY_ANN)).then(
        events.PriorityChanged, priority=Priority.LOW
    )


def test_tags_are_kept_once_and_sorted() -> None:
    past = given(events.Opened, tags=("b",))
    past.when(lambda t: t.tag(tags=["b"], act=BY_ANN)).then_nothing()
    past.when(lambda t: t.tag(tags=["c", "a", "b"], act=BY_ANN)).then(
        events.Tagged, tags=("a", "b", "c"), previous_tags=("b",)
    )


def test_taking_off_what_is_not_on_changes_nothing() -> None:
    past = given(events.Opened, tags=("a", "b"))
    past.when(lambda t: t.untag(tags=["z"], act=BY_ANN)).then_nothing()
    past.when(lambda t: t.untag(tags=["a", "z"], act=BY_ANN)).then(events.Untagged, tags=("b",))


def test_a_custom_field_is_listed_by_its_own_name() -> None:
    past = given(events.Opened, custom_fields={"floor": "3"})
    past.when(lambda t: t.set_custom_field(name="floor", value="3", act=BY_ANN)).then_nothing()
    past.when(lambda t: t.set_custom_field(name="room", value=None, act=BY_ANN)).then_nothing()
    ticket = past.when(lambda t: t.set_custom_field(name="floor", value=None, act=BY_ANN)).then(events.CustomFieldSet)
    assert ticket.pending_events[0].changes() == (Change("custom_fields.floor", "3", None, personal=True),)
    assert ticket.custom_fields == {}


def test_what_comes_after_a_change_of_requester_is_personal_to_the_new_one() -> None:
    ticket = given(events.Opened).aggregate
    ticket.change_requester(requester_id=DAVE, act=BY_ANN)
    ticket.change_subject(subject="Dave's fire", act=BY_ANN)
    changed, renamed = ticket.pending_events
    assert changed.changes() == (Change("requester_id", str(CAROL), str(DAVE)),)
    assert renamed.subject_of("subject") == DAVE


def test_a_copy_goes_to_a_customer_or_to_an_address() -> None:
    ticket = given(events.Opened).aggregate
    for _ in range(2):
        ticket.add_cc(customer_id=DAVE, act=BY_ANN)
        ticket.add_cc(address="dave@example.org", act=BY_ANN)
    assert (ticket.cc_ids, ticket.cc_addresses) == ({DAVE}, {"dave@example.org"})
    for _ in range(2):
        ticket.remove_cc(customer_id=DAVE, act=BY_ANN)
        ticket.remove_cc(address="dave@example.org", act=BY_ANN)
    assert (ticket.cc_ids, ticket.cc_addresses) == (frozenset(), frozenset())
    assert [change for event in ticket.pending_events for change in event.changes()] == [
        Change("cc_id", None, str(DAVE)),
        Change("address", None, "dave@example.org", personal=True),
        Change("cc_id", str(DAVE), None),
        Change("address", "dave@example.org", None, personal=True),
    ]


@pytest.mark.parametrize("named", [{}, {"customer_id": DAVE, "address": "dave@example.org"}])
def test_a_copy_to_nobody_or_to_two_at_once_is_refused(named: dict[str, object]) -> None:
    past = given(events.Opened)
    past.when(lambda t: t.add_cc(act=BY_ANN, **named)).then_rejected(refusals.NobodyNamed)
    past.when(lambda t: t.remove_cc(act=BY_ANN, **named)).then_rejected(refusals.NobodyNamed)


# Moves


def test_a_pending_ticket_may_get_another_wake_up() -> None:
    past = ticket_in(Status.OPEN).given(events.SetPending, wake_at=NOON + timedelta(days=1))
    again = NOON + timedelta(days=2)
    past.when(lambda t: t.set_pending(wake_at=NOON + timedelta(days=1), act=BY_ANN)).then_nothing()
    past.when(lambda t: t.set_pending(wake_at=again, act=BY_ANN)).then(
        events.SetPending,
        status=Status.PENDING,
        previous_status=Status.PENDING,
        wake_at=again,
        previous_wake_at=NOON + timedelta(days=1),
    )


def test_a_wake_up_lies_after_the_command() -> None:
    past = ticket_in(Status.OPEN)
    past.when(lambda t: t.set_pending(wake_at=NOON, act=BY_ANN)).then_rejected(refusals.WakeUpNotLater)


def test_leaving_a_wait_forgets_what_was_waited_for() -> None:
    ticket = ticket_in(Status.ON_HOLD).aggregate
    ticket.set_pending(wake_at=NOON + timedelta(days=1), act=BY_ANN)
    assert ticket.third_party is None
    ticket.resume(act=BY_ANN)
    assert ticket.wake_at is None


def test_a_reply_to_a_waiting_ticket_leaves_the_wake_up() -> None:
    wake_at = NOON + timedelta(days=1)
    ticket = ticket_in(Status.OPEN).given(events.SetPending, wake_at=wake_at).aggregate
    ticket.reply(text="One more thing", agent_id=ANN, act=BY_ANN)
    assert (ticket.status, ticket.wake_at) == (Status.PENDING, wake_at)


def test_solving_says_whether_the_customer_was_ever_answered() -> None:
    for replies, replied in ((0, False), (1, True)):
        ticket = ticket_in(Status.OPEN).aggregate
        for _ in range(replies):
            ticket.reply(text="Done", agent_id=ANN, act=BY_ANN)
        ticket.solve(resolution_code="fixed", act=BY_ANN)
        solved = ticket.pending_events[-1]
        assert isinstance(solved, events.Solved)
        assert solved.replied is replied


def test_solving_again_with_the_same_code_changes_nothing_and_with_another_is_refused() -> None:
    past = ticket_in(Status.SOLVED)
    past.when(lambda t: t.solve(resolution_code="fixed", act=BY_ANN)).then_nothing()
    past.when(lambda t: t.solve(resolution_code="gone", act=BY_ANN)).then_rejected(refusals.MoveNotAllowed)


def test_closing_keeps_when_the_ticket_was_solved() -> None:
    ticket = ticket_in(Status.SOLVED).aggregate
    ticket.close(act=later(days=3))
    assert (ticket.solved_at, ticket.closed_at) == (NOON, NOON + timedelta(days=3))


def test_only_an_import_records_the_status_of_a_source() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.record_source_status(status=Status.CLOSED, source_status="Gone", act=BY_ANN))
        .then_rejected(refusals.NotFromASource)
    )


# The record itself


def test_a_link_is_made_once_for_each_kind() -> None:
    ticket = ticket_in(Status.CLOSED).aggregate
    for kind in (events.LinkKind.RELATED, events.LinkKind.CAUSED_BY, events.LinkKind.RELATED):
        ticket.link(other_ticket_id=OTHER_TICKET, kind=kind, act=BY_ANN)
    assert len(ticket.pending_events) == 2


def test_a_ticket_is_not_linked_to_itself() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.link(other_ticket_id=TICKET, kind=events.LinkKind.RELATED, act=BY_ANN))
        .then_rejected(refusals.LinkedToItself)
    )


def test_a_correction_names_an_event_and_overwrites_nothing() -> None:
    past = ticket_in(Status.OPEN)
    before = past.aggregate.subject
    command = lambda t: t.correct(corrected_version=1, note="typo", field="subject", value="Printer off", act=BY_ANN)  # noqa: E731
    past.when(command).then(events.EventCorrected, corrected_version=1, field="subject", value="Printer off")
    assert past.aggregate.subject == before
    past.aggregate.pending_events.clear()
    past.when(command).then_nothing()


@pytest.mark.parametrize("version", [-1, 0, 3])
def test_a_correction_of_an_event_that_is_not_there_is_refused(version: int) -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.correct(corrected_version=version, note="?", act=BY_ANN))
        .then_rejected(refusals.NoSuchVersion, version=version, last=2)
    )


def test_a_corrected_value_names_its_field() -> None:
    (
        ticket_in(Status.OPEN)
        .when(lambda t: t.correct(corrected_version=1, note="?", value="x", act=BY_ANN))
        .then_rejected(refusals.CorrectionWithoutField)
    )


# Erased and unopened values


def test_an_erased_value_is_never_copied_into_a_new_event() -> None:
    ticket = given(events.Opened, subject=ERASED, custom_fields=ERASED).aggregate
    ticket.change_subject(subject="New", act=BY_ANN)
    ticket.set_custom_field(name="floor", value="3", act=BY_ANN)
    renamed, filled = ticket.pending_events
    assert (renamed.previous_subject, filled.previous_value) == (None, None)


def test_a_ticket_can_be_read_without_opening_its_personal_values() -> None:
    ticket = given(
        events.Opened, subject="token", custom_fields=Sealed("token"), attachment_names=Sealed("token")
    ).aggregate
    ticket.assign(agent=an_agent(BOB), act=BY_ANN)
    assert ticket.status is Status.OPEN
