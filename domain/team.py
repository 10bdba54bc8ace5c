"""The groups that tickets are queued for: created, renamed, deactivated and reactivated."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from domain.event import Aggregate, Created, Event, Rejected

if TYPE_CHECKING:
    from uuid import UUID

    from domain.event import Act


class TeamInactive(Rejected):
    """A deactivated team gets neither tickets nor agents."""

    problem = "team-inactive"

    def __init__(self, team_id: UUID) -> None:
        super().__init__(f"team {team_id} is deactivated", team_id=str(team_id))


class TeamEvent(Event):
    """Base of what happens to a team."""


class TeamCreated(TeamEvent, Created):
    """A team was formed."""

    TOPIC: ClassVar[str] = "team.created"

    name: str
    foreign_id: str | None = None

    def apply(self, team: Team) -> None:
        """Take the first values."""
        team.name = self.name
        team.foreign_id = self.foreign_id
        team.active = True


class TeamRenamed(TeamEvent):
    """The team goes by another name."""

    TOPIC: ClassVar[str] = "team.renamed"

    name: str
    previous_name: str

    def apply(self, team: Team) -> None:
        """Take the name."""
        team.name = self.name


class TeamDeactivated(TeamEvent):
    """The team gets no tickets any more."""

    TOPIC: ClassVar[str] = "team.deactivated"

    active: bool = False
    previous_active: bool = True

    def apply(self, team: Team) -> None:
        """Take the state."""
        team.active = self.active


class TeamReactivated(TeamEvent):
    """The team gets tickets again."""

    TOPIC: ClassVar[str] = "team.reactivated"

    active: bool = True
    previous_active: bool = False

    def apply(self, team: Team) -> None:
        """Take the state."""
        team.active = self.active


class Team(Aggregate):
    """A group of agents with a queue."""

    TOPIC: ClassVar[str] = "team"
    Event = TeamEvent

    def __init__(self) -> None:
        """Start from nothing known."""
        self.name: str = ""
        self.foreign_id: str | None = None
        self.active: bool = False

    @classmethod
    def create(cls, *, team_id: UUID, name: str, foreign_id: str | None = None, act: Act) -> Self:
        """Form a team, active at once."""
        return cls.start(TeamCreated, aggregate_id=team_id, act=act, name=name, foreign_id=foreign_id)

    def require_active(self) -> None:
        """Raise TeamInactive where the team is deactivated."""
        if not self.active:
            raise TeamInactive(self.id)

    def rename(self, *, name: str, act: Act) -> None:
        """Give another name."""
        if name != self.name:
            self.record(TeamRenamed, act, name=name, previous_name=self.name)

    def deactivate(self, *, act: Act) -> None:
        """Give no more tickets to the team; those held stay until somebody transfers them."""
        if self.active:
            self.record(TeamDeactivated, act)

    def reactivate(self, *, act: Act) -> None:
        """Give tickets to the team again."""
        if not self.active:
            self.record(TeamReactivated, act)
