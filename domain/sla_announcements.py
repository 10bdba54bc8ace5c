"""What is to be put on record about a ticket's clocks: reminders and steps that fell due, breaches, and withdrawals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from domain.sla_clocks import clocks, ran_until
from domain.sla_counting import SECOND, time_deadline, used_up
from domain.sla_policy import Unit
from domain.sla_terms import Metric
from domain.spans import instant, microseconds
from domain.ticket_breach_events import (
    Allowed,
    CalendarSince,
    Pause,
    SlaBreached,
    SlaBreachWithdrawn,
    SlaEscalated,
    SlaWarned,
)
from domain.ticket_timeline import step_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from domain.sla_clocks import Clock
    from domain.sla_counting import Levels
    from domain.sla_policy import Step, Target
    from domain.sla_terms import SlaTerms
    from domain.ticket_breach_events import ClockEvent
    from domain.ticket_timeline import Announced, Timeline


class Announcement(NamedTuple):
    """An event that belongs on a ticket's record: its class, when it occurred, and its own fields.

    `step` is what an SlaEscalated asks for.
    """

    event_class: type[ClockEvent]
    at: datetime
    fields: dict[str, Any]
    step: Step | None = None


def announcements(
    timeline: Timeline, levels: Levels, now: datetime, found: Sequence[Clock] | None = None
) -> list[Announcement]:
    """Give what should be on the record by `now` and is not, in the order in which it fell due.

    A breach is dated at its deadline, a step at its instant, both whenever they are noticed; the withdrawal of a breach
    that the facts now contradict at `now`. `found` are the ticket's clocks where they are known already.
    """
    if timeline.announces_from is None:
        return []
    found = clocks(timeline, levels) if found is None else found
    moment = microseconds(now)
    fell = sorted(_reached(timeline, levels, found, moment), key=lambda one: one[0])
    return [
        *[_announcement(*one) for one in fell],
        *[_withdrawal(one, found, now) for one in _contradicted(timeline, found, moment)],
    ]


def next_at(timeline: Timeline, levels: Levels, found: Sequence[Clock] | None = None) -> datetime | None:
    """Give when it is worth looking for announcements: the first instant at which there is one if nothing else happens.

    In the past where one is overdue. None where there will be none.
    """
    if timeline.announces_from is None:
        return None
    found = clocks(timeline, levels) if found is None else found
    awaited = [at for at, _, _ in _reached(timeline, levels, found, _NEVER)]
    awaited += [one.at for one in _contradicted(timeline, found, _NEVER)]
    # Nothing is late before the instant is over.
    return instant(min(awaited) + 1) if awaited else None


_NEVER: Final = 1 << 62


def _reached(
    timeline: Timeline, levels: Levels, found: Sequence[Clock], moment: int
) -> Iterator[tuple[int, Clock, Step | None]]:
    """Give the instants that clocks have reached by a moment and that are not on record; without a step a deadline."""
    since = timeline.announces_from
    if since is None:
        return
    said = {(one.metric, one.at, one.step) for one in timeline.announced}
    for clock in found:
        until, due = min(ran_until(clock, moment), moment), clock.due
        if since < due < until and (clock.metric, due, None) not in said:
            yield due, clock, None
        for step in clock.target.steps if clock.target is not None else ():
            if step.offset_seconds >= 0 and due >= until:
                continue
            at = step_at(clock, step, levels)
            if since < at < until and not (said and (clock.metric, at, step_key(step)) in said):
                yield at, clock, step


def _contradicted(timeline: Timeline, found: Sequence[Clock], moment: int) -> list[Announced]:
    stands = {(clock.metric, clock.due) for clock in found if clock.due < min(ran_until(clock, moment), moment)}
    return [one for one in timeline.announced if one.step is None and (one.metric, one.at) not in stands]


def step_at(clock: Clock, step: Step, levels: Levels) -> int:
    """Give the instant of a step around a clock's deadline, in microseconds since 1970.

    A target in hours is walked as if it were so much longer or shorter, so that a later pause moves no step that has
    been taken. Around a deadline by working days or by hand, opening hours are counted from the deadline.
    """
    offset, target = step.offset_seconds * SECOND, clock.target
    if target is None or clock.manual or target.unit is Unit.BUSINESS_DAYS:
        by_calendar = target is None or target.unit is Unit.CALENDAR
        hours = None if by_calendar else levels.hours(clock.calendars[-1][1])
        later = [pause for pause in clock.pauses if pause[0] >= clock.due] if offset > 0 else ()
        return time_deadline(hours, offset, clock.due, later)
    allowed = target.amount * SECOND + offset
    if allowed <= 0:
        return clock.started
    return used_up(levels, target, allowed, clock.started, clock.pauses, clock.calendars)


def _announcement(at: int, clock: Clock, step: Step | None) -> Announcement:
    fields: dict[str, Any] = {
        "metric": clock.metric,
        "serial": clock.serial,
        "owning_team_id": clock.team_id,
        "terms": clock.terms,
        "due_at": clock.due_at,
    }
    if step is not None:
        event_class = SlaWarned if step.action == "remind" else SlaEscalated
        return Announcement(event_class, instant(at), {**fields, "step": step}, step)
    several = clock.calendars if len(clock.calendars) > 1 else ()
    return Announcement(
        SlaBreached,
        instant(at),
        {
            **fields,
            "started_at": clock.started_at,
            "pauses": tuple(
                Pause(from_at=instant(start), until_at=instant(end)) for start, end in clock.pauses if start < clock.due
            ),
            "target": None if clock.target is None else _allowed(clock.target),
            "manual": clock.manual,
            "calendars": tuple(_calendar_since(since, terms) for since, terms in several),
        },
    )


def _allowed(target: Target) -> Allowed:
    return Allowed(amount=target.amount, unit=target.unit, end_of_day=target.end_of_day)


def _calendar_since(since: int, terms: SlaTerms | None) -> CalendarSince:
    calendar, version = (None, None) if terms is None else (terms.calendar, terms.calendar_version)
    return CalendarSince(from_at=instant(since), calendar=calendar, calendar_version=version)


def _withdrawal(breach: Announced, found: Sequence[Clock], now: datetime) -> Announcement:
    clock = next((one for one in found if (one.metric, one.serial) == (breach.metric, breach.serial)), None)
    return Announcement(
        SlaBreachWithdrawn,
        now,
        {
            "metric": Metric(breach.metric),
            "serial": breach.serial,
            "owning_team_id": None if clock is None else clock.team_id,
            "terms": None if clock is None else clock.terms,
            "due_at": instant(breach.at),
            "present_due_at": None if clock is None else clock.due_at,
        },
    )
