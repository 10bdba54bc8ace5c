"""How numbers of a what-if are written for people: counts, shares, spans of time, groups."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final
from uuid import UUID

from replay.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from domain.sla_terms import Metric
    from replay.what_if_report import Grouping, Line

MINUTE: Final = 60
HOUR: Final = 3600
NOTHING: Final = "–"
_MINUS: Final = "−"
_WITHOUT: Final[dict[Grouping, str]] = {
    "priority": "no priority",
    "tier": "no tier known",
    "team": "no team",
    "month": "no month",
}


def span(seconds: float | None) -> str:
    """Write a span as hours and minutes, or shorter ones as minutes and seconds: a working day is not 24 hours."""
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    if whole < MINUTE:
        return f"{seconds:.3g} s" if seconds and seconds < 1 else f"{whole} s"
    if whole < HOUR:
        minutes, rest = divmod(whole, MINUTE)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / MINUTE)
    hours, rest = divmod(minutes, MINUTE)
    return f"{hours:,} h {rest} min" if rest else f"{hours:,} h"


def share(part: float | None) -> str:
    """Write a share in hundredths."""
    return NOTHING if part is None else f"{part:.1%}"


def signed(number: int) -> str:
    """Write a change with its sign."""
    return f"+{number:,}" if number > 0 else f"{_MINUS}{-number:,}" if number else "0"


def metric_name(metric: Metric) -> str:
    """Write a metric as words."""
    return str(metric).replace("_", " ")


def group_name(grouping: Grouping, line: Line, names: Mapping[UUID, str]) -> str:
    """Write the group that a line is of."""
    if line.group is None:
        return _WITHOUT[grouping]
    if grouping == "team":
        return names.get(UUID(line.group), line.group)
    return line.group


def by_name(grouping: Grouping, lines: Iterable[Line], names: Mapping[UUID, str]) -> list[tuple[str, Line]]:
    """Give lines with the groups they are of: teams by their names, what has none last, others in the order they have."""
    named = [(group_name(grouping, line, names), line) for line in lines]
    if grouping == "team":
        named.sort(key=lambda one: (one[1].group is None, one[0].casefold(), one[1].group))
    return named


def on_page(value: object) -> str:
    """Write a value on a page: what people wrote neither acts nor hides there."""
    return escape(visible(str(value)))
