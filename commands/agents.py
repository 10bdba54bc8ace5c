"""The commands about agents: who works at the desk, and in which teams."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from commands.execution import Decision, command
from commands.request import ADMINISTRATORS, Command
from commands.tickets import ForeignId
from domain.agent import Agent
from domain.contact import EmailAddress
from domain.team import Team
from domain.text import Label, Text


class AgentCommand(Command):
    """A command about an agent; the reason, where one is given, is kept with what happened."""

    reason: Text | None = None


class CreateAgent(AgentCommand):
    """Take somebody on as an agent."""

    name: Label
    email: EmailAddress | None = None
    team_ids: Annotated[tuple[UUID, ...], Field(max_length=100)] = ()
    foreign_id: ForeignId | None = None


class RenameAgent(AgentCommand):
    """Give the agent another name."""

    name: Label


class DeactivateAgent(AgentCommand):
    """Give no more tickets to the agent; those held stay."""


class ReactivateAgent(AgentCommand):
    """Give tickets to the agent again."""


class JoinTeam(AgentCommand):
    """Put the agent into one more team."""

    team_id: UUID


class LeaveTeam(AgentCommand):
    """Take the agent out of a team."""

    team_id: UUID


@command("agent", "create", roles=ADMINISTRATORS, creates=True)
async def create(decision: Decision, agent_id: UUID, command: CreateAgent) -> Agent:  # noqa: D103
    teams = [await decision.reference(Team, team_id, "team_ids") for team_id in dict.fromkeys(command.team_ids)]
    return Agent.create(
        agent_id=agent_id,
        name=command.name,
        email=command.email,
        teams=teams,
        foreign_id=command.foreign_id,
        act=decision.act,
    )


@command("agent", "rename", roles=ADMINISTRATORS)
async def rename(decision: Decision, agent: Agent, command: RenameAgent) -> None:  # noqa: D103
    agent.rename(name=command.name, act=decision.act)


@command("agent", "deactivate", roles=ADMINISTRATORS)
async def deactivate(decision: Decision, agent: Agent, command: DeactivateAgent) -> None:  # noqa: ARG001, D103
    agent.deactivate(act=decision.act)


@command("agent", "reactivate", roles=ADMINISTRATORS)
async def reactivate(decision: Decision, agent: Agent, command: ReactivateAgent) -> None:  # noqa: ARG001, D103
    agent.reactivate(act=decision.act)


@command("agent", "join-team", roles=ADMINISTRATORS)
async def join_team(decision: Decision, agent: Agent, command: JoinTeam) -> None:  # noqa: D103
    agent.join_team(team=await decision.reference(Team, command.team_id, "team_id"), act=decision.act)


@command("agent", "leave-team", roles=ADMINISTRATORS)
async def leave_team(decision: Decision, agent: Agent, command: LeaveTeam) -> None:  # noqa: D103
    agent.leave_team(team=await decision.reference(Team, command.team_id, "team_id"), act=decision.act)
