"""How the clocks of each metric come and go."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from domain.sla_terms import Metric

FINISHED: Final = frozenset({"solved", "closed"})
CLOSED: Final = frozenset({"closed"})


class Trigger(StrEnum):
    """What starts and ends clocks."""

    OPENED = "opened"
    """The ticket came to be."""
    ASKED = "asked"
    """A customer got in touch, by opening the ticket or by writing, and has never been answered."""
    ASKED_AGAIN = "asked_again"
    """A customer wrote after having been answered before."""
    ANSWERED = "answered"
    """An agent answered, visibly to the customer."""
    HANDED_OVER = "handed_over"
    """Another team has the ticket."""


class WhenSolved(StrEnum):
    """What becomes of a clock while its ticket is solved or closed, or closed only where a policy says so of the metric.

    Reopened, it runs on where it was.
    """

    STANDS_STILL = "stands_still"
    """It is still owed."""
    FULFILLED = "fulfilled"
    LAPSES = "lapses"
    """It is not owed, and neither kept nor broken unless it was broken before."""


class Rule(NamedTuple):
    """How the clocks of a metric come and go. A clock that runs is not started again."""

    starts: frozenset[Trigger]
    ends: frozenset[Trigger]
    when_solved: WhenSolved


_ANSWER: Final = frozenset({Trigger.ANSWERED})
_WORK: Final = Rule(frozenset({Trigger.OPENED}), frozenset(), WhenSolved.FULFILLED)
RULES: Final[dict[Metric, Rule]] = {
    Metric.FIRST_REPLY: Rule(frozenset({Trigger.ASKED}), _ANSWER, WhenSolved.STANDS_STILL),
    Metric.NEXT_REPLY: Rule(frozenset({Trigger.ASKED_AGAIN}), _ANSWER, WhenSolved.STANDS_STILL),
    Metric.PERIODIC_UPDATE: Rule(_ANSWER, _ANSWER, WhenSolved.LAPSES),
    Metric.REQUESTER_WAIT: _WORK,
    Metric.AGENT_WORK: _WORK,
    Metric.TOTAL_RESOLUTION: _WORK,
    Metric.OWNERSHIP: Rule(frozenset({Trigger.HANDED_OVER}), frozenset({Trigger.HANDED_OVER}), WhenSolved.FULFILLED),
}
METRICS: Final = tuple(RULES)
