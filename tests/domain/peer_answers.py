"""What our business time answers to the cases of peers."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.sla_counting import counted, day_deadline, time_deadline
from domain.sla_policy import PolicyTerms, Unit
from domain.sla_terms import SlaTerms
from domain.spans import instant
from tests.domain.peer_files import FOREVER, UNITS, Case, Schedule, amount_us, instant_us, pauses, schedule

if TYPE_CHECKING:
    from domain.business_time import Hours
    from domain.sla_counting import Calendars
    from domain.spans import Span

DEADLINES = frozenset({"deadline", "deadline_business_days"})
ELAPSED = frozenset({"elapsed_business_time", "elapsed_business_time_schedule_change"})
VECTORS = frozenset({"add_business_time", "business_seconds_between"})
SAID_OF_HOURS: tuple[str, ...] = ("hours", "holidays", "shifts", "breaks")
NUMERIC = DEADLINES | ELAPSED | VECTORS


class Deadline(NamedTuple):
    """A case about an instant: so much time or so many days after a start, or before it."""

    schedule: Schedule
    start: int
    span: int | None
    days: int | None
    backwards: bool
    end_of_day: bool
    pauses: list[Span]
    metric: str

    def answer(self) -> int | None:
        """Give the instant, in microseconds since 1970; None: it never comes."""
        hours = self.schedule.hours
        if self.schedule.never_opens:
            return None
        due = self._backwards(hours) if self.backwards else self._forwards(hours)
        if any(begin < due and end >= FOREVER for begin, end in self.pauses):
            return None
        return due

    def _forwards(self, hours: Hours) -> int:
        due = self.start
        if self.days is not None:
            due = day_deadline(hours, self.days, self.start, self.pauses, end_of_day=self.end_of_day)
        if self.span is not None:
            due = time_deadline(hours, self.span, due, self.pauses)
            if self.end_of_day and self.days is None:
                due = day_deadline(hours, 0, due, [], end_of_day=True)
        return due

    def _backwards(self, hours: Hours) -> int:
        due = self.start
        if self.days is not None:
            due = day_deadline(hours, -self.days, due, []) if self.days else hours.last_closing_us(due)
        if self.span is None:
            return due
        left = self.span
        for begin, end in reversed(self.pauses):
            ran = hours.between_us(min(end, due), due)
            if begin >= due or ran >= left > 0:
                continue
            left -= ran
            due = begin
        return hours.add_us(due, -left) if left else hours.last_closing_us(due)


class Elapsed(NamedTuple):
    """A case about how much time has passed, by one schedule or by several, each from an instant on."""

    schedules: list[tuple[int, Schedule]]
    start: int
    end: int
    pauses: list[Span]
    target: int | None

    def answer(self) -> int | None:
        """Give the microseconds."""
        terms = [SlaTerms(calendar_version=number) for number in range(len(self.schedules))]
        calendars: Calendars = tuple((from_us, one) for (from_us, _), one in zip(self.schedules, terms, strict=True))
        levels = _Levels([each.hours for _, each in self.schedules])
        stretches = counted(levels, Unit.BUSINESS, self.start, self.end, self.pauses, calendars)
        return sum(used for _, _, used in stretches)


class _Levels:
    """The hours of a case in place of a book of service levels."""

    def __init__(self, hours: list[Hours]) -> None:
        self._hours = hours

    def policy(self, terms: SlaTerms | None) -> PolicyTerms:  # noqa: ARG002 - a case has none
        return PolicyTerms(targets=())

    def hours(self, terms: SlaTerms | None) -> Hours | None:
        version = None if terms is None else terms.calendar_version
        return None if version is None else self._hours[version]


def read_case(case: Case, calendars: dict[str, Any]) -> Deadline | Elapsed:
    """Read a numeric case of `peer_cases.json`."""
    if case["kind"] == "elapsed_business_time_schedule_change":
        schedules = _changing(case, calendars)
    else:
        schedules = [(-FOREVER, _schedule(case, calendars))]
    start = instant_us(case["start"], case.get("timezone"))
    if case["kind"] in ELAPSED:
        end = instant_us(case["end"], case.get("timezone"))
        return Elapsed(schedules, start, end, pauses(case, start), amount_us(case, "target"))
    span, days = amount_us(case, "target"), _whole_days(case.get("target_business_days"))
    if span is None and days is None:
        message = "no target of a unit that is known"
        raise ValueError(message)
    backwards = case.get("direction") == "before" or (span or 0) < 0 or (days or 0) < 0
    return Deadline(
        schedules[0][1],
        start,
        None if span is None else abs(span),
        None if days is None else abs(days),
        backwards,
        bool(case.get("end_of_working_day")),
        pauses(case, None if backwards else start),
        str(case.get("metric", "")),
    )


def _whole_days(said: float | str | None) -> int | None:
    days = None if said is None else Decimal(str(said))
    if days is not None and days % 1:
        message = f"{said} is no number of whole days"
        raise ValueError(message)
    return None if days is None else int(days)


def _schedule(case: Case, calendars: dict[str, Any]) -> Schedule:
    said = case.get("calendar")
    base = calendars[said] if isinstance(said, str) else said
    if base is None and "hours" not in case:
        return schedule(None)
    own = {key: case[key] for key in SAID_OF_HOURS if key in case}
    return schedule({**(base or {}), **own}, case.get("timezone", case.get("time_zone")))


def _changing(case: Case, calendars: dict[str, Any]) -> list[tuple[int, Schedule]]:
    """Read schedules that follow one another, each told by windows or as a calendar; between them nothing counts."""
    found: list[tuple[int, Schedule]] = []
    zone = case.get("timezone")
    entries = case.get("schedule_windows_utc") or case.get("schedules") or ()
    for entry in entries:
        begin, end = ((None if at is None else instant_us(at, zone)) for at in entry["in_force"])
        if begin is None:
            begin = -FOREVER
        if found and found[-1][0] == begin:
            found.pop()
        found.append((begin, _explicit(entry["open"]) if "open" in entry else _schedule(entry, calendars)))
        if end is not None:
            found.append((end, _explicit([])))
    return [(-FOREVER, _explicit([])), *found]


def _explicit(windows: list[list[str]]) -> Schedule:
    """Turn instants into a calendar in UTC that has these windows and no others."""
    shifts: dict[str, list[list[str]]] = {}
    for begin, end in windows:
        at, until = (instant(instant_us(each)) for each in (begin, end))
        while at < until:
            midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
            last = until.date() == at.date()
            closes = f"{until:%H:%M:%S}" if last else "24:00"
            shifts.setdefault(f"{at:%Y-%m-%d}", []).append([f"{at:%H:%M:%S}", closes])
            at = until if last else instant(instant_us(midnight.isoformat()) + 24 * UNITS["hour"])
            if at >= until:
                break
    return schedule({"hours": {}, "shifts": shifts, "time_zone": "UTC"})


def read_vector(vector: Case, document: dict[str, Any]) -> Deadline | Elapsed:
    """Read a case of `business_time_vectors.json`."""
    default = document.get("default_schedule") or {}
    said = vector.get("schedule", "default")
    named = {"default": default, **(document.get("schedules") or {})}
    base = {**default, **(named[said] if isinstance(said, str) else said or {})}
    own = {key: vector[key] for key in SAID_OF_HOURS if key in vector}
    found = schedule({**base, **own}, vector.get("time_zone", vector.get("timezone")))
    if vector["kind"] == "business_seconds_between":
        start, end = instant_us(vector["start"]), instant_us(vector["end"])
        return Elapsed([(-FOREVER, found)], start, end, pauses(vector, start), None)
    start, unit = instant_us(vector["at"]), vector.get("unit", "seconds").removesuffix("s")
    amount = Decimal(str(vector["amount"]))
    backwards = (vector.get("direction", "after") == "before") != (amount < 0)
    days = _whole_days(str(abs(amount))) if unit == "day" else None
    span = None if unit == "day" else amount_us({f"target_{unit}s": abs(amount)}, "target")
    if days is None and span is None:
        message = f"{vector['unit']!r} is no unit that is known"
        raise ValueError(message)
    return Deadline(
        found,
        start,
        span,
        days,
        backwards,
        bool(vector.get("end_of_working_day")),
        pauses(vector, None if backwards else start),
        "",
    )
