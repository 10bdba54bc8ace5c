"""A what-if as one page to be read, printed or sent on: everything it needs is in it, plots are SVG."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from math import log10
from typing import TYPE_CHECKING, Final

from replay.terminal import visible
from replay.what_if_report import GROUPINGS
from replay.what_if_style import STYLE
from replay.what_if_words import NOTHING, group_name, metric_name, share, signed, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from replay.what_if_report import Counts, Flip, Grouping, Line, Report, Side, Spread

MOST_PLOTTED: Final = 24  # lines of a plot; the table has all of them
MOST_LABELS: Final = 8  # months named below a plot: more would run into one another on a phone
PLOT_HEIGHT: Final = 150  # pixels
TOP, BOTTOM = 12, 130
_HEADINGS: Final[dict[Grouping, str]] = {
    "priority": "By priority",
    "tier": "By tier of the customer",
    "team": "By team",
    "month": "By month of opening",
}


def page(report: Report) -> str:
    """Write the whole page, as HTML that loads nothing and runs nothing."""
    title = f"What if: {', '.join(report.given)}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body><main>",
        f"<h1>{_text(title)}</h1>",
        f'<p class="axis"><strong>{_text(_axis(report))}</strong> {_text(report.axis_says)}</p>',
        _circumstances(report),
        _tiles(report),
        _by_metric(report),
        _time_used(report),
        *(_grouped(report, grouping) for grouping in GROUPINGS),
        _flips(report),
        "</main></body></html>\n",
    ]
    return "".join(parts)


def _text(value: object) -> str:
    return escape(visible(str(value)))


def _name(value: object) -> str:
    """Write a name that people gave, which may run from right to left."""
    return f"<bdi>{_text(value)}</bdi>"


def _instant(instant: datetime | None) -> str:
    if instant is None:
        return NOTHING
    return f'<time datetime="{instant.isoformat()}">{instant:%Y-%m-%d %H:%M:%S} UTC</time>'


def _axis(report: Report) -> str:
    return f"Axis: {str(report.axis).replace('-', ' ')}."


def _circumstances(report: Report) -> str:
    teams = "all" if report.teams is None else ", ".join(_name(report.names.get(one, one)) for one in report.teams)
    facts = (
        ("Given", ", ".join(map(_name, report.given))),
        ("Tickets opened from", "the beginning" if report.opened_from is None else _instant(report.opened_from)),
        ("to before", "the end" if report.opened_to is None else _instant(report.opened_to)),
        ("Teams", teams),
        ("Outcomes as of", _instant(report.as_of)),
        ("Log position", f"{report.position:,}"),
    )
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts) + "</dl>"


def _tiles(report: Report) -> str:
    then = sum(line.then.breached for line in report.promises)
    given = sum(line.given.breached for line in report.promises)
    tiles = (
        (f"{report.tickets:,}", "tickets", ""),
        (f"{report.tickets_changed:,}", "tickets on which a promise stands otherwise", ""),
        (f"{then:,}", "promises broken then", "then"),
        (f"{given:,}", "promises broken under what is given", "given"),
        (f"▲ {report.flips.worse:,}", "broken only under what is given", "worse"),
        (f"▼ {report.flips.better:,}", "broken only then", "better"),
    )
    return (
        '<ul class="tiles">'
        + "".join(f'<li class="{kind}"><b>{number}</b><span>{words}</span></li>' for number, words, kind in tiles)
        + "</ul>"
    )


_KEY: Final = (
    '<p class="key"><span><svg width="18" height="12" aria-hidden="true"><circle class="then" cx="9" cy="6" r="4.5"/>'
    '</svg> then</span><span><svg width="18" height="12" aria-hidden="true"><circle class="given" cx="9" cy="6" r="5"/>'
    "</svg> under what is given</span></p>"
)


def _by_metric(report: Report) -> str:
    if not report.promises:
        return "<section><h2>Promises</h2><p>Nothing was promised on any of these tickets, then or now.</p></section>"
    rows = [(_text(metric_name(line.metric)), line) for line in report.promises]
    table = _table("Promises by metric", "metric", [(name, None, line) for name, line in rows])
    return f"<section><h2>Promises by metric</h2>{_KEY}{_shares('Share of promises broken', rows)}{table}</section>"


def _grouped(report: Report, grouping: Grouping) -> str:
    lines = report.by.get(grouping, ())
    heading = _HEADINGS[grouping]
    if not lines:
        return ""
    named = [(_name(group_name(grouping, line, report.names)), line) for line in lines]
    if grouping == "month":
        plot = _months(lines)
    else:
        most = sorted(named, key=lambda one: one[1].worse + one[1].better, reverse=True)[:MOST_PLOTTED]
        chosen = {id(line) for _, line in most}
        rows = [(f"{name}, {metric_name(line.metric)}", line) for name, line in named if id(line) in chosen]
        plot = _shares(f"Share of promises broken, {heading.lower()}", rows)
        if len(rows) < len(named):
            plot += f"<p>Shown are the {len(rows)} of {len(named)} in which most tickets flip.</p>"
    table = _table(
        heading,
        grouping,
        [(name, metric_name(line.metric), line) for name, line in named],
    )
    return f"<section><h2>{heading}</h2>{_KEY}{plot}{table}</section>"


def _shares(what: str, rows: Sequence[tuple[str, Line]]) -> str:
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
    axis = (
        f'<div class="row scale"><span class="label"></span><svg height="14" width="100%" aria-hidden="true">{scale}'
        '</svg><span class="value"></span></div>'
    )
    return f'<figure><figcaption>{_text(what)}</figcaption><div class="plot">{"".join(drawn)}{axis}</div></figure>'


def _parts(line: Line) -> tuple[float | None, float | None]:
    return line.then.breached_share, line.given.breached_share


def _edge(most: float) -> float:
    """Give the end of a scale of hundredths that holds a share."""
    return next((float(edge) for edge in (1, 2, 5, 10, 20, 50) if most * 100 <= edge), 100.0)


def _x(part: float, edge: float) -> str:
    return f"{4 + 92 * min(part * 100 / edge, 1):.2f}%"


def _months(lines: Sequence[Line]) -> str:
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
            f'<text x="{_month_x(place, len(months))}" y="{PLOT_HEIGHT - 3}" text-anchor="middle">{_text(month)}</text>'
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


def _time_used(report: Report) -> str:
    """Draw where the percentiles of the time used lie, on a scale on which each step is ten times the one before."""
    rows = [
        (line, kind, spread)
        for line in report.promises
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
        said = ", ".join(f"{name} {span(value)}" for name, value in _percentiles(spread))
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
    axis = (
        f'<div class="row scale"><span class="label"></span><svg height="14" width="100%" aria-hidden="true">{scale}'
        '</svg><span class="value"></span></div>'
    )
    return (
        "<section><h2>Time used until fulfilled</h2><figure><figcaption>Half of all took no longer than the circle; the"
        " strokes are what 90, 95 and 99 in a hundred took at most. Counted as each side counts, on a logarithmic scale."
        f'</figcaption><div class="plot">{"".join(drawn)}{axis}</div></figure>{_percentile_table(report)}</section>'
    )


def _percentile_table(report: Report) -> str:
    body = []
    for line in (*report.promises, *report.by.get("priority", ())):
        then, given = line.used_then, line.used_given
        if then is None or given is None:
            continue
        cells = "".join(
            f'<td class="number">{span(a)}{"" if a == b else f" → {span(b)}"}</td>'
            for (_, a), (_, b) in zip(_percentiles(then), _percentiles(given), strict=True)
        )
        count = f"{then.count:,}" if then.count == given.count else f"{then.count:,} → {given.count:,}"
        body.append(
            f'<tr><th scope="row">{_text(line.group or "all")}</th><td>{metric_name(line.metric)}</td>'
            f'<td class="number">{count}</td>{cells}</tr>'
        )
    names = ("priority", "metric", "fulfilled", "p50", "p90", "p95", "p99")
    head = "<tr>" + "".join(f'<th scope="col">{name}</th>' for name in names) + "</tr>"
    return _in_frame("Time used until fulfilled, then → given", head, "".join(body))


def _log_x(value: float | None, low: float, high: float) -> str:
    part = log10(max(value or 0.0, low) / low) / log10(high / low)
    return f"{4 + 92 * min(part, 1):.2f}%"


def _percentiles(spread: Spread) -> tuple[tuple[str, float | None], ...]:
    return (("p50", spread.p50), ("p90", spread.p90), ("p95", spread.p95), ("p99", spread.p99))


def _table(caption: str, group: str, rows: Sequence[tuple[str, str | None, Line]]) -> str:
    """Write lines as a table; without a metric of its own a row is named by the metric."""
    metric = "" if not rows or rows[0][1] is None else '<th scope="col" rowspan="2">metric</th>'
    sides = "".join(f'<th scope="col">{name}</th>' for name in ("met", "broken", "running", "not made")) * 2
    head = (
        f'<tr><th scope="col" rowspan="2">{_text(group)}</th>{metric}<th scope="colgroup" colspan="4">then</th>'
        '<th scope="colgroup" colspan="4">given</th><th scope="colgroup" colspan="3">change in broken</th></tr>'
        f'<tr>{sides}<th scope="col">worse</th><th scope="col">better</th><th scope="col">in all</th></tr>'
    )
    body = []
    for name, of_metric, line in rows:
        second = "" if of_metric is None else f"<td>{_text(of_metric)}</td>"
        cells = _numbers(line.then, "then") + _numbers(line.given, "given") + _change(line)
        body.append(f'<tr><th scope="row">{name}</th>{second}{cells}</tr>')
    return _in_frame(caption, head, "".join(body))


def _in_frame(caption: str, head: str, body: str) -> str:
    """Put a table where it can be moved sideways on a narrow screen, also by the keyboard."""
    return (
        f'<div class="wide" role="region" aria-label="{_text(caption)}" tabindex="0"><table><caption>{_text(caption)}'
        f"</caption><thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def _numbers(counts: Counts, kind: str) -> str:
    values = (counts.met, counts.breached, counts.running, counts.not_promised)
    return "".join(f'<td class="number {kind}">{value:,}</td>' for value in values)


def _change(line: Line) -> str:
    worse = f"▲ {line.worse:,}" if line.worse else "0"
    better = f"▼ {line.better:,}" if line.better else "0"
    return (
        f'<td class="number worse">{worse}</td><td class="number better">{better}</td>'
        f'<td class="number">{signed(line.worse - line.better)}</td>'
    )


def _flips(report: Report) -> str:
    flips = report.flips
    total = flips.worse + flips.better
    if not total:
        return "<section><h2>Tickets that flip</h2><p>None: every promise that was kept would be, and every broken one too.</p></section>"
    said = f"{flips.worse:,} promises would be broken that were not, {flips.better:,} were broken and would not be."
    if len(flips.shown) < total:
        said += f" Shown are {len(flips.shown):,} of {total:,}: of each kind those on tickets opened last."
    return (
        f"<section><h2>Tickets that flip</h2><p>{said}</p>"
        + "".join(_flip(one, report.names) for one in flips.shown)
        + "</section>"
    )


def _flip(flip: Flip, names: Mapping[UUID, str]) -> str:
    sign = "▲ would be broken" if flip.direction == "worse" else "▼ would not be broken"
    which = metric_name(flip.metric) + (f" {flip.serial}" if flip.serial > 1 else "")
    about = [flip.priority, *([flip.tier] if flip.tier else [])]
    if flip.team_id is not None:
        about.append(names.get(flip.team_id, str(flip.team_id)))
    return (
        f'<details class="{flip.direction}"><summary><span class="sign">{sign}</span> <b>#{flip.number}</b> {which}'
        f" <small>{', '.join(map(_name, about))}, opened {_instant(flip.opened_at)}</small></summary>"
        f'<div class="sides">{_side("Then", flip.then)}{_side("Under what is given", flip.given)}</div></details>'
    )


def _side(heading: str, side: Side) -> str:
    terms = ", ".join(_name(one) for one in (side.policy, side.calendar) if one is not None) or "nothing promised"
    facts = f"<h3>{heading}: {side.outcome.replace('_', ' ')}</h3><p>{terms}</p>"
    if side.due_at is not None:
        facts += f"<p>due {_instant(side.due_at)}"
        facts += f", fulfilled {_instant(side.ended_at)}" if side.ended_at is not None else ""
        facts += f", used {span(side.used_seconds)}</p>"
    lines = "".join(f"<li>{_text(line)}</li>" for line in side.explanation)
    return f"<div>{facts}{f'<ul>{lines}</ul>' if lines else ''}</div>"
