"""What is wrong with a policy that somebody wants to adopt; one that was adopted is never looked at again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain.event import Rejected
from domain.sla_policy import LONGEST_DAYS, Match, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.sla_policy import PolicyTerms, Step, Target

MOST_TARGETS: Final = 500
MOST_STEPS: Final = 20
"""Of one target."""
MOST_VALUES: Final = 500
"""That one condition may name."""
_ALL: Final = Match()


class UnusablePolicy(Rejected):
    """A policy makes sense before it is adopted, since an adopted version stays as it is.

    Each of its conditions may hold, each target may count, and each step says what it needs and nothing else.
    `details.faults` lists all that is wrong.
    """

    problem = "unusable-policy"

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults), faults=faults)


def verify(terms: PolicyTerms) -> None:
    """Raise UnusablePolicy where a policy makes no sense."""
    if faults := [*_match("match", terms.match), *_targets(terms.targets)]:
        raise UnusablePolicy(faults)


def _targets(targets: tuple[Target, ...]) -> Iterator[str]:
    if len(targets) > MOST_TARGETS:
        yield f"targets: {len(targets)}, where a policy may have {MOST_TARGETS}"
        return
    seen: dict[str, int] = {}
    for_all: dict[str, int] = {}
    for number, target in enumerate(targets):
        here = f"targets.{number}"
        first = seen.setdefault(f"{target.metric} {target.match.model_dump_json()}", number)
        if first != number:
            yield f"{here}: it is for the same metric and tickets as targets.{first}, and would never count"
        elif (all_of_it := for_all.get(target.metric)) is not None:
            yield f"{here}: targets.{all_of_it} is for this metric of all tickets and stands before it; it would never count"
        if target.match == _ALL:
            for_all.setdefault(target.metric, number)
        yield from _match(f"{here}.match", target.match)
        yield from _amount(here, target)
        if len(target.steps) > MOST_STEPS:
            yield f"{here}.steps: {len(target.steps)}, where a target may have {MOST_STEPS}"
        for place, step in enumerate(target.steps):
            if step in target.steps[:place]:
                yield f"{here}.steps.{place}: it is the same as targets.{number}.steps.{target.steps.index(step)}"
            yield from _step(f"{here}.steps.{place}", step)


def _match(place: str, match: Match) -> Iterator[str]:
    """Find conditions that no ticket meets, or that name too much."""
    for name in Match.model_fields:
        values: tuple[object, ...] | None = getattr(match, name)
        if values == ():
            yield f"{place}.{name}: an empty list holds for no ticket; leave it out to take all"
        elif values is not None and len(values) > MOST_VALUES:
            yield f"{place}.{name}: {len(values)} values, where a condition may name {MOST_VALUES}"


def _amount(place: str, target: Target) -> Iterator[str]:
    if target.unit is not Unit.BUSINESS_DAYS:
        if target.end_of_day:
            yield f"{place}.end_of_day: only a target in business_days ends with a day"
    elif target.amount > LONGEST_DAYS:
        yield f"{place}.amount: {target.amount} days, where there may be {LONGEST_DAYS}"


_SAYS: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    "remind": (frozenset(), frozenset()),
    "notify": (frozenset(), frozenset({"note"})),
    "raise_level": (frozenset({"level"}), frozenset({"level", "team_id"})),
    "reassign": (frozenset(), frozenset({"team_id", "agent_id"})),
}
"""Action → what it has to say, and what it may say."""


def _step(place: str, step: Step) -> Iterator[str]:
    said = {name for name in ("note", "level", "team_id", "agent_id") if getattr(step, name) is not None}
    wanted, allowed = _SAYS[step.action]
    for name in sorted(wanted - said):
        yield f"{place}.{name}: {step.action} wants a {name}"
    for name in sorted(said - allowed):
        yield f"{place}.{name}: {step.action} has no {name}"
    if step.action == "reassign" and not said & allowed:
        yield f"{place}: reassign wants a team_id, an agent_id or both"
