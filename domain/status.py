"""The life of a ticket as one table: which command moves it from which status to which."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a ticket stands."""

    NEW = "new"
    OPEN = "open"
    PENDING = "pending"
    """Waits for the requester."""
    ON_HOLD = "on_hold"
    """Waits for a third party."""
    SOLVED = "solved"
    CLOSED = "closed"


MOVES: dict[Status, dict[str, Status]] = {
    Status.NEW: {
        "assign": Status.OPEN,
        "reply": Status.OPEN,
        "set-pending": Status.PENDING,
        "put-on-hold": Status.ON_HOLD,
        "solve": Status.SOLVED,
    },
    Status.OPEN: {
        "set-pending": Status.PENDING,
        "put-on-hold": Status.ON_HOLD,
        "solve": Status.SOLVED,
    },
    Status.PENDING: {
        "record-customer-message": Status.OPEN,
        "resume": Status.OPEN,
        "put-on-hold": Status.ON_HOLD,
        "solve": Status.SOLVED,
    },
    Status.ON_HOLD: {
        "record-customer-message": Status.OPEN,
        "resume": Status.OPEN,
        "set-pending": Status.PENDING,
        "solve": Status.SOLVED,
    },
    Status.SOLVED: {
        "record-customer-message": Status.OPEN,
        "reopen": Status.OPEN,
        "close": Status.CLOSED,
    },
    Status.CLOSED: {},
}
"""Status → command → the status that the command moves a ticket to. There is no other move."""

TARGETS: dict[str, Status] = {
    "set-pending": Status.PENDING,
    "put-on-hold": Status.ON_HOLD,
    "resume": Status.OPEN,
    "reopen": Status.OPEN,
    "solve": Status.SOLVED,
    "close": Status.CLOSED,
}
"""The commands that do nothing but move, with the status each is for; they are refused where MOVES has no entry."""

STILL_WITH_A_CLOSED_TICKET = frozenset({"add-note", "link", "correct"})
"""What remains allowed when a ticket is final: to comment on its record, never to change it."""

COMMANDS: tuple[str, ...] = (
    "assign",
    "unassign",
    "transfer",
    "escalate",
    "de-escalate",
    "reply",
    "add-note",
    "record-customer-message",
    "change-priority",
    "categorise",
    "set-pending",
    "put-on-hold",
    "resume",
    "solve",
    "reopen",
    "close",
    "tag",
    "untag",
    "set-custom-field",
    "change-subject",
    "change-type",
    "change-requester",
    "set-due-date",
    "add-cc",
    "remove-cc",
    "link",
    "correct",
)
"""Every command on a ticket that exists."""


def allowed_commands(status: Status) -> tuple[str, ...]:
    """List the commands that a ticket in `status` does not refuse for its status alone.

    Setting a pending ticket pending stays allowed, since it may move the wake-up; so does naming another third
    party for a ticket on hold.
    """
    if status is Status.CLOSED:
        return tuple(command for command in COMMANDS if command in STILL_WITH_A_CLOSED_TICKET)
    moves = MOVES[status]
    waits = {Status.PENDING: "set-pending", Status.ON_HOLD: "put-on-hold"}.get(status)
    return tuple(command for command in COMMANDS if command not in TARGETS or command in moves or command == waits)
