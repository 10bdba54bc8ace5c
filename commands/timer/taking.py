"""What should be on a ticket's record by now and is not: moves to other terms, the end of a wait, announcements, steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast
from uuid import UUID, uuid5

from commands.timer.steps import by_the_desk, take_step
from domain.event import Act
from domain.service_levels import SERVICE_LEVELS_ID
from domain.sla_announcements import announcements, next_at
from domain.sla_clocks import FINISHED, clocks
from domain.sla_moves import move_on, pending
from domain.spans import microseconds
from domain.status import Status
from domain.ticket_breach_events import SlaBreached, SlaBreachWithdrawn, SlaEscalated
from domain.ticket_timeline import after, step_key

if TYPE_CHECKING:
    from datetime import datetime

    from commands.desk import Desk
    from commands.timer.levels import Levels
    from commands.timer.looking import Look
    from domain.event import Event
    from domain.sla_announcements import Announcement
    from domain.ticket_events import TicketEvent

WOKEN: Final = "The time that this ticket was to wait until has come."


class Moment(NamedTuple):
    """What has fallen due `until` then is noticed `now`, in an epoch of the log."""

    until: datetime
    now: datetime
    epoch: str


class Taken(NamedTuple):
    """Events to be recorded together, what they were decided on, and the ticket's version then.

    Without events, `next_at` is when to look again; with some, the queue says so when it has them.
    """

    events: list[Event]
    guards: dict[UUID, int]
    version: int
    next_at: datetime | None
    moved: bool


async def take(desk: Desk, look: Look, levels: Levels, moment: Moment) -> Taken:
    """Decide what becomes of a ticket by the passing of time; the ticket of `look` is changed.

    Raises whatever the ticket's stream, or the terms that it names, make impossible to judge.
    """
    ticket, timeline, decided_at = look
    guards = {ticket.id: ticket.version}
    moved = False
    if levels.moves and ticket.status not in FINISHED:
        for move in pending(levels.moves, decided_at=decided_at):
            by = by_the_desk(uuid5(ticket.id, f"move {move.version}"), cause=move.command_id)
            moved |= move_on(ticket, move, Act(max(move.at, ticket.opened_at), by))
        if moved:
            guards[SERVICE_LEVELS_ID] = levels.version  # who decides on terms knows of all that was adopted
    silent = timeline.announces_from is None
    if ticket.status is Status.PENDING and not silent and ticket.wake_at is not None and ticket.wake_at <= moment.until:
        by = by_the_desk(uuid5(ticket.id, f"wake {microseconds(ticket.wake_at)}"))
        ticket.resume(act=Act(ticket.wake_at, by, WOKEN))
    for event in ticket.pending_events:
        timeline = after(timeline, cast("TicketEvent", event))
    found = clocks(timeline, levels.book)
    for one in announcements(timeline, levels.book, moment.until, found):
        clock_id = uuid5(ticket.id, f"{one.fields['metric']} {one.fields['serial']}")
        command_id, cause = _ids(clock_id, one)
        by = by_the_desk(command_id, cause=cause, correlation=clock_id)
        # That a breach was none is dated when it is noticed, after what was learnt; all else when it fell due.
        at = moment.now if one.event_class is SlaBreachWithdrawn else one.at
        ticket.record(one.event_class, Act(at, by), requester_id=ticket.requester_id, **one.fields)
        if one.step is not None and one.event_class is SlaEscalated:
            await take_step(desk, ticket, one, by, guards, moment)
    events = cast("list[Event]", list(ticket.collect_events()))
    again = None
    if not events and not silent:
        instants = next_at(timeline, levels.book, found), ticket.wake_at
        again = min((at for at in instants if at is not None), default=None)
    return Taken(events, guards, ticket.version, again, moved)


def _ids(clock_id: UUID, one: Announcement) -> tuple[UUID, UUID | None]:
    """Give the id under which something about a clock is announced, the same whoever does, and that of its cause."""
    due = microseconds(one.fields["due_at"])
    breach = uuid5(clock_id, f"breach {due}")
    if one.step is not None:
        cause = breach if one.step.offset_seconds >= 0 else None
        return uuid5(clock_id, f"step {step_key(one.step)} {microseconds(one.at)}"), cause
    return (breach, None) if one.event_class is SlaBreached else (uuid5(clock_id, f"withdrawal {due}"), breach)
