"""ServiceNow incidents: a row is the whole record after an update, and what differs from the row before happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from commands.imports.format import Clock, Format, Keyed, RowRefused, meaning, named, said, time_reader
from commands.imports.story import UNNAMED
from domain.event import Channel
from domain.priority import Grade, Priority
from domain.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from commands.imports.story import Person, Story


class Record(NamedTuple):
    """An incident as it stood after one update; the fields up to `caused_by` are those whose changes count."""

    incident_state: str
    reopen_count: str
    caller_id: str
    category: str
    impact: str
    urgency: str
    priority: str
    assignment_group: str
    assigned_to: str
    subcategory: str
    u_symptom: str
    location: str
    cmdb_ci: str
    made_sla: str
    knowledge: str
    u_priority_confirmation: str
    notify: str
    problem_id: str
    rfc: str
    vendor: str
    caused_by: str
    contact_type: str
    number: str
    sys_mod_count: str
    sys_updated_at: str
    sys_updated_by: str
    opened_at: str
    opened_by: str
    sys_created_at: str
    sys_created_by: str
    resolved_by: str
    closed_code: str


def _fields(first: str, last: str) -> slice:
    return slice(Record._fields.index(first), Record._fields.index(last) + 1)


COMPARED: Final = _fields("incident_state", "caused_by")
GRADED: Final = _fields("impact", "priority")
HELD: Final = _fields("assignment_group", "assigned_to")
KEPT: Final = _fields("subcategory", "caused_by")
"""Columns kept as custom fields of the same names, with their changes; so is `contact_type`, which has none."""

STATES: Final[dict[str, tuple[Status, str]]] = {
    "New": (Status.NEW, ""),
    "Active": (Status.OPEN, ""),
    "In Progress": (Status.OPEN, ""),
    "Awaiting User Info": (Status.PENDING, ""),
    "Awaiting Problem": (Status.ON_HOLD, "problem management"),
    "Awaiting Vendor": (Status.ON_HOLD, "vendor"),
    "Awaiting Evidence": (Status.ON_HOLD, "evidence"),
    "Awaiting Change": (Status.ON_HOLD, "change management"),
    "On Hold": (Status.ON_HOLD, UNNAMED),
    "Resolved": (Status.SOLVED, ""),
    "Closed": (Status.CLOSED, ""),
}
"""The source's state → our status and, on hold, whom the ticket waits for. Any other state, such as the junk state
-100, is recorded in its own words and leaves our status as it is."""

PRIORITIES: Final = {
    "1": Priority.URGENT,
    "2": Priority.HIGH,
    "3": Priority.NORMAL,
    "4": Priority.LOW,
    "5": Priority.LOW,
}
GRADES: Final = {"1": Grade.HIGH, "2": Grade.MEDIUM, "3": Grade.LOW}
"""Both are told by the digit before the words: "2 - High"."""

CHANNELS: Final = {
    "Phone": Channel.PHONE,
    "IVR": Channel.PHONE,
    "Email": Channel.EMAIL,
    "Chat": Channel.CHAT,
    "Self service": Channel.SELF_SERVICE,
    "Self-service": Channel.SELF_SERVICE,
    "Web": Channel.WEB,
    "Direct opening": Channel.WEB,
}
"""Contact type → channel; for any other the channel is `import`. The type itself is kept as a custom field."""

USER: Final = "user"
GROUP: Final = "group"
CALLER: Final = "caller"
UNKNOWN_CALLER: Final = "unknown caller"
OVER: Final = {"Resolved", "Closed"}


def tell(story: Story, row: Record, before: Record | None) -> None:
    """Tell what differs from the row before; the first row opens the ticket.

    What the source knows of the future on every row (resolved_by, closed_code, when it was resolved and closed) is
    used only at the row whose state reveals it.
    """
    if before is not None and row[COMPARED] == before[COMPARED] and row.closed_code == before.closed_code:
        return
    at = story.time(row.sys_updated_at)
    said_state = named(row.incident_state, "incident_state")
    state, party = STATES.get(said_state, (None, ""))
    # Whatever can be refused is read before anything is told.
    grades = None if before is not None and row[GRADED] == before[GRADED] else _grades(row)
    reopened = before is not None and _reopened(row, before)
    resolver = said(row.resolved_by) if said_state == "Resolved" else None

    if grades is not None and before is None:
        _open(story, row, grades)
    story.turn(at, by=_user(row.sys_updated_by), for_=None if resolver is None else (USER, resolver))
    was = "New" if before is None else before.incident_state.strip()
    if before is not None:
        if was == "Closed" and said_state != was and state is not None:
            story.becomes(state, said_state, third_party=party)
        _tell_fields(story, row, before, grades)
    if before is None or row[HELD] != before[HELD]:
        story.with_(_user(row.assigned_to), _group(row), still_new=state is Status.NEW)
    if reopened and {was, said_state} <= OVER:
        # It was reopened and solved again within one update.
        story.becomes(Status.OPEN, f"reopen_count {row.reopen_count}")
        was = ""
    if said_state != was:
        if state is None:
            story.stands(said_state)
        else:
            story.becomes(state, said_state, code=said(row.closed_code) or UNNAMED, third_party=party)
    elif before is not None and row.closed_code != before.closed_code and was in OVER:
        story.field("closed_code", said(row.closed_code))


def _open(story: Story, row: Record, grades: Grades) -> None:
    opened = next((text for text in (row.opened_at, row.sys_created_at) if said(text)), row.sys_updated_at)
    opener = _user(row.opened_by) or _user(row.sys_created_by) or _user(row.sys_updated_by)
    story.turn(story.time(opened), by=opener)
    about = (said(row.category), said(row.subcategory), said(row.u_symptom))
    fields = {name: text for name, value in zip(Record._fields[KEPT], row[KEPT], strict=True) if (text := said(value))}
    if contact := said(row.contact_type):
        fields["contact_type"] = contact
    story.opens(
        requester=_caller(row.caller_id),
        subject=" / ".join(filter(None, about)) or row.number,
        body="\n".join(
            f"{label}: {value}"
            for label, value in zip(("Category", "Subcategory", "Symptom"), about, strict=True)
            if value is not None
        )
        or row.number,
        channel=CHANNELS.get(row.contact_type.strip(), Channel.IMPORT),
        priority=grades.priority,
        impact=grades.impact,
        urgency=grades.urgency,
        category=about[0],
        custom_fields=fields,
    )


def _tell_fields(story: Story, row: Record, before: Record, grades: Grades | None) -> None:
    if row.caller_id != before.caller_id:
        story.asked_by(_caller(row.caller_id))
    if row.category != before.category:
        story.about(said(row.category))
    if row[KEPT] != before[KEPT]:
        for name, value, earlier in zip(Record._fields[KEPT], row[KEPT], before[KEPT], strict=True):
            if value != earlier:
                story.field(name, said(value))
    if grades is not None:
        story.graded(*grades)


class Grades(NamedTuple):
    """How urgent an incident is; the source's priority counts, whatever our matrix would make of the other two."""

    priority: Priority
    impact: Grade | None
    urgency: Grade | None


def _grades(row: Record) -> Grades:
    return Grades(
        meaning(PRIORITIES, row.priority.strip()[:1], "the priority") if said(row.priority) else Priority.NORMAL,
        meaning(GRADES, row.impact.strip()[:1], "the impact") if said(row.impact) else None,
        meaning(GRADES, row.urgency.strip()[:1], "the urgency") if said(row.urgency) else None,
    )


def _reopened(row: Record, before: Record) -> bool:
    return row.reopen_count != before.reopen_count and _count(row.reopen_count) > _count(before.reopen_count)


def _user(name: str) -> Person | None:
    text = said(name)
    return None if text is None else (USER, text)


def _group(row: Record) -> Person | None:
    text = said(row.assignment_group)
    return None if text is None else (GROUP, text)


def _caller(name: str) -> Person:
    return CALLER, said(name) or UNKNOWN_CALLER


def _count(text: str) -> int:
    if said(text) is None:
        return 0
    try:
        return int(text)
    except ValueError:
        message = f"the count {text!r} is no number"
        raise RowRefused(message) from None


def order(row: Record, clock: Clock) -> tuple[int, datetime]:
    """Sort by the update counter: neighbouring stamps are often equal, to the minute."""
    if said(row.sys_mod_count) is None:
        message = "has no sys_mod_count"
        raise RowRefused(message)
    return _count(row.sys_mod_count), clock(row.sys_updated_at)


def opening_row_first(keyed: Sequence[Keyed[Record]]) -> Sequence[Keyed[Record]]:
    """Put the one earliest row first: in a few cases its counter is that of a later update.

    Told by the counter alone, such a case would begin in its middle and go back.
    """
    stamps = [stamp for (_, stamp), _ in keyed]
    earliest = min(stamps)
    if stamps[0] == earliest or stamps.count(earliest) > 1:
        return keyed
    first = stamps.index(earliest)
    return [keyed[first], *keyed[:first], *keyed[first + 1 :]]


FORMAT: Final = Format(
    name="servicenow",
    title="ServiceNow",
    row=Record,
    columns={field: (field,) for field in Record._fields},
    required=frozenset(
        {
            "number",
            "incident_state",
            "sys_mod_count",
            "sys_updated_at",
            "sys_updated_by",
            "opened_at",
            "caller_id",
            "priority",
            "assignment_group",
            "assigned_to",
        }
    ),
    case="number",
    ticket_type="incident",
    zone="UTC",
    parse_time=time_reader(r"(?P<d>\d{1,2})/(?P<m>\d{1,2})/(?P<Y>\d{4}) (?P<H>\d{1,2}):(?P<M>\d\d)(?::(?P<S>\d\d))?"),
    key=order,
    arrange=opening_row_first,
    tell=tell,
)
