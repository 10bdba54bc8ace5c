"""The people who work tickets: created, renamed, put into teams, deactivated and reactivated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Self
from uuid import UUID

from domain.event import Aggregate, Created, Event, Personal, Rejected, known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.event import Act
    from domain.team import Team

OwnText = Annotated[str, Personal("originator_id")]
OwnTextOrNone = Annotated[str | None, Personal("originator_id")]


class AgentInactive(Rejected):
    """A deactivated agent gets no tickets and joins no team."""

    problem = "agent-inactive"

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(f"agent {agent_id} is deactivated", agent_id=str(agent_id))


class AgentEvent(Event):
    """Base of what happens to an agent; its personal values are the agent's own."""


class AgentCreated(AgentEvent, Created):
    """Somebody began to work at the desk."""

    TOPIC: ClassVar[str] = "agent.created"

    name: OwnText
    email: OwnTextOrNone
    team_ids: tuple[UUID, ...]
    foreign_id: OwnTextOrNone = None

    def apply(self, agent: Agent) -> None:
        """Take the first values."""
        agent.name = self.name
        agent.email = self.email
        agent.team_ids = frozenset(self.team_ids)
        agent.foreign_id = self.foreign_id
        agent.active = True


class AgentRenamed(AgentEvent):
    """The agent goes by another name."""

    TOPIC: ClassVar[str] = "agent.renamed"

    name: OwnText
    previous_name: OwnTextOrNone

    def apply(self, agent: Agent) -> None:
        """Take the name."""
        agent.name = self.name


class AgentDeactivated(AgentEvent):
    """The agent gets no tickets any more."""

    TOPIC: ClassVar[str] = "agent.deactivated"

    active: bool = False
    previous_active: bool = True

    def apply(self, agent: Agent) -> None:
        """Take the state."""
        agent.active = self.active


class AgentReactivated(AgentEvent):
    """The agent gets tickets again."""

    TOPIC: ClassVar[str] = "agent.reactivated"

    active: bool = True
    previous_active: bool = False

    def apply(self, agent: Agent) -> None:
        """Take the state."""
        agent.active = self.active


class AgentJoinedTeam(AgentEvent):
    """The agent belongs to one more team; `team_ids` are all of them afterwards, sorted."""

    TOPIC: ClassVar[str] = "agent.joined_team"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = AgentEvent.CIRCUMSTANCES | {"team_id"}

    team_id: UUID
    team_ids: tuple[UUID, ...]
    previous_team_ids: tuple[UUID, ...]

    def apply(self, agent: Agent) -> None:
        """Take the teams."""
        agent.team_ids = frozenset(self.team_ids)


class AgentLeftTeam(AgentEvent):
    """The agent belongs to one team less; `team_ids` are all that remain, sorted."""

    TOPIC: ClassVar[str] = "agent.left_team"
    CIRCUMSTANCES: ClassVar[frozenset[str]] = AgentEvent.CIRCUMSTANCES | {"team_id"}

    team_id: UUID
    team_ids: tuple[UUID, ...]
    previous_team_ids: tuple[UUID, ...]

    def apply(self, agent: Agent) -> None:
        """Take the teams."""
        agent.team_ids = frozenset(self.team_ids)


class Agent(Aggregate):
    """A person who works tickets."""

    TOPIC: ClassVar[str] = "agent"
    Event = AgentEvent

    def __init__(self) -> None:
        """Start from nothing known."""
        self.name: str = ""
        self.email: str | None = None
        self.team_ids: frozenset[UUID] = frozenset()
        self.foreign_id: str | None = None
        self.active: bool = False

    @classmethod
    def create(
        cls,
        *,
        agent_id: UUID,
        name: str,
        email: str | None = None,
        teams: Sequence[Team] = (),
        foreign_id: str | None = None,
        act: Act,
    ) -> Self:
        """Take somebody on, active at once. Raises TeamInactive."""
        for team in teams:
            team.require_active()
        return cls.start(
            AgentCreated,
            aggregate_id=agent_id,
            act=act,
            name=name,
            email=email,
            team_ids=tuple(sorted({team.id for team in teams})),
            foreign_id=foreign_id,
        )

    def require_active(self) -> None:
        """Raise AgentInactive where the agent is deactivated."""
        if not self.active:
            raise AgentInactive(self.id)

    def rename(self, *, name: str, act: Act) -> None:
        """Give another name."""
        if name != self.name:
            self.record(AgentRenamed, act, name=name, previous_name=known(self.name))

    def deactivate(self, *, act: Act) -> None:
        """Give no more tickets to the agent; those held stay until somebody assigns them."""
        if self.active:
            self.record(AgentDeactivated, act)

    def reactivate(self, *, act: Act) -> None:
        """Give tickets to the agent again."""
        if not self.active:
            self.record(AgentReactivated, act)

    def join_team(self, *, team: Team, act: Act) -> None:
        """Belong to one more team. Raises AgentInactive or TeamInactive."""
        self.require_active()
        team.require_active()
        if team.id in self.team_ids:
            return
        self._change_teams(AgentJoinedTeam, team.id, self.team_ids | {team.id}, act)

    def leave_team(self, *, team: Team, act: Act) -> None:
        """Belong to one team less."""
        if team.id in self.team_ids:
            self._change_teams(AgentLeftTeam, team.id, self.team_ids - {team.id}, act)

    def _change_teams(self, event_class: type[AgentEvent], team_id: UUID, team_ids: frozenset[UUID], act: Act) -> None:
        self.record(
            event_class,
            act,
            team_id=team_id,
            team_ids=tuple(sorted(team_ids)),
            previous_team_ids=tuple(sorted(self.team_ids)),
        )
