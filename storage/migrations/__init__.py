"""Versioned changes of the schema: those shared by all workspaces, and those that each workspace goes through."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from storage.database import (
    CONNECT_TIMEOUT,
    ROLE_NAMES,
    Database,
    DatabaseUnreachable,
    check_reachable,
    reach,
)
from storage.keyring import key_check, root_key
from storage.settings import WORKSPACE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.settings import Settings

LOCK: Final = 5_281_907_117_283_640_125  # any constant: one migration at a time in a database
SHARED: Final = "shared"


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message is one sentence for a person."""


class Migration(NamedTuple):
    """One numbered step; `@schema@`, `@application@` and `@reader@` stand for names."""

    number: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, so that an edit of an applied step is noticed."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


def migrations(kind: str) -> list[Migration]:
    """Give the steps of one kind (`shared` or `workspace`) in order."""
    found = []
    for file in files(__name__).joinpath(kind).iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), name.replace("_", " "), file.read_text("utf-8")))
    return sorted(found)


async def migrate(settings: Settings, *, note: Callable[[str], None] = lambda _: None) -> None:
    """Bring the shared schema and every workspace up to date; each step is one transaction.

    Safe to run from many processes at once and to kill. Raises DatabaseUnreachable, MigrationError.
    """
    async with reach(settings, "owner") as conninfo:
        await check_reachable(conninfo)
        async with await _connect(conninfo) as connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            try:
                await _prepare(connection)
                await _apply(connection, SHARED, migrations("shared"), "ledgerdesk", note)
                cursor = await connection.execute("SELECT name FROM ledgerdesk.workspaces ORDER BY name")
                for (name,) in await cursor.fetchall():
                    await _apply(connection, name, migrations("workspace"), f"ws_{name}", note)
            except psycopg.Error as error:
                message = f"The database schema cannot be brought up to date: {error.diag.message_primary or error}"
                raise MigrationError(message) from error
            finally:
                if not connection.closed:
                    await connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


async def create_workspace(settings: Settings, name: str) -> bool:
    """Create a workspace with its own schema and log; False when it exists already.

    Raises ValueError for a name that is not lower-case letters, digits and underscores, at most 40, letter first.
    """
    if not WORKSPACE_NAME.fullmatch(name):
        message = (
            f"A workspace name has 1 to 40 lower-case letters, digits or underscores, a letter first; not {name!r}."
        )
        raise ValueError(message)
    async with reach(settings, "owner") as conninfo, await _connect(conninfo) as connection:
        await connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        try:
            async with connection.transaction():
                cursor = await connection.execute("SELECT FROM ledgerdesk.workspaces WHERE name = %s", (name,))
                if await cursor.fetchone() is not None:
                    return False
                root = root_key(settings.key_file, create=True)
                await connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(f"ws_{name}")))
                await connection.execute(
                    "INSERT INTO ledgerdesk.workspaces (name, key_check) VALUES (%s, %s)", (name, key_check(root, name))
                )
                await _apply(connection, name, migrations("workspace"), f"ws_{name}", lambda _: None)
        finally:
            if not connection.closed:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
    return True


async def pending(database: Database) -> list[str]:
    """Name the steps not yet applied, for readiness checks; an empty list when the schema is up to date."""
    async with database.pool.connection() as connection:
        cursor = await connection.execute("SELECT scope, number FROM ledgerdesk.migrations")
        applied = set(await cursor.fetchall())
    scopes = [(SHARED, "shared"), *((workspace.name, "workspace") for workspace in await database.workspaces())]
    return [
        f"{scope}: {step.name}"
        for scope, kind in scopes
        for step in migrations(kind)
        if (scope, step.number) not in applied
    ]


async def _connect(conninfo: str) -> AsyncConnection[Any]:
    try:
        return await AsyncConnection.connect(
            conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name="desk migrate"
        )
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        message = f"The database cannot be reached: {reason}"
        raise DatabaseUnreachable(message) from None


async def _prepare(connection: AsyncConnection[Any]) -> None:
    """Make the roles, where we may, and the table of applied steps."""
    cursor = await connection.execute(
        "SELECT n.name FROM unnest(%s::text[]) n (name) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = n.name)",
        ([ROLE_NAMES["application"], ROLE_NAMES["reader"]],),
    )
    for (role,) in await cursor.fetchall():
        try:
            # NOLOGIN: the desk connects as the user of DATABASE_URL and takes the role on.
            await connection.execute(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role)))
            await connection.execute(SQL("GRANT {} TO CURRENT_USER").format(Identifier(role)))
        except psycopg.errors.DuplicateObject:
            continue
        except psycopg.errors.UniqueViolation:
            continue  # another database of this server is being migrated at the same moment
        except psycopg.errors.InsufficientPrivilege:
            message = (
                f"The role {role} does not exist and this user may not create it; "
                f"have an administrator run: CREATE ROLE {role} NOLOGIN; GRANT {role} TO the desk's user."
            )
            raise MigrationError(message) from None
    await connection.execute("CREATE SCHEMA IF NOT EXISTS ledgerdesk")
    await connection.execute(
        """
        CREATE TABLE IF NOT EXISTS ledgerdesk.migrations (
            scope      text COLLATE "C" NOT NULL,
            number     integer NOT NULL,
            name       text NOT NULL,
            checksum   text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (scope, number)
        )
        """
    )


async def _apply(
    connection: AsyncConnection[Any], scope: str, steps: list[Migration], schema: str, note: Callable[[str], None]
) -> None:
    cursor = await connection.execute("SELECT number, checksum FROM ledgerdesk.migrations WHERE scope = %s", (scope,))
    applied: dict[int, str] = dict(await cursor.fetchall())
    newest = steps[-1].number if steps else 0
    if max(applied, default=0) > newest:
        message = (
            f"The schema of {scope!r} is at step {max(applied)}, which a newer release made; this one knows {newest}."
        )
        raise MigrationError(message)
    for step in steps:
        if step.number in applied:
            if applied[step.number] != step.checksum:
                message = f"Step {step.number} ({step.name}) of {scope!r} was changed after it had been applied."
                raise MigrationError(message)
            continue
        note(f"{scope}: {step.name}")
        text = step.statements
        for placeholder, value in (
            ("@schema@", schema),
            ("@application@", ROLE_NAMES["application"]),
            ("@reader@", ROLE_NAMES["reader"]),
        ):
            text = text.replace(placeholder, value)
        async with connection.transaction():
            await connection.execute(text.encode())
            await connection.execute(
                "INSERT INTO ledgerdesk.migrations (scope, number, name, checksum) VALUES (%s, %s, %s, %s)",
                (scope, step.number, step.name, step.checksum),
            )
