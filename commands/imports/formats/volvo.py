"""Volvo IT problems and incidents (BPI Challenge 2013): a row is a status with a sub-status and its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from commands.imports.format import Clock, Format, iso_only, meaning, named, said
from commands.imports.story import UNNAMED
from domain.event import Channel
from domain.priority import Grade, Priority
from domain.status import Status

if TYPE_CHECKING:
    from datetime import datetime

    from commands.imports.story import Person, Story


class Step(NamedTuple):
    """A case as it stood from one moment on."""

    case: str
    status: str
    sub_status: str
    changed: str
    owner: str
    group: str
    support_team: str
    country: str
    impact: str
    product: str


OPEN_SUB_STATUSES: Final = frozenset({"in progress", "assigned"})
DONE_SUB_STATUSES: Final = frozenset({"resolved", "in call"})
FINAL_SUB_STATUSES: Final = frozenset({"closed", "cancelled"})
WAITING: Final = "wait"
WAITS_FOR_REQUESTER: Final = "user"

IMPACTS: Final = {
    "major": (Priority.URGENT, None),
    "high": (Priority.HIGH, Grade.HIGH),
    "medium": (Priority.NORMAL, Grade.MEDIUM),
    "low": (Priority.LOW, Grade.LOW),
}
"""The source knows an impact and no urgency: it gives the priority. Ours has no grade above high for "Major"."""

SYSTEM_USERS: Final = frozenset({"Siebel"})
"""Owners that are programs: they act as the system and are never given a ticket."""

OWNER: Final = "user"
GROUP: Final = "group"
REQUESTER: Final = ("requester", "unknown requester")
"""The log names nobody who asked."""


def tell(story: Story, row: Step, before: Step | None) -> None:
    """Tell one step; the first opens the ticket."""
    at = story.time(row.changed)
    priority, impact = meaning(IMPACTS, row.impact.strip().lower(), "the impact")
    name = said(row.owner)
    owner = None if name is None or name in SYSTEM_USERS else (OWNER, name)
    story.turn(at, by=owner)
    count = story.version
    words = f"{named(row.status, 'status')}/{row.sub_status.strip()}"
    if before is None:
        _open(story, row, priority, impact)
    # A closed case that goes back is first what it is again, and then given to somebody.
    status_first = story.ticket.status is Status.CLOSED
    if status_first:
        _tell_status(story, row, words)
    if before is not None:
        _tell_fields(story, row, before, priority, impact)
    match row.status.strip().lower():
        case "accepted":
            story.with_(owner, _group(row))
        case "queued":
            story.with_(None, _group(row), still_new=True)
    if not status_first:
        _tell_status(story, row, words)
    if before is not None and story.version == count and words != f"{before.status}/{before.sub_status}":
        story.stands(words)


def _tell_status(story: Story, row: Step, words: str) -> None:
    sub = row.sub_status.strip().lower()
    match row.status.strip().lower():
        case "queued":
            if story.ticket.status is not Status.NEW:
                story.becomes(Status.OPEN, words)
        case "accepted" if sub in OPEN_SUB_STATUSES:
            story.becomes(Status.OPEN, words)
        case "accepted" if sub.startswith(WAITING):
            party = row.sub_status.partition("-")[2].strip()
            if party.lower() == WAITS_FOR_REQUESTER:
                story.becomes(Status.PENDING, words)
            else:
                story.becomes(Status.ON_HOLD, words, third_party=party or UNNAMED)
        case "completed" if sub in DONE_SUB_STATUSES:
            if story.ticket.status is not Status.CLOSED:
                story.becomes(Status.SOLVED, words, code=row.sub_status.strip())
        case "completed" if sub in FINAL_SUB_STATUSES:
            # The status says that the work is completed, the sub-status that the case is final.
            if story.ticket.status is not Status.CLOSED:
                story.becomes(Status.SOLVED, words, code=row.sub_status.strip())
            story.becomes(Status.CLOSED, words)
        case _:
            story.stands(words)


def _open(story: Story, row: Step, priority: Priority, impact: Grade | None) -> None:
    product = said(row.product)
    subject = " / ".join(filter(None, (product, said(row.group), said(row.support_team)))) or row.case
    story.opens(
        requester=REQUESTER,
        subject=subject,
        body=subject,
        channel=Channel.IMPORT,
        priority=priority,
        impact=impact,
        category=product,
        custom_fields={name: value for name in KEPT if (value := said(getattr(row, name))) is not None},
    )


KEPT: Final = ("impact", "support_team", "country")
"""Fields kept as custom fields, with their changes."""


def _tell_fields(story: Story, row: Step, before: Step, priority: Priority, impact: Grade | None) -> None:
    if row.product != before.product:
        story.about(said(row.product))
    for name in KEPT:
        if getattr(row, name) != getattr(before, name):
            story.field(name, said(getattr(row, name)))
    if row.impact != before.impact:
        story.graded(priority, impact)


def _group(row: Step) -> Person | None:
    name = said(row.group)
    return None if name is None else (GROUP, name)


def order(row: Step, clock: Clock) -> datetime:
    """Sort by time; equal stamps stay in the order of the file."""
    return clock(row.changed)


FORMAT: Final = Format(
    name="volvo",
    title="Volvo IT",
    row=Step,
    columns={
        "case": ("case:concept:name", "case id", "SR Number", "Problem Number"),
        "status": ("concept:name", "activity", "Status"),
        "sub_status": ("lifecycle:transition", "sub-state", "sub status", "sub_status"),
        "changed": ("time:timestamp", "timestamp", "Complete Timestamp", "Change Date+Time"),
        "owner": ("org:resource", "resource", "Owner First Name"),
        "group": ("org:group", "Involved Org line 3"),
        "support_team": ("organization involved", "Involved ST"),
        "country": ("organization country", "country"),
        "impact": ("impact", "SR Latest Impact"),
        "product": ("product",),
    },
    required=frozenset({"case", "status", "sub_status", "changed", "owner", "group", "impact", "product"}),
    case="case",
    ticket_type="problem",
    zone="UTC",
    parse_time=iso_only,
    key=order,
    tell=tell,
)
