"""A what-if as one page to be read, printed or sent on: everything it needs is in it, plots are SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from replay.what_if_plots import months, percentiles, shares, times
from replay.what_if_report import GROUPINGS
from replay.what_if_style import STYLE
from replay.what_if_words import NOTHING, by_name, metric_name, on_page, signed, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from replay.what_if_report import Counts, Flip, Grouping, Line, Report, Side

MOST_PLOTTED: Final = 24  # lines of a plot; the table has all of them
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
        f"<title>{on_page(title)}</title><style>{STYLE}</style></head><body><main>",
        f"<h1>{on_page(title)}</h1>",
        f'<p class="axis"><strong>{on_page(_axis(report))}</strong> {on_page(report.axis_says)}</p>',
        _circumstances(report),
        _tiles(report),
        _by_metric(report),
        _time_used(report),
        *(_grouped(report, grouping) for grouping in GROUPINGS),
        _flips(report),
        "</main></body></html>\n",
    ]
    return "".join(parts)


def _name(value: object) -> str:
    """Write a name that people gave, which may run from right to left."""
    return f"<bdi>{on_page(value)}</bdi>"


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
    rows = [(on_page(metric_name(line.metric)), line) for line in report.promises]
    table = _table("Promises by metric", "metric", [(name, None, line) for name, line in rows])
    return f"<section><h2>Promises by metric</h2>{_KEY}{shares('Share of promises broken', rows)}{table}</section>"


def _grouped(report: Report, grouping: Grouping) -> str:
    lines = report.by.get(grouping, ())
    heading = _HEADINGS[grouping]
    if not lines:
        return ""
    named = [(_name(group), line) for group, line in by_name(grouping, lines, report.names)]
    if grouping == "month":
        plot = months(lines)
    else:
        most = sorted(named, key=lambda one: one[1].worse + one[1].better, reverse=True)[:MOST_PLOTTED]
        chosen = {id(line) for _, line in most}
        rows = [(f"{name}, {metric_name(line.metric)}", line) for name, line in named if id(line) in chosen]
        plot = shares(f"Share of promises broken, {heading.lower()}", rows)
        if len(rows) < len(named):
            plot += f"<p>Shown are the {len(rows)} of {len(named)} in which most tickets flip.</p>"
    table = _table(
        heading,
        grouping,
        [(name, metric_name(line.metric), line) for name, line in named],
    )
    return f"<section><h2>{heading}</h2>{_KEY}{plot}{table}</section>"


def _time_used(report: Report) -> str:
    plot = times(report.promises)
    if not plot:
        return ""
    return f"<section><h2>Time used until fulfilled</h2>{plot}{_percentile_table(report)}</section>"


def _percentile_table(report: Report) -> str:
    body = []
    for line in (*report.promises, *report.by.get("priority", ())):
        then, given = line.used_then, line.used_given
        if then is None or given is None:
            continue
        cells = "".join(
            f'<td class="number">{span(a)}{"" if a == b else f" → {span(b)}"}</td>'
            for (_, a), (_, b) in zip(percentiles(then), percentiles(given), strict=True)
        )
        count = f"{then.count:,}" if then.count == given.count else f"{then.count:,} → {given.count:,}"
        body.append(
            f'<tr><th scope="row">{on_page(line.group or "all")}</th><td>{metric_name(line.metric)}</td>'
            f'<td class="number">{count}</td>{cells}</tr>'
        )
    names = ("priority", "metric", "fulfilled", "p50", "p90", "p95", "p99")
    head = "<tr>" + "".join(f'<th scope="col">{name}</th>' for name in names) + "</tr>"
    return _in_frame("Time used until fulfilled, then → given", head, "".join(body))


def _table(caption: str, group: str, rows: Sequence[tuple[str, str | None, Line]]) -> str:
    """Write lines as a table; without a metric of its own a row is named by the metric."""
    metric = "" if not rows or rows[0][1] is None else '<th scope="col" rowspan="2">metric</th>'
    sides = "".join(f'<th scope="col">{name}</th>' for name in ("met", "broken", "running", "not made")) * 2
    head = (
        f'<tr><th scope="col" rowspan="2">{on_page(group)}</th>{metric}<th scope="colgroup" colspan="4">then</th>'
        '<th scope="colgroup" colspan="4">given</th><th scope="colgroup" colspan="3">change in broken</th></tr>'
        f'<tr>{sides}<th scope="col">worse</th><th scope="col">better</th><th scope="col">in all</th></tr>'
    )
    body = []
    for name, of_metric, line in rows:
        second = "" if of_metric is None else f"<td>{on_page(of_metric)}</td>"
        cells = _numbers(line.then, "then") + _numbers(line.given, "given") + _change(line)
        body.append(f'<tr><th scope="row">{name}</th>{second}{cells}</tr>')
    return _in_frame(caption, head, "".join(body))


def _in_frame(caption: str, head: str, body: str) -> str:
    """Put a table where it can be moved sideways on a narrow screen, also by the keyboard."""
    return (
        f'<div class="wide" role="region" aria-label="{on_page(caption)}" tabindex="0"><table><caption>{on_page(caption)}'
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
        facts += f", used {span(side.used_seconds)}" if side.used_seconds is not None else ""
        facts += "</p>"
    lines = "".join(f"<li>{on_page(line)}</li>" for line in side.explanation)
    return f"<div>{facts}{f'<ul>{lines}</ul>' if lines else ''}</div>"
