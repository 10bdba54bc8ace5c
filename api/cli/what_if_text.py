"""A what-if as text: tables by metric, priority, tier and team, times used, and the tickets that flip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from replay.terminal import visible
from replay.what_if_words import NOTHING, by_name, metric_name, share, signed, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from rich.console import Console

    from replay.what_if_report import Flip, Grouping, Line, Report, Side

GROUPS: Final[tuple[Grouping, ...]] = ("priority", "tier", "team")
LINES_SHOWN: Final = 60  # of a table; --json and --html have all


def write(report: Report, console: Console) -> None:
    """Write it all for a person."""
    console.print(Text(f"What if: {visible(', '.join(report.given))}", style="bold"), soft_wrap=True)
    console.print(Text(report.axis_says), soft_wrap=True)
    console.print(
        f"{report.tickets:,} ticket{'' if report.tickets == 1 else 's'} opened {_period(report)},"
        f" as of {_at(report.as_of)};"
        f" on {report.tickets_changed:,} of them a promise stands otherwise.",
        soft_wrap=True,
    )
    if not report.promises:
        console.print("Nothing was promised on any of them, then or now.")
        return
    console.print()
    _table(console, "metric", [((metric_name(line.metric),), line) for line in report.promises])
    console.print("\nTime used until fulfilled, as each side counts it")
    _times(console, report.promises)
    for grouping in GROUPS:
        lines = report.by.get(grouping, ())
        named = by_name(grouping, lines, report.names)
        rows = [((visible(group), metric_name(line.metric)), line) for group, line in named]
        console.print(f"\nBy {grouping}")
        _table(console, grouping, rows)
    console.print()
    _flips(console, report)


def _period(report: Report) -> str:
    begins = "" if report.opened_from is None else f"from {_at(report.opened_from)} "
    ends = "up to now" if report.opened_to is None else f"to before {_at(report.opened_to)}"
    teams = "" if report.teams is None else f" of {len(report.teams)} team{'s' if len(report.teams) > 1 else ''}"
    return begins + ends + teams


def _at(instant: datetime | None) -> str:
    return NOTHING if instant is None else instant.isoformat(" ", "seconds")


def _table(console: Console, first: str, rows: Sequence[tuple[tuple[str, ...], Line]]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    if rows and len(rows[0][0]) > 1:
        table.add_column("metric", no_wrap=True)
    for heading in ("then met", "broken", "running", "given met", "broken", "running", "worse", "better", "change"):
        table.add_column(heading, justify="right")
    table.add_column("share broken", justify="right")
    for names, line in rows[:LINES_SHOWN]:
        then, given = line.then, line.given
        numbers = (then.met, then.breached, then.running, given.met, given.breached, given.running)
        table.add_row(
            *map(Text, names),
            *(f"{number:,}" for number in (*numbers, line.worse, line.better)),
            signed(line.worse - line.better),
            f"{share(then.breached_share)} → {share(given.breached_share)}",
        )
    console.print(table)
    if len(rows) > LINES_SHOWN:
        console.print(f"and {len(rows) - LINES_SHOWN} lines more; --json tells all")


def _times(console: Console, lines: Iterable[Line]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("side")
    for heading in ("fulfilled", "p50", "p90", "p95", "p99"):
        table.add_column(heading, justify="right")
    for line in lines:
        for side, spread in (("then", line.used_then), ("given", line.used_given)):
            if spread is not None:
                times = (spread.p50, spread.p90, spread.p95, spread.p99)
                table.add_row(metric_name(line.metric), side, f"{spread.count:,}", *map(span, times))
    console.print(table)


def _flips(console: Console, report: Report) -> None:
    flips = report.flips
    total = flips.worse + flips.better
    console.print(
        f"{flips.worse:,} promises would be broken that were not, {flips.better:,} were broken and would not be."
    )
    if len(flips.shown) < total:
        console.print(
            f"Of these {total:,}, {len(flips.shown):,} are shown, on tickets opened last; --flips shows more."
        )
    for one in flips.shown:
        console.print(Text(_flip(one)), soft_wrap=True)
        for name, side in (("then", one.then), ("given", one.given)):
            console.print(Text(f"  {name:<5}  {_side(side)}"), soft_wrap=True)


def _flip(flip: Flip) -> str:
    which = metric_name(flip.metric) + (f" {flip.serial}" if flip.serial > 1 else "")
    sign = "worse" if flip.direction == "worse" else "better"
    return f"#{flip.number} {which}, {sign} (opened {_at(flip.opened_at)}, {flip.priority})"


def _side(side: Side) -> str:
    terms = ", ".join(visible(one) for one in (side.policy, side.calendar) if one is not None)
    return "; ".join([side.outcome.replace("_", " "), *([terms] if terms else []), *map(visible, side.explanation)])
