"""What every change of the desk has in common: who, when, how and why, and which of its values are personal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any, ClassVar, NamedTuple, Self, get_args
from uuid import UUID

from eventsourcing.domain import (
    BaseAggregate,
    CanInitAggregate,
    CanMutateAggregate,
    OriginatorIDError,
    OriginatorVersionError,
    TAggregate,
)
from eventsourcing.utils import register_topic, resolve_topic
from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic_core import core_schema

SYSTEM_ACTOR = UUID(int=0)
"""The desk itself, where no person or credential acted."""


class Sealed(str):
    """Stands in an event for a personal value that was not opened: an opaque token, whatever the field's type."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls, core_schema.str_schema()),
            python_schema=core_schema.is_instance_schema(cls),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )


ERASED = Sealed("[erased]")
"""Shown in place of a personal value whose key or bytes are gone."""


class Role(StrEnum):
    """In what capacity somebody acts."""

    CUSTOMER = "customer"
    AGENT = "agent"
    TEAM_LEAD = "team_lead"
    SUPERVISOR = "supervisor"
    AUDITOR = "auditor"
    DEVELOPER = "developer"
    ADMINISTRATOR = "administrator"
    SYSTEM = "system"


class Channel(StrEnum):
    """How a command or a message reached the desk."""

    API = "api"
    WEB = "web"
    EMAIL = "email"
    PHONE = "phone"
    CHAT = "chat"
    SELF_SERVICE = "self_service"
    COMMAND_LINE = "command_line"
    IMPORT = "import"
    SYSTEM = "system"


def known(value: str | None) -> str | None:
    """Give a personal text back unless it is erased or sealed: such a one is never copied into a new event."""
    return None if value == ERASED or isinstance(value, Sealed) else value


class Personal(NamedTuple):
    """Marks an event field as personal data of the person whose id is at the dotted path `of` in the same event.

    Storage splits such a value off: the event's state keeps a salted commitment only. A field of another type
    than text says `| Sealed`, so that the event can be read without the value.
    """

    of: str


class Provenance(BaseModel):
    """Who acted, on whose behalf, through what, and which command caused it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor_id: UUID
    role: Role
    on_behalf_of: UUID | None = None
    channel: Channel
    client: str | None = None
    command_id: UUID | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """The circumstances of one command: time, ids and actor enter the domain through this and nowhere else."""

    at: datetime
    by: Provenance
    reason: str | None = None
    source_address: str | None = None

    def __post_init__(self) -> None:
        """Put `at` into UTC; a time without a zone is a ValueError."""
        if self.at.tzinfo is not UTC:
            if self.at.utcoffset() is None:
                message = f"the time of an act needs a zone: {self.at.isoformat()}"
                raise ValueError(message)
            object.__setattr__(self, "at", self.at.astimezone(UTC))


class Change(NamedTuple):
    """One field of a ticket or customer before and after an event; values are JSON-ready.

    Where `personal`, the values are a person's, or sealed tokens in an event that was read without opening them.
    """

    field: str
    old: Any
    new: Any
    personal: bool = False


Lift = Callable[[dict[str, Any]], dict[str, Any]]
"""Lifts a stored event of one shape to the next."""


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Lift an older shape that lacks nothing but fields with a default."""
    return values


class UnknownShape(Exception):
    """An event was stored in a shape newer than this program knows."""


class Event(BaseModel, CanMutateAggregate[UUID]):
    """An immutable fact about one aggregate. `timestamp` is when it occurred (aware, UTC).

    A subclass names its stored shape with `TOPIC`, which never changes, and counts its shapes with
    `class_version`; older shapes are lifted by static methods `upcast_v1_v2(state)`, `upcast_v2_v3(state)` …, which are
    `with_defaults` where a shape only gained fields that have a default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    TOPIC: ClassVar[str]
    class_version: ClassVar[int] = 1
    PERSONAL: ClassVar[dict[str, str]] = {}
    """Personal field → dotted path, in this event, of the id of the person it is about."""
    CIRCUMSTANCES: ClassVar[frozenset[str]] = frozenset(
        {"originator_id", "originator_version", "originator_topic", "timestamp", "by", "reason", "source_address"}
    )
    """Fields that say something about the event rather than what it changed."""

    SEALED: ClassVar[type[str]] = Sealed
    """The type under which storage passes a personal value that it has not opened, or that is gone."""

    _SUBJECTS: ClassVar[dict[str, Callable[[Any], Any]]] = {}
    """How to find the person whom each personal field is about."""
    _OUTSIDE: ClassVar[set[str]]
    """What the stored state leaves out: the columns of the log and the personal values."""
    _ABSENT: ClassVar[dict[str, None]]
    """Every field that may be None: the stored state leaves a None out."""
    _UPCASTERS: ClassVar[tuple[Lift, ...]]
    """How to lift version 1 to 2, 2 to 3 …; as many as `class_version` minus one."""
    ONLY_GAINED_FIELDS: ClassVar[bool] = True
    """Whether every older shape can be read as the present one, defaults standing for what it lacks."""
    _CHANGED: ClassVar[tuple[tuple[str, str | None, bool], ...]]
    """The fields that `changes` lists, each with the one that holds its old value and whether it is personal."""

    originator_id: UUID
    originator_version: int
    timestamp: AwareDatetime
    by: Provenance
    reason: Annotated[str | None, Personal("by.actor_id")] = None
    source_address: Annotated[str | None, Personal("by.actor_id")] = None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.PERSONAL = {
            name: marker.of
            for name, field in cls.model_fields.items()
            for marker in field.metadata
            if isinstance(marker, Personal)
        }
        cls._SUBJECTS = {name: attrgetter(path) for name, path in cls.PERSONAL.items()}
        cls._OUTSIDE = {"originator_id", "originator_version", *cls.PERSONAL}
        cls._ABSENT = {name: None for name, field in cls.model_fields.items() if _accepts_none(field.annotation)}
        cls._UPCASTERS = tuple(
            getattr(cls, f"upcast_v{number}_v{number + 1}") for number in range(1, cls.class_version)
        )
        cls.ONLY_GAINED_FIELDS = all(lift is with_defaults for lift in cls._UPCASTERS)
        cls._CHANGED = tuple(
            (name, f"previous_{name}" if f"previous_{name}" in cls.model_fields else None, name in cls.PERSONAL)
            for name in cls.model_fields
            if name not in cls.CIRCUMSTANCES and not name.startswith("previous_")
        )
        if "TOPIC" in cls.__dict__:
            register_topic(cls.TOPIC, cls)

    @classmethod
    def from_state(cls, *, stream: UUID, version: int, state: dict[str, Any], personal: dict[str, Any]) -> Self:
        """Read an event back from its stored `state` and its `personal` values by field.

        A personal value that was not opened is passed as `Sealed` (or ERASED). Older shapes are lifted first; an
        upcaster gets state and personal values in one dictionary, which it may change. Raises
        pydantic.ValidationError where the state is not of this shape, and UnknownShape where it is newer.
        """
        if cls.class_version > 1 or "class_version" in state:
            state = cls._lifted({**state, **personal})
            personal = {}
        values = {**cls._ABSENT, **state, **personal, "originator_id": stream, "originator_version": version}
        return cls.model_validate(values)

    @classmethod
    def _lifted(cls, values: dict[str, Any]) -> dict[str, Any]:
        shape = values.pop("class_version", 1)
        if not isinstance(shape, int) or not 1 <= shape <= cls.class_version:
            message = f"{cls.TOPIC} is known up to version {cls.class_version}, not {shape!r}"
            raise UnknownShape(message)
        for lift in cls._UPCASTERS[shape - 1 :]:
            values = lift(values)
        return values

    def state_json(self) -> bytes:
        """Give the state to store, without log columns, personal values and Nones; bytes are stable for equal events."""
        text = self.__pydantic_serializer__.to_json(self, exclude=self._OUTSIDE, exclude_none=True)
        if self.class_version == 1:
            return text
        return b'{"class_version":%d,%b' % (self.class_version, text[1:])

    def personal_values(self) -> dict[str, Any]:
        """Give the personal values by field, JSON-ready; a None is left out."""
        found = {}
        values = self.__dict__
        for name in self.PERSONAL:
            value = values[name]
            if value is not None:
                found[name] = value if isinstance(value, str) else plain(value)
        return found

    def data_subjects(self) -> set[UUID]:
        """Name the persons whom the personal values of this event are about."""
        values = self.__dict__
        return {self.subject_of(name) for name in self._SUBJECTS if values[name] is not None}

    def subject_of(self, field: str) -> UUID:
        """Name the person whom personal `field` is about."""
        value = self._SUBJECTS[field](self)
        if not isinstance(value, UUID):
            message = f"{type(self).__name__}.{field}: {self.PERSONAL[field]} is {value!r}, not the id of a person"
            raise TypeError(message)
        return value

    @property
    def occurred_at(self) -> datetime:
        """When it happened at the source; when it was recorded is the log's to say."""
        return self.timestamp

    def changes(self) -> tuple[Change, ...]:
        """List the fields this event changed, old → new, for audit trails and histories.

        A field `x` with a sibling `previous_x` is listed where the two differ; any other field of the
        event's own is listed where it is set, with no old value.
        """
        found, values = [], self.__dict__
        for name, previous, personal in self._CHANGED:
            new, old = values[name], values[previous] if previous else None
            if (new != old or (personal and new == ERASED)) and not (old is None and new in ((), {})):
                found.append(Change(name, plain(old), plain(new), personal))
        return tuple(found)

    @classmethod
    def changeable(cls) -> frozenset[str]:
        """Name the fields that `changes` may list."""
        return frozenset(name for name, _, _ in cls._CHANGED)

    def mutate(self, aggregate: TAggregate | None) -> TAggregate | None:
        """Take the next step in the life of an aggregate.

        Raises OriginatorIDError for another's event, OriginatorVersionError for one that is not next.
        """
        # What the package's own does, at a third of its cost: a log is folded and told event by event.
        if aggregate is None or self.originator_id != aggregate._id:  # noqa: SLF001 - the package's own
            raise OriginatorIDError(self.originator_id, None if aggregate is None else aggregate.id)
        if self.originator_version != aggregate._version + 1:  # noqa: SLF001
            raise OriginatorVersionError(self.originator_version, aggregate.version + 1)
        self.apply(aggregate)
        aggregate._version = self.originator_version  # noqa: SLF001
        aggregate._modified_on = self.timestamp  # noqa: SLF001
        return aggregate

    def _as_dict(self) -> dict[str, Any]:
        return self.__dict__


def _accepts_none(annotation: Any) -> bool:
    return annotation is None or type(None) in get_args(annotation)


_PLAIN_TYPES = frozenset({str, int, bool, type(None)})


def plain(value: Any) -> Any:  # noqa: PLR0911 - one return a type
    """Give the value as JSON knows it."""
    if type(value) in _PLAIN_TYPES:
        return value
    match value:
        case tuple() | list():
            return [plain(item) for item in value]
        case frozenset() | set():
            return sorted(plain(item) for item in value)
        case UUID() | StrEnum() | Sealed():
            return str(value)
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case datetime():
            return value.isoformat()
        case BaseModel():
            return value.model_dump(mode="json")
        case _:
            return value


class Created(Event, CanInitAggregate[UUID]):
    """The first event of a stream."""

    originator_topic: str

    def mutate(self, aggregate: TAggregate | None) -> TAggregate | None:
        """Bring an aggregate to life. Raises OriginatorIDError where there is one already."""
        # As the package's own, which for each event looks up which of its fields two constructors want.
        if aggregate is not None:
            raise OriginatorIDError(self.originator_id, aggregate.id)
        kind = resolve_topic(self.originator_topic)
        made: TAggregate = kind.__new__(kind)
        made.__base_init__(self.originator_id, self.originator_version, self.timestamp)
        made.__init__()  # type: ignore[misc]
        self.apply(made)
        return made


AnyEvent = Event  # inside an aggregate, the name Event is taken by its own base


class Aggregate(BaseAggregate[UUID]):
    """A thing whose state is the fold of its events. Command methods decide; an event's `apply` only assigns.

    State is held in immutable values (tuples, frozensets), so that a shallow copy is a full one.
    """

    TOPIC: ClassVar[str]
    Event: ClassVar[type[AnyEvent]] = AnyEvent

    def __init__(self) -> None:
        """Start from the state before the first event's `apply`."""

    @classmethod
    def start(cls, event_class: type[Created], *, aggregate_id: UUID, act: Act, **fields: Any) -> Self:
        """Create the aggregate with its first event."""
        # The package's own `_create` and `trigger_event` check classes and arguments anew for every event, which costs
        # as much as the event; pydantic checks the arguments, and tests that each class has its topic.
        event = event_class(
            originator_topic=cls.TOPIC,
            originator_id=aggregate_id,
            originator_version=cls.INITIAL_VERSION,
            timestamp=act.at,
            by=act.by,
            reason=act.reason,
            source_address=act.source_address,
            **fields,
        )
        made: Self = event.mutate(None)  # type: ignore[assignment]
        made.pending_events.append(event)
        return made

    def record(self, event_class: type[AnyEvent], act: Act, **fields: Any) -> None:
        """Trigger an event under the circumstances of `act`."""
        event = event_class(
            originator_id=self._id,
            originator_version=self._version + 1,
            timestamp=act.at,
            by=act.by,
            reason=act.reason,
            source_address=act.source_address,
            **fields,
        )
        event.mutate(self)
        self._pending_events.append(event)


class Rejected(Exception):
    """A rule of the desk refused a command. Subclasses are named by the rule; nothing was recorded.

    `problem` is the stable name of the rule for interfaces; `details` its JSON-ready particulars.
    """

    problem: ClassVar[str]

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details
