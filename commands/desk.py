"""The tickets, customers, agents and teams of a workspace as one process knows them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

from commands.identity import stream_id_for
from domain.agent import Agent
from domain.customer import Customer
from domain.event import Aggregate
from domain.service_levels import EMPTY_BOOK, SERVICE_LEVELS_ID, ServiceLevels
from domain.team import Team
from domain.ticket import Ticket
from storage.codec import UnfitEvent, decode, in_order

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableSequence, Sequence

    from domain.service_levels import Book
    from storage.append import Appended, Submission
    from storage.database import Workspace
    from storage.log_reader import StoredRow

AGGREGATES_HELD: Final = 10_000  # some 3 KB each, of which a third is told by `weight`
HELD_BYTES: Final = 32 * 1024 * 1024  # as `weight` estimates them: a ticket may be given any number of long values
FOLDED_AT_ONCE: Final = 500  # events, some 10 ms; then others have their turn
WAITING_BYTES: Final = 64 * 1024 * 1024  # of commands that wait at once, as they came in
MARKS: Final = 1 << 18  # of 8 bytes: streams that share one are read again in vain, a few in a hundred
LONGEST_NUMBER: Final = 18  # digits of a bigint that cannot overflow

Kind = Literal["ticket", "customer", "agent", "team", "service_levels"]
KINDS: Final[dict[Kind, type[Aggregate]]] = {
    "ticket": Ticket,
    "customer": Customer,
    "agent": Agent,
    "team": Team,
    "service_levels": ServiceLevels,
}

_COLLECTIONS: Final = (tuple, frozenset, dict)

A = TypeVar("A", bound=Aggregate)


class NotFound(Exception):
    """There is no such ticket, customer, agent or team for this caller."""

    def __init__(self, kind: Kind, reference: str) -> None:
        super().__init__(f"there is no {kind} {reference!r}")
        self.kind = kind
        self.reference = reference


class Held(NamedTuple):
    """An aggregate as last seen, the position of its first event, about how many bytes it takes, and its mark then."""

    aggregate: Aggregate
    first_position: int
    weight: int
    mark: int


class Ahead(NamedTuple):
    """An aggregate as a command leaves it that is still being recorded, and the first position of its stream."""

    aggregate: Aggregate
    first_position: int
    submission: Submission


class Desk:
    """The tickets, customers, agents and teams of one workspace as this process knows them."""

    def __init__(self, workspace: Workspace, marks: MutableSequence[int] | None = None) -> None:
        """Open a desk.

        `marks` are shared by processes that serve together, MARKS of them, 0 at first: whoever changes a stream leaves
        the event's position there. So each sees that another was at it, and reads what is new instead of deciding on
        a copy that is stale, which the log would only contradict.
        """
        self.workspace = workspace
        self._marks = marks
        self._held: OrderedDict[UUID, Held] = OrderedDict()
        self._epoch: str | None = None
        self._held_bytes = 0
        self._without_levels: tuple[str, int] | None = None
        self._ahead: dict[UUID, Ahead] = {}
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._under_way: dict[bytes, asyncio.Event] = {}
        self._inside = 0
        self._inside_bytes = 0

    async def load(self, cls: type[A], stream: UUID) -> A:
        """Give an aggregate as of now, or a little before: for showing, not for deciding. Raises NotFound."""
        held = await self.held(cls, stream, fresh=True)
        return copied(cast("A", held.aggregate))

    async def book(self, *, fresh: bool = False) -> Book:
        """Give the calendars and policies as last seen, or as of now with `fresh`: what is decided by them guards them.

        That a desk has none is remembered as well.
        """
        mark = self._mark(SERVICE_LEVELS_ID)
        epoch = await self.workspace.log.epoch()
        if not fresh and self._without_levels == (epoch, mark) and SERVICE_LEVELS_ID not in self._held:
            return EMPTY_BOOK
        try:
            held = await self.held(ServiceLevels, SERVICE_LEVELS_ID, fresh=fresh)
        except NotFound:
            self._without_levels = epoch, mark
            return EMPTY_BOOK
        self._without_levels = None
        return cast("ServiceLevels", held.aggregate).book

    async def number_of(self, stream: UUID) -> int:
        """Give a ticket's short number: the position of its first event."""
        return (await self.held(Ticket, stream)).first_position

    def first_position(self, stream: UUID) -> int | None:
        """Give the position of the first event of a stream that is held in memory, or None."""
        held = self._held.get(stream)
        return None if held is None else held.first_position

    async def held(self, cls: type[Aggregate], stream: UUID, *, fresh: bool = False) -> Held:
        """Give the aggregate as held in memory, folding its stream where it is not, or what is new with `fresh`."""
        epoch = await self.workspace.log.epoch()
        if epoch != self._epoch:
            # What is held may have been lost with another server.
            self._held.clear()
            self._held_bytes = 0
            self._epoch = epoch
        held = self._held.get(stream)
        if held is None or fresh or held.mark != self._mark(stream):
            held = await self._catch_up(cls, stream, held)
        else:
            self._held.move_to_end(stream)
        if held is None or not isinstance(held.aggregate, cls):
            raise NotFound(kind_of(cls), str(stream))
        return held

    async def _catch_up(self, cls: type[Aggregate], stream: UUID, held: Held | None) -> Held | None:
        mark = self._mark(stream)
        while True:
            after = 0 if held is None else held.aggregate.version
            rows = await self.workspace.log.stream(stream, after=after, limit=FOLDED_AT_ONCE)
            if rows:
                await self.workspace.keyring.load(rows)
                held = fold(rows, self.workspace, held)
            if len(rows) < FOLDED_AT_ONCE:
                break
        if held is None:
            return None
        held = held._replace(mark=mark)
        if isinstance(held.aggregate, cls) and self.workspace.log.epochs.known == self._epoch:
            self._hold(held)
        return held

    def _mark(self, stream: UUID) -> int:
        return 0 if self._marks is None else self._marks[stream.int % MARKS]

    def _leave_mark(self, stream: UUID, position: int) -> int:
        if self._marks is None:
            return 0
        place = stream.int % MARKS
        self._marks[place] = max(self._marks[place], position)
        return position

    def _hold(self, held: Held) -> None:
        stream = held.aggregate.id
        known = self._held.get(stream)
        if known is not None:
            if known.aggregate.version > held.aggregate.version:
                return
            self._held_bytes -= known.weight
        self._held[stream] = held
        self._held.move_to_end(stream)
        self._held_bytes += held.weight
        while len(self._held) > AGGREGATES_HELD or (self._held_bytes > HELD_BYTES and len(self._held) > 1):
            self._held_bytes -= self._held.popitem(last=False)[1].weight

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
        if kind == "ticket" and reference.isascii() and reference.isdigit() and len(reference) <= LONGEST_NUMBER:
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

    def admit(self, size: int) -> None:
        """Let one more command in; `leave` must follow. Raises LogBusy when as many wait as may."""
        if self._inside >= self.workspace.log.waiting_commands or self._inside_bytes + size > WAITING_BYTES:
            raise self.workspace.log.busy(self._inside)
        self._inside += 1
        self._inside_bytes += size

    def leave(self, size: int) -> None:
        """Let a command out that was admitted with this size."""
        self._inside -= 1
        self._inside_bytes -= size

    def turn(self, stream: UUID) -> asyncio.Lock:
        """Give the lock by which commands of this process on one stream decide one after the other."""
        lock = self._turns.get(stream)
        if lock is None:
            lock = self._turns[stream] = asyncio.Lock()
        return lock

    async def begin(self, key: bytes) -> None:
        """Be the only request with this key until `finish`; a second one waits until the first has its outcome."""
        while (first := self._under_way.get(key)) is not None:
            await first.wait()
        self._under_way[key] = asyncio.Event()

    def finish(self, key: bytes) -> None:
        """Let a request with the same key go on."""
        self._under_way.pop(key).set()

    def ahead(self, stream: UUID, epoch: str) -> Ahead | None:
        """Give what the last command of this process on a stream leaves behind, while that may yet be recorded."""
        found = self._ahead.get(stream)
        if found is None or found.submission.recorded is False or found.submission.epoch != epoch:
            return None
        return found

    def go_ahead(self, aggregate: Aggregate, first_position: int, submission: Submission) -> None:
        """Let the next command on a stream be decided on what this one leaves behind, until `arrive`."""
        self._ahead[aggregate.id] = Ahead(aggregate, first_position, submission)

    def arrive(self, stream: UUID, submission: Submission) -> None:
        """Forget what a command left behind ahead of the log, unless another has gone further since."""
        found = self._ahead.get(stream)
        if found is not None and found.submission is submission:
            del self._ahead[stream]

    def take(
        self, changed: Sequence[Aggregate], guards: Mapping[UUID, int], appended: Appended, events: Mapping[UUID, int]
    ) -> None:
        """Keep what a recorded command left, so that the next one need not load it."""
        for aggregate in changed:
            if aggregate.id in events:
                mark = self._leave_mark(aggregate.id, appended.position)
                known = self._held.get(aggregate.id)
                first = known.first_position if known is not None else appended.first_position + events[aggregate.id]
                if known is not None or guards[aggregate.id] == 0:
                    self._hold(Held(aggregate, first, weight(aggregate), mark))


def fold(rows: Sequence[StoredRow], workspace: Workspace, held: Held | None = None) -> Held:
    """Fold rows of one stream, whose keys are loaded, onto what is held of it. Raises UnreadableEvent."""
    in_order(rows, after=0 if held is None else held.aggregate.version)
    aggregate = None if held is None else copied(held.aggregate)
    first = rows[0].position if held is None else held.first_position
    for row in rows:
        event = decode(row, workspace.keyring).event
        try:
            aggregate = event.mutate(aggregate)
        except Exception as error:  # whatever it is, it is this stream's alone
            raise UnfitEvent(row, error) from error
    folded = cast("Aggregate", aggregate)
    return Held(folded, first, weight(folded), 0)


def weight(aggregate: Aggregate) -> int:
    """Estimate the bytes of what an aggregate was given: its texts, and whatever its collections hold."""
    total = 1_000
    for value in aggregate.__dict__.values():
        if isinstance(value, str):
            total += len(value)
        elif value and isinstance(value, _COLLECTIONS):
            total += len(repr(value))
    return total


def copied(aggregate: A) -> A:
    """Copy an aggregate: its values are immutable, so that a copy of its attributes is a full one."""
    twin = object.__new__(type(aggregate))
    twin.__dict__.update(aggregate.__dict__)
    twin.__dict__["_pending_events"] = []
    return twin


def kind_of(cls: type[Aggregate]) -> Kind:
    """Give the word for an aggregate's class."""
    return next((kind for kind, known in KINDS.items() if issubclass(cls, known)), "ticket")
