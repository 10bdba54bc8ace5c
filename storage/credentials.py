"""Bearer credentials: random tokens that lead into one workspace in one role, stored as hashes."""

from __future__ import annotations

import secrets
from datetime import datetime  # noqa: TC003 - in a NamedTuple
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from storage.database import Database

TOKEN_BYTES: Final = 32
PREFIX: Final = "desk"


class Credential(NamedTuple):
    """Who a token stands for, in which workspace, and what it may beyond its role."""

    id: UUID
    workspace: str
    role: str
    actor_id: UUID
    team_ids: tuple[UUID, ...]
    label: str
    expires_at: datetime | None
    scopes: frozenset[str] = frozenset()


async def issue(
    database: Database,
    workspace: str,
    role: str,
    actor_id: UUID,
    *,
    label: str,
    team_ids: Sequence[UUID] = (),
    expires_at: datetime | None = None,
    scopes: Collection[str] = (),
) -> str:
    """Make a credential and give its token, which is shown this once and not stored."""
    token = f"{PREFIX}_{role}_{secrets.token_urlsafe(TOKEN_BYTES)}"
    async with database.pool.connection() as connection:
        await connection.execute(
            """
            INSERT INTO ledgerdesk.credentials
                (id, workspace, token_hash, role, actor_id, team_ids, label, expires_at, scopes)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            (uuid4(), workspace, _hash(token), role, actor_id, list(team_ids), label, expires_at, sorted(scopes)),
        )
    return token


async def find(database: Database, token: str) -> Credential | None:
    """Give the credential of a token, or None when it is unknown, expired or revoked.

    The look-up is by the token's SHA-256, so that its time tells nothing about stored tokens.
    """
    async with database.pool.connection() as connection:
        cursor = await connection.execute(
            """
            SELECT id, workspace, role, actor_id, team_ids, label, expires_at, scopes FROM ledgerdesk.credentials
            WHERE token_hash = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            """,
            (_hash(token),),
            prepare=True,
        )
        row = await cursor.fetchone()
    if row is None:
        return None
    return Credential(row[0], row[1], row[2], row[3], tuple(row[4]), row[5], row[6], frozenset(row[7]))


async def revoke(database: Database, credential_id: UUID) -> bool:
    """End a credential; False when it was not in force."""
    async with database.pool.connection() as connection:
        cursor = await connection.execute(
            "UPDATE ledgerdesk.credentials SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL",
            (credential_id,),
        )
        return cursor.rowcount == 1


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
