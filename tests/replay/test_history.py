"""A history tells everything that happened, from the log alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from domain.customer_events import Tier
from domain.event import ERASED, SYSTEM_ACTOR, Change, Channel, Role
from domain.status import Status
from replay.history import history
from replay.stream import NoSuchStream
from replay.terminal import console_for, write
from storage.codec import BrokenStream, UndecodableState, UnknownTopic
from tests.replay.lives import NOON, Cast, act, append

if TYPE_CHECKING:
    from storage.database import Workspace
    from storage.settings import Settings


def tamper(settings: Settings, statement: str, *parameters: Any) -> None:
    """Do to the stored rows what only somebody with the owner's password could."""
    with psycopg.connect(make_conninfo(settings.database_url or ""), autocommit=True) as connection:
        assert connection.execute(statement.encode(), parameters).rowcount == 1


async def test_every_event_is_told_in_order_with_who_when_why_and_what_it_changed(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.lived()
    appended = await append(alpha, ticket)

    told = await history(alpha, ticket.id)

    assert (told.kind, told.number, told.position) == ("ticket", appended.first_position, appended.position)
    assert [entry.event for entry in told.entries] == [
        "opened", "assigned", "replied", "note_added", "priority_changed", "escalated", "solved", "event_corrected",
    ]  # fmt: skip
    assert [entry.version for entry in told.entries] == list(range(1, 9))
    assert [entry.position for entry in told.entries] == list(range(appended.first_position, appended.position + 1))
    opened, assigned, replied, note, _, escalated, solved, _ = told.entries
    assert (opened.actor.name, opened.actor.role) == ("王小明", "customer")
    assert opened.message is not None
    assert (opened.message.direction, opened.message.text) == ("from_customer", "三楼打印机卡纸。\nPlease hurry.")
    assert Change("subject", None, "打印机不工作", personal=True) in opened.changes
    assert (opened.channel, opened.contact_channel) == ("web", "email")
    assert (assigned.actor.name, assigned.client, assigned.source_address) == ("Ann Lee", "test", "192.0.2.7")
    assert assigned.changes == (
        Change("agent_id", None, str(cast.ann.id)),
        Change("team_id", None, str(cast.first_line.id)),
        Change("status", "new", "open"),
    )
    assert assigned.occurred_at == act(cast.ann.id, 1).at
    assert assigned.recorded_at == appended.recorded_at
    assert replied.message is not None
    assert (replied.message.direction, replied.changes) == ("to_customer", ())
    assert note.message is not None
    assert note.message.direction == "internal"
    assert escalated.reason == "needs the network people"
    assert Change("team_id", str(cast.first_line.id), str(cast.network.id)) in escalated.changes
    assert Change("status", "open", "solved") in solved.changes
    assert told.names[str(cast.network.id)] == "网络组"


async def test_a_correction_stands_beside_the_event_it_corrects_which_stays_as_it_was(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.lived()
    await append(alpha, ticket)

    wrong, correction = (await history(alpha, ticket.id)).entries[4::3]

    assert wrong.changes == (Change("priority", "normal", "low"),)
    assert wrong.corrections == (correction.corrects,)
    (said,) = wrong.corrections
    assert (said.by_version, said.corrected_version, said.field, said.value) == (8, 5, "priority", "high")
    assert (said.note, said.actor.name) == ("clicked the wrong one", "Ann Lee")


async def test_an_imported_ticket_tells_when_it_occurred_and_when_it_was_recorded_apart(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.open(channel=Channel.IMPORT)
    by_import = act(cast.ann.id, 90, channel=Channel.IMPORT)
    ticket.record_source_status(status=Status.CLOSED, source_status="Resolved/Withdrawn", act=by_import)
    appended = await append(alpha, ticket)

    opened, moved = (await history(alpha, ticket.id)).entries

    assert opened.occurred_at == NOON
    assert opened.recorded_at == moved.recorded_at == appended.recorded_at
    assert moved.channel == "import"
    assert Change("source_status", None, "Resolved/Withdrawn") in moved.changes


async def test_customers_agents_and_teams_have_histories_too(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    cast.ann.rename(name="Ann Li", act=act(SYSTEM_ACTOR, 1, role=Role.SYSTEM))
    await append(alpha, cast.ann)

    told = await history(alpha, cast.ann.id, kind="agent")

    assert [entry.event for entry in told.entries] == ["created", "renamed"]
    assert told.entries[1].changes == (Change("name", "Ann Lee", "Ann Li", personal=True),)
    assert told.entries[1].actor.name == "Ledgerdesk"
    assert told.number is None
    assert (await history(alpha, cast.wang.id)).kind == "customer"
    assert (await history(alpha, cast.network.id)).kind == "team"


async def test_people_and_teams_are_called_by_the_names_they_have_now(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.lived()
    await append(alpha, ticket)
    desk = act(SYSTEM_ACTOR, 60, role=Role.SYSTEM)
    cast.ann.rename(name="Ann Li", act=desk)
    cast.ann.join_team(team=cast.network, act=desk)
    cast.wang.change_contact(name="王大明", act=desk)
    cast.wang.change_tier(tier=Tier.GOLD, act=desk)
    cast.network.rename(name="Networks", act=desk)
    await append(alpha, cast.ann, cast.wang, cast.network)

    told = await history(alpha, ticket.id)

    assert told.names == {
        str(SYSTEM_ACTOR): "Ledgerdesk",
        str(cast.ann.id): "Ann Li",
        str(cast.wang.id): "王大明",
        str(cast.network.id): "Networks",
        str(cast.first_line.id): "First line",
    }
    assert told.entries[0].actor.name == "王大明"


async def test_nothing_is_told_of_what_does_not_exist_is_of_another_kind_or_of_another_workspace(
    alpha: Workspace, beta: Workspace
) -> None:
    cast = await Cast().recorded(alpha)
    for workspace, stream, kind in ((alpha, uuid4(), None), (alpha, cast.ann.id, "ticket"), (beta, cast.ann.id, None)):
        with pytest.raises(NoSuchStream):
            await history(workspace, stream, kind=kind)


async def test_erased_values_read_erased_and_the_rest_is_told(alpha: Workspace, settings: Settings) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.lived()
    await append(alpha, ticket)
    tamper(settings, "DELETE FROM ws_alpha.personal_keys WHERE subject_id = %s", cast.wang.id)
    alpha.keyring.forget()

    told = await history(alpha, ticket.id)

    opened = told.entries[0]
    assert opened.message is not None
    assert opened.message.text == ERASED
    assert Change("subject", None, ERASED, personal=True) in opened.changes
    assert opened.actor.name == ERASED
    assert told.entries[5].reason == "needs the network people"


async def test_a_state_altered_by_hand_is_named_with_its_position(alpha: Workspace, settings: Settings) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.lived()
    appended = await append(alpha, ticket)
    third = appended.first_position + 2
    tamper(settings, "UPDATE ws_alpha.events SET state = %s WHERE notification_id = %s", b'{"status":"opne"}', third)

    with pytest.raises(UndecodableState, match=rf"event {third} \(ticket\.replied, version 3 of stream {ticket.id}\)"):
        await history(alpha, ticket.id)


async def test_a_type_nobody_knows_is_named_with_its_position(alpha: Workspace, settings: Settings) -> None:
    ticket = (await Cast().recorded(alpha)).lived()
    appended = await append(alpha, ticket)
    tamper(
        settings, "UPDATE ws_alpha.events SET topic = 'ticket.teleported' WHERE notification_id = %s", appended.position
    )

    with pytest.raises(UnknownTopic, match=rf"event {appended.position} \(ticket\.teleported"):
        await history(alpha, ticket.id)


async def test_an_event_taken_out_of_the_middle_is_noticed(alpha: Workspace, settings: Settings) -> None:
    ticket = (await Cast().recorded(alpha)).lived()
    appended = await append(alpha, ticket)
    tamper(settings, "DELETE FROM ws_alpha.events WHERE notification_id = %s", appended.first_position + 3)

    with pytest.raises(BrokenStream, match=r"version 5 of stream .* version 4 is missing"):
        await history(alpha, ticket.id)


async def test_damage_to_an_agents_stream_hides_the_name_but_not_the_tickets_history(
    alpha: Workspace, settings: Settings
) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.lived()
    await append(alpha, ticket)
    tamper(settings, "UPDATE ws_alpha.events SET state = '{}' WHERE originator_id = %s", cast.ann.id)

    assigned = (await history(alpha, ticket.id)).entries[1]

    assert (assigned.actor.id, assigned.actor.name) == (cast.ann.id, None)


async def test_what_can_be_read_is_told_where_the_rest_may_be_marked(alpha: Workspace, settings: Settings) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.lived()
    appended = await append(alpha, ticket)
    first = appended.first_position
    tamper(settings, "UPDATE ws_alpha.events SET topic = 'ticket.teleported' WHERE notification_id = %s", first + 2)
    tamper(settings, "DELETE FROM ws_alpha.events WHERE notification_id = %s", first + 5)

    told = await history(alpha, ticket.id, marked=True)

    assert [entry.version for entry in told.entries] == [1, 2, 4, 5, 7, 8]
    assert [(mark.version, mark.position, mark.reason) for mark in told.unreadable] == [
        (3, first + 2, "unknown_event"),
        (6, first + 6, "missing_event"),
    ]
    assert (told.version, told.position) == (8, appended.position)
    file = io.StringIO()
    write(told, console_for(file))
    lines = [line.strip() for line in file.getvalue().splitlines()]
    heads = [line.split()[0] for line in lines if line.startswith("v") and line[1].isdigit()]
    assert heads == ["v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8"]
    assert "v3  cannot be read" in lines
    assert "v6  missing from here" in lines
