"""Rules of peers that are told in words but name a local time and the instant that it is."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from domain.calendar import CalendarTerms
from domain.spans import instant, microseconds
from domain.wall_hours import WallHours

if TYPE_CHECKING:
    from tests.domain.peer_files import Case

ON = re.compile(r"\b(\d{4}-\d{2}-\d{2})\b")
CLOCK = re.compile(r"(?<![\d:T+-])(\d{2}):(\d{2})(?::(\d{2}))?(?![\d:Z])")
ZONE = re.compile(r"\b([A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_+-]+)+)\b")
INSTANT = re.compile(r"\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2})?(?:\.\d+)?Z")


def local_time(case: Case) -> tuple[object, object] | None:
    """Give the instant that a local time is here, and there; None where the words do not name all of it."""
    given, expected = str(case.get("given", "")), str(case.get("expected", ""))
    on, clock, zone = ON.search(given), CLOCK.search(given), ZONE.search(given)
    if on is None or clock is None or zone is None:
        return None
    seconds = int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3] or 0)
    wall = WallHours(CalendarTerms(time_zone=zone[1], hours={}))
    ours = wall.at_us(date.fromisoformat(on[1]), seconds)
    if (there := INSTANT.search(expected)) is not None:
        return ours, microseconds(datetime.fromisoformat(there[0]))
    if (shown := CLOCK.search(expected)) is not None:
        local = instant(ours).astimezone(ZoneInfo(zone[1]))
        theirs = timedelta(hours=int(shown[1]), minutes=int(shown[2]), seconds=int(shown[3] or 0))
        return timedelta(hours=local.hour, minutes=local.minute, seconds=local.second), theirs
    return None
