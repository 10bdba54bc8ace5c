"""Drops the tables that nobody looks at any more: what was kept for going back, and what older versions had."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.sql import SQL, Identifier

from projections import bookkeeping
from replay import builds
from replay.building import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import AsyncConnection

    from projections.view import View
    from storage.database import Workspace

TABLE: Final = re.compile(r"_v(?P<version>[0-9]+)(?:_(?P<suffix>past|kept|build|check|dropped))?")


class Leftover(NamedTuple):
    """A table that can be dropped, its size in bytes, and what it is; `spared` says why it is not dropped yet."""

    table: str
    size: int
    what: str
    spared: str | None = None


async def prune(workspace: Workspace, views: Iterable[View], *, dry_run: bool = False) -> list[Leftover]:
    """Drop what views have beside their live tables and an unfinished rebuild, each view's in one transaction.

    What is in use is spared: by a rebuild or a rollback under way, or by processes of an older release. Gives what was
    found; with `dry_run` nothing is dropped.
    """
    await bookkeeping.prepare(workspace, [])
    found = []
    for view in views:
        async with workspace.database.pool.connection() as connection, connection.transaction():
            await connection.execute(SETTINGS)
            of_view = await _leftovers(connection, workspace, view)
            found += of_view
            if dry_run:
                continue
            names = {"schema": Identifier(workspace.schema)}
            for one in of_view:
                if one.spared is None:
                    await connection.execute(SQL("DROP TABLE {}").format(Identifier(workspace.schema, one.table)))
            gone = [one.table for one in of_view if one.spared is None]
            versions = [version for version in _versions(view, gone) if version != view.version]
            parameters = {"name": view.name, "version": view.version, "older": versions}
            if f"{view.label}_kept" in gone:
                await connection.execute(SQL(_NOTHING_KEPT).format(**names), parameters)
            if versions:
                await connection.execute(SQL(_FORGET).format(**names), parameters)
    return found


async def _leftovers(connection: AsyncConnection[Any], workspace: Workspace, view: View) -> list[Leftover]:
    cursor = await connection.execute(_TABLES, (workspace.schema, f"{view.name}_v%"))
    tables = [(name, size, match) for name, size in await cursor.fetchall() if (match := _match(view, name))]
    cursor = await connection.execute(
        SQL(_OWNERS).format(schema=Identifier(workspace.schema)), {"name": view.name, "version": view.version}
    )
    owners: dict[int, str | None] = dict(await cursor.fetchall())
    busy = await builds.under_way(connection, workspace, view)
    found = []
    for name, size, match in sorted(tables):
        version, suffix = int(match["version"]), match["suffix"]
        if version == view.version and suffix in {"kept", "check", "dropped"}:
            what = f"what {view.name} was before" if suffix == "kept" else "left by a run that was cut off"
            found.append(Leftover(name, size, what, f"{busy[1]} works on it" if busy and busy[0] == suffix else None))
        elif version < view.version:
            spared = None
            if view.version not in owners:
                spared = f"version {view.version} is not there yet; `desk rebuild {view.name}` makes it"
            elif owners.get(version) is not None:
                spared = f"{owners[version]}, of an older release, keeps it up"
            found.append(Leftover(name, size, f"version {version}", spared))
    return found


def _match(view: View, table: str) -> re.Match[str] | None:
    return TABLE.fullmatch(table.removeprefix(view.name)) if table.startswith(view.name) else None


def _versions(view: View, tables: Iterable[str]) -> set[int]:
    return {int(match["version"]) for table in tables if (match := _match(view, table)) is not None}


_TABLES = """
SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class c
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND c.relkind = 'r' AND c.relname LIKE %s
"""

# Locked, so that no process takes a version up while its table is dropped.
_OWNERS = """
SELECT v.version, CASE WHEN v.leased_until >= now() OR EXISTS (
    SELECT FROM ledgerdesk.runners r WHERE r.name = v.owner AND r.leased_until > now()) THEN v.owner END
FROM {schema}.views v WHERE v.name = %(name)s AND v.version <= %(version)s ORDER BY v.version FOR UPDATE
"""

_NOTHING_KEPT = """
UPDATE {schema}.view_builds SET positions = NULL, recipe = NULL
WHERE name = %(name)s AND version = %(version)s AND place = 'kept'
"""

_FORGET = """
WITH builds AS (DELETE FROM {schema}.view_builds WHERE name = %(name)s AND version = ANY (%(older)s))
DELETE FROM {schema}.views WHERE name = %(name)s AND version = ANY (%(older)s)
"""
