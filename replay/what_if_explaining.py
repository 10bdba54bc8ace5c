"""Says of a promise that flips how it comes about on both sides, so that the arithmetic can be done again by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from domain.sla_counting import counted
from domain.sla_policy import Unit
from domain.spans import instant
from domain.ticket_timeline import PRIORITY, TEAM, TIER, decode
from replay.what_if_comparing import outcome, pairs, used
from replay.what_if_report import OUTCOMES, Flip, Outcome, Side
from replay.what_if_words import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain import what_if
    from domain.sla_clocks import Clock
    from domain.sla_policy import Target
    from replay.what_if_comparing import Comparison
    from replay.what_if_report import Direction
    from replay.what_if_tally import Kept

MOST_LINES: Final = 40  # a ticket that was set pending a hundred times is not followed step by step here
SECOND: Final = 1_000_000
_NOT_PROMISED: Final = Side(
    outcome=Outcome.NOT_PROMISED,
    policy=None,
    calendar=None,
    started_at=None,
    due_at=None,
    ended_at=None,
    used_seconds=None,
    explanation=(),
)


def flip_of(comparison: Comparison, direction: Direction, kept: Kept) -> Flip:
    """Compare the ticket of a flip again, and say what there is to be said."""
    number, ticket, _, _, requester, text = kept.ticket
    timeline = decode(text)
    tier = comparison.tier_of(timeline, requester)
    both = next(
        pair
        for pair in pairs(*comparison.clocks_of(timeline, tier))
        if (pair.either.metric, pair.either.serial) == (kept.metric, kept.serial)
    )
    team = both.either.team_id or timeline.latest(TEAM)
    return Flip(
        ticket_id=UUID(ticket),
        number=number,
        metric=both.either.metric,
        serial=both.either.serial,
        direction=direction,
        priority=timeline.latest(PRIORITY),
        tier=timeline.latest(TIER) or tier,
        team_id=None if team is None else UUID(str(team)),
        opened_at=instant(timeline.opened),
        then=_side(both.then, comparison.then, comparison.now),
        given=_side(both.given, comparison.given, comparison.now),
    )


def _side(clock: Clock | None, side: what_if.Side, now: int) -> Side:
    if clock is None:
        return _NOT_PROMISED
    policy, calendar = side.levels.names(clock.terms)
    return Side(
        outcome=OUTCOMES[outcome(clock, now)],
        policy=policy,
        calendar=calendar,
        started_at=clock.started_at,
        due_at=clock.due_at,
        ended_at=clock.ended_at if clock.fulfilled else None,
        used_seconds=used(clock, side.levels) / SECOND if clock.fulfilled else None,
        explanation=tuple(_lines(clock, side, now)),
    )


def _lines(clock: Clock, side: what_if.Side, now: int) -> Iterator[str]:
    """Tell what was allowed, from when, each stretch that counts, each pause, and the deadline that comes of it."""
    yield _allowed(clock.target) if clock.target is not None else "no target"
    if clock.manual:
        yield f"due {_at(clock.due)}, set by hand"
        return
    unit = Unit.CALENDAR if clock.target is None else clock.target.unit
    until = clock.ended if clock.ended is not None else clock.paused if clock.paused is not None else now
    stretches = [
        (start, f"counted {_at(start)} to {_at(end)}: {span(ran / SECOND)}")
        for start, end, ran in _stretches(clock, side, unit, max(until, clock.started))
    ]
    pauses = [(start, f"stood still {_at(start)} to {_at(end)}") for start, end in clock.pauses]
    lines = [line for _, line in sorted(stretches + pauses)]
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"and {len(lines) - MOST_LINES} stretches more"
    if clock.ended is None and clock.paused is not None:
        yield f"stands still since {_at(clock.paused)}"
    yield f"due {_at(clock.due)}"


def _stretches(clock: Clock, side: what_if.Side, unit: Unit, until: int) -> Iterator[tuple[int, int, int]]:
    """Give from when to when how much counts: what lies between two pauses, and two versions of a calendar."""
    starts = list(counted(side.levels, unit, clock.started, until, clock.pauses, clock.calendars))
    for number, (start, end, ran) in enumerate(starts):
        if start < end or number == 0:
            yield start, end, ran


def _allowed(target: Target) -> str:
    if target.unit is Unit.BUSINESS_DAYS:
        days = f"{target.amount} working day{'s' if target.amount > 1 else ''}"
        return f"allowed {days}" + (", to the end of the last" if target.end_of_day else "")
    words = "of calendar time" if target.unit is Unit.CALENDAR else "of business time"
    return f"allowed {span(target.amount)} {words}"


def _at(us: int) -> str:
    return f"{instant(us):%Y-%m-%d %H:%M:%S}Z"
