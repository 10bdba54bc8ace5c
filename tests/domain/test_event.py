"""What an event stores, keeps apart and says of itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain import ticket_events as events
from domain.event import ERASED, Act, Change, Event, Sealed
from domain.event_history import example_of, stored_events
from tests.domain.scenario import ANN, BY_ANN, CAROL, NOON, given, later, ticket_in

pytestmark = pytest.mark.pure

EVERY_EVENT = pytest.mark.parametrize("event_class", stored_events(), ids=lambda cls: cls.TOPIC)


def read_back(event: Event, personal: dict[str, object]) -> Event:
    return type(event).from_state(
        stream=event.originator_id,
        version=event.originator_version,
        state=json.loads(event.state_json()),
        personal=personal,
    )


@EVERY_EVENT
def test_state_and_personal_values_make_the_event_again(event_class: type[Event]) -> None:
    event = example_of(event_class)
    assert read_back(event, json.loads(json.dumps(event.personal_values()))) == event


@EVERY_EVENT
def test_the_state_holds_no_personal_value_and_no_none(event_class: type[Event]) -> None:
    event = example_of(event_class)
    state = json.loads(event.state_json())
    assert not state.keys() & event.PERSONAL.keys()
    assert None not in state.values()
    assert state.keys() | event.PERSONAL.keys() >= set(event_class.model_fields) - {
        "originator_id",
        "originator_version",
        "agent_id",  # is None by definition where a ticket is taken from an agent
    }


@EVERY_EVENT
def test_an_event_can_be_read_with_all_its_personal_values_sealed(event_class: type[Event]) -> None:
    event = example_of(event_class)
    sealed = read_back(event, {field: Sealed(f"token of {field}") for field in event.personal_values()})
    assert sealed.personal_values() == {field: f"token of {field}" for field in event.personal_values()}
    assert sealed.state_json() == event.state_json()
    for change in sealed.changes():
        if change.personal and change.new is not None:
            assert type(change.new) is str
            assert change.new.startswith("token of ")


@EVERY_EVENT
def test_an_event_can_be_read_with_all_its_personal_values_erased(event_class: type[Event]) -> None:
    event = example_of(event_class)
    erased = read_back(event, dict.fromkeys(event.personal_values(), ERASED))
    assert set(erased.personal_values().values()) == {ERASED}


@EVERY_EVENT
def test_every_personal_value_has_a_person(event_class: type[Event]) -> None:
    event = example_of(event_class)
    assert {event.subject_of(field) for field in event.PERSONAL} == event.data_subjects()


@EVERY_EVENT
def test_personal_changes_are_marked(event_class: type[Event]) -> None:
    event = example_of(event_class)
    for change in event.changes():
        name = "value" if change.field.startswith("custom_fields.") else change.field
        assert change.personal is (name in event.PERSONAL)


def test_an_absent_personal_value_is_not_stored() -> None:
    event = given(events.Opened).given(events.CcAdded, cc_id=CAROL, address=None, reason=None).aggregate
    assert event.cc_ids == {CAROL}
    made = example_of(events.CcAdded).model_copy(update={"address": None, "reason": None})
    assert set(made.personal_values()) == {"source_address"}


def test_a_state_of_another_shape_is_refused() -> None:
    event = example_of(events.Closed)
    state = json.loads(event.state_json())
    for wrong in ({**state, "colour": "red"}, {**state, "status": "lost"}, {**state, "timestamp": "2026-03-01T09:30"}):
        with pytest.raises(ValidationError):
            events.Closed.from_state(stream=UUID(int=1), version=1, state=wrong, personal={})
    del state["status"]
    with pytest.raises(ValidationError):
        events.Closed.from_state(stream=UUID(int=1), version=1, state=state, personal={})


def test_only_a_sealed_value_stands_in_for_one_of_another_type() -> None:
    event = example_of(events.Opened)
    with pytest.raises(ValidationError):
        read_back(event, {**event.personal_values(), "custom_fields": "just text"})


def test_an_act_is_in_utc_and_wants_a_zone() -> None:
    shanghai = timezone(timedelta(hours=8))
    act = Act(datetime(2026, 5, 4, 20, 0, tzinfo=shanghai), BY_ANN.by)
    assert (act.at, act.at.tzinfo) == (NOON, UTC)
    with pytest.raises(ValueError, match="zone"):
        Act(datetime(2026, 5, 4, 20, 0), BY_ANN.by)  # noqa: DTZ001 - that is what is refused


def test_events_carry_the_circumstances_of_the_act() -> None:
    ticket = ticket_in(given(events.Opened).aggregate.status).aggregate
    act = later(minutes=5)
    ticket.tag(tags=["a"], act=Act(act.at, act.by, reason="why", source_address="192.0.2.1"))
    (event,) = ticket.pending_events
    assert isinstance(event, events.Tagged)
    assert (event.occurred_at, event.by, event.reason, event.source_address) == (act.at, act.by, "why", "192.0.2.1")
    assert event.subject_of("reason") == event.subject_of("source_address") == ANN


def test_changes_list_old_and_new_and_leave_circumstances_out() -> None:
    past = given(events.Opened, opened_by_agent=True, type="question", channel="email", foreign_id=None, body="Help")
    opened = past.when(lambda t: t.reply(text="Hi", agent_id=ANN, act=BY_ANN)).then(events.Replied)
    assert opened.pending_events[0].changes() == (
        Change("text", None, "Hi", personal=True),
        Change("status", "new", "open"),
    )


def test_equal_events_have_equal_bytes() -> None:
    one, other = (example_of(events.Opened) for _ in range(2))
    assert one.state_json() == other.state_json()
