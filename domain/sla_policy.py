"""What is promised to whom: for each metric a target, by what kind of ticket it is, and what happens around its deadline."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal, NamedTuple, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from domain.customer_events import Tier
from domain.event import Channel
from domain.priority import Priority
from domain.sla_terms import Metric
from domain.status import Status
from domain.text import Label, Tag, printable_text
from domain.ticket_events import TicketType

LONGEST_SECONDS: Final = 10 * 366 * 86_400
LONGEST_DAYS: Final = 3_660


SETTLED_METRICS: Final = (Metric.REQUESTER_WAIT, Metric.AGENT_WORK, Metric.TOTAL_RESOLUTION, Metric.OWNERSHIP)
"""What a solved ticket has fulfilled, and where a policy says so only a closed one."""


def _settled(metric: Metric) -> Metric:
    if metric not in SETTLED_METRICS:
        message = f"{metric} is not fulfilled by solving a ticket, so it cannot wait until one is closed"
        raise ValueError(message)
    return metric


SettledMetric = Annotated[Metric, AfterValidator(_settled)]


class Unit(StrEnum):
    """In what a target is counted."""

    BUSINESS = "business"
    CALENDAR = "calendar"
    BUSINESS_DAYS = "business_days"


class Attributes(NamedTuple):
    """What a policy looks at in a ticket. An unknown tier is none of those that a policy asks for."""

    priority: Priority
    tier: Tier | None
    type: TicketType
    channel: Channel
    team_id: UUID | None
    category: str | None
    tags: tuple[str, ...]

    @classmethod
    def read(
        cls,
        priority: str,
        tier: str | None,
        kind: str,
        channel: str,
        team: str | None,
        category: str | None,
        tags: tuple[str, ...],
    ) -> Self:
        """Give what plain words say. Raises ValueError where one is unknown."""
        return cls(
            Priority(priority),
            None if tier is None else Tier(tier),
            TicketType(kind),
            Channel(channel),
            None if team is None else UUID(team),
            category,
            tags,
        )


class Match(BaseModel):
    """Which tickets: every field that is given has to hold, with any one of its values; of tags, any one on the ticket."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    priorities: tuple[Priority, ...] | None = None
    tiers: tuple[Tier, ...] | None = None
    types: tuple[TicketType, ...] | None = None
    channels: tuple[Channel, ...] | None = None
    teams: tuple[UUID, ...] | None = None
    categories: tuple[Label, ...] | None = None
    tags: tuple[Tag, ...] | None = None

    def holds(self, ticket: Attributes) -> bool:
        """Tell whether a ticket is one of these."""
        return (
            (self.priorities is None or ticket.priority in self.priorities)
            and (self.tiers is None or ticket.tier in self.tiers)
            and (self.types is None or ticket.type in self.types)
            and (self.channels is None or ticket.channel in self.channels)
            and (self.teams is None or ticket.team_id in self.teams)
            and (self.categories is None or ticket.category in self.categories)
            and (self.tags is None or not set(self.tags).isdisjoint(ticket.tags))
        )


class Step(BaseModel):
    """What is done at an instant around a deadline, `offset_seconds` after it, or before it where negative.

    The offset is counted as the target is, in business time for business days. `remind` only says so, in the ticket's
    history; the others are ordinary commands with the breach, or what is to come, as their cause.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    offset_seconds: Annotated[int, Field(ge=-LONGEST_SECONDS, le=LONGEST_SECONDS, strict=True)]
    """How long after the deadline, or before it where negative."""
    action: Literal["remind", "notify", "raise_level", "reassign"]
    note: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(printable_text)] | None = None
    """For `notify`: what the note on the ticket says; without one it says what falls due."""
    level: Annotated[int, Field(ge=1, le=3, strict=True)] | None = None
    """For `raise_level`."""
    team_id: UUID | None = None
    """For `raise_level`, where it is not the team that has the ticket, and for `reassign`."""
    agent_id: UUID | None = None
    """For `reassign`."""


class Target(BaseModel):
    """How much time a metric is given on tickets that match.

    `amount` is seconds, or days where the unit is business days: as many working days later at the same time on the
    clock, or with `end_of_day` when that day closes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric: Metric
    match: Match = Match()
    amount: Annotated[int, Field(gt=0, le=LONGEST_SECONDS, strict=True)]
    """Seconds, or days where the unit is business_days."""
    unit: Unit = Unit.BUSINESS
    end_of_day: bool = False
    """Of business_days: until the last of them closes."""
    steps: tuple[Step, ...] = ()
    """What is done around the deadline."""


class PolicyTerms(BaseModel):
    """One version of a policy.

    A ticket goes by the first policy, by `order` and then by name, of which `match` holds; each metric by the first of
    `targets` that matches. `pauses` says in which statuses a metric stands still, where it is not as in DEFAULT_PAUSES.
    A metric `until_closed` is owed until the ticket is closed, and runs on while it is held for solved. No calendar:
    always open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    order: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 100
    """Policies are tried in this order, those of the same by name; a ticket goes by the first that matches."""
    match: Match = Match()
    calendar: Label | None = None
    """The calendar whose opening hours count; null: always open."""
    targets: tuple[Target, ...]
    """What is promised: of each metric the first that matches a ticket counts."""
    pauses: dict[Metric, tuple[Status, ...]] = Field(default_factory=dict)
    """Metric → statuses in which it stands still, where not as usual."""
    until_closed: tuple[SettledMetric, ...] = ()
    """Metrics that are owed until a ticket is closed, and run on while it is solved."""

    def target(self, metric: Metric, ticket: Attributes) -> Target | None:
        """Give what is promised of a metric on a ticket; None: nothing."""
        return next((one for one in self.targets if one.metric is metric and one.match.holds(ticket)), None)

    def paused_in(self, metric: Metric) -> tuple[Status, ...]:
        """Name the statuses in which a metric stands still."""
        return self.pauses.get(metric, DEFAULT_PAUSES.get(metric, ()))


DEFAULT_PAUSES: Final[dict[Metric, tuple[Status, ...]]] = {
    Metric.PERIODIC_UPDATE: (Status.PENDING,),
    Metric.REQUESTER_WAIT: (Status.PENDING,),
    Metric.AGENT_WORK: (Status.PENDING, Status.ON_HOLD),
}
"""Statuses in which a metric stands still unless its policy says otherwise; the others never do."""


def standard_policy() -> PolicyTerms:
    """Give the promises of a desk that has made no others, always open."""
    hours = {Metric.FIRST_REPLY: (1, 4, 24, 48), Metric.TOTAL_RESOLUTION: (8, 48, 120, 240)}
    urgency = (Priority.URGENT, Priority.HIGH, Priority.NORMAL, Priority.LOW)
    return PolicyTerms(
        targets=tuple(
            Target(metric=metric, match=Match(priorities=(priority,)), amount=amount * 3600, unit=Unit.CALENDAR)
            for metric, amounts in hours.items()
            for priority, amount in zip(urgency, amounts, strict=True)
        )
    )
