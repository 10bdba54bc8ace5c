"""What a caller says to the desk, who the caller is, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict

from domain.customer import Customer
from domain.event import Channel, Rejected, Role
from domain.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from domain.event import Aggregate

STAFF: Final = frozenset({Role.AGENT, Role.TEAM_LEAD, Role.SUPERVISOR, Role.ADMINISTRATOR, Role.SYSTEM})
ADMINISTRATORS: Final = frozenset({Role.SUPERVISOR, Role.ADMINISTRATOR, Role.SYSTEM})
EVERYBODY: Final = STAFF | {Role.CUSTOMER}
BACKDATE: Final = "backdate"
"""The scope of a credential by which its bearer may say when something occurred."""
SCOPES: Final = (BACKDATE,)


class Forbidden(Exception):
    """The caller's role may not give this command."""

    def __init__(self, role: Role, command: str) -> None:
        super().__init__(f"the role {role} may not {command}")
        self.role = role
        self.command = command


class ScopeMissing(Exception):
    """The credential lacks a scope that the command asks for."""

    def __init__(self, scope: str, why: str) -> None:
        super().__init__(f"only a credential with the scope {scope} may {why}")
        self.scope = scope


class StaleVersion(Exception):
    """The caller expected another version than the stream has."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"version {expected} was expected and the current one is {actual}")
        self.expected = expected
        self.actual = actual


class UnknownReference(Rejected):
    """The command names something that the desk does not have."""

    problem: ClassVar[str] = "unknown-reference"


class OccurredLater(Rejected):
    """What is recorded has happened."""

    problem: ClassVar[str] = "occurred-later"

    def __init__(self, occurred_at: datetime, now: datetime) -> None:
        super().__init__(
            f"it cannot have occurred at {occurred_at.isoformat()}, since it is {now.isoformat()}",
            occurred_at=occurred_at.isoformat(),
            now=now.isoformat(),
        )


class AlreadyExists(Rejected):
    """There is one with this foreign id."""

    problem: ClassVar[str] = "already-exists"


class Command(BaseModel):
    """What a caller may say; unknown fields are refused. `reason` says why and is kept with the events."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who gives a command, and through what."""

    credential_id: UUID
    role: Role
    actor_id: UUID
    team_ids: tuple[UUID, ...] = ()
    channel: Channel = Channel.API
    client: str | None = None
    source_address: str | None = None
    on_behalf_of: UUID | None = None
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """The circumstances of one command, as the edge knows them. `at` is aware; ids are made at the edge.

    `size` is how many bytes it came in, which count against what may wait at once.
    """

    caller: Caller
    at: datetime
    command_id: UUID
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    expected_version: int | None = None
    key: str | None = None
    size: int = 0
    new_id: Callable[[], UUID] = uuid4


class Outcome(NamedTuple):
    """What a command came to; `number` is a ticket's short number."""

    stream: UUID
    version: int
    position: int
    changed: bool
    replayed: bool
    number: int | None


def may_see(caller: Caller, target: Aggregate) -> bool:
    """Tell whether a caller may know of a ticket, customer, agent or team at all."""
    if caller.role is not Role.CUSTOMER:
        return True
    match target:
        case Ticket():
            return target.requester_id == caller.actor_id or caller.actor_id in target.cc_ids
        case Customer():
            return target.id == caller.actor_id
        case _:
            return False
