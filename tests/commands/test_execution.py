"""Commands end to end: what is recorded, what is refused, and what comes of being second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from commands.catalogue import COMMANDS
from commands.desk import MARKS, Desk, NotFound
from commands.identity import stream_id_for
from commands.request import AlreadyExists, Forbidden, StaleVersion, UnknownReference
from domain.agent import AgentInactive
from domain.customer import ContactKnown, Customer
from domain.event import Role
from domain.status import Status
from domain.ticket import Ticket
from domain.ticket_refusals import MoveNotAllowed, TicketClosed
from storage.append import KeyReused
from storage.attachments import put
from storage.database import Database
from tests.commands.sending import Sender, caller

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.append import Appended, LogError, Submission
    from storage.database import Workspace
    from storage.settings import Settings


async def head(workspace: Workspace) -> int:
    return (await workspace.log.head()).position


async def test_a_ticket_is_numbered_by_the_position_of_its_opening(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    customer = await sender.customer()
    opened = await sender.send("ticket", "open", requester_id=customer, subject="A", body="B")
    assert (opened.number, opened.version, opened.position, opened.changed) == (2, 1, 2, True)
    noted = await sender.send("ticket", "add-note", opened.stream, text="seen")
    assert (noted.number, noted.version, noted.position) == (2, 2, 3)
    assert await sender.desk.resolve("ticket", "2") == opened.stream
    assert await Sender.at(alpha).desk.number_of(opened.stream) == 2


async def test_a_ticket_is_found_by_id_number_and_foreign_id(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket(foreign_id="servicenow:INC0000045")
    assert ticket == stream_id_for("ticket", "servicenow:INC0000045")
    for reference in (str(ticket), ticket.hex, "2", "servicenow:INC0000045"):
        assert await sender.desk.resolve("ticket", reference) == ticket
    for reference in ("1", "99", "0", "-1", "²", "9" * 40, "x", ""):
        with pytest.raises(NotFound):
            await sender.desk.resolve("ticket", reference)


async def test_a_foreign_id_opens_one_ticket(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    customer = await sender.customer()
    await sender.ticket(customer, foreign_id="crm:1")
    before = await head(alpha)
    with pytest.raises(AlreadyExists):
        await sender.ticket(customer, foreign_id="crm:1")
    assert await head(alpha) == before


async def test_a_command_that_changes_nothing_appends_nothing(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket, agent = await sender.ticket(), await sender.agent()
    first = await sender.send("ticket", "assign", ticket, agent_id=agent)
    again = await sender.send("ticket", "assign", ticket, agent_id=agent)
    assert (again.changed, again.version, again.position) == (False, first.version, first.position)


async def test_the_same_key_gives_the_first_outcome_again_and_another_body_is_refused(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    customer = await sender.customer()
    first = await sender.send("ticket", "open", key="k", requester_id=customer, subject="A", body="B")
    again = await sender.send("ticket", "open", key="k", requester_id=customer, subject="A", body="B")
    assert again == first._replace(replayed=True)
    with pytest.raises(KeyReused):
        await sender.send("ticket", "open", key="k", requester_id=customer, subject="A", body="C")
    with pytest.raises(KeyReused):
        await sender.send("ticket", "add-note", first.stream, key="k", text="C")
    other = sender.as_caller(caller())
    assert not (await other.send("ticket", "open", key="k", requester_id=customer, subject="A", body="B")).replayed


async def test_a_retry_with_a_key_is_answered_before_its_version_is_held_stale(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    first = await sender.send("ticket", "tag", ticket, key="k", expected_version=1, tags=["a"])
    again = await sender.send("ticket", "tag", ticket, key="k", expected_version=1, tags=["a"])
    assert again == first._replace(replayed=True)


async def test_a_retry_with_a_key_is_answered_though_the_command_would_now_be_refused(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    await sender.send("ticket", "reply", ticket, key="k", text="Done")
    await sender.send("ticket", "solve", ticket, resolution_code="fixed")
    await sender.send("ticket", "close", ticket)
    assert (await sender.send("ticket", "reply", ticket, key="k", text="Done")).replayed


async def test_a_refusal_is_not_remembered_under_its_key(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    with pytest.raises(MoveNotAllowed):
        await sender.send("ticket", "close", ticket, key="k")
    await sender.send("ticket", "solve", ticket, resolution_code="fixed")
    assert (await sender.send("ticket", "close", ticket, key="k")).changed


async def test_commands_with_one_key_at_once_are_carried_out_once(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    outcomes = await asyncio.gather(*(sender.send("ticket", "add-note", ticket, key="k", text="x") for _ in range(8)))
    assert sorted(outcome.replayed for outcome in outcomes) == [False] + [True] * 7
    assert {outcome.position for outcome in outcomes} == {3}


async def test_a_stale_version_is_refused_with_the_current_one(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    await sender.send("ticket", "tag", ticket, tags=["a"], expected_version=1)
    with pytest.raises(StaleVersion) as caught:
        await sender.send("ticket", "tag", ticket, tags=["b"], expected_version=1)
    assert caught.value.actual == 2


async def test_a_known_email_or_phone_is_refused_naming_the_customer_that_has_it(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ann = await sender.customer(email="Ann@Example.com", phone="138 0013 8000")
    for fields, kind in (({"email": "ann@example.com"}, "email"), ({"phone": "+86 13800138000"}, "phone")):
        with pytest.raises(ContactKnown) as caught:
            await sender.customer("Other", **fields)
        assert caught.value.details == {"kind": kind, "customer_id": str(ann)}
    await sender.send("customer", "change-contact", ann, email=None)
    bob = await sender.customer("Bob", email="ann@example.com")
    with pytest.raises(ContactKnown):
        await sender.send("customer", "change-contact", ann, email="ann@example.com")
    changed = await sender.desk.load(Customer, bob)
    assert (changed.email, changed.version) == ("ann@example.com", 1)


async def test_contacts_of_one_workspace_are_free_in_another(alpha: Workspace, beta: Workspace) -> None:
    await Sender.at(alpha).customer(email="ann@example.com")
    await Sender.at(beta).customer(email="ann@example.com")


async def test_assigning_to_an_unknown_or_inactive_agent_or_team_is_refused(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket, agent, team = await sender.ticket(), await sender.agent(), await sender.team()
    before = await head(alpha)
    strangers: list[dict[str, Any]] = [
        {"agent_id": uuid4()},
        {"team_id": uuid4()},
        {"agent_id": team},
        {"team_id": agent},
    ]
    for fields in strangers:
        with pytest.raises(UnknownReference):
            await sender.send("ticket", "assign", ticket, **fields)
    assert await head(alpha) == before
    await sender.send("agent", "deactivate", agent)
    with pytest.raises(AgentInactive):
        await sender.send("ticket", "assign", ticket, agent_id=agent)


async def test_an_agent_deactivated_by_another_process_gets_no_ticket_from_a_stale_copy(
    alpha: Workspace, settings: Settings
) -> None:
    here = Sender.at(alpha)
    ticket, agent = await here.ticket(), await here.agent()
    await here.desk.held(Ticket, ticket)
    async with await Database.open(settings) as database:
        there = Sender.at(await database.workspace("alpha"))
        await there.send("agent", "deactivate", agent)
    with pytest.raises(AgentInactive):
        await here.send("ticket", "assign", ticket, agent_id=agent)


async def test_a_refusal_from_a_stale_copy_is_decided_again_before_it_is_answered(
    alpha: Workspace, settings: Settings
) -> None:
    here = Sender.at(alpha)
    ticket = await here.ticket()
    async with await Database.open(settings) as database:
        there = Sender.at(await database.workspace("alpha"))
        await there.send("ticket", "solve", ticket, resolution_code="fixed")
    assert (await here.send("ticket", "close", ticket)).version == 3


async def test_a_no_op_from_a_stale_copy_is_decided_again_before_it_is_answered(
    alpha: Workspace, settings: Settings
) -> None:
    here = Sender.at(alpha)
    ticket = await here.ticket()
    await here.send("ticket", "tag", ticket, tags=["a"])
    async with await Database.open(settings) as database:
        there = Sender.at(await database.workspace("alpha"))
        await there.send("ticket", "untag", ticket, tags=["a"])
    again = await here.send("ticket", "tag", ticket, tags=["a"])
    assert (again.changed, again.version) == (True, 4)


async def test_two_processes_commanding_one_ticket_meet_no_conflict_that_the_desk_can_resolve(
    alpha: Workspace, settings: Settings
) -> None:
    here = Sender.at(alpha)
    ticket = await here.ticket()
    async with await Database.open(settings) as database:
        there = Sender.at(await database.workspace("alpha"))
        outcomes = await asyncio.gather(
            *(sender.send("ticket", "add-note", ticket, text=f"{n}") for n in range(40) for sender in (here, there))
        )
    assert sorted(outcome.version for outcome in outcomes) == list(range(2, 82))
    folded = await Sender.at(alpha).desk.load(Ticket, ticket)
    assert (folded.version, folded.notes) == (81, 80)


async def test_what_another_process_of_the_server_changed_is_read_before_a_command_is_decided(
    alpha: Workspace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [0] * MARKS
    here = Sender(Desk(alpha, marks))
    async with await Database.open(settings) as database:
        there = Sender(Desk(await database.workspace("alpha"), marks))
        ticket = await here.ticket()
        submitted: list[Submission] = []
        for log in (alpha.log, there.desk.workspace.log):

            def noted(one: Submission, submit: Callable[..., Any] = log.submit) -> Any:
                submitted.append(one)
                return submit(one)

            monkeypatch.setattr(log, "submit", noted)
        versions = [
            (await sender.send("ticket", "add-note", ticket, text="x")).version
            for sender in (here, there, there, here, there, here, here)
        ]
    assert versions == list(range(2, 9))
    # None was decided on a stale copy, so none had to be decided twice.
    assert len(submitted) == 7


async def test_commands_on_one_ticket_at_once_are_recorded_together(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    batches: list[int] = []
    append_batch = alpha.log._append_batch

    async def counted(batch: Sequence[Submission]) -> list[Appended | LogError]:
        batches.append(len(batch))
        return await append_batch(batch)

    monkeypatch.setattr(alpha.log, "_append_batch", counted)
    said = [sender.send("ticket", "tag", ticket, tags=[f"tag {n % 10}"]) for n in range(30)]
    outcomes = await asyncio.gather(*said)
    # Twenty of them change nothing, on a ticket that is being tagged: each is told the version that it then had.
    assert [outcome.changed for outcome in outcomes] == [True] * 10 + [False] * 20
    assert [outcome.version for outcome in outcomes] == [*range(2, 12)] + [11] * 20
    assert sum(batches) == 30
    assert len(batches) < 10
    assert sender.desk._ahead == {}


async def test_what_was_decided_on_a_command_that_came_to_nothing_is_decided_again(
    alpha: Workspace, settings: Settings
) -> None:
    here = Sender.at(alpha)
    ticket = await here.ticket()
    await here.send("ticket", "tag", ticket, tags=["seen"])
    async with await Database.open(settings) as database:
        there = Sender.at(await database.workspace("alpha"))
        await there.send("ticket", "solve", ticket, resolution_code="fixed")
        # What is held here does not know of that: the first is decided on the past, and the second on the first.
        held, reopened = await asyncio.gather(
            here.send("ticket", "put-on-hold", ticket, third_party="Vendor"),
            here.send("ticket", "resume", ticket),
            return_exceptions=True,
        )
    assert isinstance(held, MoveNotAllowed)
    assert isinstance(reopened, MoveNotAllowed)
    found = await here.desk.load(Ticket, ticket)
    assert (found.status, found.version) == (Status.SOLVED, 3)


async def test_a_customers_message_on_a_closed_ticket_opens_a_linked_follow_up(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    await sender.send("ticket", "solve", ticket, resolution_code="fixed")
    await sender.send("ticket", "close", ticket)
    answered = await sender.send("ticket", "record-customer-message", ticket, key="k", text="It burns again.")
    assert answered.stream != ticket
    follow_up = await sender.desk.load(Ticket, answered.stream)
    assert (follow_up.follow_up_of, follow_up.status) == (ticket, Status.NEW)
    assert answered.number == await Sender.at(alpha).desk.number_of(answered.stream)
    assert answered.stream in {other for other, _ in (await sender.desk.load(Ticket, ticket)).links}
    again = await sender.send("ticket", "record-customer-message", ticket, key="k", text="It burns again.")
    assert again == answered._replace(replayed=True)
    with pytest.raises(TicketClosed):
        await sender.send("ticket", "reply", ticket, text="Sorry")


async def test_a_customer_reaches_tickets_of_ones_own_only(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ann, bob = await sender.customer("Ann"), await sender.customer("Bob")
    theirs = await sender.ticket(bob)
    own = sender.as_caller(caller(Role.CUSTOMER, ann))
    opened = await own.send("ticket", "open", subject="Mine", body="Please")
    assert (await sender.desk.load(Ticket, opened.stream)).requester_id == ann
    assert not (await sender.desk.load(Ticket, opened.stream)).opened_by_agent
    await own.send("ticket", "record-customer-message", opened.stream, text="And this")
    with pytest.raises(NotFound):
        await own.send("ticket", "record-customer-message", theirs, text="And this")
    with pytest.raises(NotFound):
        await own.send("ticket", "open", requester_id=bob, subject="Mine", body="Please")
    for name, fields in (("assign", {}), ("reply", {"text": "x"}), ("add-note", {"text": "x"}), ("close", {})):
        given: dict[str, Any] = fields
        with pytest.raises(Forbidden):
            await own.send("ticket", name, opened.stream, **given)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.DEVELOPER])
async def test_those_who_only_look_change_nothing(alpha: Workspace, role: Role) -> None:
    sender = Sender.at(alpha, caller=caller(role))
    for kind, name in COMMANDS:
        assert role not in COMMANDS[kind, name].roles
    with pytest.raises(Forbidden):
        await sender.send("ticket", "open", requester_id=uuid4(), subject="A", body="B")
    assert await head(alpha) == 0


async def test_what_is_of_another_kind_or_another_workspace_does_not_exist(alpha: Workspace, beta: Workspace) -> None:
    sender, elsewhere = Sender.at(alpha), Sender.at(beta)
    customer, ticket = await sender.customer(), await sender.ticket()
    for target in (customer, uuid4()):
        with pytest.raises(NotFound):
            await sender.send("ticket", "add-note", target, text="x")
    with pytest.raises(NotFound):
        await elsewhere.send("ticket", "add-note", ticket, text="x")
    with pytest.raises(UnknownReference):
        await elsewhere.send("ticket", "open", requester_id=customer, subject="A", body="B")
    assert await head(beta) == 0


async def test_attachments_are_named_in_the_event_and_unknown_ones_refused(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    file = uuid4()
    await put(alpha, file, name="log.txt", content_type="text/plain", data=b"abc", by=uuid4())
    ticket = await sender.ticket()
    await sender.send("ticket", "reply", ticket, text="See the file", attachments=[file])
    with pytest.raises(UnknownReference):
        await sender.send("ticket", "reply", ticket, text="See the file", attachments=[uuid4()])


async def test_a_copy_shown_to_one_reader_is_not_changed_by_a_later_command(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    seen = await sender.desk.load(Ticket, ticket)
    await sender.send("ticket", "tag", ticket, tags=["a"])
    assert (seen.tags, seen.version) == ((), 1)


async def test_the_copies_held_in_memory_are_bounded(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commands.desk.AGGREGATES_HELD", 5)
    sender = Sender.at(alpha)
    tickets = [await sender.ticket() for _ in range(10)]
    assert len(sender.desk._held) == 5
    assert (await sender.send("ticket", "tag", tickets[0], tags=["a"])).version == 2


async def test_the_copies_held_in_memory_are_bounded_by_what_they_hold_as_well(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commands.desk.HELD_BYTES", 100_000)
    sender = Sender.at(alpha)
    tickets = [await sender.ticket(custom_fields={"log": "x" * 40_000}) for _ in range(5)]
    held = sender.desk._held
    assert [ticket in held for ticket in tickets] == [False, False, False, True, True]
    assert sender.desk._held_bytes == sum(one.weight for one in held.values()) <= 100_000
    assert (await sender.send("ticket", "tag", tickets[0], tags=["a"])).version == 2


async def test_a_long_stream_is_folded_piece_by_piece(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commands.desk.FOLDED_AT_ONCE", 3)
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    for number in range(7):
        await sender.send("ticket", "add-note", ticket, text=f"Note {number}")
    for events in (8, 9, 10):
        found = await Sender.at(alpha).desk.load(Ticket, ticket)
        assert (found.version, found.notes) == (events, events - 1)
        await sender.send("ticket", "add-note", ticket, text="One more")


async def test_leaving_a_field_out_and_emptying_it_are_different_requests(alpha: Workspace) -> None:
    sender = Sender.at(alpha)
    customer = await sender.customer(email="ann@example.org")
    first = await sender.send("customer", "change-contact", customer, key="k", name="Anna")
    assert (await sender.send("customer", "change-contact", customer, key="k", name="Anna")) == first._replace(
        replayed=True
    )
    with pytest.raises(KeyReused):
        await sender.send("customer", "change-contact", customer, key="k", name="Anna", email=None)


async def test_every_command_says_what_it_does_and_who_may_give_it() -> None:
    for spec in COMMANDS.values():
        assert spec.summary.endswith("."), spec.name
        assert spec.roles, spec.name
    assert len(COMMANDS) >= 39


async def test_a_bug_in_one_command_does_not_stop_the_next(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender.at(alpha)
    ticket = await sender.ticket()
    with monkeypatch.context() as broken:
        broken.setattr(Ticket, "tag", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await sender.send("ticket", "tag", ticket, tags=["a"])
    assert (await sender.send("ticket", "tag", ticket, tags=["a"])).version == 2
