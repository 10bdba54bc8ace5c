"""What an adoption moves, and what it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from domain.calendar import CalendarTerms
from domain.event import Channel
from domain.priority import Priority
from domain.service_levels import Attributes, ServiceLevels
from domain.sla_moves import Move, move_of, moved, pending
from domain.sla_policy import Match, PolicyTerms, Target
from domain.sla_terms import Metric, SlaTerms
from domain.ticket_events import TicketType
from tests.domain.scenario import BY_ANN, NOON

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.pure

TICKET = Attributes(Priority.NORMAL, None, TicketType.QUESTION, Channel.EMAIL, None, None, ())
URGENT = TICKET._replace(priority=Priority.URGENT)


def calendar(opens: str) -> CalendarTerms:
    return CalendarTerms.model_validate({"time_zone": "UTC", "hours": {"mon": [[opens, "17:00"]]}})


def policy(order: int = 100, *, seconds: int = 3600, calendar: str | None = "office", **match: Any) -> PolicyTerms:
    targets = (Target(metric=Metric.FIRST_REPLY, amount=seconds),)
    return PolicyTerms(order=order, match=Match(**match), calendar=calendar, targets=targets)


def after(*changes: Callable[[ServiceLevels], None]) -> Move | None:
    """Give the move that the last of these changes asks for; it is recorded at the position of its version."""
    levels = ServiceLevels.unwritten(NOON)
    for change in changes:
        change(levels)
    event: Any = levels.pending_events[-1]
    return move_of(event, event.originator_version, levels.book)


def adopt(name: str, terms: PolicyTerms | CalendarTerms, open_tickets: Any = "move") -> Callable[[ServiceLevels], None]:
    def change(levels: ServiceLevels) -> None:
        if isinstance(terms, CalendarTerms):
            levels.adopt_calendar(name=name, terms=terms, open_tickets=open_tickets, act=BY_ANN)
        else:
            levels.adopt_policy(name=name, terms=terms, open_tickets=open_tickets, act=BY_ANN)

    return change


def retire(name: str) -> Callable[[ServiceLevels], None]:
    return lambda levels: levels.retire_policy(name=name, open_tickets="move", act=BY_ANN)


def by(policy: str | None, version: int | None = 1, calendar_version: int | None = 1) -> SlaTerms:
    return SlaTerms(policy=policy, policy_version=version, calendar="office", calendar_version=calendar_version)


OFFICE = adopt("office", calendar("09:00"))


def test_an_adoption_that_keeps_open_tickets_moves_nobody() -> None:
    assert after(OFFICE, adopt("all", policy(), "keep")) is None


def test_a_new_version_is_for_tickets_that_went_by_the_one_before() -> None:
    move = after(OFFICE, adopt("all", policy()), adopt("all", policy(seconds=60)))
    assert move is not None
    assert moved(by("all"), TICKET, move) == by("all", 2)


def test_a_ticket_that_was_kept_on_an_older_version_of_another_policy_stays_there() -> None:
    move = after(
        OFFICE,
        adopt("all", policy()),
        adopt("all", policy(seconds=60), "keep"),
        adopt("urgent", policy(1, priorities=[Priority.URGENT])),
    )
    assert move is not None
    assert moved(by("all"), TICKET, move) == by("all")
    assert moved(by("all"), URGENT, move) == by("urgent")


def test_a_policy_that_holds_of_a_ticket_no_more_leaves_it_to_the_next() -> None:
    move = after(
        OFFICE,
        adopt("all", policy()),
        adopt("first", policy(1)),
        adopt("first", policy(1, priorities=[Priority.URGENT])),
    )
    assert move is not None
    assert moved(by("first"), TICKET, move) == by("all")
    assert moved(by("first"), URGENT, move) == by("first", 2)


def test_a_new_calendar_is_for_tickets_that_count_by_it_whatever_version_of_their_policy_they_have() -> None:
    move = after(
        OFFICE,
        adopt("all", policy()),
        adopt("all", policy(seconds=60), "keep"),
        adopt("office", calendar("08:00")),
    )
    assert move is not None
    assert moved(by("all"), TICKET, move) == by("all", 1, 2)
    elsewhere = SlaTerms(policy="all", policy_version=1, calendar="shop", calendar_version=1)
    assert moved(elsewhere, TICKET, move) == elsewhere
    assert moved(None, TICKET, move) is None


def test_tickets_of_a_retired_policy_go_by_the_next_that_holds_or_by_none() -> None:
    move = after(OFFICE, adopt("all", policy()), adopt("first", policy(1)), retire("first"))
    assert move is not None
    assert moved(by("first"), TICKET, move) == by("all")
    assert moved(by("all"), TICKET, move) == by("all")
    move = after(OFFICE, adopt("first", policy(1)), retire("first"))
    assert move is not None
    assert moved(by("first"), TICKET, move) == SlaTerms()


def test_the_first_policies_of_a_desk_are_for_every_ticket() -> None:
    move = after(OFFICE, adopt("urgent", policy(priorities=[Priority.URGENT])))
    assert move is not None
    assert moved(None, URGENT, move) == by("urgent")
    assert moved(None, TICKET, move) == SlaTerms()


def test_what_was_adopted_before_a_ticket_chose_its_terms_is_no_move_of_it_any_more() -> None:
    move = after(OFFICE, adopt("all", policy()))
    assert move is not None
    assert pending([move], decided_at=move.position - 1) == [move]
    assert pending([move], decided_at=move.position + 1) == []
