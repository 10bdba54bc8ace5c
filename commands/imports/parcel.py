"""A told case as plain values, so that one process can tell a file while another records it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from commands.imports.reading import Refusal
from domain.agent import Agent
from domain.customer import Customer
from domain.customer_events import Tier
from domain.ticket_events import SourceStatusRecorded, TicketEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from commands.imports.reading import Case
    from commands.imports.story import Acquaintance, Story
    from domain.event import Event
    from domain.sla_terms import SlaTerms


class Told(NamedTuple):
    """A row that was told, and the versions of the ticket's events that it gave: after `before`, up to `last`."""

    line: int
    before: int
    last: int


class Fact:
    """An event ready to be stored; storage encodes it as it does the event itself."""

    __slots__ = ("TOPIC", "originator_id", "originator_version", "state", "subject", "values")

    def __init__(
        self, stream: UUID, topic: str, version: int, state: bytes, values: dict[str, Any], subject: UUID
    ) -> None:
        self.originator_id = stream
        self.originator_version = version
        self.TOPIC = topic
        self.state = state
        self.values = values
        self.subject = subject

    def state_json(self) -> bytes:
        """Give the state without personal values."""
        return self.state

    def personal_values(self) -> dict[str, Any]:
        """Give the personal values by field."""
        return self.values

    def subject_of(self, _field: str) -> UUID:
        """Give the person whom every personal value of the event is about."""
        return self.subject


@dataclass(slots=True, eq=False)
class Newcomer:
    """Somebody, or a team, as first met in a file, with the event that creates it."""

    kind: str
    """The name of the count in the summary."""
    fact: Fact
    there: bool | None = None
    """Whether the log has it or will have it; None until that was looked up."""
    counted: bool = False
    tier: Tier = Tier.STANDARD
    """A customer's, as the log has it where it has that customer."""


class Standing(NamedTuple):
    """How far the log has a ticket: how many of the told events, its version, and the terms and tier it goes by."""

    known: int = 0
    version: int = 0
    terms: SlaTerms | None = None
    tier: Tier | None = None


NOTHING: Final = Standing()


@dataclass(slots=True)
class Parcel:
    """Everything that recording and accounting for one case takes."""

    name: str
    foreign_id: str
    ticket_id: UUID
    rows: int
    duplicates: int
    refusals: list[Refusal]
    told: list[Told]
    events: list[Fact]
    words: list[tuple[int, str]]
    """Version → the source's own words, where these were recorded."""
    met: list[Newcomer]
    standing: Standing = NOTHING
    """How far the log has it, once that is known."""
    recorded: Sequence[Fact] = field(default=())
    """What is recorded of it, with the terms it goes by."""
    people: Sequence[Newcomer] = field(default=())
    """Who is created with it."""

    def news(self) -> list[Fact]:
        """Give what the log does not have, first the people, and mark these as on their way.

        Events of the ticket are those of `recorded`.
        """
        self.people = [person for person in self.met if not person.there] if self.recorded else []
        for person in self.people:
            person.there = True
        return [*(person.fact for person in self.people), *self.recorded]


class Packer:
    """Turns stories into plain values that `marshal` takes, each person being described once."""

    def __init__(self) -> None:
        self._numbers: dict[Acquaintance[Any], int] = {}

    def pack(self, case: Case[Any], story: Story) -> tuple[Any, ...]:
        """Give one case as plain values."""
        people: list[tuple[Any, ...]] = []
        met: list[int] = []
        for person in story.met.values():
            number = self._numbers.get(person)
            if number is None:
                number = self._numbers[person] = len(self._numbers)
                people.append((_kind(person), person.id.bytes, *_plain(person.who.pending_events[0])))
            met.append(number)
        return (
            case.name,
            story.foreign_id,
            story.ticket_id.bytes,
            case.rows,
            case.duplicates,
            [tuple(refusal) for refusal in case.refusals],
            [tuple(told) for told in story.told],
            [_plain(event) for event in story.events],
            [(e.originator_version, e.source_status) for e in story.events if isinstance(e, SourceStatusRecorded)],
            people,
            met,
        )


def _kind(person: Acquaintance[Any]) -> str:
    match person.who:
        case Customer():
            return "customers"
        case Agent():
            return "agents"
        case _:
            return "teams"


def _plain(event: Event) -> tuple[str, int, bytes, dict[str, Any], bytes]:
    values = event.personal_values()
    # No event of an import is about two persons: none has a reason or an address of its actor.
    if not values:
        subject = b""
    elif isinstance(event, TicketEvent):
        subject = event.requester_id.bytes
    else:
        subject = event.originator_id.bytes
    return event.TOPIC, event.originator_version, event.state_json(), values, subject


class Unpacker:
    """Takes up what a Packer gave, in the same order."""

    def __init__(self) -> None:
        self._people: list[Newcomer] = []
        self._ids: dict[bytes, UUID] = {}

    def unpack(self, packed: tuple[Any, ...]) -> Parcel:
        """Give the case back."""
        name, foreign_id, ticket, rows, duplicates, refusals, told, events, words, people, met = packed
        for kind, stream, *fact in people:
            self._people.append(Newcomer(kind, self._fact(self._id(stream), fact)))
        ticket_id = UUID(bytes=ticket)
        return Parcel(
            name=name,
            foreign_id=foreign_id,
            ticket_id=ticket_id,
            rows=rows,
            duplicates=duplicates,
            refusals=[Refusal(*refusal) for refusal in refusals],
            told=[Told(*row) for row in told],
            events=[self._fact(ticket_id, event) for event in events],
            words=words,
            met=[self._people[number] for number in met],
        )

    def _fact(self, stream: UUID, plain: Sequence[Any]) -> Fact:
        topic, version, state, values, subject = plain
        return Fact(stream, topic, version, state, values, self._id(subject) if subject else stream)

    def _id(self, raw: bytes) -> UUID:
        found = self._ids.get(raw)
        if found is None:
            found = self._ids[raw] = UUID(bytes=raw)
        return found


def subjects(facts: Sequence[Fact]) -> Iterator[UUID]:
    """Name the persons whose personal values these events hold."""
    for fact in facts:
        if fact.values:
            yield fact.subject
