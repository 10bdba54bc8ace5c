"""Reading the volume: what was opened, solved, reopened and closed by the hour or the day, in any time zone."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from fastapi import Query
from pydantic import AwareDatetime, BaseModel
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response  # noqa: TC002 - FastAPI reads the annotation at run time

from api.access import STAFF, view_router
from api.people_routes import LISTING_PROBLEMS
from api.problems import INVALID_INPUT, Problem
from api.ticket_routes import Caller  # noqa: TC001 - FastAPI reads the annotation at run time
from api.view_pages import After, Line, reading_desk, true_of, wait_if_asked
from api.view_routes import Teams  # noqa: TC001 - FastAPI reads the annotation at run time
from domain.event import Channel
from projections import directory, volume_by_hour
from projections.volume_by_hour import Grouping, Unit, VolumeFilter, spans

if TYPE_CHECKING:
    from datetime import tzinfo

    from projections.volume_by_hour import Span, What

router = view_router("volume.read", roles=STAFF)

MOST_SPANS: Final = 1_000  # 41 days by the hour, two years and eight months by the day
MOST_LINES: Final = 20_000
DEFAULT_PERIOD: Final = timedelta(days=7)
_LENGTH: Final[dict[Unit, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_FIRST_YEAR, _LAST_YEAR = 1900, 2200  # beyond, the clocks of zones are not worth asking about


class LineTold(BaseModel):
    """What occurred from an instant to before another; team, channel and category are there where `by` names them."""

    since: AwareDatetime
    until: AwareDatetime
    team_id: UUID | None = None
    channel: Channel | None = None
    category: str | None = None
    opened: int
    solved: int
    reopened: int
    closed: int


class TotalTold(BaseModel):
    """What occurred in the whole period."""

    opened: int
    solved: int
    reopened: int
    closed: int


class VolumeTold(BaseModel):
    """What occurred in a period, true of `position`; `names` gives the teams that ids stand for."""

    unit: Unit
    zone: str
    since: AwareDatetime
    until: AwareDatetime
    by: list[Grouping]
    items: list[LineTold]
    totals: TotalTold
    names: dict[UUID, str]
    position: int


_FIELD_OF: Final[dict[Grouping, str]] = {"team": "team_id", "channel": "channel", "category": "category"}


@router.get(
    "/volume",
    operation_id="volume.read",
    summary="Count what was opened, solved, reopened and closed",
    response_model=None,
    responses={**LISTING_PROBLEMS, 200: {"model": VolumeTold}},
)
async def read_volume(
    *,
    request: Request,
    credential: Caller,
    unit: Annotated[Unit, Query(description="Count by the hour, by the day, or the period as a whole.")] = "hour",
    zone: Annotated[str, Query(max_length=64, description="Whose hours and days, such as Asia/Shanghai.")] = "UTC",
    since: Annotated[AwareDatetime | None, Query(description="From when on; else the 7 days before `until`.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Up to when, left out itself; else now.")] = None,
    by: Annotated[list[Grouping] | None, Query(max_length=3, description="By each of these.")] = None,
    teams: Teams = None,
    channel: Annotated[list[Channel] | None, Query(max_length=10, description="Of any of these channels.")] = None,
    category: Line = None,
    after: After = None,
) -> Response:
    """Count tickets by when things occurred at their source, in the hours or days that the clocks of a zone show.

    A ticket counts for the team and the category that it had then; one that is opened counts for the first that it is
    given. Where clocks are set back an hour comes twice and a day has 25; each item says its offset from UTC. Hours and
    days in which nothing occurred are listed when nothing is grouped by, and else left out.
    """
    desk = await reading_desk(request, credential)
    clocks = _zone(zone)
    last = until or datetime.now(UTC)
    period = _period(unit, clocks, since or last - DEFAULT_PERIOD, last)
    await wait_if_asked(request, desk, volume_by_hour.VIEW, after)
    grouped = list(dict.fromkeys(by or ()))
    which = VolumeFilter(teams=teams, channels=channel, category=category)
    found = await volume_by_hour.volume(desk.workspace, period, which, by=grouped)
    if len(found.lines) > MOST_LINES:
        detail = f"The answer would have {len(found.lines):,} items, of {MOST_LINES:,} at most: ask for less at once."
        raise Problem(INVALID_INPUT, detail)
    fields = [_FIELD_OF[one] for one in grouped]
    told = [(line.span, dict(zip(fields, line.key, strict=True)), line.counts) for line in found.lines]
    if not grouped:
        there = {line.span: line.counts for line in found.lines}
        told = [(span, {}, there.get(span, Counter())) for span in period]
    ids = {value for line in found.lines for value in line.key if isinstance(value, UUID)}
    content = {
        "unit": unit,
        "zone": zone,
        "since": period[0].begin.astimezone(clocks),
        "until": period[-1].end.astimezone(clocks),
        "by": grouped,
        "items": [
            {"since": span.begin.astimezone(clocks), "until": span.end.astimezone(clocks), **key, **_counts(counts)}
            for span, key, counts in told
        ],
        "totals": _counts(sum((line.counts for line in found.lines), Counter())),
        "names": {str(one): name for one, name in (await directory.names(desk.workspace, ids)).items()},
        "position": found.position,
    }
    return await true_of(desk, found.position, content)


def _counts(counts: Counter[What]) -> dict[str, int]:
    return {what: counts[what] for what in ("opened", "solved", "reopened", "closed")}


def _period(unit: Unit, zone: tzinfo, since: datetime, until: datetime) -> list[Span]:
    """Cut the period asked for. Raises Problem invalid-input."""
    if not _FIRST_YEAR <= since.year <= until.year <= _LAST_YEAR or since >= until:
        detail = f"`since` must be before `until`, and both between the years {_FIRST_YEAR} and {_LAST_YEAR}."
        raise Problem(INVALID_INPUT, detail)
    if unit != "period" and (until - since) / _LENGTH[unit] > MOST_SPANS:
        detail = f"At most {MOST_SPANS:,} hours or days can be asked for at once."
        raise Problem(INVALID_INPUT, detail)
    return spans(since, until, unit, zone)


def _zone(name: str) -> tzinfo:
    """Give a time zone by its name. Raises Problem invalid-input."""
    if name not in _zones():
        detail = f"{name!r} is not the name of a time zone, such as Asia/Shanghai."
        raise Problem(INVALID_INPUT, detail)
    return ZoneInfo(name)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
