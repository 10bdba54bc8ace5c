"""The plots of a what-if as SVG: places are hundredths of the width, so that nothing is stretched on any screen."""

from __future__ import annotations

from itertools import pairwise
from math import log10
from typing import TYPE_CHECKING, Final

from replay.what_if_words import metric_name, on_page, share, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from replay.what_if_report import Line, Spread

MOST_LABELS: Final = 8  # months named below a plot: more would run into one another on a phone
PLOT_HEIGHT: Final = 150  # pixels
TOP, BOTTOM = 12, 130


def shares(what: str, rows: Sequence[tuple[str, Line]]) -> str:
    """Draw for each line the share broken then and given, joined; positions are hundredths of the width."""
    most = max((part for _, line in rows for part in _parts(line) if part is not None), default=0.0)
    edge = _edge(most)
    drawn = []
    for name, line in rows:
        then, given = _parts(line)
        said = f"then {share(then)}, given {share(given)}"
        marks = "".join(f'<line class="grid" x1="{at}%" x2="{at}%" y1="0" y2="26"/>' for at in (4, 50, 96))
        if then is not None and given is not None:
            kind = "worse" if given > then else "better"
            marks += f'<line class="{kind}" x1="{_x(then, edge)}" x2="{_x(given, edge)}" y1="13" y2="13"/>'
        if given is not None:
            marks += f'<circle class="given" cx="{_x(given, edge)}" cy="13" r="6"/>'
        if then is not None:
            marks += f'<circle class="then" cx="{_x(then, edge)}" cy="13" r="5"/>'
        drawn.append(
            f'<div class="row"><span class="label">{name}</span>'
            f'<svg height="26" width="100%" role="img" aria-label="{said}">{marks}</svg>'
            f'<span class="value">{share(then)} → {share(given)}</span></div>'
        )
    scale = "".join(
        f'<text x="{at}%" y="11" text-anchor="{anchor}">{part}</text>'
        for at, anchor, part in (
            (4, "start", "0%"),
            (50, "middle", f"{edge / 2:.3g}%"),
            (96, "end", f"{edge:.3g}%"),
        )
    )
    return f'<figure><figcaption>{on_page(what)}</figcaption><div class="plot">{"".join(drawn)}{_axis(scale)}</div></figure>'


def _parts(line: Line) -> tuple[float | None, float | None]:
    return line.then.breached_share, line.given.breached_share


def _edge(most: float) -> float:
    """Give the end of a scale of hundredths that holds a share."""
    return next((float(edge) for edge in (1, 2, 5, 10, 20, 50) if most * 100 <= edge), 100.0)


def _x(part: float, edge: float) -> str:
    return f"{4 + 92 * min(part * 100 / edge, 1):.2f}%"


def _axis(scale: str) -> str:
    return (
        f'<div class="row scale"><span class="label"></span><svg height="14" width="100%" aria-hidden="true">{scale}'
        '</svg><span class="value"></span></div>'
    )


def months(lines: Sequence[Line]) -> str:
    """Draw, metric by metric, the share broken of what was opened in each month."""
    months = sorted({line.group for line in lines if line.group is not None})
    plots = []
    for metric in dict.fromkeys(line.metric for line in lines):
        of_metric = {line.group: line for line in lines if line.metric == metric}
        edge = _edge(max((part or 0.0 for line in of_metric.values() for part in _parts(line)), default=0.0))
        marks = "".join(
            f'<line class="grid" x1="8%" x2="98%" y1="{y}" y2="{y}"/><text x="7%" y="{y + 4}" text-anchor="end">'
            f"{part:.3g}%</text>"
            for y, part in ((BOTTOM, 0.0), ((TOP + BOTTOM) / 2, edge / 2), (TOP, edge))
        )
        for number, kind in enumerate(("then", "given")):
            points = [
                (_month_x(place, len(months)), BOTTOM - (BOTTOM - TOP) * min(part * 100 / edge, 1))
                for place, month in enumerate(months)
                if month in of_metric and (part := _parts(of_metric[month])[number]) is not None
            ]
            marks += "".join(
                f'<line class="{kind}" x1="{x1}" y1="{y1:.1f}" x2="{x2}" y2="{y2:.1f}"/>'
                for (x1, y1), (x2, y2) in pairwise(points)
            )
            marks += "".join(f'<circle class="{kind}" cx="{x}" cy="{y:.1f}" r="4"/>' for x, y in points)
        every = -(-len(months) // MOST_LABELS)
        marks += "".join(
            f'<text x="{_month_x(place, len(months))}" y="{PLOT_HEIGHT - 3}" text-anchor="middle">{on_page(month)}</text>'
            for place, month in enumerate(months)
            if place % every == 0
        )
        said = f"{metric_name(metric)}: share broken by month, as in the table below"
        plots.append(
            f"<figure><figcaption>{metric_name(metric)}: share of promises broken</figcaption>"
            f'<svg class="course" height="{PLOT_HEIGHT}" width="100%" role="img" aria-label="{said}">{marks}</svg></figure>'
        )
    return f'<div class="courses">{"".join(plots)}</div>'


def _month_x(place: int, number: int) -> str:
    return f"{53.0 if number == 1 else 12 + 82 * place / (number - 1):.2f}%"


def times(lines: Iterable[Line]) -> str:
    """Draw where the percentiles of the time used lie, on a scale on which each step is ten times the one before."""
    rows = [
        (line, kind, spread)
        for line in lines
        for kind, spread in (("then", line.used_then), ("given", line.used_given))
        if spread is not None and spread.count
    ]
    if not rows:
        return ""
    ends = [max(value, 1.0) for _, _, spread in rows for value in (spread.p50, spread.p99) if value is not None]
    low, high = min(ends), max(*ends, min(ends) * 10)
    drawn = []
    for line, kind, spread in rows:
        at = [_log_x(value, low, high) for value in (spread.p50, spread.p90, spread.p95, spread.p99)]
        said = ", ".join(f"{name} {span(value)}" for name, value in percentiles(spread))
        shape = (
            f'<line class="{kind}" x1="{at[0]}" x2="{at[3]}" y1="13" y2="13"/>'
            + "".join(f'<line class="{kind}" x1="{x}" x2="{x}" y1="7" y2="19"/>' for x in at[1:])
            + f'<circle class="{kind}" cx="{at[0]}" cy="13" r="5"/>'
        )
        words = "then" if kind == "then" else "given"
        drawn.append(
            f'<div class="row"><span class="label">{metric_name(line.metric)}, {words}</span>'
            f'<svg height="26" width="100%" role="img" aria-label="{said}">{shape}</svg>'
            f'<span class="value">{span(spread.p50)} … {span(spread.p99)}</span></div>'
        )
    scale = (
        f'<text x="4%" y="11">{span(low)}</text><text x="96%" y="11" text-anchor="end">{span(high)}</text>'
        f'<text x="50%" y="11" text-anchor="middle">{span((low * high) ** 0.5)}</text>'
    )
    return (
        "<figure><figcaption>Half of all took no longer than the circle; the strokes are what 90, 95 and 99 in a hundred"
        " took at most. Counted as each side counts, on a logarithmic scale.</figcaption>"
        f'<div class="plot">{"".join(drawn)}{_axis(scale)}</div></figure>'
    )


def _log_x(value: float | None, low: float, high: float) -> str:
    part = log10(max(value or 0.0, low) / low) / log10(high / low)
    return f"{4 + 92 * min(part, 1):.2f}%"


def percentiles(spread: Spread) -> tuple[tuple[str, float | None], ...]:
    """Give the percentiles by name."""
    return (("p50", spread.p50), ("p90", spread.p90), ("p95", spread.p95), ("p99", spread.p99))
