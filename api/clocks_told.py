"""SLA clocks as answers and the command line tell them: how each stands, what it goes by, and its arithmetic."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from domain.sla_policy import Unit
from domain.sla_terms import SlaTerms

if TYPE_CHECKING:
    from datetime import datetime

    from projections.sla_clock import ClockEntry
    from replay.explained_clocks import ExplainedTicket

SECOND = timedelta(seconds=1)


class TargetTold(BaseModel):
    """How much time is allowed: seconds, or days where the unit is business days."""

    amount: int
    unit: Unit
    end_of_day: bool


class ClockTold(BaseModel):
    """The latest clock of one metric of one ticket. Seconds are counted as the target is, to the microsecond."""

    ticket_id: UUID
    number: int = Field(description="The ticket's number.")
    metric: str
    state: str
    status: str
    priority: str
    team_id: UUID | None
    agent_id: UUID | None
    serial: int | None = Field(description="Which clock of the metric on this ticket, from 1.")
    owning_team_id: UUID | None = Field(description="Of `ownership`: the team whose stay is measured.")
    started_at: AwareDatetime | None
    due_at: AwareDatetime | None
    met_at: AwareDatetime | None
    paused_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    breached_at: AwareDatetime | None
    manual: bool = Field(description="Whether somebody set the due date by hand.")
    terms: SlaTerms | None = Field(
        description="Policy and calendar by name and version; null: no policy of the desk's own."
    )
    target: TargetTold | None
    used_seconds: float | None
    remaining_seconds: float | None = Field(description="Negative by how much it is overdue.")
    percent_used: float | None = Field(description="Over 100 where it is overdue.")


class LineTold(BaseModel):
    """One line of a clock's arithmetic; `total_seconds` is what has been counted up to and with it."""

    kind: str
    text: str
    from_at: AwareDatetime | None
    until_at: AwareDatetime | None
    counted_seconds: float | None
    total_seconds: float | None


class OnRecordTold(BaseModel):
    """An event of the ticket about the clock: when it fell due, and when that was noticed."""

    topic: str
    version: int
    position: int
    occurred_at: AwareDatetime
    recorded_at: AwareDatetime


class ExplainedClockTold(ClockTold):
    """A clock with its arithmetic and what is on record of it."""

    lines: list[LineTold]
    on_record: list[OnRecordTold]


class TicketClocks(BaseModel):
    """Every clock that a ticket has had, true of `position`; a metric promised without one is not applicable."""

    items: list[ExplainedClockTold]
    as_of: AwareDatetime
    position: int


def clock_told(entry: ClockEntry) -> dict[str, Any]:
    """Tell a clock."""
    values = entry._asdict()
    used, remaining = values.pop("used"), values.pop("remaining")
    target = values["target"]
    return values | {
        "terms": None if entry.terms is None else entry.terms.model_dump(),
        "target": None if target is None else target.model_dump(),
        "used_seconds": seconds(used),
        "remaining_seconds": seconds(remaining),
    }


def ticket_told(ticket: ExplainedTicket, now: datetime) -> dict[str, Any]:
    """Tell the clocks of a ticket."""
    items = [
        clock_told(one.clock)
        | {
            "lines": [
                {
                    "kind": line.kind,
                    "text": line.text,
                    "from_at": line.from_at,
                    "until_at": line.until_at,
                    "counted_seconds": seconds(line.counted),
                    "total_seconds": seconds(line.total),
                }
                for line in one.lines
            ],
            "on_record": [found._asdict() for found in one.on_record],
        }
        for one in ticket.clocks
    ]
    return {"items": items, "as_of": now, "position": ticket.position}


def seconds(span: timedelta | None) -> float | None:
    """Give a span in seconds."""
    return None if span is None else span / SECOND
