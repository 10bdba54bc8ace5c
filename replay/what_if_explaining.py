"""Says of a promise that flips how it comes about on both sides, so that the arithmetic can be done again by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from domain.sla_explanation import LineKind, explain
from domain.spans import instant
from domain.ticket_timeline import PRIORITY, TEAM, TIER, decode
from replay.what_if_comparing import outcome, pairs, used
from replay.what_if_report import OUTCOMES, Flip, Outcome, Side

if TYPE_CHECKING:
    from domain import what_if
    from domain.sla_clocks import Clock
    from replay.what_if_comparing import Comparison
    from replay.what_if_report import Direction
    from replay.what_if_tally import Kept

MOST_LINES: Final = 40  # a clock that ran for months has a line for each of its days
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


def _lines(clock: Clock, side: what_if.Side, now: int) -> list[str]:
    """Give the arithmetic up to the deadline line by line, and what became of it.

    What somebody goes by is said already, with what of it is given; how far beyond a deadline a clock ran is its last line.
    """
    lines = []
    due = False
    for line in explain(clock, side.levels, instant(now)):
        if line.kind is not LineKind.TERMS and not (due and line.kind in _STRETCHES):
            lines.append(line.text)
        due = due or line.kind is LineKind.DUE
    if len(lines) <= MOST_LINES:
        return lines
    half = MOST_LINES // 2
    return [*lines[:half], f"… {len(lines) - 2 * half} lines more …", *lines[-half:]]


_STRETCHES: Final = frozenset({LineKind.COUNTED, LineKind.AHEAD, LineKind.STOOD_STILL})
