"""How a command is carried out: loaded, decided, recorded, and decided again when somebody else was first."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast
from uuid import UUID

from pydantic_core import from_json, to_json

from commands.desk import KINDS, NotFound, copied, kind_of
from commands.identity import stream_id_for
from commands.request import (
    BACKDATE,
    STAFF,
    AlreadyExists,
    Command,
    Forbidden,
    OccurredLater,
    Outcome,
    ScopeMissing,
    StaleVersion,
    UnknownReference,
    may_see,
)
from domain.customer import ContactKnown
from domain.event import Act, Aggregate, Event, Provenance, Rejected, Role
from domain.service_levels import SERVICE_LEVELS_ID, ServiceLevels
from domain.ticket import Ticket
from domain.ticket_refusals import OccurredBeforeOpening
from storage.append import Appended, Claim, Claimed, Conflict, EarlierEpoch, Submission
from storage.codec import encode
from storage.database import once_more

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from commands.desk import Ahead, Desk, Kind
    from commands.request import Caller, Request
    from domain.service_levels import Book

ATTEMPTS: Final = 5  # of one command against others that were first, before these are kept waiting

A = TypeVar("A", bound=Aggregate)


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command: its name is its path segment and what `allowed_commands` lists."""

    kind: Kind
    name: str
    model: type[Command]
    decide: Callable[..., Awaitable[Any]]
    roles: frozenset[Role]
    creates: bool
    stream: UUID | None = None
    """The one stream there is of its kind, which the command makes where it is not there yet."""

    @property
    def summary(self) -> str:
        """Say in one line what the command does."""
        return (self.model.__doc__ or self.name).partition("\n")[0]


COMMANDS: dict[tuple[Kind, str], CommandSpec] = {}
"""Every command of the desk; HTTP has one route for each. Filled by importing `commands.catalogue`."""

C = TypeVar("C", bound=Command)


def command(
    kind: Kind, name: str, *, roles: frozenset[Role] = STAFF, creates: bool = False, stream: UUID | None = None
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """Register the deciding function of a command; its third parameter's annotation is the command's model.

    It is called as `decide(decision, aggregate, command)`, or with `creates` as `decide(decision, id, command)` and
    then returns the new aggregate. It runs again when another command was first, so it must only read and decide.
    """

    def register(decide: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        model = cast("type[Command]", decide.__globals__[decide.__annotations__["command"]])
        COMMANDS[kind, name] = CommandSpec(kind, name, model, decide, roles, creates, stream)
        return decide

    return register


class Decision:
    """One attempt at a command: what it read (and must still hold), what it changed, what it claims."""

    def __init__(self, desk: Desk, request: Request, command: Command, epoch: str | None = None) -> None:
        caller = request.caller
        self.desk = desk
        self.request = request
        self.caller = caller
        self.act = Act(
            at=getattr(command, "occurred_at", None) or request.at,
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
            reason=getattr(command, "reason", None),
            source_address=caller.source_address,
        )
        self.backdated = self.act.at != request.at
        self.guards: dict[UUID, int] = {}
        self.changed: list[Aggregate] = []
        self.claims: list[Claim] = []
        self.epoch = epoch

    async def load(self, cls: type[A], stream: UUID, ahead: Ahead | None = None) -> A:
        """Load an aggregate; the command is only recorded if it is still at this version then. Raises NotFound."""
        found = ahead or await self.desk.held(cls, stream)
        aggregate = copied(cast("A", found.aggregate))
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

    async def levels(self, ahead: Ahead | None = None) -> ServiceLevels:
        """Load the calendars and policies to be changed; those of a desk that has none yet begin with this command."""
        try:
            return await self.load(ServiceLevels, SERVICE_LEVELS_ID, ahead)
        except NotFound:
            levels = ServiceLevels.unwritten(self.act.at)
            self.add(levels)
            return levels

    async def book(self) -> Book:
        """Give the calendars and policies; the command is only recorded if nothing else was adopted by then."""
        book = await self.desk.book()
        self.guards[SERVICE_LEVELS_ID] = book.version
        return book

    def add(self, aggregate: Aggregate) -> None:
        """Take a new aggregate into the command; its stream must not exist."""
        self.guards[aggregate.id] = 0
        self.changed.append(aggregate)

    def claim(self, kind: str, value: str, stream: UUID, *, release: bool = False) -> None:
        """Take a value that one stream at a time may hold, or give it up."""
        self.claims.append(Claim(kind, self.desk.claim_key(kind, value), stream, release))


@dataclass(slots=True)
class _Attempt:
    submission: Submission
    decision: Decision
    refusal: Exception | None = None
    offsets: dict[UUID, int] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    first: int | None = None
    """The first position of the command's stream, where the command changes that and did not begin it."""


async def execute(desk: Desk, request: Request, spec: CommandSpec, target: UUID | None, command: Command) -> Outcome:
    """Carry a command out and return when it is durable; `target` is None for one that creates.

    A refusal, a stale version and a command that changes nothing are confirmed against the log before they are
    answered, since nothing else would contradict a copy that has become stale. Raises domain refusals (Rejected),
    NotFound, Forbidden, StaleVersion, KeyReused, LogBusy, LogUnavailable.
    """
    if request.caller.role not in spec.roles:
        raise Forbidden(request.caller.role, spec.name)
    occurred_at = getattr(command, "occurred_at", None)
    if occurred_at is not None:
        if BACKDATE not in request.caller.scopes:
            raise ScopeMissing(BACKDATE, "say when something occurred")
        if occurred_at > request.at:
            raise OccurredLater(occurred_at, request.at)
    stream = target if target is not None else _stream_for(spec, request, command)
    key = body = None
    if request.key is not None:
        digest = desk.workspace.keyring.digest
        key = digest("command", request.caller.credential_id.bytes + request.key.encode())
        body = digest(
            f"body {spec.kind} {spec.name} {target}",
            command.__pydantic_serializer__.to_json(command, exclude_unset=True),
        )
    job = _Job(desk, request, spec, stream, command, key, body)
    desk.admit(request.size)
    try:
        if key is None:
            return await _in_turn(job)
        await desk.begin(key)
        try:
            return await _in_turn(job)
        finally:
            desk.finish(key)
    finally:
        desk.leave(request.size)


class _Job(NamedTuple):
    desk: Desk
    request: Request
    spec: CommandSpec
    stream: UUID
    command: Command
    key: bytes | None
    body: bytes | None


async def _in_turn(job: _Job) -> Outcome:
    """Carry a command out; commands on one stream are decided one after the other, and recorded together.

    The next one is decided on what this one leaves behind, before that is recorded, and is only recorded after it.
    """
    desk, log = job.desk, job.desk.workspace.log
    stale: UUID | None = None
    for _ in range(ATTEMPTS):
        async with desk.turn(job.stream):
            epoch = await log.epoch()
            if stale is not None and desk.ahead(stale, epoch) is None:
                await desk.held(Aggregate, stale, fresh=True)
            attempt = await once_more(lambda: _attempt(job))
            answer = log.submit(attempt.submission)
            if job.spec.creates:
                # Where its stream begins is not known before.
                await asyncio.wait((answer,))
            elif attempt.first is not None:
                desk.go_ahead(attempt.decision.changed[0], attempt.first, attempt.submission)
        try:
            return _settled(desk, attempt, await answer)
        except (Conflict, EarlierEpoch, Claimed) as error:
            stale = _to_load_again(job, error)
        finally:
            desk.arrive(job.stream, attempt.submission)
    # Second too often, so the others are kept waiting for this once.
    async with desk.turn(job.stream), log.exclusively() as append:
        for seen in attempt.decision.guards:
            with suppress(NotFound):  # as what the command brings forth
                await desk.held(Aggregate, seen, fresh=True)
        attempt = await _attempt(job, alone=True)
        try:
            appended = await append(attempt.submission)
        except Claimed as claimed:
            raise ContactKnown(cast("Any", claimed.kind), claimed.owner) from None
    return _settled(desk, attempt, appended)


def _to_load_again(job: _Job, error: Conflict | EarlierEpoch | Claimed) -> UUID | None:
    """Give the stream to load again before the command is decided again. Raises AlreadyExists, ContactKnown."""
    match error:
        case Conflict(stream=stream) if job.spec.creates and stream == job.stream:
            message = f"there is a {job.spec.kind} {stream} already"
            raise AlreadyExists(message, id=str(stream)) from None
        case Conflict(stream=stream):
            return stream
        case Claimed(kind=kind, owner=owner):
            raise ContactKnown(cast("Any", kind), owner) from None
        case _:
            return None  # nothing is held of the epoch before any more


async def _attempt(job: _Job, *, alone: bool = False) -> _Attempt:
    """Decide a command; `alone` on nothing but what is recorded."""
    desk, request, spec, stream, command, key, body = job
    epoch = await desk.workspace.log.epoch()
    decision = Decision(desk, request, command, epoch)
    ahead = None if alone or spec.creates else desk.ahead(stream, epoch)
    if ahead is not None and not isinstance(ahead.aggregate, KINDS[spec.kind]):
        ahead = None
    target: Aggregate | None = None
    refusal: Exception | None = None
    try:
        if spec.creates:
            target = await spec.decide(decision, stream, command)
            decision.add(cast("Aggregate", target))
        else:
            if spec.stream is None:
                target = await decision.load(KINDS[spec.kind], stream, ahead)
            else:
                target = await decision.levels(ahead)
            _check_reach(request.caller, target)
            _check_time(decision, target)
            if request.expected_version is not None and request.expected_version != target.version:
                refusal = StaleVersion(request.expected_version, target.version)
            else:
                # A command that brought forth something else, such as a follow-up, answers with that.
                target = await spec.decide(decision, target, command) or target
    except (Rejected, NotFound) as error:
        refusal = error
    after = None if ahead is None else ahead.submission
    if refusal is not None:
        probe = Submission((), decision.guards, (), key, body, probe=True, epoch=epoch, after=after)
        return _Attempt(probe, decision, refusal)
    pending = [cast("Event", event) for aggregate in decision.changed for event in aggregate.collect_events()]
    await desk.workspace.keyring.ensure(subject for event in pending for subject in event.data_subjects())
    events = [encode(event, desk.workspace.keyring) for event in pending]
    offsets: dict[UUID, int] = {}
    for offset, event in enumerate(events):
        offsets.setdefault(event.stream, offset)
    target = cast("Aggregate", target)
    first = desk.first_position(stream) if ahead is None else ahead.first_position
    outcome: dict[str, Any] = {"stream": target.id, "version": target.version, "changed": bool(events)}
    if isinstance(target, Ticket):
        # A new ticket's number is the position that its opening gets, which only the log knows.
        known = first if target.id == stream else desk.first_position(target.id)
        outcome |= {"opening": offsets[target.id]} if known is None else {"number": known}
    submission = Submission(
        events, decision.guards, decision.claims, key, body, to_json(outcome), epoch=epoch, after=after
    )
    return _Attempt(submission, decision, None, offsets, outcome, first if stream in offsets else None)


def _stream_for(spec: CommandSpec, request: Request, command: Command) -> UUID:
    foreign_id: str | None = getattr(command, "foreign_id", None)
    return request.new_id() if foreign_id is None else stream_id_for(spec.kind, foreign_id)


def _check_reach(caller: Caller, target: Aggregate) -> None:
    """Keep a customer to tickets of one's own; others do not exist for that caller."""
    if caller.role is Role.CUSTOMER and not may_see(caller, target):
        raise NotFound(kind_of(type(target)), str(target.id))


def _check_time(decision: Decision, target: Aggregate) -> None:
    """Refuse what would have happened to a ticket before there was one."""
    if isinstance(target, Ticket) and decision.act.at < target.opened_at and decision.backdated:
        raise OccurredBeforeOpening(decision.act.at.isoformat(), target.opened_at.isoformat())


def _settled(desk: Desk, attempt: _Attempt, appended: Appended) -> Outcome:
    if appended.replayed:
        result = from_json(appended.result or b"{}")
        result["stream"] = UUID(result["stream"])
    else:
        if attempt.refusal is not None:
            raise attempt.refusal
        if attempt.decision.epoch == desk.workspace.log.epochs.known:
            desk.take(attempt.decision.changed, attempt.decision.guards, appended, attempt.offsets)
        result = attempt.outcome
    number = result.get("number")
    if number is None and "opening" in result:
        number = appended.first_position + result["opening"]
    return Outcome(result["stream"], result["version"], appended.position, result["changed"], appended.replayed, number)


def allowed_commands(caller: Caller, ticket: Ticket) -> list[str]:
    """Give the commands that the ticket's state allows and the caller's role may give, for screens."""
    return [name for name in ticket.allowed_commands() if caller.role in COMMANDS["ticket", name].roles]
