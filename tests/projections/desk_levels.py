"""Calendars and policies for days at a desk: varied, the same for the same chance."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from domain.calendar import CalendarTerms
from domain.priority import Priority
from domain.sla_policy import Match, PolicyTerms, Step, Target, Unit
from domain.sla_terms import Metric
from domain.status import Status

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from datetime import date
    from uuid import UUID

ZONES = ("Asia/Shanghai", "America/New_York", "Europe/Rome")
DAYS = ("mon", "tue", "wed", "thu", "fri")


def some_calendar(chance: random.Random, today: date) -> CalendarTerms:
    """Give opening hours of a week, mostly with a break, and a closed day soon."""
    windows: list[Any] = chance.choice(
        ([["09:00", "17:00"]], [["08:30", "12:00"], ["13:00", "18:00"]], [["22:00", "06:00"]])
    )
    return CalendarTerms.model_validate(
        {
            "time_zone": chance.choice(ZONES),
            "hours": dict.fromkeys(DAYS, windows),
            "closed_days": {today + timedelta(days=chance.randrange(1, 9)): "Closed"},
            "valid_from": chance.choice((None, today + timedelta(days=2))),
        }
    )


def some_policy(chance: random.Random, calendar: str | None, teams: Sequence[UUID]) -> PolicyTerms:
    """Give targets for some metrics, of all units, some of them for a few tickets only."""
    targets = [
        _target(chance, metric, match)
        for metric in chance.sample(tuple(Metric), chance.randrange(1, len(Metric) + 1))
        for match in (Match(priorities=(Priority.URGENT, Priority.HIGH)), Match())
        if match.priorities is None or chance.random() < 0.5
    ]
    return PolicyTerms(
        order=chance.randrange(3),
        match=chance.choice((Match(), Match(teams=(teams[0],)), Match(tags=("vip",)), Match(categories=("network",)))),
        calendar=calendar,
        targets=tuple(targets),
        pauses={Metric.FIRST_REPLY: (Status.PENDING,)} if chance.random() < 0.5 else {},
    )


def _target(chance: random.Random, metric: Metric, match: Match) -> Target:
    unit = chance.choice(tuple(Unit))
    steps = (Step(offset_seconds=-600, action="remind"), Step(offset_seconds=1200, action="notify", note="Late"))
    return Target(
        metric=metric,
        match=match,
        amount=chance.randrange(1, 20) if unit is Unit.BUSINESS_DAYS else chance.choice((1800, 30 * 3600, 300 * 3600)),
        unit=unit,
        end_of_day=unit is Unit.BUSINESS_DAYS and chance.random() < 0.5,
        steps=chance.choice(((), steps)),
    )
