"""What becomes of an aggregate and an event that do not fit: the same as in the package whose part we took over."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from eventsourcing.domain import OriginatorIDError, OriginatorVersionError

from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.team import Team

NOW = datetime(2024, 5, 15, tzinfo=UTC)
ACT = Act(NOW, Provenance(actor_id=SYSTEM_ACTOR, role=Role.SYSTEM, channel=Channel.SYSTEM))


def team(number: int) -> Team:
    return Team.create(team_id=UUID(int=number), name=f"Team {number}", act=ACT)


def test_an_event_of_another_or_out_of_turn_is_refused_and_changes_nothing() -> None:
    one, other = team(1), team(2)
    one.rename(name="First", act=ACT)
    created, renamed = one.pending_events
    with pytest.raises(OriginatorIDError):
        renamed.mutate(other)
    with pytest.raises(OriginatorVersionError):
        renamed.mutate(one)
    with pytest.raises(OriginatorIDError):
        created.mutate(one)
    with pytest.raises(OriginatorIDError):
        renamed.mutate(None)
    assert (one.version, one.name, other.version, other.name) == (2, "First", 1, "Team 2")


def test_events_fold_into_what_recorded_them() -> None:
    one = team(1)
    one.rename(name="First", act=ACT)
    events = one.collect_events()
    folded = None
    for event in events:
        folded = event.mutate(folded)
    assert folded == one
    assert [event.originator_version for event in events] == [1, 2]
