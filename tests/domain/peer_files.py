"""Files of what other desks' tests expect of business time, read with whatever fields they have."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from domain.business_time import ALWAYS_OPEN, Hours
from domain.calendar import WEEKDAYS, CalendarTerms
from domain.spans import merged, microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from domain.spans import Span

SHARED = Path(os.environ.get("LEDGERDESK_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
DEFAULTS = {
    "SLA_PEER_CASES": SHARED / "sla" / "peer_cases.json",
    "BUSINESS_TIME_VECTORS": SHARED / "sla" / "business_time_vectors.json",
}
SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
UNITS = {"second": SECOND, "minute": MINUTE, "hour": HOUR}
FOREVER = 1 << 62
CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")

Case = dict[str, Any]


def path_of(variable: str) -> Path:
    """Give the file that an environment variable names, or the one that is given."""
    named = os.environ.get(variable)
    return Path(named) if named else DEFAULTS[variable]


def read(variable: str) -> dict[str, Any]:
    """Read a file; one that is not there is empty where nobody named it."""
    path = path_of(variable)
    if not path.exists() and variable not in os.environ:
        return {}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


class Schedule(NamedTuple):
    """Hours to count by, and the terms they come from; no terms: always open."""

    terms: CalendarTerms | None
    hours: Hours

    @classmethod
    def of(cls, terms: CalendarTerms | None) -> Schedule:
        return cls(terms, ALWAYS_OPEN if terms is None else Hours.of([terms]))

    @property
    def never_opens(self) -> bool:
        terms = self.terms
        if terms is None or any(terms.hours.values()):
            return False
        return not any(self.hours.windows(*_around(on)) for on in terms.special_days)


def _around(on: date) -> tuple[datetime, datetime]:
    noon = datetime(on.year, on.month, on.day, 12, tzinfo=UTC)
    return noon - timedelta(days=2), noon + timedelta(days=2)


def schedule(said: Mapping[str, Any] | None, time_zone: str | None = None) -> Schedule:
    """Read hours, shifts, breaks and holidays: a shift is instead of the day's hours, a holiday beats both."""
    if said is None:
        return Schedule.of(None)
    zone = time_zone or said.get("time_zone") or said.get("timezone") or "Etc/UTC"
    return Schedule.of(
        CalendarTerms.model_validate(
            {
                "time_zone": zone,
                "hours": {_weekday(day): _windows(windows) for day, windows in (said.get("hours") or {}).items()},
                "closed_days": dict.fromkeys(_dates(said.get("holidays") or ()), "holiday"),
                "special_days": {_date(on): _windows(windows) for on, windows in _by_date(said.get("shifts"))},
                "breaks": {_date(on): _windows(windows) for on, windows in _by_date(said.get("breaks"))},
            }
        )
    )


def _weekday(day: str) -> str:
    return day.lower()[:3] if day.lower()[:3] in WEEKDAYS else day


def _windows(said: Any) -> list[list[str]]:
    pairs = list(said.items()) if isinstance(said, dict) else list(said)
    if len(pairs) == 2 and all(isinstance(one, str) for one in pairs):
        pairs = [pairs]
    return [[_clock(one) for one in (list(pair.values())[:2] if isinstance(pair, dict) else pair)] for pair in pairs]


def _clock(said: str) -> str:
    found = CLOCK.fullmatch(said)
    return said if found is None else f"{int(found[1]):02}:{found[2]}" + (f":{found[3]}" if found[3] else "")


def _by_date(said: Any) -> Iterable[tuple[str, Any]]:
    """Read windows by date, told as a mapping or as records with a date and hours of some name."""
    if isinstance(said, dict):
        return said.items()
    found: dict[str, list[Any]] = {}
    for record in said or ():
        windows = next((value for value in record.values() if isinstance(value, list)), None)
        if windows is None:
            windows = [[value for value in record.values() if isinstance(value, str) and CLOCK.fullmatch(value)]]
        found.setdefault(record["date"], []).extend(windows)
    return found.items()


def _dates(said: Any) -> list[str]:
    """Read holidays, told as dates, as records with one, or by date; one that is said to be inactive is none."""
    found = []
    for one in said:
        record = one if isinstance(one, dict) else {"date": one}
        if record.get("active", True):
            found.append(_date(record["date"]))
    return found


def _date(said: str) -> str:
    return str(said)[:10]


def instant_us(said: str, time_zone: str | None = None) -> int:
    """Read an instant; without an offset it is by the clock of the time zone."""
    at = datetime.fromisoformat(said)
    return microseconds(at if at.tzinfo else at.replace(tzinfo=ZoneInfo(time_zone or "UTC")))


def amount_us(case: Case, prefix: str) -> int | None:
    """Add up `<prefix>_seconds`, `_minutes` and `_hours`, exactly; None where there is none."""
    found = [
        Decimal(str(value)) * in_us
        for unit, in_us in UNITS.items()
        if (value := case.get(f"{prefix}_{unit}s")) is not None
    ]
    return int(sum(found, Decimal()).to_integral_value(ROUND_HALF_EVEN)) if found else None


def pauses(case: Case, start: int | None = None) -> list[Span]:
    """Read the spans in which the clock is stopped, in any order and overlapping; one without an end goes on.

    They are cut off at the start where one is given.
    """
    zone = case.get("timezone")
    spans = []
    for said in case.get("pauses") or ():
        begin, end = (
            said if isinstance(said, list) else (said.get("from", said.get("start")), said.get("to", said.get("end")))
        )
        begins = instant_us(begin, zone)
        spans.append(
            (begins if start is None else max(begins, start), FOREVER if end is None else instant_us(end, zone))
        )
    return merged(spans)
