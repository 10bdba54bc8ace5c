"""The commands about teams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commands.execution import Decision, command
from commands.request import ADMINISTRATORS, Command
from commands.tickets import ForeignId
from domain.team import Team
from domain.text import Label, Text

if TYPE_CHECKING:
    from uuid import UUID


class TeamCommand(Command):
    """A command about a team; the reason, where one is given, is kept with what happened."""

    reason: Text | None = None


class CreateTeam(TeamCommand):
    """Form a team."""

    name: Label
    foreign_id: ForeignId | None = None


class RenameTeam(TeamCommand):
    """Give the team another name."""

    name: Label


class DeactivateTeam(TeamCommand):
    """Give no more tickets to the team; those held stay."""


class ReactivateTeam(TeamCommand):
    """Give tickets to the team again."""


@command("team", "create", roles=ADMINISTRATORS, creates=True)
async def create(decision: Decision, team_id: UUID, command: CreateTeam) -> Team:  # noqa: D103
    return Team.create(team_id=team_id, name=command.name, foreign_id=command.foreign_id, act=decision.act)


@command("team", "rename", roles=ADMINISTRATORS)
async def rename(decision: Decision, team: Team, command: RenameTeam) -> None:  # noqa: D103
    team.rename(name=command.name, act=decision.act)


@command("team", "deactivate", roles=ADMINISTRATORS)
async def deactivate(decision: Decision, team: Team, command: DeactivateTeam) -> None:  # noqa: ARG001, D103
    team.deactivate(act=decision.act)


@command("team", "reactivate", roles=ADMINISTRATORS)
async def reactivate(decision: Decision, team: Team, command: ReactivateTeam) -> None:  # noqa: ARG001, D103
    team.reactivate(act=decision.act)
