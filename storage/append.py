"""What one append says to the log and hears from it: the interface of the SQL function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID


LARGEST_EVENT: Final = 2 * 1024 * 1024
"""Bytes that an event may have where nothing else is set: whatever fits a command's body over HTTP fits."""


class LogError(Exception):
    """The log could not do what was asked."""


class LogUnavailable(LogError):
    """The database did not answer in time; whether the command was recorded is not known. Ask again with its key."""


class LogBusy(LogError):
    """Too many commands wait for the log; nothing was recorded."""


class EventTooLarge(LogError):
    """An event is larger than the log takes; nothing was recorded. Sizes are in bytes."""

    def __init__(self, event: NewEvent, size: int, limit: int) -> None:
        super().__init__(
            f"the event {event.topic} (version {event.version} of stream {event.stream}) has {size:,} bytes; "
            f"the log takes {limit:,}"
        )
        self.topic = event.topic
        self.size = size
        self.limit = limit


class Conflict(LogError):
    """A stream was not at the version the command was decided on; nothing was recorded."""

    def __init__(self, stream: UUID, actual: int) -> None:
        super().__init__(f"stream {stream} is at version {actual}")
        self.stream = stream
        self.actual = actual


class EarlierEpoch(LogError):
    """The command was decided on a log that has gone on elsewhere since; nothing was recorded. Decide it again."""

    def __init__(self) -> None:
        super().__init__("the log has gone on in another epoch since the command was decided")


class Claimed(LogError):
    """Another stream holds a value that the command wants to claim; nothing was recorded."""

    def __init__(self, kind: str, owner: UUID) -> None:
        super().__init__(f"{kind} is held by stream {owner}")
        self.kind = kind
        self.owner = owner


class KeyReused(LogError):
    """The idempotency key was used before with another body; nothing was recorded."""

    def __init__(self) -> None:
        super().__init__("the idempotency key was used before for another request")


class NewEvent(NamedTuple):
    """An event to be appended."""

    stream: UUID
    version: int
    topic: str
    state: bytes
    personal: bytes | None


class Claim(NamedTuple):
    """A value that `stream` takes, or gives up with `release`; `key` is a keyed hash of the value."""

    kind: str
    key: bytes
    stream: UUID
    release: bool = False


@dataclass(slots=True)
class Submission:
    """One command for the log: all of its events, over any number of streams, or none.

    `guards` maps a stream to the version it must have (0: it must not exist). With no events a submission
    confirms its guards. `key` makes a retry safe: the first outcome and `result` are given again. A `probe` asks
    for its key without leaving one, as a refusal does, which is not remembered. `epoch` is that of the log when the
    command was decided: in another one it is not recorded.

    A command may be decided on what another is only about to leave behind: that one is `after`, and unless its events
    are recorded, by it and now, this one conflicts. `recorded` tells whether they were, and is None until it is known.
    """

    events: Sequence[NewEvent] = ()
    guards: Mapping[UUID, int] = field(default_factory=dict)
    claims: Sequence[Claim] = ()
    key: bytes | None = None
    body_hash: bytes | None = None
    result: bytes | None = None
    probe: bool = False
    epoch: str | None = None
    after: Submission | None = None
    recorded: bool | None = None

    def settle(self, outcome: Appended | Exception) -> None:
        """Note what became of it; those before it are let go of."""
        self.recorded = isinstance(outcome, Appended) and not outcome.replayed and bool(self.events)
        self.after = None


def check_sizes(events: Sequence[NewEvent], limit: int) -> None:
    """Refuse events of which one has more than `limit` bytes of state and personal values. Raises EventTooLarge."""
    for event in events:
        size = len(event.state) if event.personal is None else len(event.state) + len(event.personal)
        if size > limit:
            raise EventTooLarge(event, size, limit)


class Appended(NamedTuple):
    """What became of a submission. Without events both positions are that of the last event then in the log."""

    first_position: int
    position: int
    recorded_at: datetime
    replayed: bool
    result: bytes | None


def read_outcome(row: tuple[Any, ...]) -> Appended | LogError:
    """Read one row of the append function's answer; refusals are given, not raised."""
    outcome, first, last, at, stream, head, owner, result = row
    match outcome:
        case "appended" | "confirmed":
            return Appended(first, last, at, replayed=False, result=result)
        case "replayed":
            return Appended(first, last, at, replayed=True, result=result)
        case "conflict":
            return Conflict(stream, head)
        case "claimed":
            return Claimed(bytes(result).decode(), owner)
        case "key_reused":
            return KeyReused()
        case _:
            return LogError(f"the append function answered {outcome!r}")


def arguments_of(batch: Sequence[Submission]) -> dict[str, list[Any]]:
    """Lay a batch out as the arrays of the append function; streams and claims are numbered from 1."""
    streams: dict[UUID, int] = {}
    claims: dict[tuple[str, bytes], int] = {}

    def number(stream: UUID) -> int:
        return streams.setdefault(stream, len(streams) + 1)

    guards: list[tuple[int, int, int]] = []
    events: list[tuple[int, int, NewEvent]] = []
    holds: list[tuple[int, int, Claim]] = []
    places = {id(submission): command for command, submission in enumerate(batch, start=1)}
    for command, submission in enumerate(batch, start=1):
        guards += [(command, number(stream), version) for stream, version in submission.guards.items()]
        events += [(command, number(event.stream), event) for event in submission.events]
        holds += [
            (command, claims.setdefault((claim.kind, claim.key), len(claims) + 1), claim) for claim in submission.claims
        ]
    return {
        "streams": list(streams),
        "guard_command": [command for command, _, _ in guards],
        "guard_stream": [stream for _, stream, _ in guards],
        "guard_version": [version for _, _, version in guards],
        "event_command": [command for command, _, _ in events],
        "event_stream": [stream for _, stream, _ in events],
        "event_version": [event.version for _, _, event in events],
        "event_topic": [event.topic for _, _, event in events],
        "event_state": [event.state for _, _, event in events],
        "event_personal": [event.personal for _, _, event in events],
        "command_key": [submission.key for submission in batch],
        "command_body": [submission.body_hash for submission in batch],
        "command_result": [submission.result for submission in batch],
        "command_probe": [submission.probe for submission in batch],
        "command_after": [_after(submission, places) for submission in batch],
        "claim_kind": [kind for kind, _ in claims],
        "claim_key": [key for _, key in claims],
        "hold_command": [command for command, _, _ in holds],
        "hold_claim": [claim for _, claim, _ in holds],
        "hold_stream": [claim.stream for _, _, claim in holds],
        "hold_release": [claim.release for _, _, claim in holds],
    }


def _after(submission: Submission, places: Mapping[int, int]) -> int:
    before = submission.after
    return 0 if before is None or before.recorded else places.get(id(before), UNRECORDED)


UNRECORDED: Final = -1

APPEND = """
SELECT * FROM {schema}.append(
    %(streams)b::uuid[],
    %(guard_command)b::int[], %(guard_stream)b::int[], %(guard_version)b::bigint[],
    %(event_command)b::int[], %(event_stream)b::int[], %(event_version)b::bigint[],
    %(event_topic)b::text[], %(event_state)b::bytea[], %(event_personal)b::bytea[],
    %(command_key)b::bytea[], %(command_body)b::bytea[], %(command_result)b::bytea[],
    %(command_probe)b::boolean[], %(command_after)b::int[],
    %(claim_kind)b::text[], %(claim_key)b::bytea[],
    %(hold_command)b::int[], %(hold_claim)b::int[], %(hold_stream)b::uuid[], %(hold_release)b::boolean[])
"""
