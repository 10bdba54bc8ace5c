"""The page of a what-if: all of it in one file, readable by people and by what reads to them, safe with any name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest

from domain.sla_terms import Metric
from domain.what_if import Axis
from replay.what_if_page import page
from replay.what_if_report import AXIS_SAYS, Flip, Flips, Outcome, Report, Side
from replay.what_if_tally import BREACHED, MET, NOT_PROMISED, RUNNING, Tally
from replay.what_if_words import share, signed, span

NOW = datetime(2026, 7, 1, tzinfo=UTC)
TEAM = UUID("6c12ca44-a06c-483e-946f-9f92b0c2af23")
HOSTILE = '<script>alert(1)</script>\u202e&"'
VOID = {"meta", "circle", "line", "br"}


class Page(HTMLParser):
    """What is on a page: its elements, whether each is closed, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def side(outcome: Outcome) -> Side:
    return Side(
        outcome=outcome,
        policy=f"policy {HOSTILE}",
        calendar="总部日历 2",
        started_at=NOW,
        due_at=NOW + timedelta(hours=4),
        ended_at=NOW + timedelta(hours=5),
        used_seconds=5 * 3600,
        explanation=("4:00:00 of opening hours", HOSTILE),
    )


def report(**more: Any) -> Report:
    tally = Tally(10)
    for number, month in enumerate(("2026-04", "2026-05", "2026-06")):
        place = ("urgent", "vip", str(TEAM), month)
        tally.add(place, Metric.FIRST_REPLY, MET, BREACHED)
        tally.add(place, Metric.FIRST_REPLY, BREACHED, MET)
        tally.add(("low", None, None, month), Metric.TOTAL_RESOLUTION, RUNNING, NOT_PROMISED)
        tally.spend("urgent", Metric.FIRST_REPLY, 3_600_000_000 * (number + 1), 1_800_000_000)
        tally.tickets += 3
    worse, better = tally.flipped()
    flip = Flip(
        ticket_id=TEAM,
        number=4711,
        metric=Metric.FIRST_REPLY,
        serial=2,
        direction="worse",
        priority="urgent",
        tier="vip",
        team_id=TEAM,
        opened_at=NOW,
        then=side(Outcome.MET),
        given=side(Outcome.BREACHED),
    )
    values: dict[str, Any] = {
        "axis": Axis.AS_CORRECTED,
        "axis_says": AXIS_SAYS[Axis.AS_CORRECTED],
        "given": ("policy 金牌", f"calendar {HOSTILE}"),
        "as_of": NOW,
        "position": 123_456,
        "opened_from": NOW - timedelta(days=90),
        "opened_to": None,
        "teams": (TEAM,),
        "tickets": tally.tickets,
        "tickets_changed": 6,
        "promises": tally.promises(),
        "by": tally.by(),
        "flips": Flips(worse=worse, better=better, shown=(flip,)),
        "names": {TEAM: f"网络组 {HOSTILE}"},
        "seconds": 1.5,
    }
    return Report(**(values | more))


def test_it_is_whole_and_loads_and_runs_nothing() -> None:
    text = page(report())
    found = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "form"} & {tag for tag, _ in found.elements}
    assert not any(name in attributes for _, attributes in found.elements for name in ("src", "href", "onclick"))
    assert "url(" not in text
    assert "@import" not in text
    assert {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"} in (
        found.all("meta")
    )


def test_what_people_called_things_is_shown_and_does_nothing() -> None:
    text = page(report())
    assert "<script>alert" not in text
    assert "\u202e" not in text
    found = Page(text)
    assert {"charset": "utf-8"} in found.all("meta")
    for words in ("金牌", '网络组 <script>alert(1)</script>\\u202e&"', "总部日历 2"):
        assert words in found.text


def test_who_cannot_see_the_plots_is_told_what_they_show() -> None:
    found = Page(page(report()))
    assert found.all("html") == [{"lang": "en"}]
    plots = [svg for svg in found.all("svg") if "aria-hidden" not in svg]
    assert len(plots) > 6
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in plots)
    tables = [region for region in found.all("div") if region.get("role") == "region"]
    assert len(tables) == len(found.all("table")) == 6
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in tables)
    assert all(cell.get("scope") for cell in found.all("th"))
    assert "then 100.0%, given 0.0%" not in found.text


def test_it_says_by_which_axis_and_of_which_tickets() -> None:
    text = Page(page(report())).text
    for words in ("Axis: as corrected.", "As corrected now:", "2026-04-02 00:00:00 UTC", "the end", "123,456", "#4711"):
        assert words in text
    assert "Axis: as known." in Page(page(report(axis=Axis.AS_KNOWN))).text


def test_flips_are_told_in_all_where_fewer_are_shown() -> None:
    text = Page(page(report())).text
    assert "3 promises would be broken that were not, 3 were broken and would not be." in text
    assert "Shown are 1 of 6" in text
    none = report(flips=Flips(worse=0, better=0, shown=()))
    assert "every promise that was kept would be" in Page(page(none)).text


def test_a_desk_that_promised_nothing_has_a_page_too() -> None:
    nothing = report(promises=(), by={}, flips=Flips(worse=0, better=0, shown=()), tickets=0)
    assert "Nothing was promised on any of these tickets" in Page(page(nothing)).text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0, "0 s"),
        (0.0125, "0.0125 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3659.7, "1 h 1 min"),
        (90_061, "25 h 1 min"),
        (3_600_000, "1,000 h"),
    ],
)
def test_spans_are_hours_and_minutes_since_a_working_day_is_not_a_day(seconds: float | None, said: str) -> None:
    assert span(seconds) == said


def test_shares_and_changes_are_written_for_people() -> None:
    assert (share(None), share(0.125), share(1)) == ("–", "12.5%", "100.0%")
    assert (signed(0), signed(1200), signed(-3)) == ("0", "+1,200", "−3")
