"""Between an event and its row: personal values are sealed apart, the state keeps their salted commitments."""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, cast

from eventsourcing.utils import TopicError, resolve_topic
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from storage.append import LogError, NewEvent
from storage.keyring import ERASED, SALT_BYTES, Keyring

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from storage.log_reader import StoredRow


class StorableEvent(Protocol):
    """What storage needs to know of an event, and all that it knows."""

    TOPIC: ClassVar[str]
    PERSONAL: ClassVar[dict[str, str]]
    SEALED: ClassVar[type[str]]

    @property
    def originator_id(self) -> UUID:
        """Give the stream."""

    @property
    def originator_version(self) -> int:
        """Give the version."""

    def state_json(self) -> bytes:
        """Give the state without personal values."""

    def personal_values(self) -> dict[str, Any]:
        """Give the personal values by field."""

    def subject_of(self, field: str) -> UUID:
        """Give the person whom a field is about."""

    @classmethod
    def from_state(cls, *, stream: UUID, version: int, state: dict[str, Any], personal: dict[str, Any]) -> Self:
        """Read an event back."""


class Recorded(NamedTuple):
    """An event with its place in the log."""

    event: Any
    position: int
    recorded_at: datetime


class UnreadableEvent(LogError):
    """An event in the log cannot be read; the message says which and why.

    `reason` names the kind for interfaces and metrics.
    """

    reason: ClassVar[str] = "undecodable_event"

    def __init__(self, row: StoredRow, why: str) -> None:
        super().__init__(f"event {row.position} ({row.topic}, version {row.version} of stream {row.stream}) {why}")
        self.row = row


class UnknownTopic(UnreadableEvent):
    """The event is of a type that this release does not know."""

    reason = "unknown_event"


class UndecodableState(UnreadableEvent):
    """The event's state is not of the shape that its type has."""


class NewerShape(UndecodableState):
    """The event is of a type that this release knows, in a shape that only a newer one does."""

    reason = "newer_event"


class BrokenStream(UnreadableEvent):
    """The event does not follow the one before it: some are missing from the log, or stand out of order."""

    reason = "missing_event"

    def __init__(self, row: StoredRow, expected: int) -> None:
        super().__init__(row, f"does not follow: version {expected} is missing before it, or it stands out of place")
        self.expected = expected


class UnfitEvent(UnreadableEvent):
    """The event can be read, but not be what happened next to what its stream tells so far."""

    reason = "unfit_event"

    def __init__(self, row: StoredRow, why: Exception) -> None:
        super().__init__(row, f"cannot follow what its stream tells before it: {type(why).__name__}")


def encode(event: StorableEvent, keyring: Keyring) -> NewEvent:
    """Turn an event into its row. The keys of the persons it is about must be loaded: see `Keyring.ensure`.

    For each personal field the state keeps SHA-256(salt ‖ JSON value); salt and value lie encrypted in `personal`,
    a JSON object field → base64(person's id ‖ nonce ‖ AES-GCM ciphertext), bound to workspace, stream, version
    and field.
    """
    stream, version = event.originator_id, event.originator_version
    state = event.state_json()
    values = event.personal_values()
    if not values:
        return NewEvent(stream, version, event.TOPIC, state, None)
    commitments: dict[str, str] = {}
    boxes: dict[str, str] = {}
    for field, value in values.items():
        plain = os.urandom(SALT_BYTES) + to_json(value)
        commitments[field] = b64encode(sha256(plain).digest()).decode()
        boxes[field] = b64encode(keyring.seal(event.subject_of(field), stream, version, field, plain)).decode()
    state = b'%b,"commitments":%b}' % (state[:-1], to_json(commitments))
    return NewEvent(stream, version, event.TOPIC, state, to_json(boxes))


_types: dict[str, type[StorableEvent]] = {}


def event_type(row: StoredRow) -> type[StorableEvent]:
    """Give the class of a row's event. Raises UnknownTopic."""
    found = _types.get(row.topic)
    if found is None:
        try:
            resolved = resolve_topic(row.topic)
        except (TopicError, ValueError):
            resolved = None
        if not (
            isinstance(resolved, type)
            and getattr(resolved, "TOPIC", None) == row.topic
            and hasattr(resolved, "from_state")
        ):
            raise UnknownTopic(row, "is of a type that this release does not know")
        found = _types[row.topic] = cast("type[StorableEvent]", resolved)
    return found


def decode(row: StoredRow, keyring: Keyring | None = None) -> Recorded:
    """Read an event from its row.

    Without a keyring personal values stay sealed: each is a token that views keep as it is and that
    `Keyring.reveal` opens. With a keyring, whose keys must be loaded (`Keyring.load`), they are opened; a value
    whose key or bytes are gone reads ERASED. Raises UnknownTopic, UndecodableState.
    """
    cls = event_type(row)
    try:
        state: dict[str, Any] = from_json(row.state)
        commitments: Mapping[str, str] | None = state.pop("commitments", None)
        personal: dict[str, Any] = {}
        if commitments:
            boxes: Mapping[str, str] = from_json(row.personal) if row.personal else {}
            for field in commitments:
                box = boxes.get(field)
                if box is None:
                    personal[field] = cls.SEALED(ERASED)
                elif keyring is None:
                    personal[field] = cls.SEALED(f"{row.version}.{field}.{box}")
                else:
                    value = keyring.open(row.stream, row.version, field, box)
                    personal[field] = cls.SEALED(ERASED) if value is None else value[0]
        event = cls.from_state(stream=row.stream, version=row.version, state=state, personal=personal)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UndecodableState(row, f"cannot be decoded: {_first_line(error)}") from error
    except Exception as error:
        if type(error).__name__ == "UnknownShape":
            raise NewerShape(row, f"was written by a newer release: {error}") from error
        raise
    return Recorded(event, row.position, row.recorded_at)


def in_order(rows: Sequence[StoredRow], *, after: int = 0) -> None:
    """Check that rows are what a stream holds next to version `after`, without holes. Raises BrokenStream."""
    position = 0
    for expected, row in enumerate(rows, start=after + 1):
        if row.version != expected or row.position <= position:
            raise BrokenStream(row, expected)
        position = row.position


def sealed(row: StoredRow, fields: Iterable[str]) -> dict[str, str]:
    """Give some personal fields that an event has as `decode` gives them without a keyring, without decoding it.

    Raises UndecodableState.
    """
    try:
        boxes: Mapping[str, str] = from_json(row.personal) if row.personal else {}
        return {field: f"{row.version}.{field}.{boxes[field]}" if field in boxes else ERASED for field in fields}
    except (ValueError, TypeError) as error:
        raise UndecodableState(row, f"cannot be decoded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "extra_forbidden":  # whose name is what somebody wrote
            return "it has a field too many"
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).partition("\n")[0]
