"""The whole life of one stream as people read it: who did what, when, why, and what it changed."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from domain.agent import AgentCreated, AgentRenamed
from domain.customer_events import ContactChanged, Registered
from domain.event import ERASED, SYSTEM_ACTOR, Change
from domain.team import TeamCreated, TeamRenamed
from domain.ticket_events import (
    CustomerMessageReceived,
    EventCorrected,
    NoteAdded,
    Opened,
    Replied,
    RequesterChanged,
    TicketEvent,
)
from replay.stream import NoSuchStream, legible
from storage.codec import BrokenStream, UnreadableEvent, decode
from storage.metrics import UNREADABLE
from storage.releases import told_in_full

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from storage.codec import Recorded
    from storage.database import Workspace

KINDS = ("ticket", "customer", "agent", "team", "service_levels")
NAMING = tuple(
    event.TOPIC for event in (AgentCreated, AgentRenamed, ContactChanged, Registered, TeamCreated, TeamRenamed)
)
"""Topics of events that carry the `name` that stands for their stream's id from then on."""
NAMED_FIELDS = tuple(
    f"{before}{who}_id" for before in ("", "previous_") for who in ("agent", "team", "requester", "author", "cc")
)
"""Event fields that hold the id of a person or a team."""
SYSTEM_NAME: Final = {str(SYSTEM_ACTOR): "Ledgerdesk"}
MESSAGE_FIELDS = frozenset({"text", "body", "attachments", "attachment_names"})
"""Fields of a message: told as the message, not as changes."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted, in what role and for whom; names where the log knows them."""

    id: UUID
    role: str
    name: str | None
    on_behalf_of: UUID | None
    on_behalf_of_name: str | None


@dataclass(frozen=True, slots=True)
class File:
    """An attachment as it was recorded."""

    id: UUID
    name: str | None
    content_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody wrote. `direction` is from_customer, to_customer or internal."""

    direction: str
    text: str
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Correction:
    """A later word on an earlier event: believe `value` for `field`, or the note where no field is named.

    `by_version` is the event that corrects, `corrected_version` the one that is wrong.
    """

    by_version: int
    corrected_version: int
    field: str | None
    value: Any
    note: str
    occurred_at: datetime
    actor: Actor


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the life. `corrections` are those made of it later; `corrects` what it corrects itself."""

    version: int
    position: int
    topic: str
    event: str
    occurred_at: datetime
    recorded_at: datetime
    actor: Actor
    channel: str
    contact_channel: str | None
    client: str | None
    source_address: str | None
    reason: str | None
    command_id: UUID | None
    correlation_id: UUID | None
    causation_id: UUID | None
    changes: tuple[Change, ...]
    message: Message | None
    corrects: Correction | None
    corrections: tuple[Correction, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place in the life where an event cannot be read, or where events are missing.

    `reason` is missing_event, unknown_event, newer_event, undecodable_event or unfit_event. Of missing events `version` is the
    first and `position`, `topic` and `recorded_at` are those of the event found instead.
    """

    version: int
    position: int
    topic: str
    recorded_at: datetime
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class History:
    """A stream's entries in order. `names` gives people and teams that ids in it stand for.

    `version` and `position` are the stream's last, readable or not; `unreadable` marks where entries are lacking.
    """

    kind: str
    stream: UUID
    number: int | None
    version: int
    position: int
    entries: tuple[Entry, ...]
    names: Mapping[str, str]
    unreadable: tuple[Unreadable, ...] = ()


async def history(
    workspace: Workspace, stream: UUID, *, kind: str | None = None, upto: int | None = None, marked: bool = False
) -> History:
    """Tell a stream's life, or that up to a version, from the bytes of the log; personal values are opened.

    `kind` (one of KINDS) refuses streams of other kinds. Raises NoSuchStream. What cannot be read
    raises UnreadableEvent, which names the event; where it may be `marked`, the rest is told and it is marked.
    """
    rows = await workspace.log.stream(stream, upto=upto)
    found = next((known for row in rows if (known := row.topic.partition(".")[0]) in KINDS), None)
    if found is None or (kind is not None and kind != found):
        raise NoSuchStream(kind or "stream", stream)
    events, unreadable = await legible(workspace, rows)
    if unreadable and not marked:
        raise unreadable[0]
    for error in unreadable:
        UNREADABLE.labels(workspace.name, error.reason).inc()
    names = await _names(workspace, events)
    entries = [entry_of(event, names) for event in events]
    corrections = defaultdict(list)
    for entry in entries:
        if entry.corrects is not None:
            corrections[entry.corrects.corrected_version].append(entry.corrects)
    return History(
        kind=found,
        stream=stream,
        number=rows[0].position if found == "ticket" and rows[0].version == 1 else None,
        version=rows[-1].version,
        position=rows[-1].position,
        entries=tuple(
            replace(entry, corrections=tuple(corrections[entry.version])) if entry.version in corrections else entry
            for entry in entries
        ),
        names=names,
        unreadable=tuple([_mark(error, await told_in_full(workspace, error)) for error in unreadable]),
    )


def _mark(error: UnreadableEvent, detail: str) -> Unreadable:
    row = error.row
    version = min(error.expected, row.version) if isinstance(error, BrokenStream) else row.version
    return Unreadable(version, row.position, row.topic, row.recorded_at, error.reason, detail)


async def _names(workspace: Workspace, events: Sequence[Recorded]) -> dict[str, str]:
    """Give the names that people and teams in the events have now, read from their own streams.

    A name that cannot be read is left out: another stream's damage must not hide this one's history.
    """
    rows = await workspace.log.last_of(list(mentioned_in(events) - {SYSTEM_ACTOR}), NAMING)
    await workspace.keyring.load(rows)
    names = dict(SYSTEM_NAME)
    for row in rows:
        with suppress(UnreadableEvent):
            names[str(row.stream)] = str(decode(row, workspace.keyring).event.name)
    return names


def mentioned_in(events: Sequence[Recorded]) -> set[UUID]:
    """Give the ids of people and teams in events, and of the streams that these are of."""
    found: set[Any] = set()
    for event, _, _ in events:
        values, by = event.__dict__, event.by
        found.update((event.originator_id, by.actor_id, by.on_behalf_of), values.get("team_ids", ()))
        found.update(values[name] for name in NAMED_FIELDS if name in values)
    found.discard(None)
    return found


def entry_of(event_recorded: Recorded, names: Mapping[str, str]) -> Entry:
    """Tell an event whose personal values are opened; `names` gives people and teams that ids stand for."""
    event, position, recorded_at = event_recorded
    by = event.by
    actor = Actor(
        by.actor_id,
        str(by.role),
        names.get(str(by.actor_id)),
        by.on_behalf_of,
        names.get(str(by.on_behalf_of)) if by.on_behalf_of else None,
    )
    corrects = None
    changes: tuple[Change, ...] = tuple(change for change in event.changes() if change.field not in MESSAGE_FIELDS)
    match event:
        case EventCorrected(corrected_version=version, note=note, field=field, value=value):
            corrects = Correction(event.originator_version, version, field, value, note, event.occurred_at, actor)
            changes = ()
        case RequesterChanged(requester_id=new, previous_requester_id=old):
            changes = (Change("requester_id", str(old), str(new)),)
    return Entry(
        version=event.originator_version,
        position=position,
        topic=event.TOPIC,
        event=event.TOPIC.partition(".")[2],
        occurred_at=event.occurred_at,
        recorded_at=recorded_at,
        actor=actor,
        channel=str(by.channel),
        contact_channel=str(event.channel) if isinstance(event, (Opened, CustomerMessageReceived)) else None,
        client=by.client,
        source_address=event.source_address,
        reason=event.reason,
        command_id=by.command_id,
        correlation_id=by.correlation_id,
        causation_id=by.causation_id,
        changes=changes,
        message=_message(event),
        corrects=corrects,
    )


def _message(event: TicketEvent) -> Message | None:
    match event:
        case Opened():
            return Message("from_customer", event.body, _files(event))
        case CustomerMessageReceived():
            return Message("from_customer", event.text, _files(event))
        case Replied():
            return Message("to_customer", event.text, _files(event))
        case NoteAdded():
            return Message("internal", event.text, _files(event))
    return None


def _files(event: Opened | CustomerMessageReceived | Replied | NoteAdded) -> tuple[File, ...]:
    names = event.attachment_names
    known: Sequence[str | None] = names if isinstance(names, tuple) else [ERASED] * len(event.attachments)
    return tuple(
        File(file.id, name, file.content_type, file.size, file.sha256)
        for file, name in zip(event.attachments, known, strict=False)
    )
