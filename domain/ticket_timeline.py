"""What has happened to a ticket as far as its service levels ask, in the order in which it occurred."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

from msgspec import Struct
from msgspec.json import Decoder, Encoder
from msgspec.structs import replace

from domain import ticket_events as happened
from domain.event import Channel
from domain.sla_terms import SlaTerms
from domain.spans import microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from domain.sla_policy import Step

STATUS: Final = "s"
CUSTOMER_MESSAGE: Final = "m"
PUBLIC_REPLY: Final = "r"
PRIORITY: Final = "p"
TYPE: Final = "y"
TIER: Final = "i"
TEAM: Final = "t"
CATEGORY: Final = "g"
TAGS: Final = "x"
TERMS: Final = "a"
DUE_DATE: Final = "d"
"""Kinds of facts, in one letter since a million tickets keep them. All but messages and replies say what is so from then on."""

PLACES: Final = {PRIORITY: 0, TIER: 1, TYPE: 2, TEAM: 4, CATEGORY: 5, TAGS: 6}
"""Kind of fact → which of a ticket's attributes it says."""

READS: Final = frozenset(
    {
        "timestamp",
        "by",
        "opened_by_agent",
        "status",
        "priority",
        "tier",
        "type",
        "channel",
        "team_id",
        "category",
        "tags",
        "terms",
        "metric",
        "serial",
        "due_at",
        "step",
    }
)
"""The fields of events that a timeline is made of."""

if TYPE_CHECKING:
    Said = Any  # each kind of fact has its own
else:
    Said = str | tuple[str | int | None, ...] | None
Fact = tuple[int, str, Said]
"""When in microseconds since 1970, which kind, and what."""
Attributes = tuple[str, str | None, str, str, str | None, str | None, tuple[str, ...]]
"""Priority, tier, type, channel, team, category and tags as a policy looks at them, as plain words."""
Terms = tuple[str | None, int | None, str | None, int | None]
"""Policy and calendar by name and version."""
_Told = list[tuple[str, Any]]


class Announced(NamedTuple):
    """What is on the record about a clock: a breach by its deadline, or a step by its key and its instant."""

    metric: str
    serial: int
    at: int
    step: str | None = None


class Timeline(Struct, frozen=True, array_like=True, gc=False):
    """The facts about one ticket from which its clocks follow, and what has been announced of them.

    Instants are microseconds since 1970. `announces_from` is the instant after which clocks are announced: never where
    it is None, as with an imported ticket that nothing but the import has touched.
    """

    opened: int
    by_agent: bool
    status: str
    attributes: Attributes
    terms: Terms | None
    announces_from: int | None
    facts: tuple[Fact, ...] = ()
    announced: tuple[Announced, ...] = ()

    def latest(self, kind: str) -> Any:
        """Give what is so now by the facts of a kind, as it was said last."""
        for fact in reversed(self.facts):
            if fact[1] == kind:
                return fact[2]
        if kind == STATUS:
            return self.status
        return self.terms if kind == TERMS else self.attributes[PLACES[kind]]


_encoder: Final = Encoder()
_decoder: Final = Decoder(Timeline)


def encode(timeline: Timeline) -> str:
    """Give the text that a view keeps."""
    return _encoder.encode(timeline).decode()


def decode(text: str) -> Timeline:
    """Read what `encode` gave."""
    return _decoder.decode(text)


@lru_cache(maxsize=4096)
def sla_terms(terms: Terms | None) -> SlaTerms | None:
    """Give terms as events name them."""
    if terms is None:
        return None
    policy, policy_version, calendar, calendar_version = terms
    return SlaTerms(policy=policy, policy_version=policy_version, calendar=calendar, calendar_version=calendar_version)


def step_key(step: Step) -> str:
    """Name a step so that the same one is known again: by its offset and a sum of all that it says."""
    said = f"{step.action}|{step.level}|{step.team_id}|{step.agent_id}|{step.note}"
    return f"{step.offset_seconds}{step.action[:3]}{crc32(said.encode()):08x}"


def after(timeline: Timeline | None, event: happened.TicketEvent) -> Timeline:
    """Give the timeline with an event in its place by the time at which it occurred.

    Events come in the order of their versions. One that says what is so from then on, and that occurred before others
    of its kind which were recorded earlier, is believed from its instant on, as the ticket itself does: what those said
    is dropped. The same timeline is given back where an event says nothing. Raises ValueError where a ticket was never
    opened.
    """
    values = event.__dict__
    topic = event.TOPIC
    if timeline is None:
        if topic != happened.Opened.TOPIC:
            message = (
                f"ticket {event.originator_id} has an event at version {event.originator_version} but was never opened"
            )
            raise ValueError(message)
        return _opened(values)
    if topic == "ticket.sla_announcements_asked":
        return replace(timeline, announces_from=timeline.opened - 1)
    if timeline.announces_from is None and values["by"].channel not in _NOBODY:
        timeline = replace(timeline, announces_from=microseconds(values["timestamp"]))
    announced = _ANNOUNCED.get(topic)
    if announced is not None:
        return replace(timeline, announced=announced(timeline.announced, values))
    told: _Told = []
    status = values.get("status")
    if status is not None and status != timeline.latest(STATUS):
        told.append((STATUS, str(status)))
    tell = _TOLD.get(topic)
    if tell is not None:
        tell(timeline, values, told)
    if not told:
        return timeline
    # A foreign history may step back behind the opening.
    at = max(microseconds(values["timestamp"]), timeline.opened)
    facts = timeline.facts
    if not facts or at >= facts[-1][0]:
        return replace(timeline, facts=(*facts, *[(at, kind, value) for kind, value in told]))
    return replace(timeline, facts=_inserted(facts, at, told))


def _inserted(facts: tuple[Fact, ...], at: int, told: _Told) -> tuple[Fact, ...]:
    overruled = {(kind, value[0] if kind == DUE_DATE else None) for kind, value in told if kind not in _MOMENTS}
    before = tuple(fact for fact in facts if fact[0] <= at)
    later = tuple(
        fact
        for fact in facts
        if fact[0] > at and (fact[1], fact[2][0] if fact[1] == DUE_DATE else None) not in overruled
    )
    return (*before, *[(at, kind, value) for kind, value in told], *later)


_MOMENTS: Final = frozenset({CUSTOMER_MESSAGE, PUBLIC_REPLY})
_NOBODY: Final = frozenset({Channel.IMPORT, Channel.SYSTEM})
"""Channels through which nobody at this desk has dealt with a ticket."""


def _opened(values: Mapping[str, Any]) -> Timeline:
    silent = values["by"].channel == Channel.IMPORT
    opened = microseconds(values["timestamp"])
    tier = values.get("tier")
    return Timeline(
        opened=opened,
        by_agent=values["opened_by_agent"],
        status=str(values["status"]),
        attributes=(
            str(values["priority"]),
            None if tier is None else str(tier),
            str(values["type"]),
            str(values["channel"]),
            None,
            values["category"],
            tuple(values["tags"]),
        ),
        terms=_terms(values.get("terms")),
        announces_from=None if silent else opened - 1,
    )


def _terms(said: SlaTerms | Mapping[str, Any] | None) -> Terms | None:
    if said is None:
        return None
    # Read by extract it is what lies in the stored state, which leaves out what is None.
    told: Mapping[str, Any] = said.__dict__ if isinstance(said, SlaTerms) else said
    return (told.get("policy"), told.get("policy_version"), told.get("calendar"), told.get("calendar_version"))


def _said(kind: str, field: str) -> Callable[[Timeline, Mapping[str, Any], _Told], None]:
    def tell(timeline: Timeline, values: Mapping[str, Any], told: _Told) -> None:
        said = values[field]
        value = None if said is None else str(said)
        if value != timeline.latest(kind):
            told.append((kind, value))

    return tell


def _message(_: Timeline, __: Mapping[str, Any], told: _Told) -> None:
    told.append((CUSTOMER_MESSAGE, None))


def _reply(_: Timeline, __: Mapping[str, Any], told: _Told) -> None:
    told.append((PUBLIC_REPLY, None))


def _tags(_: Timeline, values: Mapping[str, Any], told: _Told) -> None:
    told.append((TAGS, tuple(values["tags"])))


def _terms_changed(timeline: Timeline, values: Mapping[str, Any], told: _Told) -> None:
    _TIER(timeline, values, told)
    told.append((TERMS, _terms(values["terms"])))


def _due_date(_: Timeline, values: Mapping[str, Any], told: _Told) -> None:
    due_at = values["due_at"]
    told.append((DUE_DATE, (str(values["metric"]), None if due_at is None else microseconds(due_at))))


_TEAM: Final = _said(TEAM, "team_id")
_TIER: Final = _said(TIER, "tier")
# By topic, as views and replays know events.
_TOLD: Final[dict[str, Callable[[Timeline, Mapping[str, Any], _Told], None]]] = {
    "ticket.replied": _reply,
    "ticket.customer_message_received": _message,
    "ticket.priority_changed": _said(PRIORITY, "priority"),
    "ticket.type_changed": _said(TYPE, "type"),
    "ticket.categorised": _said(CATEGORY, "category"),
    "ticket.tagged": _tags,
    "ticket.untagged": _tags,
    "ticket.assigned": _TEAM,
    "ticket.transferred": _TEAM,
    "ticket.escalated": _TEAM,
    "ticket.sla_terms_changed": _terms_changed,
    "ticket.due_date_set": _due_date,
}


def _breached(announced: tuple[Announced, ...], values: Mapping[str, Any]) -> tuple[Announced, ...]:
    return (*announced, Announced(str(values["metric"]), values["serial"], microseconds(values["due_at"])))


def _step_taken(announced: tuple[Announced, ...], values: Mapping[str, Any]) -> tuple[Announced, ...]:
    at, key = microseconds(values["timestamp"]), step_key(values["step"])
    return (*announced, Announced(str(values["metric"]), values["serial"], at, key))


def _withdrawn(announced: tuple[Announced, ...], values: Mapping[str, Any]) -> tuple[Announced, ...]:
    gone = (str(values["metric"]), microseconds(values["due_at"]), None)
    return tuple(one for one in announced if (one.metric, one.at, one.step) != gone)


_ANNOUNCED: Final[dict[str, Callable[[tuple[Announced, ...], Mapping[str, Any]], tuple[Announced, ...]]]] = {
    "ticket.sla_breached": _breached,
    "ticket.sla_warned": _step_taken,
    "ticket.sla_escalated": _step_taken,
    "ticket.sla_breach_withdrawn": _withdrawn,
}
TOPICS: Final = frozenset({happened.Opened.TOPIC, *_TOLD, *_ANNOUNCED}) | {
    "ticket.set_pending",
    "ticket.put_on_hold",
    "ticket.resumed",
    "ticket.solved",
    "ticket.reopened",
    "ticket.closed",
    "ticket.source_status_recorded",
    "ticket.sla_announcements_asked",
}
"""The events that a timeline is made of; any other only ends the silence about an imported ticket."""
