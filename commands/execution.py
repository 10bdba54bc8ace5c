"""How a command is carried out: loaded, decided, recorded, and decided again when somebody else was first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, TypeVar, cast
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json, to_json

from commands.identity import stream_id_for
from domain.agent import Agent
from domain.customer import ContactKnown, Customer
from domain.event import Act, Aggregate, Channel, Event, Provenance, Rejected, Role
from domain.team import Team
from domain.ticket import Ticket
from storage.codec import decode, encode
from storage.log import Appended, Claim, Claimed, Conflict, KeyReused, LogBusy, Submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from storage.database import Workspace
    from storage.log import StoredRow

AGGREGATES_HELD: Final = 10_000  # some 3 KB each
ATTEMPTS: Final = 5  # of one command against others that were first, before these are kept waiting

Kind = Literal["ticket", "customer", "agent", "team"]
KINDS: Final[dict[Kind, type[Aggregate]]] = {"ticket": Ticket, "customer": Customer, "agent": Agent, "team": Team}

A = TypeVar("A", bound=Aggregate)

STAFF: Final = frozenset({Role.AGENT, Role.TEAM_LEAD, Role.SUPERVISOR, Role.ADMINISTRATOR, Role.SYSTEM})
LEADS: Final = frozenset({Role.TEAM_LEAD, Role.SUPERVISOR, Role.ADMINISTRATOR, Role.SYSTEM})
ADMINISTRATORS: Final = frozenset({Role.SUPERVISOR, Role.ADMINISTRATOR, Role.SYSTEM})
EVERYBODY: Final = STAFF | {Role.CUSTOMER}


class NotFound(Exception):
    """There is no such ticket, customer, agent or team for this caller."""

    def __init__(self, kind: Kind, reference: str) -> None:
        super().__init__(f"there is no {kind} {reference!r}")
        self.kind = kind
        self.reference = reference


class Forbidden(Exception):
    """The caller's role may not give this command."""

    def __init__(self, role: Role, command: str) -> None:
        super().__init__(f"the role {role} may not {command}")
        self.role = role
        self.command = command


class StaleVersion(Exception):
    """The caller expected another version than the stream has."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"version {expected} was expected and the current one is {actual}")
        self.expected = expected
        self.actual = actual


class UnknownReference(Rejected):
    """The command names something that the desk does not have."""

    problem: ClassVar[str] = "unknown-reference"


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


@dataclass(frozen=True, slots=True)
class Request:
    """The circumstances of one command, as the edge knows them. `at` is aware; ids are made at the edge."""

    caller: Caller
    at: datetime
    command_id: UUID
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    expected_version: int | None = None
    key: str | None = None
    new_id: Callable[[], UUID] = uuid4


class Outcome(NamedTuple):
    """What a command came to; `number` is a ticket's short number."""

    stream: UUID
    version: int
    position: int
    changed: bool
    replayed: bool
    number: int | None


class Held(NamedTuple):
    """An aggregate as last seen, and the position of its first event."""

    aggregate: Aggregate
    first_position: int


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command: its name is its path segment and what `allowed_commands` lists."""

    kind: Kind
    name: str
    model: type[Command]
    decide: Callable[..., Awaitable[Any]]
    roles: frozenset[Role]
    creates: bool

    @property
    def summary(self) -> str:
        """Say in one line what the command does."""
        return (self.model.__doc__ or self.name).partition("\n")[0]


COMMANDS: dict[tuple[Kind, str], CommandSpec] = {}
"""Every command of the desk; HTTP has one route for each. Filled by importing `commands.catalogue`."""

C = TypeVar("C", bound=Command)


def command(
    kind: Kind, name: str, *, roles: frozenset[Role] = STAFF, creates: bool = False
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """Register the deciding function of a command; its third parameter's annotation is the command's model.

    It is called as `decide(decision, aggregate, command)`, or with `creates` as `decide(decision, id, command)` and
    then returns the new aggregate. It runs again when another command was first, so it must only read and decide.
    """

    def register(decide: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        model = cast("type[Command]", decide.__globals__[decide.__annotations__["command"]])
        COMMANDS[kind, name] = CommandSpec(kind, name, model, decide, roles, creates)
        return decide

    return register


class Decision:
    """One attempt at a command: what it read (and must still hold), what it changed, what it claims."""

    def __init__(self, desk: Desk, request: Request, reason: str | None) -> None:
        caller = request.caller
        self.desk = desk
        self.request = request
        self.caller = caller
        self.act = Act(
            at=request.at,
            by=Provenance(
                actor_id=caller.actor_id,
                role=caller.role,
                on_behalf_of=caller.on_behalf_of,
                channel=caller.channel,
                client=caller.client,
                command_id=request.command_id,
                correlation_id=request.correlation_id,
                causation_id=request.causation_id,
            ),
            reason=reason,
            source_address=caller.source_address,
        )
        self.guards: dict[UUID, int] = {}
        self.changed: list[Aggregate] = []
        self.claims: list[Claim] = []

    async def load(self, cls: type[A], stream: UUID) -> A:
        """Load an aggregate; the command is only recorded if it is still at this version then. Raises NotFound."""
        held = await self.desk.held(cls, stream)
        aggregate = _copy(cast("A", held.aggregate))
        self.guards[stream] = aggregate.version
        self.changed.append(aggregate)
        return aggregate

    async def reference(self, cls: type[A], stream: UUID, name: str) -> A:
        """Load something that the command names in field `name`. Raises UnknownReference."""
        try:
            return await self.load(cls, stream)
        except NotFound as error:
            message = f"{name} names no {error.kind}: {stream}"
            raise UnknownReference(message, field=name, id=str(stream)) from None

    async def optional(self, cls: type[A], stream: UUID | None, name: str) -> A | None:
        """Load something that the command may name. Raises UnknownReference."""
        return None if stream is None else await self.reference(cls, stream, name)

    def add(self, aggregate: Aggregate) -> None:
        """Take a new aggregate into the command; its stream must not exist."""
        self.guards[aggregate.id] = 0
        self.changed.append(aggregate)

    def claim(self, kind: str, value: str, stream: UUID, *, release: bool = False) -> None:
        """Take a value that one stream at a time may hold, or give it up."""
        self.claims.append(Claim(kind, self.desk.claim_key(kind, value), stream, release))


class Desk:
    """The tickets, customers, agents and teams of one workspace as this process knows them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._held: OrderedDict[UUID, Held] = OrderedDict()
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._under_way: dict[bytes, asyncio.Event] = {}

    async def load(self, cls: type[A], stream: UUID) -> A:
        """Give an aggregate as of now, or a little before: for showing, not for deciding. Raises NotFound."""
        held = await self.held(cls, stream, fresh=True)
        return _copy(cast("A", held.aggregate))

    async def number_of(self, stream: UUID) -> int:
        """Give a ticket's short number: the position of its first event."""
        return (await self.held(Ticket, stream)).first_position

    def first_position(self, stream: UUID) -> int | None:
        """Give the position of the first event of a stream that is held in memory, or None."""
        held = self._held.get(stream)
        return None if held is None else held.first_position

    async def held(self, cls: type[Aggregate], stream: UUID, *, fresh: bool = False) -> Held:
        """Give the aggregate as held in memory, folding its stream where it is not, or what is new with `fresh`."""
        held = self._held.get(stream)
        if held is None or fresh:
            held = await self._catch_up(cls, stream, held)
        else:
            self._held.move_to_end(stream)
        if held is None or not isinstance(held.aggregate, cls):
            raise NotFound(_kind(cls), str(stream))
        return held

    async def _catch_up(self, cls: type[Aggregate], stream: UUID, held: Held | None) -> Held | None:
        rows = await self.workspace.log.stream(stream, after=0 if held is None else held.aggregate.version)
        if rows:
            await self.workspace.keyring.load(rows)
            held = fold(rows, self.workspace, held)
            if isinstance(held.aggregate, cls):
                self._hold(held)
        return held

    def _hold(self, held: Held) -> None:
        known = self._held.get(held.aggregate.id)
        if known is None or known.aggregate.version <= held.aggregate.version:
            self._held[held.aggregate.id] = held
            self._held.move_to_end(held.aggregate.id)
            if len(self._held) > AGGREGATES_HELD:
                self._held.popitem(last=False)

    async def resolve(self, kind: Kind, reference: str) -> UUID:
        """Give the stream that an id, a ticket's short number or a foreign id means. Raises NotFound.

        An id is taken at its word: whether it exists shows when it is loaded.
        """
        try:
            return UUID(reference)
        except ValueError:
            pass
        if ":" in reference:
            return stream_id_for(kind, reference)
        if kind == "ticket" and reference.isascii() and reference.isdigit() and len(reference) <= _LONGEST_NUMBER:
            row = await self.workspace.log.row(int(reference))
            if row is not None and row.topic == "ticket.opened":
                return row.stream
        raise NotFound(kind, reference)

    def claim_key(self, kind: str, value: str) -> bytes:
        """Give the keyed hash under which a claimed value is stored."""
        return self.workspace.keyring.digest(f"claim {kind}", value.encode())

    async def holder(self, kind: str, value: str) -> UUID | None:
        """Give the stream that holds a claimed value, or None."""
        return await self.workspace.log.owner_of(kind, self.claim_key(kind, value))

    @asynccontextmanager
    async def turn(self, stream: UUID) -> AsyncIterator[None]:
        """Let commands of this process on one stream decide one after the other, so that they do not collide."""
        lock = self._turns.get(stream)
        if lock is None:
            lock = self._turns[stream] = asyncio.Lock()
        async with lock:
            yield

    @asynccontextmanager
    async def once(self, key: bytes | None) -> AsyncIterator[None]:
        """Let a second request with the same key wait until the first has its outcome."""
        if key is None:
            yield
            return
        while (first := self._under_way.get(key)) is not None:
            await first.wait()
        done = self._under_way[key] = asyncio.Event()
        try:
            yield
        finally:
            del self._under_way[key]
            done.set()

    def take(self, decision: Decision, appended: Appended, events: Mapping[UUID, int]) -> None:
        """Keep what a recorded command left, so that the next one need not load it."""
        for aggregate in decision.changed:
            if aggregate.id in events:
                known = self._held.get(aggregate.id)
                first = known.first_position if known is not None else appended.first_position + events[aggregate.id]
                if known is not None or decision.guards[aggregate.id] == 0:
                    self._hold(Held(aggregate, first))


_LONGEST_NUMBER = 18  # digits of a bigint that cannot overflow


@dataclass(slots=True)
class _Attempt:
    submission: Submission
    decision: Decision
    refusal: Exception | None = None
    offsets: dict[UUID, int] = field(default_factory=dict)


async def execute(desk: Desk, request: Request, spec: CommandSpec, target: UUID | None, command: Command) -> Outcome:
    """Carry a command out and return when it is durable; `target` is None for one that creates.

    A refusal, a stale version and a command that changes nothing are confirmed against the log before they are
    answered, since nothing else would contradict a copy that has become stale. Raises domain refusals (Rejected),
    NotFound, Forbidden, StaleVersion, KeyReused, LogBusy, LogUnavailable.
    """
    if request.caller.role not in spec.roles:
        raise Forbidden(request.caller.role, spec.name)
    keyring = desk.workspace.keyring
    stream = target if target is not None else _stream_for(spec, request, command)
    key = body = None
    if request.key is not None:
        key = keyring.digest("command", request.caller.credential_id.bytes + request.key.encode())
        said = (spec.kind, spec.name, target, command.model_dump(mode="json"))
        body = keyring.digest("body", to_json(said))
    async with desk.once(key), desk.turn(stream):
        for _ in range(ATTEMPTS):
            attempt = await _attempt(desk, request, spec, stream, command, key, body)
            try:
                appended = await desk.workspace.log.append(attempt.submission)
            except Conflict as conflict:
                if spec.creates and conflict.stream == stream:
                    message = f"there is a {spec.kind} {stream} already"
                    raise AlreadyExists(message, id=str(stream)) from None
                await desk.held(Aggregate, conflict.stream, fresh=True)
            except Claimed as claimed:
                raise ContactKnown(cast("Any", claimed.kind), claimed.owner) from None
            else:
                return _settled(desk, attempt, appended)
        # Second too often, so the others are kept waiting for this once.
        async with desk.workspace.log.exclusively() as append:
            for seen in attempt.decision.guards:
                await desk.held(Aggregate, seen, fresh=True)
            attempt = await _attempt(desk, request, spec, stream, command, key, body)
            try:
                appended = await append(attempt.submission)
            except Claimed as claimed:
                raise ContactKnown(cast("Any", claimed.kind), claimed.owner) from None
        return _settled(desk, attempt, appended)


async def _attempt(
    desk: Desk,
    request: Request,
    spec: CommandSpec,
    stream: UUID,
    command: Command,
    key: bytes | None,
    body: bytes | None,
) -> _Attempt:
    decision = Decision(desk, request, getattr(command, "reason", None))
    target: Aggregate | None = None
    refusal: Exception | None = None
    try:
        if spec.creates:
            target = await spec.decide(decision, stream, command)
            decision.add(cast("Aggregate", target))
        else:
            target = await decision.load(KINDS[spec.kind], stream)
            _check_reach(request.caller, target)
            if request.expected_version is not None and request.expected_version != target.version:
                refusal = StaleVersion(request.expected_version, target.version)
            else:
                # A command that brought forth something else, such as a follow-up, answers with that.
                target = await spec.decide(decision, target, command) or target
    except (Rejected, NotFound) as error:
        refusal = error
    if refusal is not None:
        return _Attempt(Submission((), decision.guards, (), key, body, probe=True), decision, refusal)
    pending = [cast("Event", event) for aggregate in decision.changed for event in aggregate.collect_events()]
    await desk.workspace.keyring.ensure(subject for event in pending for subject in event.data_subjects())
    events = [encode(event, desk.workspace.keyring) for event in pending]
    offsets: dict[UUID, int] = {}
    for offset, event in enumerate(events):
        offsets.setdefault(event.stream, offset)
    target = cast("Aggregate", target)
    outcome = {"stream": target.id, "version": target.version, "changed": bool(events)}
    if isinstance(target, Ticket):
        # A new ticket's number is the position that its opening gets, which only the log knows.
        known = desk.first_position(target.id)
        outcome |= {"opening": offsets[target.id]} if known is None else {"number": known}
    submission = Submission(events, decision.guards, decision.claims, key, body, to_json(outcome))
    return _Attempt(submission, decision, offsets=offsets)


def _stream_for(spec: CommandSpec, request: Request, command: Command) -> UUID:
    foreign_id: str | None = getattr(command, "foreign_id", None)
    return request.new_id() if foreign_id is None else stream_id_for(spec.kind, foreign_id)


def _check_reach(caller: Caller, target: Aggregate) -> None:
    """Keep a customer to tickets of one's own; others do not exist for that caller."""
    if caller.role is Role.CUSTOMER and not may_see(caller, target):
        raise NotFound(_kind(type(target)), str(target.id))


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


def _settled(desk: Desk, attempt: _Attempt, appended: Appended) -> Outcome:
    if not appended.replayed:
        if attempt.refusal is not None:
            raise attempt.refusal
        desk.take(attempt.decision, appended, attempt.offsets)
    return _outcome(appended)


def _outcome(appended: Appended) -> Outcome:
    result = from_json(appended.result or b"{}")
    number = result.get("number")
    if number is None and "opening" in result:
        number = appended.first_position + result["opening"]
    return Outcome(
        UUID(result["stream"]), result["version"], appended.position, result["changed"], appended.replayed, number
    )


def fold(rows: Sequence[StoredRow], workspace: Workspace, held: Held | None = None) -> Held:
    """Fold rows of one stream, whose keys are loaded, onto what is held of it. Raises UnreadableEvent."""
    aggregate = None if held is None else _copy(held.aggregate)
    first = rows[0].position if held is None else held.first_position
    for row in rows:
        aggregate = decode(row, workspace.keyring).event.mutate(aggregate)
    return Held(cast("Aggregate", aggregate), first)


def _copy(aggregate: A) -> A:
    """Copy an aggregate: its values are immutable, so that a copy of its attributes is a full one."""
    twin = object.__new__(type(aggregate))
    twin.__dict__.update(aggregate.__dict__)
    twin.__dict__["_pending_events"] = []
    return twin


def _kind(cls: type[Aggregate]) -> Kind:
    return next((kind for kind, known in KINDS.items() if issubclass(cls, known)), "ticket")


def allowed_commands(caller: Caller, ticket: Ticket) -> list[str]:
    """Give the commands that the ticket's state allows and the caller's role may give, for screens."""
    return [name for name in ticket.allowed_commands() if caller.role in COMMANDS["ticket", name].roles]


__all__ = (
    "ADMINISTRATORS",
    "COMMANDS",
    "EVERYBODY",
    "LEADS",
    "STAFF",
    "AlreadyExists",
    "Caller",
    "Command",
    "CommandSpec",
    "Decision",
    "Desk",
    "Forbidden",
    "KeyReused",
    "LogBusy",
    "NotFound",
    "Outcome",
    "Request",
    "StaleVersion",
    "UnknownReference",
    "allowed_commands",
    "command",
    "execute",
    "fold",
    "may_see",
)
