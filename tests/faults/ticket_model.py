"""One ticket as a sequential machine, written apart from the desk's own rules to judge its answers by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.faults.linearizability import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from tests.faults.history import Attempt, Seen, Sent

NO_TICKET = "none"
MOVES = {
    "set-pending": ({"new", "open", "on_hold"}, "pending"),
    "put-on-hold": ({"new", "open", "pending"}, "on_hold"),
    "resume": ({"pending", "on_hold"}, "open"),
    "solve": ({"new", "open", "pending", "on_hold"}, "solved"),
    "reopen": ({"solved"}, "open"),
    "close": ({"solved"}, "closed"),
}
"""Command → the statuses it leads from, and the one it leads to."""

ALREADY = {"set-pending": "pending", "put-on-hold": "on_hold", "solve": "solved", "resume": "open", "reopen": "open",
           "close": "closed"}  # fmt: skip
"""Command → the status in which it changes nothing, since the clients always say the same with it."""


ALWAYS = {"reply", "add-note", "record-customer-message"}
"""Commands that are an event each time."""


class State(NamedTuple):
    """What the model follows of a ticket; version 0 is before it was opened."""

    version: int = 0
    status: str = NO_TICKET
    agent: str | None = None
    category: str | None = None
    level: int = 0
    tags: frozenset[str] = frozenset()


class Asked(NamedTuple):
    """A command and what was answered; nothing was when `status` is None."""

    command: str
    body: tuple[tuple[str, Any], ...]
    expected_version: int | None
    status: int | None
    problem: str = ""
    version: int | None = None
    changed: bool | None = None
    follow_up: bool = False
    current_version: int | None = None


class Decided(NamedTuple):
    """What the model does with a command: the state after it, or the problem it refuses it with."""

    state: State
    problem: str = ""
    follow_up: bool = False


def decide(state: State, command: str, body: dict[str, Any]) -> Decided:
    """Carry a command out on the model."""
    if command == "open":
        opened = State(1, "new", None, body.get("category"), 0, frozenset(body.get("tags", ())))
        return Decided(opened) if state.version == 0 else Decided(state, "already-exists")
    if state.status == "closed" and command not in {"add-note", "close"}:
        if command == "record-customer-message":
            return Decided(state._replace(version=state.version + 1), follow_up=True)
        return Decided(state, "ticket-closed")
    if command in MOVES:
        return _moved(state, command)
    if command == "escalate" and body["level"] < state.level:
        return Decided(state, "level-not-higher")
    after = _changed(state, command, body)
    changed = after != state or command in ALWAYS
    return Decided(after._replace(version=state.version + changed))


def _changed(state: State, command: str, body: dict[str, Any]) -> State:
    opened = {"assign": {"new"}, "reply": {"new"}, "record-customer-message": {"pending", "on_hold", "solved"}}
    if state.status in opened.get(command, ()):
        state = state._replace(status="open")
    match command:
        case "assign":
            return state._replace(agent=body["agent_id"])
        case "categorise":
            return state._replace(category=body["category"])
        case "tag":
            return state._replace(tags=state.tags.union(body["tags"]))
        case "escalate":
            # Always to the one team that the clients know; who comes from no team loses the ticket.
            return state._replace(level=body["level"], agent=state.agent if state.level else None)
        case _:
            return state


def _moved(state: State, command: str) -> Decided:
    if state.status == ALREADY[command]:
        return Decided(state)
    sources, target = MOVES[command]
    if state.status not in sources:
        return Decided(state, "move-not-allowed")
    return Decided(state._replace(version=state.version + 1, status=target))


def step(state: State, what: Asked | State) -> State | None:
    """Give the state after an operation, or None where the desk's answer is not the model's."""
    if isinstance(what, State):
        return state if what == state else None
    if state.version == 0 and what.command != "open":
        return None
    decided = decide(state, what.command, dict(what.body))
    if what.expected_version not in {None, state.version}:
        decided = Decided(state, "stale-version")
    return decided.state if what.status is None or _told(what, state, decided) else None


def _told(what: Asked, state: State, decided: Decided) -> bool:
    """Tell whether an answer is the one that the model gives."""
    if what.problem or decided.problem:
        stale = what.problem == "stale-version" and what.current_version != state.version
        return what.problem == decided.problem and not stale
    if what.follow_up or decided.follow_up:
        return what.follow_up == decided.follow_up
    return (what.version, what.changed) == (decided.state.version, decided.state.version > state.version)


def operations(commands: Iterable[Sent], reads: Iterable[Seen]) -> dict[UUID, list[Operation]]:
    """Divide a history among its tickets: what happens to one does not depend on another."""
    found: dict[UUID, list[Operation]] = {}
    for command in commands:
        kind, _, name = command.name.partition(".")
        stream = command.stream
        if kind == "ticket" and stream is not None:
            found.setdefault(stream, []).extend(_operations_of(command, name))
    for read in reads:
        seen = State(read.version, read.status, read.agent, read.category, read.level, read.tags)
        found.setdefault(read.ticket, []).append(Operation(read.sent_at, read.answered_at, seen))
    return found


def _operations_of(command: Sent, name: str) -> list[Operation]:
    """Give what a command and its repetitions did: at most one effect, and refusals that had none.

    A success may be the effect of any attempt, so it lies between the first sending and the first success. A refusal
    is of its own attempt alone, and leaves open what became of an attempt that got no answer.
    """
    done = []
    body = tuple(sorted(command.body.items(), key=lambda item: item[0]))
    first = min(attempt.sent_at for attempt in command.attempts)

    def asked(attempt: Attempt | None) -> Asked:
        if attempt is None:
            return Asked(name, body, command.expected_version, None)
        answer = attempt.answer
        follow_up = command.target is not None and answer.get("id") not in {None, str(command.target)}
        return Asked(
            name,
            body,
            command.expected_version,
            attempt.status,
            attempt.problem,
            answer.get("version"),
            answer.get("changed"),
            follow_up,
            answer.get("current_version"),
        )

    done += [Operation(refusal.sent_at, refusal.answered_at, asked(refusal)) for refusal in command.refusals]
    if command.acknowledgements:
        told = min(command.acknowledgements, key=lambda attempt: attempt.answered_at)
        done.append(Operation(first, told.answered_at, asked(told)))
    elif command.in_doubt:
        done.append(Operation(first, math.inf, asked(None)))
    return done
