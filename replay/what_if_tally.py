"""Counts how promises ended on both sides of a what-if, and keeps the flips that are to be shown."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from domain.sla_terms import Metric
from replay.what_if_report import GROUPINGS, OUTCOMES, Counts, Grouping, Line, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from replay.what_if_report import Direction

MET, BREACHED, RUNNING, NOT_PROMISED = range(len(OUTCOMES))
"""Outcomes by their place in OUTCOMES: they are counted by the million."""
PRIORITY_ORDER: Final = ("urgent", "high", "normal", "low")
_METRICS: Final = tuple(Metric)
_SECOND: Final = 1_000_000

Place = tuple[str, str | None, str | None, str]
"""A ticket's priority, tier, team and month of opening."""


class Kept(NamedTuple):
    """A flip that is to be shown, by the ticket it is of; those of tickets opened last are kept."""

    opened: int
    number: int
    metric: str
    serial: int
    ticket: Any


class Tally:
    """What was counted; tallies of several processes are merged. `shown` bounds the flips kept in each direction."""

    def __init__(self, shown: int) -> None:
        self.tickets = 0
        self.changed = 0
        self.counts: Counter[tuple[Place, str, int, int]] = Counter()
        """By place, metric, and outcomes then and given."""
        self.used: dict[tuple[str, str], tuple[array[int], array[int]]] = {}
        """Metric and priority → microseconds used, then and given, of each promise that was fulfilled."""
        self.flips: dict[Direction, list[Kept]] = {"worse": [], "better": []}
        self._shown = shown

    def add(self, place: Place, metric: str, then: int, given: int) -> None:
        """Count a promise by its outcomes on both sides."""
        self.counts[place, metric, then, given] += 1

    def spend(self, priority: str, metric: str, then: int | None, given: int | None) -> None:
        """Note the microseconds that a promise used until it was fulfilled; None where it was not, or not made."""
        found = self.used.get((metric, priority))
        if found is None:
            found = self.used[metric, priority] = (array("q"), array("q"))
        if then is not None:
            found[0].append(then)
        if given is not None:
            found[1].append(given)

    def keep(self, direction: Direction, flip: Kept) -> None:
        """Keep a flip unless there are enough of later tickets."""
        kept = self.flips[direction]
        if len(kept) < self._shown:
            heapq.heappush(kept, flip)
        elif kept and flip[:4] > kept[0][:4]:
            heapq.heapreplace(kept, flip)

    def settle(self) -> None:
        """Put the times used in order, so that whoever merges tallies has runs in order to merge."""
        for key, (then, given) in self.used.items():
            self.used[key] = (array("q", sorted(then)), array("q", sorted(given)))

    def merge(self, other: Tally) -> None:
        """Take over what another process has counted, which stays as it is."""
        self.tickets += other.tickets
        self.changed += other.changed
        self.counts.update(other.counts)
        for key, (then, given) in other.used.items():
            mine = self.used.setdefault(key, (array("q"), array("q")))
            mine[0].extend(then)
            mine[1].extend(given)
        self.settle()
        for direction, flips in other.flips.items():
            for flip in flips:
                self.keep(direction, flip)

    def latest(self, direction: Direction) -> list[Kept]:
        """Give the flips kept, latest first."""
        return sorted(self.flips[direction], key=lambda flip: flip[:4], reverse=True)

    def flipped(self) -> tuple[int, int]:
        """Count all that flip: to worse, to better."""
        worse = better = 0
        for (_, _, then, given), number in self.counts.items():
            worse += number * (then != BREACHED == given)
            better += number * (then == BREACHED != given)
        return worse, better

    def promises(self) -> tuple[Line, ...]:
        """Give a line for each metric."""
        return self._lines(lambda _: None, spreads=_by_metric(self.used))

    def by(self) -> dict[Grouping, tuple[Line, ...]]:
        """Give lines for each group and metric."""
        found: dict[Grouping, tuple[Line, ...]] = {}
        for number, grouping in enumerate(GROUPINGS):
            spreads = {(priority, metric): pair for (metric, priority), pair in self.used.items()}
            found[grouping] = self._lines(
                lambda place, number=number: place[number],  # type: ignore[misc]
                spreads=spreads if grouping == "priority" else {},
            )
        return found

    def _lines(
        self,
        group_of: Callable[[Place], str | None],
        *,
        spreads: dict[tuple[str | None, str], tuple[array[int], array[int]]] | dict[Any, Any],
    ) -> tuple[Line, ...]:
        sums: dict[tuple[str | None, str], list[int]] = {}
        width = len(OUTCOMES)
        for (place, metric, then, given), number in self.counts.items():
            sums.setdefault((group_of(place), metric), [0] * width**2)[then * width + given] += number
        lines = []
        for (group, metric), cells in sorted(sums.items(), key=_line_order):
            used = spreads.get((group, metric))
            lines.append(
                Line(
                    group=group,
                    metric=Metric(metric),
                    then=_counts(sum(cells[place * width : (place + 1) * width]) for place in range(width)),
                    given=_counts(sum(cells[place::width]) for place in range(width)),
                    worse=sum(cells[place * width + BREACHED] for place in range(width) if place != BREACHED),
                    better=sum(cells[BREACHED * width + place] for place in range(width) if place != BREACHED),
                    used_then=None if used is None else spread(used[0]),
                    used_given=None if used is None else spread(used[1]),
                )
            )
        return tuple(lines)


def _by_metric(
    used: dict[tuple[str, str], tuple[array[int], array[int]]],
) -> dict[tuple[str | None, str], tuple[list[int], list[int]]]:
    found: dict[tuple[str | None, str], tuple[list[int], list[int]]] = {}
    for metric in {metric for metric, _ in used}:
        pairs = [pair for (of, _), pair in used.items() if of == metric]
        found[None, metric] = (
            list(chain.from_iterable(then for then, _ in pairs)),
            list(chain.from_iterable(given for _, given in pairs)),
        )
    return found


def _line_order(item: tuple[tuple[str | None, str], list[int]]) -> tuple[Any, ...]:
    (group, metric), _ = item
    rank = PRIORITY_ORDER.index(group) if group in PRIORITY_ORDER else len(PRIORITY_ORDER)
    return (group is None, rank, group or "", _METRICS.index(Metric(metric)))


def _counts(numbers: Iterable[int]) -> Counts:
    return Counts(**dict(zip(map(str, OUTCOMES), numbers, strict=True)))


def spread(microseconds: Sequence[int] | array[int]) -> Spread:
    """Give percentiles by nearest rank: the smallest value that at least so many in a hundred do not exceed."""
    ordered = sorted(microseconds)
    number = len(ordered)

    def at(hundredths: int) -> float | None:
        return ordered[-(-number * hundredths // 100) - 1] / _SECOND if number else None

    return Spread(count=number, p50=at(50), p90=at(90), p95=at(95), p99=at(99))
