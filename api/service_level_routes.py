"""What the desk promises, over HTTP: its calendars and policies with all their versions, and what a calendar says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time
from starlette.responses import Response

from api.access import GuardedRoute
from api.conditions import position_text
from api.problems import NOT_FOUND, Problem, invalid
from api.ticket_routes import READING_PROBLEMS, Caller
from api.view_pages import reading_desk
from domain import spans
from domain.calendar import CalendarTerms
from domain.service_levels import SERVICE_LEVELS_ID, CalendarAdopted, PolicyAdopted
from domain.sla_policy import LONGEST_DAYS, LONGEST_SECONDS, PolicyTerms, standard_policy
from replay.stream import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.service_levels import Book
    from storage.codec import Recorded
    from storage.database import Workspace

router = APIRouter(route_class=GuardedRoute, tags=["service-levels"])


class Adopted(BaseModel):
    """When a version was adopted, by whom, and what became of open tickets."""

    version: int
    occurred_at: datetime
    recorded_at: datetime
    position: int
    actor_id: UUID
    open_tickets: Literal["move", "keep"]


class CalendarTold(BaseModel):
    """A version of a calendar, and what versions there are."""

    name: str
    version: int
    latest: int
    terms: CalendarTerms
    versions: list[Adopted]


class PolicyTold(BaseModel):
    """A version of a policy, and what versions there are; a retired one is chosen for no ticket any more."""

    name: str
    version: int
    latest: int
    retired: bool
    terms: PolicyTerms
    versions: list[Adopted]


class CalendarLine(BaseModel):
    """A calendar as it is now."""

    name: str
    version: int
    time_zone: str


class PolicyLine(BaseModel):
    """A policy as it is now."""

    name: str
    version: int
    order: int
    calendar: str | None
    retired: bool


class ServiceLevelsTold(BaseModel):
    """All calendars and policies; policies in the order in which they are tried, retired ones last.

    `standard` are the promises of a desk without any policy, where that is what holds.
    """

    version: int
    calendars: list[CalendarLine]
    policies: list[PolicyLine]
    standard: PolicyTerms | None


class HoursTold(BaseModel):
    """What a calendar says of an instant: whether it is open, since or from when, and what was asked beside that."""

    name: str
    version: int
    at: datetime
    open: bool
    next_opening: datetime
    """The instant itself where it is open."""
    added: datetime | None = None
    between_seconds: float | None = None


@router.get(
    "/service-levels",
    operation_id="service_levels.read",
    summary="Read which calendars and policies there are",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": ServiceLevelsTold}},
)
async def read_service_levels(request: Request, credential: Caller) -> Response:
    """Give all calendars and policies by their latest versions; the ETag is for commands' If-Match."""
    desk = await reading_desk(request, credential)
    book = await desk.book(fresh=True)
    told = ServiceLevelsTold(
        version=book.version,
        calendars=[
            CalendarLine(name=name, version=len(versions), time_zone=versions[-1].time_zone)
            for name, versions in sorted(book.calendars.items())
        ],
        policies=[_line(book, name) for name in (*book.in_force, *sorted(book.retired))],
        standard=None if book.policies else standard_policy(),
    )
    return await _answer(desk.workspace, told, book.version)


def _line(book: Book, name: str) -> PolicyLine:
    versions = book.policies[name]
    terms = versions[-1]
    retired = name in book.retired
    return PolicyLine(name=name, version=len(versions), order=terms.order, calendar=terms.calendar, retired=retired)


Version = Annotated[int | None, Query(ge=1, le=10**9, description="A version; the latest unless one is given.")]


@router.get(
    "/service-levels/calendars/{name}",
    operation_id="service_levels.calendar",
    summary="Read a calendar",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": CalendarTold}},
)
async def read_calendar(request: Request, name: str, credential: Caller, version: Version = None) -> Response:
    """Give a version of a calendar with the holidays that were known when it was adopted."""
    desk = await reading_desk(request, credential)
    events = await recorded(desk.workspace, SERVICE_LEVELS_ID)
    adopted = [one for one in events if isinstance(one.event, CalendarAdopted) and one.event.name == name]
    which = _which("calendar", name, version, len(adopted))
    told = CalendarTold(
        name=name,
        version=which,
        latest=len(adopted),
        terms=adopted[which - 1].event.terms,
        versions=_versions(adopted),
    )
    return await _answer(desk.workspace, told, events[-1].event.originator_version)


@router.get(
    "/service-levels/policies/{name}",
    operation_id="service_levels.policy",
    summary="Read a policy",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": PolicyTold}},
)
async def read_policy(request: Request, name: str, credential: Caller, version: Version = None) -> Response:
    """Give a version of a policy."""
    desk = await reading_desk(request, credential)
    events = await recorded(desk.workspace, SERVICE_LEVELS_ID)
    adopted = [one for one in events if isinstance(one.event, PolicyAdopted) and one.event.name == name]
    which = _which("policy", name, version, len(adopted))
    told = PolicyTold(
        name=name,
        version=which,
        latest=len(adopted),
        retired=name in (await desk.book(fresh=True)).retired,
        terms=adopted[which - 1].event.terms,
        versions=_versions(adopted),
    )
    return await _answer(desk.workspace, told, events[-1].event.originator_version)


@router.get(
    "/service-levels/calendars/{name}/hours",
    operation_id="service_levels.hours",
    summary="Ask a calendar",
    response_model=None,
    responses={**READING_PROBLEMS, 200: {"model": HoursTold}},
)
async def read_hours(
    *,
    request: Request,
    name: str,
    credential: Caller,
    at: Annotated[AwareDatetime | None, Query(description="An instant with its zone; now unless one is given.")] = None,
    add_seconds: Annotated[
        int | None, Query(ge=-LONGEST_SECONDS, le=LONGEST_SECONDS, description="Business seconds to add to it.")
    ] = None,
    add_days: Annotated[
        int | None, Query(ge=1, le=LONGEST_DAYS, description="Working days to add to it, keeping the time.")
    ] = None,
    until: Annotated[AwareDatetime | None, Query(description="Count the business time from `at` until then.")] = None,
    version: Version = None,
) -> Response:
    """Say whether a calendar is open at an instant, when it next opens, and what time added to it comes to."""
    desk = await reading_desk(request, credential)
    book = await desk.book(fresh=True)
    if add_seconds is not None and add_days is not None:
        detail = "give add_seconds or add_days, not both"
        raise invalid([{"parameter": "add_days", "in": "query", "detail": detail, "code": "one_of_two"}])
    which = _which("calendar", name, version, len(book.calendars.get(name, ())))
    hours = book.calendar(name, which)
    # In UTC, as near as it can be said there: the first and last days may lie outside.
    instant = spans.instant(spans.microseconds(at or datetime.now(UTC)))

    def told() -> HoursTold:
        added = None
        if add_seconds is not None:
            added = hours.add(instant, timedelta(seconds=add_seconds))
        elif add_days is not None:
            added = hours.add_days(instant, add_days)
        return HoursTold(
            name=name,
            version=which,
            at=instant,
            open=hours.is_open(instant),
            next_opening=hours.next_opening(instant),
            added=added,
            between_seconds=None if until is None else hours.between(instant, until).total_seconds(),
        )

    # Centuries away, a calendar's hours take most of a second to be worked out; others are answered meanwhile.
    return await _answer(desk.workspace, await asyncio.to_thread(told), book.version)


def _which(kind: str, name: str, version: int | None, latest: int) -> int:
    """Give the version meant. Raises Problem not-found."""
    if not latest:
        raise Problem(NOT_FOUND, f"No {kind} {name!r} was ever adopted.")
    if version is not None and version > latest:
        raise Problem(NOT_FOUND, f"The {kind} {name!r} has versions 1 to {latest}, no {version}.")
    return version or latest


def _versions(adopted: Sequence[Recorded]) -> list[Adopted]:
    return [
        Adopted(
            version=event.version,
            occurred_at=event.timestamp,
            recorded_at=recorded_at,
            position=position,
            actor_id=event.by.actor_id,
            open_tickets=event.open_tickets,
        )
        for event, position, recorded_at in adopted
    ]


async def _answer(workspace: Workspace, told: BaseModel, version: int) -> Response:
    head = await workspace.log.head()
    headers: Mapping[str, Any] = {"ETag": f'"{version}"', "Log-Position": position_text(head.position, head.epoch)}
    return Response(told.model_dump_json(), headers=headers, media_type="application/json")
