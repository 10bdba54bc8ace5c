"""Migrations, workspaces, credentials and attachments on a real database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from storage import attachments, credentials
from storage.database import Database, DatabaseUnreachable, UnknownWorkspace
from storage.keyring import RootKeyError
from storage.migrations import MigrationError, create_workspace, migrate, migrations, pending

if TYPE_CHECKING:
    from pathlib import Path

    from storage.database import Workspace
    from storage.settings import Settings


async def test_migrating_twice_or_from_two_processes_at_once_changes_nothing(empty_settings: Settings) -> None:
    notes: list[str] = []
    await asyncio.gather(*(migrate(empty_settings, note=notes.append) for _ in range(3)))
    await migrate(empty_settings, note=notes.append)
    assert notes == [f"shared: {step.name}" for step in migrations("shared")]


async def test_a_workspace_is_made_once_with_everything_applied(empty_settings: Settings) -> None:
    await migrate(empty_settings)
    assert await create_workspace(empty_settings, "gamma") is True
    assert await create_workspace(empty_settings, "gamma") is False
    async with await Database.open(empty_settings) as database:
        assert [workspace.name for workspace in await database.workspaces()] == ["gamma"]
        assert await pending(database) == []


@pytest.mark.parametrize("name", ["", "A", "a-b", "1a", "a" * 41, "a b", "ä", 'a"; DROP SCHEMA x'])
async def test_a_workspace_name_that_could_be_mistaken_is_refused(settings: Settings, name: str) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        await create_workspace(settings, name)


async def test_a_step_edited_after_it_was_applied_stops_the_migration(settings: Settings) -> None:
    async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as connection:
        await connection.execute("UPDATE ledgerdesk.migrations SET checksum = 'x' WHERE scope = 'beta'")
    with pytest.raises(MigrationError, match="was changed after it had been applied"):
        await migrate(settings)


async def test_a_schema_made_by_a_newer_release_is_left_alone(settings: Settings) -> None:
    async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as connection:
        await connection.execute("INSERT INTO ledgerdesk.migrations VALUES ('alpha', 999, 'future', 'x')")
    with pytest.raises(MigrationError, match="newer release"):
        await migrate(settings)


async def test_an_unknown_workspace_is_named(database: Database) -> None:
    with pytest.raises(UnknownWorkspace, match="'nowhere'"):
        await database.workspace("nowhere")


async def test_another_root_key_is_refused_before_anything_is_written(settings: Settings, tmp_path: Path) -> None:
    async with await Database.open(replace(settings, key_file=tmp_path / "other.key")) as database:
        with pytest.raises(RootKeyError, match="not the one that workspace 'alpha' was made with"):
            await database.workspace("alpha")


@pytest.mark.parametrize(
    "address", ["host=127.0.0.1 port=1 dbname=x", "postgresql://nobody@127.0.0.1:1/x?connect_timeout=2"]
)
async def test_an_unreachable_database_is_one_sentence(settings: Settings, address: str) -> None:
    with pytest.raises(DatabaseUnreachable, match="cannot be reached") as caught:
        await Database.open(replace(settings, database_url=address))
    assert "\n" not in str(caught.value)


async def test_a_credential_is_found_by_its_token_alone_until_it_expires_or_is_revoked(database: Database) -> None:
    actor = uuid4()
    token = await credentials.issue(database, "alpha", "agent", actor, label="Ann", team_ids=[actor])
    assert token.startswith("desk_agent_")
    found = await credentials.find(database, token)
    assert found is not None
    assert (found.workspace, found.role, found.actor_id, found.team_ids) == ("alpha", "agent", actor, (actor,))
    for wrong in (token[:-1], token + "x", "", "desk_agent_", "\ud800", "\0"):
        assert await credentials.find(database, wrong) is None
    assert await credentials.revoke(database, found.id) is True
    assert await credentials.revoke(database, found.id) is False
    assert await credentials.find(database, token) is None
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = await credentials.issue(database, "alpha", "agent", actor, label="Ann", expires_at=past)
    assert await credentials.find(database, expired) is None


async def test_a_token_is_not_stored(database: Database) -> None:
    token = await credentials.issue(database, "alpha", "agent", uuid4(), label="Ann")
    async with database.pool.connection() as connection:
        cursor = await connection.execute("SELECT c::text FROM ledgerdesk.credentials c")
        stored = " ".join(row[0] for row in await cursor.fetchall())
    assert token.rpartition("_")[2] not in stored


async def test_attachments_can_be_read_and_deleted_and_stay_in_their_workspace(
    alpha: Workspace, beta: Workspace
) -> None:
    attachment_id, data = uuid4(), bytes(range(256)) * 400
    await attachments.put(alpha, attachment_id, name="图.png", content_type="image/png", data=data, by=uuid4())
    assert await attachments.read(beta, attachment_id) is None
    assert list(await attachments.describe(alpha, [attachment_id, uuid4()])) == [attachment_id]
    found = await attachments.read(alpha, attachment_id)
    assert found is not None
    assert (found[0].name, found[0].size, found[1]) == ("图.png", len(data), data)
    assert await attachments.delete(alpha, attachment_id) is True
    assert await attachments.delete(alpha, attachment_id) is False
    assert await attachments.read(alpha, attachment_id) is None


async def test_an_attachment_over_the_limit_is_refused(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "LARGEST", 3)
    with pytest.raises(attachments.AttachmentTooLarge, match="at most 3 bytes, not 4"):
        await attachments.put(alpha, uuid4(), name="x", content_type="text/plain", data=b"1234", by=uuid4())
