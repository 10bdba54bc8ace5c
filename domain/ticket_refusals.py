"""The rules by which a ticket refuses a command, one class each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.event import Rejected
from domain.status import MOVES, TARGETS, Status, allowed_commands

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID


class TicketClosed(Rejected):
    """A closed ticket is final; what comes later belongs into a follow-up ticket."""

    problem = "ticket-closed"

    def __init__(self, ticket_id: UUID, command: str) -> None:
        super().__init__(
            f"ticket {ticket_id} is closed and final; open a follow-up ticket instead",
            ticket_id=str(ticket_id),
            command=command,
            allowed=list(allowed_commands(Status.CLOSED)),
            follow_up="open",
        )


class MoveNotAllowed(Rejected):
    """The state machine has no such move; `allowed` names those that it has from here."""

    problem = "move-not-allowed"

    def __init__(self, status: Status, command: str) -> None:
        allowed = [{"command": name, "to": str(to)} for name, to in MOVES[status].items()]
        named = ", ".join(f"{move['command']} (to {move['to']})" for move in allowed) or "none"
        super().__init__(
            f"{command} is no move of a ticket that is {status}; its moves are: {named}",
            command=command,
            **{"from": str(status)},
            to=str(TARGETS[command]),
            allowed=allowed,
        )


class ReasonRequired(Rejected):
    """Some commands want a reason."""

    problem = "reason-required"

    def __init__(self) -> None:
        super().__init__("this command wants a reason")


class NobodyNamed(Rejected):
    """Who hands something over says to whom."""

    problem = "nobody-named"

    def __init__(self, choices: tuple[str, ...]) -> None:
        super().__init__(f"this command wants one of: {', '.join(choices)}", choices=list(choices))


class LevelUnknown(Rejected):
    """There are support levels 1 to 3, and 0 for none."""

    problem = "level-unknown"

    def __init__(self, level: int, lowest: int, highest: int) -> None:
        super().__init__(
            f"there is no level {level} to go to, only {lowest} to {highest}",
            level=level,
            lowest=lowest,
            highest=highest,
        )


class LevelNotHigher(Rejected):
    """Escalating goes up."""

    problem = "level-not-higher"

    def __init__(self, level: int, current: int) -> None:
        super().__init__(f"the ticket is at level {current} already, not below {level}", level=level, current=current)


class LevelNotLower(Rejected):
    """De-escalating goes down."""

    problem = "level-not-lower"

    def __init__(self, level: int, current: int) -> None:
        super().__init__(f"the ticket is at level {current}, not above {level}", level=level, current=current)


class WakeUpNotLater(Rejected):
    """A wake-up lies in the future."""

    problem = "wake-up-not-later"

    def __init__(self, wake_at: str, now: str) -> None:
        super().__init__(f"a wake-up at {wake_at} is not after {now}", wake_at=wake_at, now=now)


class DueBeforeOpening(Rejected):
    """What is due was not due before it was asked for."""

    problem = "due-before-opening"

    def __init__(self, due_at: str, opened_at: str) -> None:
        super().__init__(
            f"the ticket was opened at {opened_at}, and a due date at {due_at} is not after that",
            due_at=due_at,
            opened_at=opened_at,
        )


class OccurredBeforeOpening(Rejected):
    """What happened to a ticket happened after it was opened."""

    problem = "occurred-before-opening"

    def __init__(self, occurred_at: str, opened_at: str) -> None:
        super().__init__(
            f"the ticket was opened at {opened_at}, so that nothing happened to it at {occurred_at}",
            occurred_at=occurred_at,
            opened_at=opened_at,
        )


class LinkedToItself(Rejected):
    """A ticket is linked to other tickets only."""

    problem = "linked-to-itself"

    def __init__(self, ticket_id: UUID) -> None:
        super().__init__(f"ticket {ticket_id} cannot be linked to itself", ticket_id=str(ticket_id))


class NoSuchVersion(Rejected):
    """A correction names an event that this ticket has."""

    problem = "no-such-version"

    def __init__(self, version: int, last: int) -> None:
        super().__init__(f"the ticket has versions 1 to {last}, no {version}", version=version, last=last)


class CorrectionWithoutField(Rejected):
    """A corrected value says which field it is of."""

    problem = "correction-without-field"

    def __init__(self) -> None:
        super().__init__("a corrected value wants the name of its field")


class NotFromASource(Rejected):
    """Only an import may record what the state machine forbids."""

    problem = "not-from-a-source"

    def __init__(self) -> None:
        super().__init__("a source status is recorded by imports only")


class TooMany(Rejected):
    """Lists on a ticket have an end, since every event carries them whole."""

    problem = "too-many"

    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"a ticket has at most {most} {what}", what=what, most=most)


def require_at_most(most: int, things: Collection[Any], what: str) -> None:
    """Raise TooMany where there are more."""
    if len(things) > most:
        raise TooMany(what, most)
