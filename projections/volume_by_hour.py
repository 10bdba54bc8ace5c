"""Volume by hour: how many tickets were opened, solved, reopened and closed when, by team, channel and category."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row

from psycopg.sql import SQL, Identifier

from domain import ticket_events as happened
from domain.status import Status
from projections.listing import summarise
from projections.selection import Where
from projections.table import Column, Row, Rows, Table
from projections.view import Draft, View, events_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import tzinfo

    from storage.codec import Recorded
    from storage.database import Workspace

TABLE: Final = Table(
    columns=(
        Column("ticket_id", "uuid", null=False),
        Column("ordinal", "bigint", null=False),  # the version of the event that it happened with
        Column("what", "text", null=False),
        Column("occurred_at", "timestamptz", null=False),
        Column("channel", "text", null=False),
        Column("team_id", "uuid"),
        Column("category", "text"),
        # In the row of the opening: what the ticket's next row is to say.
        Column("latest_team_id", "uuid"),
        Column("latest_category", "text"),
    ),
    key=("ticket_id", "ordinal"),
    # A period is counted in the index alone.
    indexes=("(occurred_at) INCLUDE (what, channel, team_id, category)",),
)

What = Literal["opened", "solved", "reopened", "closed"]
FINISHED: Final = frozenset({Status.SOLVED, Status.CLOSED})
_OPENING: Final = 1


def fold(rows: Rows, recorded: Iterable[Recorded]) -> Rows:
    """Add a row for each time that a ticket is opened, solved, reopened or closed, by when that occurred.

    A row says where the ticket was then, and goes on saying so. A ticket is opened before anybody has it: the row of its
    opening takes the first team, and the first category, that it is given.
    """
    draft = Draft(rows)
    for event, position, _ in recorded:
        stream, values = event.originator_id, event.__dict__
        if type(event) is happened.Opened:
            draft.put(_opened(event), stream, _OPENING)
            continue
        opening = draft.look(stream, _OPENING)
        if opening is None:
            message = f"ticket {stream} has an event at position {position} but was never opened"
            raise ValueError(message)
        for name in ("team_id", "category"):
            if name in values and values[name] != opening[f"latest_{name}"]:
                opening = draft.get(stream, _OPENING)
                assert opening is not None  # noqa: S101 - it was just looked at
                opening[f"latest_{name}"] = values[name]
                if opening[name] is None:
                    opening[name] = values[name]
        what = _what(values.get("status"), values.get("previous_status"))
        if what is not None:
            draft.put(
                {
                    "ticket_id": stream,
                    "ordinal": event.originator_version,
                    "what": what,
                    "occurred_at": values["timestamp"],
                    "channel": opening["channel"],
                    "team_id": opening["latest_team_id"],
                    "category": opening["latest_category"],
                    "latest_team_id": None,
                    "latest_category": None,
                },
                stream,
                event.originator_version,
            )
    return draft.changed


def _opened(event: happened.Opened) -> Row:
    return {
        "ticket_id": event.originator_id,
        "ordinal": _OPENING,
        "what": "opened",
        "occurred_at": event.timestamp,
        "channel": event.channel,
        "team_id": None,
        "category": event.category,
        "latest_team_id": None,
        "latest_category": event.category,
    }


def _what(status: Status | None, previous: Status | None) -> What | None:
    """Tell what a move counts as, whichever event made it; a message of the customer may reopen a ticket, too."""
    if status == previous:
        return None
    if status == Status.SOLVED:
        return "solved"
    if status == Status.CLOSED:
        return "closed"
    return "reopened" if previous in FINISHED else None


_LOOKED_AT: Final = frozenset({"status", "team_id", "category"})

VIEW: Final = View(
    name="volume_by_hour",
    version=1,
    table=TABLE,
    fold=fold,
    topics=frozenset(
        event.TOPIC for event in events_of(happened.TicketEvent) if event.model_fields.keys() & _LOOKED_AT
    ),
    reads=frozenset({"timestamp", "channel", "previous_status", *_LOOKED_AT}),
    stream_local=True,
    at_leisure=True,
)

Unit = Literal["hour", "day", "period"]
Grouping = Literal["team", "channel", "category"]
_COLUMN_OF: Final[dict[Grouping, str]] = {"team": "team_id", "channel": "channel", "category": "category"}


@dataclass(frozen=True, kw_only=True)
class VolumeFilter:
    """Of which tickets; what is left None does not matter."""

    teams: Sequence[UUID] | None = None
    channels: Sequence[str] | None = None
    category: str | None = None

    def where(self) -> Where:
        """Say it in SQL."""
        where = Where()
        if self.teams is not None:
            where.add("team_id = ANY(%(teams)s)", teams=list(self.teams))
        if self.channels is not None:
            where.add("channel = ANY(%(channels)s)", channels=list(map(str, self.channels)))
        if self.category is not None:
            where.add("category = %(category)s", category=self.category)
        return where


EVERY_TICKET: Final = VolumeFilter()


class Span(NamedTuple):
    """An hour, a day or a period: from an instant to before another, both in UTC."""

    begin: datetime
    end: datetime


class Line(NamedTuple):
    """What happened in a span, of one team, channel and category as far as grouped by; `key` has them in order."""

    span: Span
    key: tuple[UUID | str | None, ...]
    counts: Counter[What]


class Volume(NamedTuple):
    """What happened in a period, span by span, true of a position of the log. Spans without events have no line."""

    lines: list[Line]
    position: int


async def volume(
    workspace: Workspace, spans: Sequence[Span], tickets: VolumeFilter = EVERY_TICKET, *, by: Sequence[Grouping] = ()
) -> Volume:
    """Count what occurred in spans that follow one another. Raises ViewsNotReady."""
    where = tickets.where()
    begins = [span.begin for span in spans]
    where.add(
        "occurred_at >= %(begin)s AND occurred_at < %(end)s", begin=spans[0].begin, end=spans[-1].end, begins=begins
    )
    names = {"keys": SQL("").join(SQL(", {}").format(Identifier(_COLUMN_OF[one])) for one in by)}
    found = await summarise(workspace, VIEW, _COUNTS, where, names)
    lines = []
    for opened, solved, reopened, closed, number, *key in found.rows:
        counts: Counter[What] = Counter({"opened": opened, "solved": solved, "reopened": reopened, "closed": closed})
        lines.append(Line(spans[number - 1], tuple(key), counts))
    lines.sort(key=lambda line: (line.span, str(line.key)))
    return Volume(lines, found.position)


# Which of the spans an instant lies in is looked up in the sorted list of their beginnings.
_COUNTS: Final = """
SELECT count(*) FILTER (WHERE what = 'opened'), count(*) FILTER (WHERE what = 'solved'),
       count(*) FILTER (WHERE what = 'reopened'), count(*) FILTER (WHERE what = 'closed'),
       width_bucket(occurred_at, %(begins)s::timestamptz[]) AS span{keys}
FROM {place} WHERE {where} GROUP BY span{keys}
"""


def spans(begin: datetime, end: datetime, unit: Unit, zone: tzinfo) -> list[Span]:
    """Cut a period, `begin` < `end`, where an hour or a day begins by the clocks of a zone.

    The first and the last may be cut short. Where clocks are set back an hour comes twice, told apart by its offset
    from UTC; where they are put forward it is left out; a day then has 25 or 23. Where they move by part of an hour, the
    hour that they do so in ends there.
    """
    begins = [begin.astimezone(UTC)]
    last = end.astimezone(UTC)
    while unit != "period" and (next_begin := _next(begins[-1], unit, zone)) < last:
        begins.append(next_begin)
    return [Span(*pair) for pair in pairwise([*begins, last])]


def _next(instant: datetime, unit: Unit, zone: tzinfo) -> datetime:
    """Give the instant after `instant` at which an hour or a day begins."""
    local = instant.astimezone(zone)
    if unit == "day":
        # The first midnight, where there are two; one that the clocks leave out is the instant at which they do.
        return datetime.combine(local.date() + timedelta(days=1), time(), zone).astimezone(UTC)
    begun = local.replace(minute=0, second=0, microsecond=0)
    soonest, latest = instant, instant + timedelta(hours=1) - (local.replace(tzinfo=None) - begun.replace(tzinfo=None))
    if latest.astimezone(zone).utcoffset() == local.utcoffset():
        return latest
    while latest - soonest > timedelta(seconds=1):
        middle = soonest + (latest - soonest) // 2
        if middle.astimezone(zone).utcoffset() == local.utcoffset():
            soonest = middle
        else:
            latest = middle
    return latest.replace(microsecond=0)
