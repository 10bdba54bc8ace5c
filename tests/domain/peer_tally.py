"""How many cases of peers agreed, were excepted by a ruling, or have nothing here that they could be compared with."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from tests.domain.peer_files import path_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.domain.peer_files import Case


class Tally(NamedTuple):
    agreed: list[str]
    excepted: dict[str, list[str]]
    """Ids by ruling."""
    unmapped: list[str]


_TALLIES: dict[str, Tally] = defaultdict(lambda: Tally([], defaultdict(list), []))


def judged(variable: str, case: Case, ruling: str | None) -> None:
    """Count a case that agrees, or differs by a ruling."""
    tally = _TALLIES[variable]
    (tally.agreed if ruling is None else tally.excepted[ruling]).append(str(case.get("id")))


def unmapped(variable: str, case: Case) -> None:
    """Count a case that there is nothing for."""
    _TALLIES[variable].unmapped.append(str(case.get("id")))


def lines() -> Iterator[str]:
    """Say what was counted, file by file."""
    for variable, tally in _TALLIES.items():
        excepted = sum(map(len, tally.excepted.values()))
        yield (
            f"{variable} ({path_of(variable)}): {len(tally.agreed)} agreed, {excepted} excepted, "
            f"{len(tally.unmapped)} unmapped"
        )
        for ruling, cases in sorted(tally.excepted.items()):
            yield f"  excepted by {ruling}: {', '.join(cases)}"
        if tally.unmapped:
            yield f"  unmapped: {', '.join(tally.unmapped)}"
