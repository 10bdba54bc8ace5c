"""Whether what concurrent clients saw of one thing can be told as if they had taken turns.

A history is linearizable (Herlihy and Wing, 1990) when each operation can be given one instant between its invocation
and its answer so that, in the order of these instants, every answer is the one a sequential model gives. The search is
Wing and Gong's (1993) with Lowe's memory (2017): take any operation that begins before all others still to be placed
have ended, let the model answer it, go on; a set of placed operations that was met before with the same state is not
searched again. An operation that never got an answer may be placed anywhere after its invocation, or nowhere.

There is no well-kept checker for Python to lean on: Porcupine is Go, Knossos and Elle are Clojure. The search is
exponential in the operations under way at once, so it stops at a bound of configurations; a history too tangled for
it is not called linearizable but raises Undecided. With versions in the answers, as here, it runs nearly straight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

BOUND: Final = 200_000  # configurations; a ticket of a hundred commands takes some hundreds

S = TypeVar("S", bound="Hashable")


class Undecided(Exception):
    """The search reached its bound; whether the history is linearizable is not known."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation with the times of its invocation and answer; `answered_at` is infinite when it got none."""

    invoked_at: float
    answered_at: float
    what: Any
    """What was asked and answered, for the model."""

    @property
    def open(self) -> bool:
        """Whether it got no answer, so that it may have had its effect or not."""
        return math.isinf(self.answered_at)


class Search(Generic[S]):
    """The search over one history.

    `step(state, what)` gives the state after an operation, or None where the model would have answered otherwise.
    """

    def __init__(
        self, initial: S, operations: Sequence[Operation], step: Callable[[S, Any], S | None], *, bound: int = BOUND
    ) -> None:
        self._initial = initial
        self._operations = sorted(operations, key=lambda one: (one.invoked_at, one.answered_at))
        self._step = step
        self._bound = bound
        self._needed = sum(1 << place for place, one in enumerate(self._operations) if not one.open)
        self.farthest: list[Operation] = []
        """The longest order found, for a person who has to understand a history that is not linearizable."""

    def linearizable(self) -> bool:
        """Tell whether an order exists. Raises Undecided."""
        seen: set[tuple[int, S]] = {(0, self._initial)}
        path: list[Operation] = []
        if not self._needed:
            return True
        stack = [self._choices(0, self._initial)]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                if path:
                    path.pop()
                continue
            place, placed, state = found
            if (placed, state) in seen:
                continue
            seen.add((placed, state))
            if len(seen) > self._bound:
                message = f"{len(self._operations)} operations: no order within {self._bound} configurations"
                raise Undecided(message)
            path.append(self._operations[place])
            if len(path) > len(self.farthest):
                self.farthest = path.copy()
            if placed & self._needed == self._needed:
                return True
            stack.append(self._choices(placed, state))
        return False

    def _choices(self, placed: int, state: S) -> Iterator[tuple[int, int, S]]:
        """Give what can come next: operations that began before any that is still to be placed had ended."""
        first_end = math.inf
        candidates = []
        for place, one in enumerate(self._operations):
            if one.invoked_at > first_end:
                break
            if not placed >> place & 1:
                candidates.append(place)
                first_end = min(first_end, one.answered_at)
        # Those that ended first are likeliest to have come first; those that never ended are tried last.
        candidates.sort(key=lambda place: self._operations[place].answered_at)
        for place in candidates:
            if self._operations[place].invoked_at <= first_end:
                after = self._step(state, self._operations[place].what)
                if after is not None:
                    yield place, placed | 1 << place, after
