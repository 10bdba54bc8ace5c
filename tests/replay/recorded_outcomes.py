"""What a real desk recorded of its own promises, and which policy explains that best: plain arithmetic, none of the desk's."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise, product
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

MONDAY: Final = datetime(2016, 1, 4)  # noqa: DTZ001 - the log names no zone
DAY: Final = 24 * 60
CALLER: Final = frozenset({"Awaiting User Info"})
OTHERS: Final = frozenset({"Awaiting Vendor", "Awaiting Problem", "Awaiting Evidence", "Awaiting Change"})


class Incident(NamedTuple):
    """An incident with what was recorded in the end: whether its promise was kept.

    `course` is when it came into which state, from its opening on.
    """

    number: str
    priority: str
    opened_at: datetime
    course: tuple[tuple[datetime, str], ...]
    kept: bool

    @property
    def is_fitted(self) -> bool:
        """Whether it is of the half by which a policy is chosen."""
        return int(self.number.removeprefix("INC")) % 2 == 0

    def reached(self, *states: str, last: bool = False) -> datetime:
        """Give when it first came into one of these states, or last; else when it was closed."""
        found = [
            at for (_, before), (at, state) in pairwise(self.course) if state in states and before not in states
        ] or [at for at, state in self.course if state == "Closed"]
        return found[-1 if last else 0]


class Way(NamedTuple):
    """A way of measuring: until when, in which states time stands still, and in which hours it goes by."""

    until: str
    pauses: frozenset[str]
    hours: str


def incidents_of(path: Path) -> list[Incident]:
    """Read the incidents of a ServiceNow export; the flag is as it was last written."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = defaultdict(list)
        for row in csv.DictReader(file):
            rows[row["number"]].append(row)
    found = []
    for number, its in rows.items():
        its.sort(key=lambda row: (int(row["sys_mod_count"]), _time(row["sys_updated_at"])))
        opened_at = _time(its[0]["opened_at"])
        course = [(opened_at, "New"), *((_time(row["sys_updated_at"]), row["incident_state"]) for row in its)]
        last = its[-1]
        found.append(Incident(number, last["priority"], opened_at, tuple(course), last["made_sla"] == "true"))
    return found


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%d/%m/%Y %H:%M")  # noqa: DTZ007 - the log names no zone


def _always(at: datetime) -> float:
    return (at - MONDAY) / timedelta(minutes=1)


def _on_weekdays(at: datetime, *, opens: int, closes: int) -> float:
    """Count the opening minutes of weekdays from one Monday on."""
    days, minutes = divmod((at - MONDAY) / timedelta(minutes=1), DAY)
    weeks, weekday = divmod(days, 7)
    today = min(max(minutes - opens * 60, 0), (closes - opens) * 60) if weekday < 5 else 0
    return (weeks * 5 + min(weekday, 5)) * (closes - opens) * 60 + today


HOURS: Final[dict[str, Callable[[datetime], float]]] = {
    "always": _always,
    **{
        f"weekdays {opens}-{closes}": partial(_on_weekdays, opens=opens, closes=closes)
        for opens, closes in ((0, 24), (7, 20), (8, 20), (8, 18), (9, 17))
    },
}
UNTIL: Final[dict[str, Callable[[Incident], datetime]]] = {
    "first solved": lambda incident: incident.reached("Resolved"),
    "last solved": lambda incident: incident.reached("Resolved", last=True),
    "closed": lambda incident: incident.reached("Closed"),
}
# From the plainest to the less plain: of ways that explain equally much the first is taken.
WAYS: Final = tuple(
    Way(until, pauses, hours)
    for pauses, hours, until in product((frozenset[str](), CALLER, OTHERS, CALLER | OTHERS), HOURS, UNTIL)
)


def minutes_taken(incident: Incident, way: Way) -> float:
    """Give how long an incident took, measured one way."""
    counted, until = HOURS[way.hours], UNTIL[way.until](incident)
    if not way.pauses:
        return counted(until) - counted(incident.opened_at)
    taken = 0.0
    for (start, state), (end, _) in pairwise(incident.course):
        if start >= until:
            break
        if state not in way.pauses and end > start:
            taken += counted(min(end, until)) - counted(start)
    return taken


class Fit(NamedTuple):
    """A way of measuring with the minutes allowed by priority, and how it explains the incidents it was fitted to.

    `room` is how far apart the last kept and the first broken promise are, as a part of the target, where that is least.
    """

    way: Way
    allowed: dict[str, float]
    wrong: int
    room: float


def fitted(way: Way, incidents: Iterable[Incident]) -> Fit:
    """Allow each priority what explains most of its incidents: half-way between the two neighbours of the best cut.

    Where none was kept, half of the quickest is allowed.
    """
    taken: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for incident in incidents:
        taken[incident.priority].append((minutes_taken(incident, way), incident.kept))
    allowed, rooms, wrong = {}, [], 0
    for priority, found in sorted(taken.items()):
        allowed[priority], errors, room = _cut(sorted(found))
        wrong += errors
        if room is not None:
            rooms.append(room)
    return Fit(way, allowed, wrong, min(rooms))


def _cut(found: Sequence[tuple[float, bool]]) -> tuple[float, int, float | None]:
    """Give what is allowed, how many that gets wrong, and the room around it; None where there is but one outcome."""
    wrong = fewest = sum(kept for _, kept in found)
    best = 0
    for place, ((minutes, kept), following) in enumerate(zip(found, [*found[1:], None], strict=True), 1):
        wrong += -1 if kept else 1
        if wrong < fewest and (following is None or following[0] > minutes):
            fewest, best = wrong, place
    if best == 0:
        return found[0][0] / 2, fewest, None
    if best == len(found):
        return found[-1][0], fewest, None
    below, above = found[best - 1][0], found[best][0]
    return (below + above) / 2, fewest, 2 * (above - below) / (above + below)


def wrong(fit: Fit, incidents: Iterable[Incident]) -> int:
    """Count the incidents of which a fit says other than was recorded."""
    return sum(
        (minutes_taken(incident, fit.way) <= fit.allowed[incident.priority]) is not incident.kept
        for incident in incidents
    )


def best_of(fits: Iterable[Fit]) -> Fit:
    """Choose what gets the fewest wrong, of those what has the most room, of those the plainest, which comes first."""
    return min(fits, key=lambda fit: (fit.wrong, -round(fit.room, 6)))
