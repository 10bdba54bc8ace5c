"""The help desk of an Italian software house: a row is one completed activity of a ticket."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from commands.imports.format import Clock, Format, named, said, time_reader
from commands.imports.story import UNNAMED
from domain.event import Channel
from domain.priority import Priority
from domain.status import Status

if TYPE_CHECKING:
    from datetime import datetime

    from commands.imports.story import Person, Story


class Activity(NamedTuple):
    """One completed activity, with the ticket's attributes at that moment."""

    case_id: str
    activity: str
    resource: str
    completed: str
    customer: str
    product: str
    workgroup: str
    seriousness: str
    seriousness_2: str
    service_level: str
    service_type: str
    responsible_section: str
    support_section: str


class Move(NamedTuple):
    """What an activity does to the status of a ticket; `third_party` is whom it then waits for."""

    status: Status
    third_party: str = ""


TAKES_IN_CHARGE: Final = "Take in charge ticket"

MOVES: Final[dict[str, Move]] = {
    TAKES_IN_CHARGE: Move(Status.OPEN),
    "Wait": Move(Status.ON_HOLD, UNNAMED),
    "Require upgrade": Move(Status.ON_HOLD, "product upgrade"),
    "Create SW anomaly": Move(Status.ON_HOLD, "software anomaly"),
    "Resolve SW anomaly": Move(Status.OPEN),
    "Resolve ticket": Move(Status.SOLVED),
    "Closed": Move(Status.CLOSED),
}
"""Activity → status. One that leaves the ticket as it is (a second "Wait") is recorded in the source's words, and so
is any activity named neither here nor in NOTED: VERIFIED, RESOLVED, INVALID and DUPLICATE, which are states of the
software anomaly rather than of the ticket, and whatever another file may hold."""

NOTED: Final = frozenset({"Insert ticket", "Assign seriousness", "Schedule intervention"})
"""Activities without a counterpart here: an internal note, unless the row opens the ticket or changes a field."""

KEPT: Final = slice(Activity._fields.index("seriousness"), Activity._fields.index("support_section") + 1)
"""Columns kept as custom fields of the same names, with their changes."""

_ANONYMOUS: Final = re.compile(r"Value \d+")


def tell(story: Story, row: Activity, before: Activity | None) -> None:
    """Tell one activity; the first opens the ticket, whatever it is."""
    resource = _named("resource", row.resource)
    story.turn(story.time(row.completed), by=resource)
    activity = named(row.activity, "activity")
    count = story.version
    reopens = before is not None and story.ticket.status is Status.CLOSED and activity in MOVES
    if before is None:
        _open(story, row)
    elif not reopens:
        _tell_fields(story, row, before)
    move = MOVES.get(activity)
    if move is None:
        if activity not in NOTED:
            story.stands(activity)
        elif story.version == count:
            story.noted(f"{activity}: {row.seriousness_2}" if activity == "Assign seriousness" else activity)
        return
    if reopens:
        story.becomes(move.status, activity, third_party=move.third_party)
    if reopens and before is not None:
        _tell_fields(story, row, before)
    if activity == TAKES_IN_CHARGE:
        story.with_(resource, _named("workgroup", row.workgroup))
    story.becomes(move.status, activity, code=activity, third_party=move.third_party)
    if story.version == count:
        story.stands(activity)


def _open(story: Story, row: Activity) -> None:
    product = _shown("Product", row.product)
    service = _shown("Service type", row.service_type)
    subject = " / ".join(filter(None, (product, service))) or row.case_id
    story.opens(
        requester=_named("customer", row.customer) or ("customer", "unknown customer"),
        subject=subject,
        body=subject,
        channel=Channel.IMPORT,
        priority=Priority.NORMAL,
        category=product,
        custom_fields={
            name: text for name, value in zip(Activity._fields[KEPT], row[KEPT], strict=True) if (text := said(value))
        },
    )


def _tell_fields(story: Story, row: Activity, before: Activity) -> None:
    if row.customer != before.customer:
        story.asked_by(_named("customer", row.customer) or ("customer", "unknown customer"))
    if row.product != before.product:
        story.about(_shown("Product", row.product))
    if row[KEPT] != before[KEPT]:
        for name, value, earlier in zip(Activity._fields[KEPT], row[KEPT], before[KEPT], strict=True):
            if value != earlier:
                story.field(name, said(value))
    team = _named("workgroup", row.workgroup)
    if row.workgroup != before.workgroup and story.ticket.team_id is not None and row.activity != TAKES_IN_CHARGE:
        story.with_(None, team)


def _named(label: str, name: str) -> Person | None:
    text = _shown(label.capitalize(), name)
    return None if text is None else (label, text)


@lru_cache(maxsize=10_000)
def _shown(label: str, value: str) -> str | None:
    """Give a name that says what it names: the log calls customers, products and people alike "Value 1"."""
    text = said(value)
    return f"{label} {text}" if text is not None and _ANONYMOUS.fullmatch(text) else text


def order(row: Activity, clock: Clock) -> datetime:
    """Sort by time; equal stamps stay in the order of the file."""
    return clock(row.completed)


FORMAT: Final = Format(
    name="italian-helpdesk",
    title="Italian help desk",
    row=Activity,
    columns={
        "case_id": ("Case ID", "case:concept:name"),
        "activity": ("Activity", "concept:name"),
        "resource": ("Resource", "org:resource"),
        "completed": ("Complete Timestamp", "time:timestamp"),
        "customer": ("customer",),
        "product": ("product",),
        "workgroup": ("workgroup",),
        "seriousness": ("seriousness",),
        "seriousness_2": ("seriousness_2",),
        "service_level": ("service_level",),
        "service_type": ("service_type",),
        "responsible_section": ("responsible_section",),
        "support_section": ("support_section",),
    },
    required=frozenset({"case_id", "activity", "resource", "completed", "customer"}),
    case="case_id",
    ticket_type="incident",
    zone="Europe/Rome",
    parse_time=time_reader(
        r"(?P<Y>\d{4})/(?P<m>\d\d?)/(?P<d>\d\d?) (?P<H>\d\d?):(?P<M>\d\d)(?::(?P<S>\d\d)(?:\.(?P<f>\d{1,6}))?)?"
    ),
    key=order,
    tell=tell,
)
