"""What the demo desk promises: hours in London and Shanghai, and a policy for each kind of customer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from commands.demo.texts import MATTERS
from commands.holidays import HolidayChoice, holiday_set
from domain.calendar import CalendarTerms, Weekday, Window
from domain.customer_events import Tier
from domain.priority import Priority
from domain.service_levels import ServiceLevels
from domain.sla_policy import Match, PolicyTerms, Step, Target, Unit
from domain.sla_terms import Metric
from domain.status import Status

if TYPE_CHECKING:
    from domain.event import Act

LONDON, SHANGHAI = "London", "上海"
MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
WORKING_DAYS: Final[tuple[Weekday, ...]] = ("mon", "tue", "wed", "thu", "fri")


def promised(act: Act) -> ServiceLevels:
    """Adopt the calendars and policies of the demo desk."""
    levels = ServiceLevels.unwritten(act.at)
    years = (act.at.year, act.at.year + 1)
    british = HolidayChoice(country="GB", subdivision="ENG", years=years)
    chinese = HolidayChoice(country="CN", years=years)
    levels.adopt_calendar(name=LONDON, terms=_calendar("Europe/London", ("08:00", "18:00"), british), act=act)
    levels.adopt_calendar(
        name=SHANGHAI, terms=_calendar("Asia/Shanghai", ("09:00", "12:00", "13:30", "18:00"), chinese), act=act
    )
    for name, terms in _policies().items():
        levels.adopt_policy(name=name, terms=terms, act=act)
    return levels


def _calendar(zone: str, times: tuple[str, ...], choice: HolidayChoice) -> CalendarTerms:
    windows = tuple(Window(opens, closes) for opens, closes in zip(times[::2], times[1::2], strict=True))
    return CalendarTerms(time_zone=zone, hours=dict.fromkeys(WORKING_DAYS, windows), holidays=holiday_set(choice))


def _policies() -> dict[str, PolicyTerms]:
    remind = (Step(offset_seconds=-15 * MINUTE, action="remind"),)
    chinese = tuple(sorted({matter.category for matter in MATTERS if matter.language == "zh-CN"}))
    return {
        "VIP": PolicyTerms(
            order=10,
            match=Match(tiers=(Tier.VIP,)),
            targets=(
                Target(metric=Metric.FIRST_REPLY, amount=HOUR, unit=Unit.CALENDAR, steps=remind),
                Target(metric=Metric.NEXT_REPLY, amount=4 * HOUR, unit=Unit.CALENDAR, steps=remind),
                Target(metric=Metric.TOTAL_RESOLUTION, amount=24 * HOUR, unit=Unit.CALENDAR, steps=remind),
            ),
        ),
        "中文服务": PolicyTerms(
            order=20,
            match=Match(categories=chinese),
            calendar=SHANGHAI,
            targets=(
                Target(metric=Metric.FIRST_REPLY, amount=2 * HOUR, steps=remind),
                Target(metric=Metric.NEXT_REPLY, amount=4 * HOUR, steps=remind),
                Target(metric=Metric.TOTAL_RESOLUTION, amount=3, unit=Unit.BUSINESS_DAYS, end_of_day=True),
            ),
            pauses={Metric.TOTAL_RESOLUTION: (Status.PENDING,)},
        ),
        "Standard": PolicyTerms(
            order=100,
            calendar=LONDON,
            targets=(
                Target(
                    metric=Metric.FIRST_REPLY, match=Match(priorities=(Priority.URGENT,)), amount=HOUR, steps=remind
                ),
                Target(metric=Metric.FIRST_REPLY, amount=8 * HOUR, steps=remind),
                Target(metric=Metric.NEXT_REPLY, amount=10 * HOUR, steps=remind),
                Target(metric=Metric.AGENT_WORK, amount=30 * HOUR),
                Target(metric=Metric.TOTAL_RESOLUTION, match=Match(priorities=(Priority.URGENT,)), amount=10 * HOUR),
                Target(metric=Metric.TOTAL_RESOLUTION, amount=5, unit=Unit.BUSINESS_DAYS),
                Target(metric=Metric.OWNERSHIP, amount=20 * HOUR),
            ),
        ),
    }
