"""Personal values lie apart, encrypted under a person's key; the state proves them without revealing them."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from pydantic_core import from_json

from domain import customer_events
from domain.customer import Customer
from domain.event import ERASED, Act, Channel, Provenance, Role
from storage import keyring
from storage.append import Submission
from storage.codec import UndecodableState, UnknownTopic, decode, encode
from storage.keyring import Keyring, RootKeyError, root_key

if TYPE_CHECKING:
    from pathlib import Path

    from storage.database import Workspace
    from storage.log_reader import StoredRow
    from storage.settings import Settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACT = Act(NOW, Provenance(actor_id=uuid4(), role=Role.AGENT, channel=Channel.API), source_address="192.0.2.7")


def registered(customer_id: UUID | None = None) -> customer_events.Registered:
    customer = Customer.register(customer_id=customer_id or uuid4(), name="韩梅梅", email="canary@example.com", act=ACT)
    event = customer.collect_events()[0]
    assert isinstance(event, customer_events.Registered)
    return event


async def stored(workspace: Workspace, event: customer_events.Registered) -> StoredRow:
    await workspace.keyring.ensure(event.data_subjects())
    await workspace.log.append(Submission([encode(event, workspace.keyring)]))
    return (await workspace.log.stream(event.originator_id))[0]


async def test_an_event_reads_back_as_it_was(alpha: Workspace) -> None:
    event = registered()
    row = await stored(alpha, event)
    recorded = decode(row, alpha.keyring)
    assert recorded.event == event
    assert (recorded.position, recorded.recorded_at) == (row.position, row.recorded_at)


async def test_no_personal_value_is_in_the_state_or_readable_in_the_row(alpha: Workspace) -> None:
    row = await stored(alpha, registered())
    assert row.personal is not None
    for part in ("canary", "韩梅梅", "192.0.2.7"):
        assert part.encode() not in row.state + row.personal
        assert part.encode() not in b"".join(b64decode(box) for box in from_json(row.personal).values())


async def test_the_state_commits_to_each_personal_value_with_its_salt(alpha: Workspace) -> None:
    event = registered()
    row = await stored(alpha, event)
    commitments = from_json(row.state)["commitments"]
    assert set(commitments) == {"name", "email", "source_address"}
    box = b64decode(from_json(row.personal or b"")["email"])
    key = alpha.keyring._keys[event.originator_id]
    assert key is not None
    plain = key.decrypt(box[16:28], box[28:], b"alpha\0" + row.stream.bytes + b"1\0email")
    assert plain[16:] == b'"canary@example.com"'
    assert b64decode(commitments["email"]) == sha256(plain).digest()


async def test_two_events_with_one_value_have_different_commitments(alpha: Workspace) -> None:
    first, second = await stored(alpha, registered()), await stored(alpha, registered())
    assert from_json(first.state)["commitments"]["email"] != from_json(second.state)["commitments"]["email"]


async def test_an_event_can_be_read_without_opening_it_and_its_tokens_be_revealed_later(alpha: Workspace) -> None:
    row = await stored(alpha, registered())
    event = decode(row).event
    assert "韩" not in event.name
    revealed = await alpha.keyring.reveal([(row.stream, event.name), (row.stream, None), (row.stream, event.email)])
    assert revealed == ["韩梅梅", None, "canary@example.com"]


async def test_a_value_cannot_be_moved_to_another_place(alpha: Workspace) -> None:
    row = await stored(alpha, registered())
    other = await stored(alpha, registered())
    token = decode(row).event.name
    moved = token.replace("1.name.", "1.email.")
    assert await alpha.keyring.reveal([(row.stream, token)]) == ["韩梅梅"]  # which is remembered
    assert await alpha.keyring.reveal([(row.stream, moved), (other.stream, token)]) == [ERASED, ERASED]


async def destroy_keys(settings: Settings) -> None:
    async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as owner:
        await owner.execute("DELETE FROM ws_alpha.personal_keys")


async def test_what_was_opened_is_forgotten_with_the_keys(alpha: Workspace, settings: Settings) -> None:
    row = await stored(alpha, registered())
    token = decode(row).event.name
    for _ in range(2):
        assert await alpha.keyring.reveal([(row.stream, token)]) == ["韩梅梅"]
    await destroy_keys(settings)
    alpha.keyring.forget()
    assert await alpha.keyring.reveal([(row.stream, token)]) == [ERASED]


async def test_what_was_opened_is_forgotten_once_any_key_is_found_gone(alpha: Workspace, settings: Settings) -> None:
    row, other = await stored(alpha, registered()), await stored(alpha, registered())
    tokens = [(one.stream, decode(one).event.name) for one in (row, other)]
    assert await alpha.keyring.reveal(tokens) == ["韩梅梅"] * 2
    alpha.keyring._keys.clear()
    await destroy_keys(settings)
    await alpha.keyring.load([row])
    assert await alpha.keyring.reveal(tokens) == [ERASED] * 2


async def test_keys_that_are_wanted_are_not_dropped_for_those_fetched_with_them(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "KEYS_HELD", 3)
    old, *others = [uuid4() for _ in range(4)]
    await alpha.keyring.ensure([old])
    await alpha.keyring.ensure(others[:2])
    await alpha.keyring.ensure([old, others[2]])
    assert alpha.keyring.seal(old, uuid4(), 1, "name", b"x")
    assert alpha.keyring.seal(others[2], uuid4(), 1, "name", b"x")


async def test_only_so_much_of_what_was_opened_is_remembered(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "OPENED_HELD", 2)
    rows = [await stored(alpha, registered()) for _ in range(4)]
    for _ in range(2):
        assert await alpha.keyring.reveal([(one.stream, decode(one).event.name) for one in rows]) == ["韩梅梅"] * 4
        assert len(alpha.keyring._opened) == 2


async def test_a_value_of_one_workspace_cannot_be_opened_in_another(alpha: Workspace, beta: Workspace) -> None:
    customer_id = uuid4()
    row = await stored(alpha, registered(customer_id))
    await stored(beta, registered(customer_id))
    assert await beta.keyring.reveal([(row.stream, decode(row).event.name)]) == [ERASED]


async def test_when_a_persons_key_is_gone_the_values_read_as_erased_and_the_rest_stays(alpha: Workspace) -> None:
    row = await stored(alpha, registered())
    alpha.keyring._keys[row.stream] = None
    event = decode(row, alpha.keyring).event
    assert (event.name, event.email) == (ERASED, ERASED)
    assert event.source_address == "192.0.2.7"
    assert event.tier == "standard"


async def test_when_the_personal_bytes_are_gone_the_values_read_as_erased(alpha: Workspace) -> None:
    row = (await stored(alpha, registered()))._replace(personal=None)
    assert decode(row, alpha.keyring).event.name == ERASED
    assert decode(row).event.name == ERASED


async def test_keys_made_by_two_processes_at_once_are_one_key(alpha: Workspace, key_file: Path) -> None:
    people = [uuid4() for _ in range(50)]
    other = Keyring(alpha.database, "alpha", "ws_alpha", root_key(key_file, create=False))
    await alpha.keyring.ensure(people)
    await other.ensure(people)
    box = alpha.keyring.seal(people[0], people[1], 1, "f", b"0" * 16 + b'"x"')
    from base64 import b64encode  # noqa: PLC0415 - only here

    assert other.open(people[1], 1, "f", b64encode(box).decode()) == ("x",)


async def test_the_key_table_holds_no_key_that_is_not_wrapped(alpha: Workspace) -> None:
    person = uuid4()
    await alpha.keyring.ensure([person])
    async with alpha.database.pool.connection() as connection:
        cursor = await connection.execute(
            SQL("SELECT wrapped_key FROM {}").format(Identifier("ws_alpha", "personal_keys"))
        )
        rows = await cursor.fetchall()
    assert [len(row[0]) for row in rows] == [12 + 32 + 16]


async def test_an_unknown_topic_and_an_undecodable_state_are_named_with_their_place(alpha: Workspace) -> None:
    row = await stored(alpha, registered())
    with pytest.raises(UnknownTopic, match=rf"event 1 \(customer.vanished, version 1 of stream {row.stream}\)"):
        decode(row._replace(topic="customer.vanished"))
    for topic in ("os.path", "", "customer", "a:b", "ticket.opened.x"):
        with pytest.raises(UnknownTopic):
            decode(row._replace(topic=topic))
    for state in (b"", b"{", b"[]", b"null", b"{}", b"\xff", row.state.replace(b'"tier"', b'"rank"')):
        with pytest.raises(UndecodableState, match="event 1 "):
            decode(row._replace(state=state))
    with pytest.raises(UndecodableState, match="newer release"):
        decode(row._replace(state=b'{"class_version":9,' + row.state[1:]))


def test_a_root_key_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "root.key"
    key = root_key(path, create=True)
    assert root_key(path, create=True) == root_key(path, create=False) == key
    assert path.stat().st_mode & 0o077 == 0
    assert [file.name for file in path.parent.iterdir()] == ["root.key"]


def test_a_missing_or_malformed_root_key_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RootKeyError, match="cannot be read: No such file"):
        root_key(tmp_path / "none", create=False)
    path = tmp_path / "short"
    path.write_text("abcd")
    with pytest.raises(RootKeyError, match="must hold 32 bytes"):
        root_key(path, create=False)
