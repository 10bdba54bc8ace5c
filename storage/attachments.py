"""Bytes of attachments, apart from the log: they can be deleted, the event that names their hash stays."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - in a NamedTuple

from psycopg.sql import SQL, Identifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.database import Workspace

LARGEST: Final = 25 * 1024 * 1024  # bytes


class AttachmentTooLarge(Exception):
    """The bytes are more than an attachment may have; nothing was stored."""


class StoredAttachment(NamedTuple):
    """What is known of an attachment without reading its bytes."""

    id: UUID
    name: str
    content_type: str
    size: int
    sha256: bytes


async def put(
    workspace: Workspace, attachment_id: UUID, *, name: str, content_type: str, data: bytes, by: UUID
) -> StoredAttachment:
    """Store bytes that a later command will name. Raises AttachmentTooLarge."""
    if len(data) > LARGEST:
        message = f"an attachment has at most {LARGEST} bytes, not {len(data)}"
        raise AttachmentTooLarge(message)
    digest = sha256(data).digest()
    async with workspace.database.pool.connection() as connection:
        await connection.execute(
            SQL(
                """
                INSERT INTO {schema}.attachments (id, name, content_type, size, sha256, data, uploaded_by)
                VALUES (%s, %s, %s, %s, %s, %b, %s)
                """
            ).format(schema=Identifier(workspace.schema)),
            (attachment_id, name, content_type, len(data), digest, data, by),
        )
    return StoredAttachment(attachment_id, name, content_type, len(data), digest)


async def describe(workspace: Workspace, ids: Sequence[UUID]) -> dict[UUID, StoredAttachment]:
    """Give what is known of the attachments that exist among `ids`."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            SQL("SELECT id, name, content_type, size, sha256 FROM {schema}.attachments WHERE id = ANY(%s)").format(
                schema=Identifier(workspace.schema)
            ),
            (list(ids),),
        )
        return {row[0]: StoredAttachment._make(row) for row in await cursor.fetchall()}


async def read(workspace: Workspace, attachment_id: UUID) -> tuple[StoredAttachment, bytes] | None:
    """Give an attachment with its bytes, or None when it is not there or was deleted.

    Whether the reader may have it is for the caller to know: the events of a ticket name its attachments.
    """
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            SQL("SELECT id, name, content_type, size, sha256, data FROM {schema}.attachments WHERE id = %s").format(
                schema=Identifier(workspace.schema)
            ),
            (attachment_id,),
            binary=True,
        )
        row = await cursor.fetchone()
    return None if row is None else (StoredAttachment._make(row[:5]), row[5])


async def delete(workspace: Workspace, attachment_id: UUID) -> bool:
    """Delete an attachment's bytes; False when they were not there."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            SQL("DELETE FROM {schema}.attachments WHERE id = %s").format(schema=Identifier(workspace.schema)),
            (attachment_id,),
        )
        return cursor.rowcount == 1
