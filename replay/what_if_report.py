"""What a what-if came to: how promises ended, how they would have ended, and which tickets flip between the two."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from domain.sla_terms import Metric
from domain.what_if import Axis

if TYPE_CHECKING:
    from datetime import datetime


AXIS_SAYS: Final[dict[Axis, str]] = {
    Axis.AS_KNOWN: (
        "As known then: each ticket by the versions of policies and calendars that its own record names; a holiday that"
        " was entered late was not known."
    ),
    Axis.AS_CORRECTED: (
        "As corrected now: the latest versions of policies and calendars, as if they had held all along; a holiday that"
        " was entered late counts."
    ),
}


class Outcome(StrEnum):
    """How a promise stands as of the instant asked about: kept, broken (running or not), still running, or not made."""

    MET = "met"
    BREACHED = "breached"
    RUNNING = "running"
    NOT_PROMISED = "not_promised"


OUTCOMES: Final = tuple(Outcome)

Grouping = Literal["priority", "tier", "team", "month"]
GROUPINGS: Final[tuple[Grouping, ...]] = ("priority", "tier", "team", "month")
Direction = Literal["worse", "better"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(_Part):
    """How many promises ended how; those not made on this side are made on the other."""

    met: int
    breached: int
    running: int
    not_promised: int

    @property
    def promised(self) -> int:
        """How many were made."""
        return self.met + self.breached + self.running

    @property
    def breached_share(self) -> float | None:
        """Give the share of broken ones among those that were made; None where there are none."""
        return self.breached / self.promised if self.promised else None


class Spread(_Part):
    """Time used until promises were fulfilled, as the policy counts it, in seconds: nearest-rank percentiles."""

    count: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class Line(_Part):
    """The promises of one metric in one group, then and as they would be.

    `worse` are those broken only under what is given, `better` those broken only then.
    """

    group: str | None
    """None: the ticket has none, or the line is of all groups."""
    metric: Metric
    then: Counts
    given: Counts
    worse: int
    better: int
    used_then: Spread | None = None
    used_given: Spread | None = None


class Side(_Part):
    """One promise on one side, and how it comes about, line by line."""

    outcome: Outcome
    policy: str | None
    calendar: str | None
    started_at: AwareDatetime | None
    due_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    used_seconds: float | None
    explanation: tuple[str, ...]


class Flip(_Part):
    """A promise that is broken on one side and not on the other."""

    ticket_id: UUID
    number: int
    metric: Metric
    serial: int
    direction: Direction
    priority: str
    tier: str | None
    team_id: UUID | None
    opened_at: AwareDatetime
    then: Side
    given: Side


class Flips(_Part):
    """How many there are in each direction, and those opened last, each direction up to a cap."""

    worse: int
    better: int
    shown: tuple[Flip, ...]


class Report(_Part):
    """All of it. Tickets are those opened from `opened_from` to before `opened_to`; outcomes are as of `as_of`."""

    axis: Axis
    axis_says: str
    given: tuple[str, ...]
    as_of: AwareDatetime
    position: int
    """Up to where in the log tickets were looked at."""
    opened_from: AwareDatetime | None
    opened_to: AwareDatetime | None
    teams: tuple[UUID, ...] | None
    tickets: int
    tickets_changed: int
    """Of which at least one promise stands otherwise."""
    promises: tuple[Line, ...]
    by: dict[Grouping, tuple[Line, ...]]
    flips: Flips
    names: dict[UUID, str]
    """Of the teams."""
    seconds: float


def month_of(instant: datetime) -> str:
    """Give the month of an instant as groups are named by it, in UTC."""
    return f"{instant.year:04}-{instant.month:02}"
