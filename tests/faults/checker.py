"""An independent look at the log after a round: its own SQL, its own reading of the events, its own expectations."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from tests.faults.history import History, Sent

EVENTS_OF: dict[str, tuple[str, ...]] = {
    "team.create": ("team.created",),
    "agent.create": ("agent.created",),
    "ticket.open": ("ticket.opened",),
    "ticket.assign": ("ticket.assigned",),
    "ticket.reply": ("ticket.replied",),
    "ticket.add-note": ("ticket.note_added",),
    "ticket.categorise": ("ticket.categorised",),
    "ticket.tag": ("ticket.tagged",),
    "ticket.escalate": ("ticket.escalated",),
    "ticket.set-pending": ("ticket.set_pending",),
    "ticket.put-on-hold": ("ticket.put_on_hold",),
    "ticket.resume": ("ticket.resumed",),
    "ticket.solve": ("ticket.solved",),
    "ticket.reopen": ("ticket.reopened",),
    "ticket.close": ("ticket.closed",),
    "ticket.record-customer-message": ("ticket.customer_message_received",),
    "customer.register": ("customer.registered",),
    "customer.change-contact": ("customer.contact_changed",),
}
"""Command → the topics of the events it brings forth, all of them or none."""

FOLLOW_UP = ("ticket.linked", "ticket.opened")
"""What a customer's message to a closed ticket brings forth instead, in two streams."""


class Logged(NamedTuple):
    """An event as it lies in the table; `marker` is the client's command, `execution` the desk's attempt at it."""

    position: int
    stream: UUID
    version: int
    topic: str
    recorded_at: datetime
    marker: UUID | None
    execution: UUID | None


LOG = """
SELECT notification_id, originator_id, originator_version, topic, recorded_at, state
FROM {schema}.events ORDER BY notification_id
"""

EPOCH = "SELECT epoch FROM {schema}.log_identity"
"""Which log it is; a crash, unlike a restore, does not begin another, since it loses nothing."""

CLAIMS = "SELECT kind, encode(key, 'hex'), stream FROM {schema}.claims"


def read(rows: Iterable[tuple[Any, ...]]) -> list[Logged]:
    """Read the rows of the statement LOG."""
    found = []
    for position, stream, version, topic, recorded_at, state in rows:
        by = json.loads(bytes(state))["by"]
        found.append(
            Logged(position, stream, version, topic, recorded_at, _id(by, "correlation_id"), _id(by, "command_id"))
        )
    return found


def _id(by: dict[str, Any], name: str) -> UUID | None:
    value = by.get(name)
    return None if value is None else UUID(value)


@dataclass(slots=True)
class Findings:
    """What is wrong; nothing, if all is well."""

    wrong: list[str] = field(default_factory=list)
    acknowledged: int = 0
    recorded_unknown: int = 0
    """Commands that no attempt of got an acknowledgement, and that are in the log all the same."""
    lost_replies: int = 0
    """Commands whose first attempt was recorded without its client being told."""


def check_order(log: list[Logged]) -> list[str]:
    """Positions are 1..n without holes, times follow them, and each stream's versions are 1..k without holes."""
    wrong = []
    heads: dict[UUID, int] = defaultdict(int)
    before: Logged | None = None
    for place, event in enumerate(log, start=1):
        if event.position != place:
            wrong.append(f"position {event.position} stands where {place} should")
            break
        if before is not None and event.recorded_at < before.recorded_at:
            wrong.append(f"position {event.position} was recorded before the one before it")
        if event.version != heads[event.stream] + 1:
            wrong.append(f"stream {event.stream} goes from version {heads[event.stream]} to {event.version}")
        heads[event.stream] = event.version
        before = event
    return wrong


def check_commands(log: list[Logged], history: History) -> Findings:
    """Every command is in the log as often as it may be: acknowledged once, as acknowledged; refused never."""
    findings = Findings()
    by_marker: dict[UUID, list[Logged]] = defaultdict(list)
    positions: dict[UUID, list[int]] = defaultdict(list)
    for event in log:
        positions[event.stream].append(event.position)
        if event.marker is not None:
            by_marker[event.marker].append(event)
    for command in history.commands:
        events = by_marker.pop(command.marker, [])
        findings.wrong += _check_whole(command, events)
        told = command.acknowledgements
        if told:
            findings.acknowledged += 1
            findings.lost_replies += all(attempt.answer["replayed"] for attempt in told)
            answers = {
                (one.answer["id"], one.answer["version"], one.answer["position"], one.answer["changed"]) for one in told
            }
            if len(answers) > 1:
                findings.wrong.append(f"{_named(command)} was told several things: {sorted(answers)}")
            findings.wrong += _check_acknowledged(command, events, positions)
        if command.name.startswith("customer.") and {one.problem for one in command.refusals} - {"contact-known"}:
            findings.wrong.append(f"{_named(command)} was refused as {[one.problem for one in command.refusals]}")
        if not told and events and not command.in_doubt:
            findings.wrong.append(f"{_named(command)} was refused and is in the log at {events[0].position}")
        elif not told and events:
            findings.recorded_unknown += 1
    findings.wrong += [
        f"{marker} at position {events[0].position} is of nobody" for marker, events in by_marker.items()
    ]
    return findings


def _check_whole(command: Sent, events: list[Logged]) -> list[str]:
    """Carried out at most once, and then wholly: events of one execution, next to one another."""
    if not events:
        return []
    wrong = []
    executions = {event.execution for event in events}
    if len(executions) > 1:
        wrong.append(f"{_named(command)} is in the log {len(executions)} times: {[one.position for one in events]}")
    topics = tuple(event.topic for event in events)
    if topics not in _may_bring_forth(command) and len(executions) == 1:
        wrong.append(f"{_named(command)} brought forth {topics}")
    if [event.position for event in events] != list(range(events[0].position, events[0].position + len(events))):
        wrong.append(f"{_named(command)} is torn apart: {[event.position for event in events]}")
    return wrong


def _may_bring_forth(command: Sent) -> set[tuple[str, ...]]:
    usual = {EVENTS_OF[command.name]}
    if command.name == "ticket.record-customer-message":
        usual |= {FOLLOW_UP, FOLLOW_UP[::-1]}
    return usual


def _check_acknowledged(command: Sent, events: list[Logged], positions: dict[UUID, list[int]]) -> list[str]:
    told = command.acknowledgements[0].answer
    stream, version, position = UUID(told["id"]), told["version"], told["position"]
    if not told["changed"]:
        if events:
            return [f"{_named(command)} was said to change nothing and is in the log at {events[0].position}"]
        # The position is the log's end when that was confirmed: so many events the stream had by then.
        had = sum(1 for one in positions[stream] if one <= position)
        return [] if had == version else [f"{_named(command)} was told version {version}; at {position} it was {had}"]
    if not events:
        return [f"{_named(command)} was acknowledged at {position} and is not in the log"]
    if events[-1].position != position:
        return [f"{_named(command)} was acknowledged at {position} and is at {events[-1].position}"]
    if (stream, version) not in {(event.stream, event.version) for event in events}:
        return [f"{_named(command)} was acknowledged as version {version} of {stream} and is not"]
    return []


def check_claims(claims: Iterable[tuple[str, str, UUID]], log: list[Logged], history: History) -> list[str]:
    """An address belongs to one customer, and to whom the clients were told; a customer has one at most."""
    wrong = []
    holders: dict[UUID, list[str]] = defaultdict(list)
    for kind, key, stream in claims:
        holders[stream].append(f"{kind} {key}")
    wrong += [f"customer {stream} holds {len(held)} addresses" for stream, held in holders.items() if len(held) > 1]
    wanted: dict[UUID, str] = {}
    doubtful: set[UUID] = set()
    recorded = {event.marker for event in log}
    for command in history.commands:
        if not command.name.startswith("customer.") or command.stream is None:
            continue
        if command.acknowledgements:
            wanted[command.stream] = command.body["email"]
        elif command.in_doubt and command.marker in recorded:
            doubtful.add(command.stream)
    by_address: dict[str, list[UUID]] = defaultdict(list)
    for stream, address in wanted.items():
        if stream in doubtful:
            continue
        by_address[address].append(stream)
        if stream not in holders:
            wrong.append(f"customer {stream} was told to have {address} and holds nothing")
    wrong += [f"{address} belongs to {streams}" for address, streams in by_address.items() if len(streams) > 1]
    return wrong


def _named(command: Sent) -> str:
    return f"{command.name} {command.marker} of client {command.client}"
