"""The search finds an order where there is one, and none where there is none."""

from __future__ import annotations

import math
from typing import NamedTuple
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.history import LOST, Attempt, Seen, Sent
from tests.faults.linearizability import Operation, Search, Undecided
from tests.faults.ticket_model import State, operations, step


class Did(NamedTuple):
    """An operation on a register: a write of `value`, or a read that gave it."""

    write: bool
    value: int


def register(state: int, what: Did) -> int | None:
    if what.write:
        return what.value
    return state if what.value == state else None


def write(value: int, begin: float, end: float = math.inf) -> Operation:
    return Operation(begin, end, Did(write=True, value=value))


def read(value: int, begin: float, end: float) -> Operation:
    return Operation(begin, end, Did(write=False, value=value))


def linearizable(*history: Operation) -> bool:
    return Search(0, history, register).linearizable()


def test_an_empty_history_is_linearizable() -> None:
    assert linearizable()


def test_one_after_the_other_each_reads_what_was_written_last() -> None:
    assert linearizable(write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7))
    assert not linearizable(write(1, 0, 1), write(2, 2, 3), read(1, 4, 5))


def test_a_read_beside_a_write_may_see_either() -> None:
    assert linearizable(write(1, 0, 10), read(0, 2, 3), read(1, 4, 5))
    assert linearizable(write(1, 0, 10), read(0, 2, 3), read(0, 4, 5))


def test_what_was_seen_once_cannot_be_unseen() -> None:
    assert not linearizable(write(1, 0, 10), read(1, 2, 3), read(0, 4, 5))


def test_a_write_without_an_answer_may_have_happened_or_not_and_also_later() -> None:
    assert linearizable(write(1, 0), read(0, 1, 2))
    assert linearizable(write(1, 0), read(1, 1, 2))
    assert linearizable(write(1, 0), write(2, 1, 2), read(2, 3, 4), read(1, 5, 6))
    assert not linearizable(write(1, 0), read(1, 1, 2), read(0, 3, 4))


def test_it_happens_once_though() -> None:
    assert not linearizable(write(1, 0), write(2, 1, 2), read(1, 3, 4), write(2, 5, 6), read(1, 7, 8))


def test_nothing_happens_before_it_was_asked() -> None:
    assert not linearizable(read(1, 0, 1), write(1, 2, 3))


def test_a_history_that_is_too_tangled_is_not_called_linearizable() -> None:
    tangled = [write(number, 0, 100) for number in range(1, 16)] + [read(99, 101, 102)]
    with pytest.raises(Undecided):
        Search(0, tangled, register, bound=1000).linearizable()


@given(st.data())
def test_whatever_took_turns_is_linearizable_however_its_times_are_stretched(data: st.DataObject) -> None:
    state = 0
    history = []
    for instant in range(data.draw(st.integers(0, 25))):
        if data.draw(st.booleans()):
            state = data.draw(st.integers(0, 3))
            did = Did(write=True, value=state)
        else:
            did = Did(write=False, value=state)
        stretch = st.floats(0, 5)
        history.append(Operation(instant - data.draw(stretch), instant + data.draw(stretch), did))
    assert linearizable(*data.draw(st.permutations(history)))


TICKET = UUID(int=7)


def sent(name: str, begin: float, end: float, status: int = 200, *, body: object = None, **answer: object) -> Sent:
    target = None if name == "open" else TICKET
    told = {"id": str(TICKET), "changed": True, "replayed": False} | answer if status in {200, 201} else answer
    given_body = body if isinstance(body, dict) else {}
    return Sent(uuid4(), 0, f"ticket.{name}", target, given_body, attempts=[Attempt(begin, end, status, told)])


def seen(begin: float, end: float, version: int, status: str, category: str | None = None) -> Seen:
    return Seen(TICKET, begin, end, version, status, None, category, 0, frozenset())


def told_by_turns(commands: list[Sent], reads: list[Seen]) -> bool:
    found = operations(commands, reads)
    return all(Search(State(), history, step).linearizable() for history in found.values())


OPENED = sent("open", 0, 1, 201, version=1)


def test_a_ticket_that_took_turns_is_accepted() -> None:
    solved = sent("solve", 2, 3, body={"resolution_code": "fixed"}, version=2)
    assert told_by_turns([OPENED, solved], [seen(4, 5, 2, "solved")])


def test_two_commands_are_never_given_one_version() -> None:
    notes = [sent("add-note", 2, 9, version=2), sent("add-note", 2, 9, version=2)]
    assert not told_by_turns([OPENED, *notes], [])


def test_a_refusal_that_no_state_explains_is_found() -> None:
    refused = sent("resume", 2, 3, 409, type="/problems/move-not-allowed")
    assert told_by_turns([OPENED, refused], [])
    assert not told_by_turns([OPENED, sent("reply", 1.1, 1.2, version=2), refused], [])


def test_a_read_of_the_past_is_found() -> None:
    note = sent("add-note", 2, 3, version=2)
    assert not told_by_turns([OPENED, note], [seen(4, 5, 1, "new")])


def test_a_command_answered_only_at_its_repetition_may_have_happened_at_the_first() -> None:
    note = sent("add-note", 2, 3, LOST)
    note.attempts.append(Attempt(8, 9, 200, {"id": str(TICKET), "version": 2, "changed": True, "replayed": True}))
    assert told_by_turns([OPENED, note], [seen(4, 5, 2, "new")])
    assert told_by_turns([OPENED, note], [seen(4, 5, 1, "new")])
    assert not told_by_turns([OPENED, note], [seen(10, 11, 1, "new")])


def test_a_change_that_was_lost_is_found() -> None:
    first = sent("categorise", 2, 3, body={"category": "a"}, version=2)
    second = sent("add-note", 4, 5, version=3)
    assert told_by_turns([OPENED, first, second], [seen(6, 7, 3, "new", "a")])
    assert not told_by_turns([OPENED, first, second], [seen(6, 7, 3, "new", None)])


def test_a_stale_version_is_one_that_was_not_the_current() -> None:
    stale = sent("add-note", 2, 3, 412, type="/problems/stale-version", current_version=1)
    stale.expected_version = 4
    assert told_by_turns([OPENED, stale], [])
    stale.expected_version = 1
    assert not told_by_turns([OPENED, stale], [])
