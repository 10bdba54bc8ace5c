"""What became of every row of an imported file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from commands.imports.reading import Refusal

SHOWN_REFUSALS: Final = 20
"""More than these would hide the figures; the file of refused rows has them all."""


@dataclass(slots=True)
class Met:
    """How many of something were new to the desk, and how many it knew."""

    new: int = 0
    known: int = 0


@dataclass(slots=True)
class Summary:
    """The account of one import. Each row read is in exactly one of the five counts below `rows_read`."""

    format: str
    file: str
    zone: str
    rows_read: int = 0
    rows_with_events: int = 0
    rows_unchanged: int = 0
    rows_duplicate: int = 0
    rows_already_imported: int = 0
    rows_refused: int = 0
    blank_lines: int = 0
    tickets: Met = field(default_factory=Met)
    tickets_continued: int = 0
    """Known tickets for which the file had more than before."""
    customers: Met = field(default_factory=Met)
    agents: Met = field(default_factory=Met)
    teams: Met = field(default_factory=Met)
    events: Counter[str] = field(default_factory=Counter)
    source_statuses: Counter[str] = field(default_factory=Counter)
    """The source's words for moves and states that ours does not have, among the events recorded."""
    refusals: list[Refusal] = field(default_factory=list)
    rejects_file: str | None = None
    seconds: float = 0.0
    last_position: int | None = None

    @property
    def rows_accounted(self) -> int:
        """The sum of the five; equal to the rows read."""
        return (
            self.rows_with_events
            + self.rows_unchanged
            + self.rows_duplicate
            + self.rows_already_imported
            + self.rows_refused
        )

    @property
    def rows_per_second(self) -> float:
        """Rows read over the whole time of the import."""
        return self.rows_read / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Give the account as JSON knows it."""
        return {
            "format": self.format,
            "file": self.file,
            "zone": self.zone,
            "rows_read": self.rows_read,
            "rows_with_events": self.rows_with_events,
            "rows_unchanged": self.rows_unchanged,
            "rows_duplicate": self.rows_duplicate,
            "rows_already_imported": self.rows_already_imported,
            "rows_refused": self.rows_refused,
            "blank_lines": self.blank_lines,
            "tickets": asdict(self.tickets) | {"continued": self.tickets_continued},
            "customers": asdict(self.customers),
            "agents": asdict(self.agents),
            "teams": asdict(self.teams),
            "events_total": self.events.total(),
            "events": dict(sorted(self.events.items())),
            "source_statuses": dict(sorted(self.source_statuses.items())),
            "refusals": [refusal._asdict() for refusal in self.refusals],
            "rejects_file": self.rejects_file,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows_per_second),
            "last_position": self.last_position,
        }

    def as_text(self) -> str:
        """Give the account for a person on a terminal."""
        lines = [
            f"{self.file} ({self.format}, times without a zone read as {self.zone})",
            "",
            *_aligned(
                [
                    ("rows read", self.rows_read, f"{self.seconds:.2f} s, {self.rows_per_second:,.0f} rows/s"),
                    ("  gave events", self.rows_with_events, ""),
                    ("  changed nothing", self.rows_unchanged, ""),
                    ("  duplicates", self.rows_duplicate, ""),
                    ("  already imported", self.rows_already_imported, ""),
                    ("  refused", self.rows_refused, self._rejects()),
                    *([("blank lines", self.blank_lines, "")] if self.blank_lines else []),
                    ("tickets", self.tickets.new, self._known(self.tickets, self.tickets_continued)),
                    ("customers", self.customers.new, self._known(self.customers)),
                    ("agents", self.agents.new, self._known(self.agents)),
                    ("teams", self.teams.new, self._known(self.teams)),
                    ("events", self.events.total(), ""),
                    *((f"  {topic}", count, "") for topic, count in sorted(self.events.items())),
                ]
            ),
        ]
        if self.source_statuses:
            lines += ["", "recorded in the source's own words, since our rules have no such move or status:"]
            lines += _aligned([(f"  {words}", count, "") for words, count in sorted(self.source_statuses.items())])
        if self.refusals:
            lines += ["", "refused rows:"]
            lines += [
                f"  line {refusal.line}{f' ({refusal.case})' if refusal.case else ''}: {refusal.reason}"
                for refusal in self.refusals[:SHOWN_REFUSALS]
            ]
            if len(self.refusals) > SHOWN_REFUSALS:
                where = f", all in {self.rejects_file}" if self.rejects_file else ""
                lines.append(f"  and {len(self.refusals) - SHOWN_REFUSALS:,} more{where}")
        return "\n".join(lines)

    def _rejects(self) -> str:
        return f"listed in {self.rejects_file}" if self.rejects_file and self.refusals else ""

    @staticmethod
    def _known(met: Met, continued: int = 0) -> str:
        more = f", {continued:,} of them continued" if continued else ""
        return f"new, {met.known:,} known before{more}" if met.known else "new"


def _aligned(figures: list[tuple[str, int, str]]) -> list[str]:
    width = max((len(name) for name, _, _ in figures), default=0)
    digits = max((len(f"{count:,}") for _, count, _ in figures), default=0)
    return [f"{name:<{width}}  {count:>{digits},}  {remark}".rstrip() for name, count, remark in figures]
