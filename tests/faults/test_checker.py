"""The checker sees each way in which a log can be wrong, on logs written by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.faults.checker import Logged, check_claims, check_commands, check_order
from tests.faults.history import LOST, Attempt, History, Sent

TICKET = UUID(int=1)
OTHER = UUID(int=2)
START = datetime(2026, 3, 1, tzinfo=UTC)


def logged(position: int, version: int, topic: str = "ticket.note_added", **more: Any) -> Logged:
    at = START + timedelta(seconds=position)
    return Logged(position, TICKET, version, topic, at, None, None)._replace(**more)


def note(
    status: int = 200, *, position: int = 2, version: int = 2, changed: bool = True, target: UUID = TICKET
) -> Sent:
    told = {"id": str(target), "version": version, "position": position, "changed": changed, "replayed": False}
    answer = told if status == 200 else {"type": "/problems/refused"}
    return Sent(uuid4(), 0, "ticket.add-note", target, {}, attempts=[Attempt(0, 1, status, answer)])


def wrong(command: Sent, *events: Logged) -> list[str]:
    """Judge a ticket that was opened at position 1, and the events of one command; those without a marker are its."""
    own = [event if event.execution else event._replace(marker=command.marker, execution=TICKET) for event in events]
    return check_commands([logged(1, 1, "ticket.opened"), *own], History([command])).wrong


def test_a_log_in_order_is_accepted() -> None:
    assert check_order([logged(1, 1), logged(2, 1, stream=OTHER), logged(3, 2)]) == []


@pytest.mark.parametrize(
    "log",
    [
        [logged(2, 1)],
        [logged(1, 1), logged(3, 2)],
        [logged(1, 1), logged(1, 2)],
        [logged(1, 2)],
        [logged(1, 1), logged(2, 3)],
        [logged(1, 1), logged(2, 1)],
        [logged(1, 1), logged(2, 2, recorded_at=START)],
    ],
    ids=[
        "no first",
        "hole",
        "twice",
        "stream without its first",
        "stream with a hole",
        "version twice",
        "back in time",
    ],
)
def test_a_log_out_of_order_is_found(log: list[Logged]) -> None:
    assert check_order(log)


def test_a_command_that_is_there_as_acknowledged_is_accepted() -> None:
    assert wrong(note(), logged(2, 2)) == []


@pytest.mark.parametrize(
    "events",
    [
        [],
        [logged(3, 2)],
        [logged(2, 3)],
        [logged(2, 2, stream=OTHER)],
        [logged(2, 2, "ticket.replied")],
        [logged(2, 2), logged(3, 3, marker=None, execution=OTHER)],
    ],
    ids=["lost", "elsewhere", "another version", "another ticket", "another event", "by nobody"],
)
def test_a_command_that_is_not_there_as_acknowledged_is_found(events: list[Logged]) -> None:
    by_nobody = [event._replace(marker=uuid4()) if event.execution else event for event in events]
    assert wrong(note(), *by_nobody)


@pytest.mark.parametrize("status", [200, LOST, 503])
def test_a_command_that_is_there_twice_is_found(status: int) -> None:
    command = note(status)
    again = logged(3, 3, marker=command.marker, execution=OTHER)
    assert wrong(command, logged(2, 2), again)


def test_a_command_without_an_answer_may_be_there_once_or_not() -> None:
    assert wrong(note(LOST)) == []
    assert wrong(note(LOST), logged(2, 2)) == []


def test_a_refused_command_that_is_there_is_found() -> None:
    assert wrong(note(409)) == []
    assert wrong(note(409), logged(2, 2))
    lost_before = note(409)
    lost_before.attempts.insert(0, Attempt(0, 1, LOST))
    assert wrong(lost_before, logged(2, 2)) == []


def test_half_a_command_is_found() -> None:
    message = note(version=1, target=TICKET)
    message.name = "ticket.record-customer-message"
    message.attempts[0].answer["id"] = str(OTHER)
    message.attempts[0].answer["position"] = 3
    whole = (logged(2, 2, "ticket.linked"), logged(3, 1, "ticket.opened", stream=OTHER))
    assert wrong(message, *whole) == []
    assert wrong(message, whole[0])
    assert wrong(message, whole[0], whole[1]._replace(position=4))


def test_two_answers_that_differ_are_found() -> None:
    command = note()
    command.attempts.append(Attempt(2, 3, 200, command.attempts[0].answer | {"version": 3}))
    assert wrong(command, logged(2, 2))


def test_a_command_that_changed_nothing_tells_the_version_of_that_position() -> None:
    assert wrong(note(position=1, version=1, changed=False)) == []
    assert wrong(note(position=1, version=2, changed=False))
    assert wrong(note(position=1, version=1, changed=False), logged(2, 2))


def moved(customer: UUID, email: str, status: int = 200) -> Sent:
    answer = {"id": str(customer), "version": 1, "position": 1, "changed": True, "replayed": False}
    body = {"email": email}
    attempt = Attempt(0, 1, status, answer if status == 200 else {})
    return Sent(uuid4(), 0, "customer.change-contact", customer, body, attempts=[attempt])


def test_an_address_of_two_customers_is_found() -> None:
    history = History([moved(TICKET, "a"), moved(OTHER, "a")])
    assert check_claims([("email", "00", TICKET), ("email", "01", OTHER)], [], history)
    history = History([moved(TICKET, "a"), moved(OTHER, "a"), moved(TICKET, "b")])
    assert check_claims([("email", "00", TICKET), ("email", "01", OTHER)], [], history) == []


def test_an_address_that_was_promised_and_is_not_held_is_found() -> None:
    assert check_claims([], [], History([moved(TICKET, "a")]))


def test_a_customer_that_keeps_an_address_it_gave_up_is_found() -> None:
    held = [("email", "00", TICKET), ("email", "01", TICKET)]
    assert check_claims(held, [], History([moved(TICKET, "a"), moved(TICKET, "b")]))
