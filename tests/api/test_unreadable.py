"""What cannot be read is named, hurts nobody but the ticket it belongs to, and is not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from domain.event import Role

if TYPE_CHECKING:
    import httpx

    from storage.settings import Settings
    from tests.api.conftest import DeskOverHttp

CANARY = "canary-7d1f"
"""Stands in what is damaged; no answer may repeat it."""


class Damage(NamedTuple):
    """Something done to version 3 of a ticket by hand, and what a caller is told of it."""

    statement: str
    reason: str
    version: int = 3
    readable: tuple[int, ...] = (1, 2, 4, 5)


def state(said: str) -> str:
    return f"UPDATE ws_alpha.events SET state = convert_to('{said}', 'UTF8') WHERE originator_id = %s AND {THIRD}"


THIRD = "originator_version = 3"
BY_HAND = {
    "an event that somebody deleted": Damage(
        f"DELETE FROM ws_alpha.events WHERE originator_id = %s AND {THIRD}", "missing_event", version=4
    ),
    "an event that somebody moved on": Damage(
        "UPDATE ws_alpha.events SET originator_version = 7 WHERE originator_id = %s AND originator_version = 5",
        "missing_event",
        version=7,
        readable=(1, 2, 3, 4, 7),
    ),
    "a first event that somebody deleted": Damage(
        "DELETE FROM ws_alpha.events WHERE originator_id = %s AND originator_version = 1",
        "missing_event",
        version=2,
        readable=(2, 3, 4, 5),
    ),
    "an unknown topic": Damage(
        f"UPDATE ws_alpha.events SET topic = 'ticket.teleported' WHERE originator_id = %s AND {THIRD}", "unknown_event"
    ),
    "a topic that names a module": Damage(
        f"UPDATE ws_alpha.events SET topic = 'os:system' WHERE originator_id = %s AND {THIRD}", "unknown_event"
    ),
    "a state that is no JSON": Damage(state(f"{{{CANARY}"), "undecodable_event"),
    "a state that is no text": Damage(
        rf"UPDATE ws_alpha.events SET state = '\xff00fe' WHERE originator_id = %s AND {THIRD}", "undecodable_event"
    ),
    "a state that is a list": Damage(state(f'["{CANARY}"]'), "undecodable_event"),
    "a state of another shape": Damage(state(f'{{"{CANARY}":1}}'), "undecodable_event"),
    "a state with a field too many": Damage(
        f"UPDATE ws_alpha.events SET state = convert_to('{{\"{CANARY}\":1,', 'UTF8') || substr(state, 2) "
        f"WHERE originator_id = %s AND {THIRD}",
        "undecodable_event",
    ),
    "a state nested without end": Damage(
        "UPDATE ws_alpha.events SET state = convert_to(repeat('[', 100000), 'UTF8') "
        f"WHERE originator_id = %s AND {THIRD}",
        "undecodable_event",
    ),
    "a shape of a newer release": Damage(
        "UPDATE ws_alpha.events SET state = convert_to('{\"class_version\":9,', 'UTF8') || substr(state, 2) "
        f"WHERE originator_id = %s AND {THIRD}",
        "newer_event",
    ),
    "personal values that are no JSON": Damage(
        f"UPDATE ws_alpha.events SET personal = '{CANARY}' WHERE originator_id = %s AND {THIRD}", "undecodable_event"
    ),
    "personal values that are a list": Damage(
        f"UPDATE ws_alpha.events SET personal = '[1]' WHERE originator_id = %s AND {THIRD}", "undecodable_event"
    ),
    "personal values that are no boxes": Damage(
        'UPDATE ws_alpha.events SET personal = \'{"text":7,"source_address":null}\' '
        f"WHERE originator_id = %s AND {THIRD}",
        "undecodable_event",
    ),
    "a second opening": Damage(
        "UPDATE ws_alpha.events e SET topic = o.topic, state = o.state, personal = o.personal FROM ws_alpha.events o "
        "WHERE o.originator_id = e.originator_id AND o.originator_version = 1 "
        "AND e.originator_id = %s AND e.originator_version = 3",
        "unfit_event",
        readable=(1, 2, 3, 4, 5),
    ),
}


def tamper(settings: Settings, statement: str, *parameters: Any) -> None:
    """Do to the stored rows what only somebody with the owner's password could."""
    with psycopg.connect(make_conninfo(settings.database_url or ""), autocommit=True) as connection:
        assert connection.execute(statement.encode(), parameters).rowcount == 1


async def a_life(desk: DeskOverHttp) -> dict[str, Any]:
    """Have a ticket of five events."""
    opened = await desk.open()
    for text in ("one", "two", "three", "four"):
        await desk.done(f"/tickets/{opened['id']}/add-note", {"text": text})
    return opened


def forget(desk: DeskOverHttp) -> None:
    """Have the application hold nothing in memory, as one just started."""
    app: Any = desk.client._transport.app  # type: ignore[attr-defined]
    app.state.desks._desks.clear()


def named(answer: httpx.Response, ticket: str, damage: Damage) -> None:
    told = answer.json()
    assert answer.status_code == 500, answer.text
    assert (told["type"], told["reason"]) == ("/problems/unreadable-history", damage.reason)
    assert (told["stream"], told["version"]) == (ticket, damage.version)
    assert isinstance(told["position"], int)
    assert CANARY not in answer.text


@pytest.mark.parametrize("damage", BY_HAND.values(), ids=BY_HAND)
async def test_what_cannot_be_read_is_named_and_other_tickets_go_on(
    desk: DeskOverHttp, settings: Settings, damage: Damage
) -> None:
    broken, sound = await a_life(desk), await a_life(desk)
    tamper(settings, damage.statement, broken["id"])
    forget(desk)
    before = await desk.head()
    note = {"text": "Still there?"}
    for _ in range(2):  # what was met once is not kept
        named(await desk.post(f"/tickets/{broken['id']}/add-note", note), broken["id"], damage)
        named(await desk.get(f"/tickets/{broken['id']}"), broken["id"], damage)
        named(await desk.get(f"/tickets/{broken['id']}/messages"), broken["id"], damage)
    assert await desk.head() == before
    await desk.done(f"/tickets/{sound['id']}/add-note", note)
    assert (await desk.get(f"/tickets/{sound['id']}")).status_code == 200
    await desk.open()


@pytest.mark.parametrize("damage", BY_HAND.values(), ids=BY_HAND)
async def test_the_history_tells_what_can_be_read_and_marks_what_cannot(
    desk: DeskOverHttp, settings: Settings, damage: Damage
) -> None:
    broken = await a_life(desk)
    tamper(settings, damage.statement, broken["id"])
    answer = await desk.get(f"/tickets/{broken['id']}/history")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert [entry["version"] for entry in told["entries"]] == list(damage.readable)
    assert CANARY not in answer.text
    assert [mark["reason"] for mark in told["unreadable"]] == [damage.reason]
    assert told["version"] == max(damage.readable[-1], 5)


async def test_the_past_of_a_ticket_can_be_read_up_to_what_cannot(desk: DeskOverHttp, settings: Settings) -> None:
    broken = await a_life(desk)
    epoch = (await desk.get("/log")).json()["epoch"]
    tamper(settings, BY_HAND["an unknown topic"].statement, broken["id"])
    forget(desk)
    for moment in ("as_of_version=2", f"as_of_position={broken['position'] + 1}.{epoch}"):
        told = (await desk.get(f"/tickets/{broken['id']}?{moment}")).json()
        assert told["version"] == 2
        assert [message["text"] for message in told["messages"]["items"]] == ["It smokes.", "one"]
    named(await desk.get(f"/tickets/{broken['id']}?as_of_version=3"), broken["id"], BY_HAND["an unknown topic"])


async def test_a_ticket_mended_by_hand_is_as_good_as_before(desk: DeskOverHttp, settings: Settings) -> None:
    broken = await a_life(desk)
    rename = f"UPDATE ws_alpha.events SET topic = %s WHERE originator_id = %s AND {THIRD}"
    tamper(settings, rename, "ticket.teleported", broken["id"])
    forget(desk)
    assert (await desk.post(f"/tickets/{broken['id']}/add-note", {"text": "x"})).status_code == 500
    tamper(settings, rename, "ticket.note_added", broken["id"])
    assert (await desk.done(f"/tickets/{broken['id']}/add-note", {"text": "x"}))["version"] == 6


async def test_what_a_newer_release_appends_to_a_ticket_held_in_memory_is_named_and_the_copy_not_spoilt(
    desk: DeskOverHttp, settings: Settings
) -> None:
    known = await a_life(desk)
    append = (
        "INSERT INTO ws_alpha.events SELECT (SELECT max(notification_id) + 1 FROM ws_alpha.events), originator_id, "
        "6, 'ticket.teleported', state, personal, recorded_at FROM ws_alpha.events "
        "WHERE originator_id = %s AND originator_version = 5"
    )
    tamper(settings, append, known["id"])
    newer = Damage(append, "unknown_event", version=6)
    for _ in range(2):
        named(await desk.post(f"/tickets/{known['id']}/add-note", {"text": "x"}), known["id"], newer)
        named(await desk.get(f"/tickets/{known['id']}"), known["id"], newer)
    tamper(settings, "DELETE FROM ws_alpha.events WHERE originator_id = %s AND originator_version = 6", known["id"])
    assert (await desk.done(f"/tickets/{known['id']}/add-note", {"text": "x"}))["version"] == 6


async def test_an_agent_whose_record_cannot_be_read_is_the_one_that_is_named(
    desk: DeskOverHttp, settings: Settings
) -> None:
    opened = await desk.open()
    tamper(settings, "UPDATE ws_alpha.events SET state = '{' WHERE originator_id = %s", desk.ids["agent"])
    forget(desk)
    answer = await desk.post(f"/tickets/{opened['id']}/assign", {"agent_id": desk.ids["agent"]})
    assert (answer.status_code, answer.json()["stream"]) == (500, desk.ids["agent"])
    assert (await desk.get(f"/tickets/{opened['id']}")).status_code == 200
    await desk.done(f"/tickets/{opened['id']}/add-note", {"text": "x"})


async def test_a_customer_is_told_no_more_than_that(desk: DeskOverHttp, settings: Settings) -> None:
    broken = await a_life(desk)
    tamper(settings, BY_HAND["a state of another shape"].statement, broken["id"])
    forget(desk)
    for answer in (
        await desk.get(f"/tickets/{broken['number']}", role=Role.CUSTOMER),
        await desk.post(f"/tickets/{broken['number']}/record-customer-message", {"text": "Hello?"}, role=Role.CUSTOMER),
    ):
        assert (answer.status_code, answer.json()["type"]) == (500, "/problems/unreadable-history")
        assert set(answer.json()) == {"type", "title", "status", "detail", "instance"}
        assert broken["id"] not in answer.text
