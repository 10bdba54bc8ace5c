"""Every command on a ticket in every status, and the picture of it in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from domain import ticket_events as events
from domain.event import Channel, Rejected
from domain.priority import Priority
from domain.sla_terms import Metric
from domain.status import COMMANDS, MOVES, STILL_WITH_A_CLOSED_TICKET, Status, allowed_commands
from domain.ticket_refusals import MoveNotAllowed, TicketClosed
from tests.domain.scenario import (
    ANN,
    BOB,
    BY_ANN,
    BY_IMPORT,
    DAVE,
    NETWORK,
    OTHER_TICKET,
    a_team,
    an_agent,
    later,
    ticket_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.event import Act
    from domain.ticket import Ticket

pytestmark = pytest.mark.pure

DOCUMENT = Path(__file__).parents[2] / "docs" / "ticket-states.md"

# The status after the command; "-" appends nothing; "move" is MoveNotAllowed and "closed" TicketClosed.
EXPECTED = """
                         new      open     pending  on_hold  solved   closed
assign                   open     open     pending  on_hold  solved   closed!
unassign                 -        open     pending  on_hold  solved   closed!
transfer                 new      open     pending  on_hold  solved   closed!
escalate                 new      open     pending  on_hold  solved   closed!
de-escalate              -        -        -        -        -        closed!
reply                    open     open     pending  on_hold  solved   closed!
add-note                 new      open     pending  on_hold  solved   closed
record-customer-message  new      open     open     open     open     closed!
change-priority          new      open     pending  on_hold  solved   closed!
categorise               new      open     pending  on_hold  solved   closed!
set-pending              pending  pending  -        pending  move!    closed!
put-on-hold              on_hold  on_hold  on_hold  on_hold  move!    closed!
resume                   move!    -        open     open     move!    closed!
solve                    solved   solved   solved   solved   move!    closed!
reopen                   move!    -        move!    move!    open     closed!
close                    move!    move!    move!    move!    closed   -
tag                      new      open     pending  on_hold  solved   closed!
untag                    -        -        -        -        -        closed!
set-custom-field         new      open     pending  on_hold  solved   closed!
change-subject           new      open     pending  on_hold  solved   closed!
change-type              new      open     pending  on_hold  solved   closed!
change-requester         new      open     pending  on_hold  solved   closed!
set-due-date             new      open     pending  on_hold  solved   closed!
add-cc                   new      open     pending  on_hold  solved   closed!
remove-cc                -        -        -        -        -        closed!
link                     new      open     pending  on_hold  solved   closed
correct                  new      open     pending  on_hold  solved   closed
"""

DO: dict[str, Callable[[Ticket, Act], None]] = {
    "assign": lambda t, act: t.assign(agent=an_agent(BOB), act=act),
    "unassign": lambda t, act: t.unassign(act=act),
    "transfer": lambda t, act: t.transfer(team=a_team(NETWORK), act=act),
    "escalate": lambda t, act: t.escalate(level=2, team=a_team(NETWORK), act=act),
    "de-escalate": lambda t, act: t.de_escalate(level=0, act=act),
    "reply": lambda t, act: t.reply(text="Have you tried water?", agent_id=ANN, act=act),
    "add-note": lambda t, act: t.add_note(text="Bring a bucket.", act=act),
    "record-customer-message": lambda t, act: t.record_customer_message(
        text="It burns.", channel=Channel.EMAIL, act=act
    ),
    "change-priority": lambda t, act: t.change_priority(priority=Priority.URGENT, act=act),
    "categorise": lambda t, act: t.categorise(category="hardware", act=act),
    "set-pending": lambda t, act: t.set_pending(act=act),
    "put-on-hold": lambda t, act: t.put_on_hold(third_party="Fire brigade", act=act),
    "resume": lambda t, act: t.resume(act=act),
    "solve": lambda t, act: t.solve(resolution_code="extinguished", act=act),
    "reopen": lambda t, act: t.reopen(act=act),
    "close": lambda t, act: t.close(act=act),
    "tag": lambda t, act: t.tag(tags=["火灾"], act=act),
    "untag": lambda t, act: t.untag(tags=["火灾"], act=act),
    "set-custom-field": lambda t, act: t.set_custom_field(name="floor", value="3", act=act),
    "change-subject": lambda t, act: t.change_subject(subject="Office on fire", act=act),
    "change-type": lambda t, act: t.change_type(type=events.TicketType.INCIDENT, act=act),
    "change-requester": lambda t, act: t.change_requester(requester_id=DAVE, act=act),
    "set-due-date": lambda t, act: t.set_due_date(metric=Metric.FIRST_REPLY, due_at=later(hours=2).at, act=act),
    "add-cc": lambda t, act: t.add_cc(customer_id=DAVE, act=act),
    "remove-cc": lambda t, act: t.remove_cc(customer_id=DAVE, act=act),
    "link": lambda t, act: t.link(other_ticket_id=OTHER_TICKET, kind=events.LinkKind.RELATED, act=act),
    "correct": lambda t, act: t.correct(corrected_version=1, note="It was the toaster.", act=act),
}


def cells() -> list[tuple[str, Status, str]]:
    heading, *rows = (line.split() for line in EXPECTED.strip().splitlines())
    return [(row[0], Status(status), cell) for row in rows for status, cell in zip(heading, row[1:], strict=True)]


def test_the_table_has_every_command_and_every_status() -> None:
    assert len(cells()) == len(COMMANDS) * len(Status)
    assert {command for command, _, _ in cells()} == set(COMMANDS) == set(DO)


@pytest.mark.parametrize(("command", "status", "expected"), cells())
def test_a_command_in_a_status_does_what_the_table_says(command: str, status: Status, expected: str) -> None:
    past = ticket_in(status)
    outcome = past.when(lambda ticket: DO[command](ticket, later(hours=1)))
    match expected:
        case "closed!":
            refusal = outcome.then_rejected(TicketClosed, command=command)
            assert set(refusal.details["allowed"]) == STILL_WITH_A_CLOSED_TICKET
            assert "follow-up" in str(refusal)
        case "move!":
            refusal = outcome.then_rejected(MoveNotAllowed, command=command, **{"from": str(status)})
            assert refusal.details["allowed"] == [{"command": c, "to": str(to)} for c, to in MOVES[status].items()]
            assert all(move in str(refusal) for move in MOVES[status])
        case "-":
            outcome.then_nothing()
        case _:
            assert outcome.refusal is None
            assert len(past.aggregate.pending_events) == 1
            assert past.aggregate.status == expected


@pytest.mark.parametrize("status", list(Status))
def test_allowed_commands_are_those_not_refused_for_the_status(status: Status) -> None:
    refused = {command for command, where, cell in cells() if where is status and cell.endswith("!")}
    # Repeating one of these changes nothing, so offering it would help nobody.
    idle = {Status.OPEN: {"resume", "reopen"}, Status.CLOSED: {"close"}}.get(status, set())
    assert set(ticket_in(status).aggregate.allowed_commands()) == set(COMMANDS) - refused - idle


@pytest.mark.parametrize("status", list(Status))
def test_every_move_of_the_table_can_be_made(status: Status) -> None:
    for command, target in MOVES[status].items():
        ticket = ticket_in(status).aggregate
        DO[command](ticket, later(hours=1))
        assert ticket.status is target


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - STILL_WITH_A_CLOSED_TICKET))
def test_an_import_may_record_what_happened_to_a_closed_ticket_but_not_move_it(command: str) -> None:
    past = ticket_in(Status.CLOSED)
    act = later(hours=1)
    act = type(act)(act.at, BY_IMPORT.by, reason="so the source says")
    try:
        DO[command](past.aggregate, act)
    except Rejected as refusal:
        assert type(refusal) is MoveNotAllowed  # noqa: PT017 - either outcome is right, for different commands
    assert past.aggregate.status is Status.CLOSED


def test_a_move_that_only_a_source_makes_is_recorded_as_its_own_event() -> None:
    past = ticket_in(Status.CLOSED)
    solved_at = past.aggregate.solved_at
    past.when(lambda t: t.record_source_status(status=Status.OPEN, source_status="Accepted", act=BY_IMPORT)).then(
        events.SourceStatusRecorded,
        status=Status.OPEN,
        previous_status=Status.CLOSED,
        source_status="Accepted",
        previous_solved_at=solved_at,
    )
    assert (past.aggregate.solved_at, past.aggregate.closed_at) == (None, None)


def test_the_picture_in_the_documentation_is_the_table() -> None:
    text = DOCUMENT.read_text("utf-8")
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    drawn = {
        (Status(before), command, Status(after))
        for before, after, commands in re.findall(r"^\s*(\w+) --> (\w+): (.+)$", diagram, re.MULTILINE)
        for command in commands.split(", ")
    }
    assert drawn == {(status, command, to) for status, moves in MOVES.items() for command, to in moves.items()}
    assert re.findall(r"\[\*\] --> (\w+)", diagram) == ["new"]
    assert re.findall(r"(\w+) --> \[\*\]", diagram) == ["closed"]


def test_the_documentation_names_what_a_closed_ticket_still_takes() -> None:
    (sentence,) = re.findall(r"A closed ticket still takes ([^.]+)\.", DOCUMENT.read_text("utf-8"))
    assert (
        set(re.findall(r"`([\w-]+)`", sentence)) == STILL_WITH_A_CLOSED_TICKET == set(allowed_commands(Status.CLOSED))
    )


def test_setting_pending_under_the_same_actor_twice_appends_once() -> None:
    past = ticket_in(Status.OPEN)
    past.aggregate.set_pending(act=BY_ANN)
    past.aggregate.set_pending(act=BY_ANN)
    assert [type(event) for event in past.aggregate.pending_events] == [events.SetPending]
