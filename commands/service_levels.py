"""The commands about service levels: adopting calendars and policies, and retiring policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from commands.execution import Decision, command
from commands.holidays import Holidays
from commands.request import ADMINISTRATORS, Command
from domain.agent import Agent
from domain.calendar import CalendarTerms
from domain.service_levels import SERVICE_LEVELS_ID, OpenTickets, ServiceLevels
from domain.sla_policy import PolicyTerms
from domain.team import Team
from domain.text import Label, Text

if TYPE_CHECKING:
    from uuid import UUID

    from pydantic.config import JsonDict

Terms = TypeVar("Terms", bound=BaseModel)

OFFICE: Final[JsonDict] = {
    "name": "office",
    "time_zone": "Europe/Berlin",
    "hours": {"mon": [["08:00", "12:00"], ["13:00", "18:00"]], "fri": [["22:00", "06:00"]]},
    "holidays": {"country": "DE", "subdivision": "BY", "years": [2026, 2027]},
    "closed_days": {"2026-12-24": "Christmas Eve"},
    "special_days": {"2026-12-31": [["09:00", "12:00"]]},
}
WITHIN_HOURS: Final[JsonDict] = {
    "name": "gold",
    "order": 10,
    "match": {"tiers": ["gold"]},
    "calendar": "office",
    "targets": [
        {
            "metric": "first_reply",
            "match": {"priorities": ["urgent", "high"]},
            "amount": 3600,
            "steps": [
                {"offset_seconds": -900, "action": "remind"},
                {"offset_seconds": 0, "action": "raise_level", "level": 2},
            ],
        },
        {"metric": "total_resolution", "amount": 3, "unit": "business_days", "end_of_day": True},
    ],
    "pauses": {"total_resolution": ["pending"]},
}
"""What a calendar and a policy may look like, for the interactive documentation."""


class ServiceLevelsCommand(Command):
    """A command about a calendar or a policy; the reason, where one is given, is kept with what happened."""

    name: Label
    open_tickets: Annotated[
        OpenTickets,
        Field(description="What becomes of open tickets: they go by it (move), or stay as they are (keep)."),
    ] = "move"
    reason: Text | None = None


class AdoptCalendar(ServiceLevelsCommand, CalendarTerms):
    """Adopt a version of a calendar; holidays are those of a country or region as known now, or dates of one's own."""

    model_config = ConfigDict(json_schema_extra={"examples": [OFFICE]})

    holidays: Holidays = None


class AdoptPolicy(ServiceLevelsCommand, PolicyTerms):
    """Adopt a version of a policy."""

    model_config = ConfigDict(json_schema_extra={"examples": [WITHIN_HOURS]})


class RetirePolicy(ServiceLevelsCommand):
    """Choose a policy for no ticket any more."""


@command("service_levels", "adopt-calendar", roles=ADMINISTRATORS, stream=SERVICE_LEVELS_ID)
async def adopt_calendar(decision: Decision, levels: ServiceLevels, command: AdoptCalendar) -> None:  # noqa: D103
    terms = _terms(CalendarTerms, command)
    levels.adopt_calendar(name=command.name, terms=terms, open_tickets=command.open_tickets, act=decision.act)


@command("service_levels", "adopt-policy", roles=ADMINISTRATORS, stream=SERVICE_LEVELS_ID)
async def adopt_policy(decision: Decision, levels: ServiceLevels, command: AdoptPolicy) -> None:  # noqa: D103
    terms = _terms(PolicyTerms, command)
    for place, team_id in _teams(terms).items():
        await decision.reference(Team, team_id, place)
    for place, agent_id in _agents(terms).items():
        await decision.reference(Agent, agent_id, place)
    levels.adopt_policy(name=command.name, terms=terms, open_tickets=command.open_tickets, act=decision.act)


@command("service_levels", "retire-policy", roles=ADMINISTRATORS, stream=SERVICE_LEVELS_ID)
async def retire_policy(decision: Decision, levels: ServiceLevels, command: RetirePolicy) -> None:  # noqa: D103
    levels.retire_policy(name=command.name, open_tickets=command.open_tickets, act=decision.act)


def _terms(kind: type[Terms], command: Command) -> Terms:
    """Give what is adopted, without what the command says beside it."""
    return kind.model_validate({name: getattr(command, name) for name in kind.model_fields})


def _teams(terms: PolicyTerms) -> dict[str, UUID]:
    """Give the teams that a policy names, by where."""
    found = {f"match.teams.{number}": team_id for number, team_id in enumerate(terms.match.teams or ())}
    for number, target in enumerate(terms.targets):
        here = f"targets.{number}"
        found |= {f"{here}.match.teams.{place}": team_id for place, team_id in enumerate(target.match.teams or ())}
        for place, step in enumerate(target.steps):
            if step.team_id is not None:
                found[f"{here}.steps.{place}.team_id"] = step.team_id
    return found


def _agents(terms: PolicyTerms) -> dict[str, UUID]:
    """Give the agents that a policy names, by where."""
    return {
        f"targets.{number}.steps.{place}.agent_id": step.agent_id
        for number, target in enumerate(terms.targets)
        for place, step in enumerate(target.steps)
        if step.agent_id is not None
    }
