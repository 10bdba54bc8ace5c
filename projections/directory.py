"""Directory: the agents, teams and customers of the desk as they stand now, for lists and for names beside ids."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - part of the public row
from weakref import WeakKeyDictionary

import psycopg
from pydantic_core import to_json

from domain import agent as agents
from domain import customer_events as customers
from domain import team as teams
from projections.listing import Listing, list_rows
from projections.selection import Sort, Where
from projections.table import Column, Row, Rows, Table
from projections.view import Draft, View, topics_of
from storage.keyring import ERASED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from domain.event import Event
    from storage.codec import Recorded
    from storage.database import Workspace

TABLE: Final = Table(
    columns=(
        Column("id", "uuid", null=False),
        Column("since", "bigint", null=False),
        Column("entered", "bigint", null=False),
        Column("version", "bigint", null=False),
        Column("kind", "text", null=False),
        Column("active", "boolean", null=False),
        Column("name", "text"),
        Column("name_sealed", "text"),
        Column("email_sealed", "text"),
        Column("phone_sealed", "text"),
        Column("language", "text"),
        Column("tier", "text"),
        Column("organisation", "text"),
        Column("team_ids", "uuid[]", null=False),
        Column("foreign_id", "text"),
        Column("foreign_id_sealed", "text"),
    ),
    key=("id",),
    indexes=("(kind, entered)", "(organisation, entered)", "(since)"),
    keeps_past=True,
)

OLDEST_FIRST: Final = Sort(("entered",))


def fold(rows: Rows, recorded: Iterable[Recorded]) -> Rows:
    """Follow each person's and team's present values."""
    draft = Draft(rows)
    for event, position, _ in recorded:
        stream = event.originator_id
        entered = _entered(event, position)
        if entered is not None:
            draft.put(entered, stream)
            continue
        row = draft.get(stream)
        if row is None:
            message = f"{event.TOPIC} at position {position} is of somebody who never entered the directory: {stream}"
            raise ValueError(message)
        row["since"] = position
        row["version"] = event.originator_version
        _apply(row, event)
    return draft.changed


def _entered(event: Event, position: int) -> Row | None:
    row: Row = {
        "id": event.originator_id,
        "since": position,
        "entered": position,
        "version": event.originator_version,
        "active": True,
        "name": None,
        "name_sealed": None,
        "email_sealed": None,
        "phone_sealed": None,
        "language": None,
        "tier": None,
        "organisation": None,
        "team_ids": [],
        "foreign_id": None,
        "foreign_id_sealed": None,
    }
    match event:
        case customers.Registered():
            return row | {
                "kind": "customer",
                "name_sealed": event.name,
                "email_sealed": event.email,
                "phone_sealed": event.phone,
                "language": event.language,
                "tier": event.tier,
                "organisation": event.organisation,
                "foreign_id_sealed": event.foreign_id,
            }
        case agents.AgentCreated():
            return row | {
                "kind": "agent",
                "name_sealed": event.name,
                "email_sealed": event.email,
                "team_ids": list(event.team_ids),
                "foreign_id_sealed": event.foreign_id,
            }
        case teams.TeamCreated():
            return row | {"kind": "team", "name": event.name, "foreign_id": event.foreign_id}
        case _:
            return None


def _apply(row: Row, event: Event) -> None:
    match event:
        case customers.ContactChanged():
            row["name_sealed"] = event.name
            row["email_sealed"] = event.email
            row["phone_sealed"] = event.phone
            row["language"] = event.language
        case customers.TierChanged():
            row["tier"] = event.tier
        case customers.JoinedOrganisation():
            row["organisation"] = event.organisation
        case agents.AgentRenamed():
            row["name_sealed"] = event.name
        case teams.TeamRenamed():
            row["name"] = event.name
        case agents.AgentDeactivated() | teams.TeamDeactivated():
            row["active"] = False
        case agents.AgentReactivated() | teams.TeamReactivated():
            row["active"] = True
        case agents.AgentJoinedTeam() | agents.AgentLeftTeam():
            row["team_ids"] = list(event.team_ids)


VIEW: Final = View(
    name="directory",
    version=2,
    table=TABLE,
    fold=fold,
    topics=topics_of(customers.CustomerEvent) | topics_of(agents.AgentEvent) | topics_of(teams.TeamEvent),
    stream_local=True,
)


class DirectoryEntry(NamedTuple):
    """A customer, an agent or a team; what a kind does not have is None or empty."""

    id: UUID
    entered: int
    version: int
    kind: str
    active: bool
    name: str | None
    email: str | None
    phone: str | None
    language: str | None
    tier: str | None
    organisation: str | None
    team_ids: list[UUID]
    foreign_id: str | None


@dataclass(frozen=True, kw_only=True)
class DirectoryFilter:
    """Who; what is left None does not matter."""

    kind: str
    ids: Sequence[UUID] | None = None
    active: bool | None = None
    team: UUID | None = None
    tier: str | None = None
    organisation: str | None = None

    def where(self) -> Where:
        """Say it in SQL."""
        where = Where()
        where.add("kind = %(kind)s", kind=self.kind)
        if self.ids is not None:
            where.add("id = ANY(%(ids)s)", ids=list(self.ids))
        if self.active is not None:
            where.add("active = %(active)s", active=self.active)
        if self.team is not None:
            where.add("%(team)s = ANY(team_ids)", team=self.team)
        if self.tier is not None:
            where.add("tier = %(tier)s", tier=self.tier)
        if self.organisation is not None:
            where.add("organisation = %(organisation)s", organisation=self.organisation)
        return where


async def list_entries(
    workspace: Workspace, who: DirectoryFilter, *, limit: int = 50, cursor: str | None = None
) -> Listing[DirectoryEntry]:
    """List customers, agents or teams in the order they came, with personal values opened, or ERASED.

    Raises CursorInvalid, CursorExpired, ViewsNotReady.
    """
    found = await list_rows(workspace, VIEW, who.where(), OLDEST_FIRST, name="entered", limit=limit, cursor=cursor)
    return Listing(await _opened_up(workspace, found.items), found.position, found.recorded_at, found.cursor)


async def names(workspace: Workspace, ids: Collection[UUID]) -> dict[UUID, str]:
    """Give the names of those that the directory has; nothing where the view is not there yet.

    They are remembered, sealed as they are stored, and looked up again once the directory has changed. Whether it has
    is asked every NAMES_SECONDS at most, so that a name may be older by as much.
    """
    if not ids:
        return {}
    known = _known.setdefault(workspace, _KnownNames())
    try:
        entries = await known.entries(workspace, ids)
    except psycopg.errors.UndefinedTable:
        return {}
    opened: list[Any] = await workspace.keyring.reveal([(one, entries[one.int].sealed) for one in ids])
    found = {}
    for one, value in zip(ids, opened, strict=True):
        name = entries[one.int].name if value is None else value
        if name is not None:
            found[one] = name
    return found


async def higher_tiers(workspace: Workspace) -> dict[str, str] | None:
    """Give the tier of every customer who has another than the standard one; None where the view is not there yet."""
    try:
        return dict(await _ask(workspace, _TIERS, {"standard": customers.Tier.STANDARD.value}))
    except psycopg.errors.UndefinedTable:
        return None


async def names_written(workspace: Workspace, people: Mapping[int, UUID]) -> bytes:
    """Give what `names` gives as a JSON object; `people` are ids by their numbers."""
    known = _known.setdefault(workspace, _KnownNames())
    try:
        written = await known.members(workspace)
    except psycopg.errors.UndefinedTable:
        return b"{}"
    members = {number: written.get(number) for number in people}
    missing = [people[number] for number, member in members.items() if member is None]
    if missing:
        newest = known.newest
        found = await names(workspace, missing)
        fresh = {one.int: b"%b:%b" % (to_json(one), to_json(found[one])) if one in found else b"" for one in missing}
        if known.newest == newest:
            written.update({one.int: fresh[one.int] for one in missing if found.get(one) != ERASED})
        members |= fresh
    return b"{%b}" % b",".join([member for member in members.values() if member])


class _Name(NamedTuple):
    name: str | None
    sealed: str | None


_NOBODY: Final = _Name(None, None)


class _KnownNames:
    """The names of one workspace as this process remembers them; by the number of an id, which is hashed at once."""

    def __init__(self) -> None:
        self.newest: tuple[int, int] | None = None
        """What the last change of the directory is known by: the view's table, and the position."""
        self._entries: dict[int, _Name] = {}
        self._written: dict[int, bytes] = {}
        self._with = -1
        self._looked_at = float("-inf")

    async def members(self, workspace: Workspace) -> dict[int, bytes]:
        """Give the names that are opened and written already, as members of an object; empty for who has none."""
        await self._look_when_due(workspace)
        if len(self._written) > NAMES_HELD:
            self._written = {}
        return self._written

    async def entries(self, workspace: Workspace, ids: Collection[UUID]) -> dict[int, _Name]:
        """Give what is known of these; nobody for whom the directory does not have."""
        await self._look_when_due(workspace)
        remembered, newest = self._entries, self.newest
        known = {one.int: name for one in ids if (name := remembered.get(one.int)) is not None}
        missing = [one for one in ids if one.int not in known]
        if not missing:
            return known
        found = {one.int: _NOBODY for one in missing}
        found |= {one.int: _Name(*name) for one, *name in await _ask(workspace, _NAMES, {"ids": missing})}
        # Where the directory has changed meanwhile, what was read may be from before.
        if self.newest == newest and self._entries is remembered:
            remembered.update(found)
            if len(remembered) > NAMES_HELD:
                self._entries = {}
        return known | found

    async def _look_when_due(self, workspace: Workspace) -> None:
        if self._with != workspace.keyring.generation:
            # Keys were forgotten: for good, or because the log goes on elsewhere and the directory with it.
            self._with, self.newest, self._entries, self._written = workspace.keyring.generation, None, {}, {}
            self._looked_at = float("-inf")
        if time.monotonic() - self._looked_at >= NAMES_SECONDS:
            await self._look(workspace)

    async def _look(self, workspace: Workspace) -> None:
        """Forget the names that have changed: all of them where the view was built anew."""
        self._looked_at = time.monotonic()
        rows = await _ask(workspace, _NEWEST, {})
        newest = rows[0] if rows else None
        if newest != self.newest:
            if newest is not None and self.newest is not None and newest[0] == self.newest[0]:
                remembered = self._entries
                for (one,) in await _ask(workspace, _CHANGED, {"since": self.newest[1]}):
                    remembered.pop(one.int, None)
                    self._written.pop(one.int, None)
            else:
                self._entries, self._written = {}, {}
            self.newest = newest


NAMES_SECONDS: Final = 0.1
NAMES_HELD: Final = 50_000  # about 20 MB
_known: WeakKeyDictionary[Workspace, _KnownNames] = WeakKeyDictionary()


async def _ask(workspace: Workspace, statement: str, parameters: dict[str, Any]) -> list[Any]:
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(_placed(workspace.schema, statement), parameters, prepare=True, binary=True)
        return await cursor.fetchall()


@cache
def _placed(schema: str, statement: str) -> bytes:
    return statement.format(place=VIEW.shelf(schema).place.as_string()).encode()


# Another table is another build of the view, and in one the last change is known by its position.
_NEWEST: Final = "SELECT tableoid::bigint, since FROM {place} ORDER BY since DESC LIMIT 1"
_CHANGED: Final = "SELECT id FROM {place} WHERE since > %(since)s"
_NAMES: Final = """
SELECT d.id, d.name, d.name_sealed FROM unnest(%(ids)s::uuid[]) u (id)
CROSS JOIN LATERAL (SELECT * FROM {place} WHERE id = u.id OFFSET 0) d
"""
_TIERS: Final = "SELECT id::text, tier FROM {place} WHERE kind = 'customer' AND tier <> %(standard)s"


_SEALED: Final = ("name", "email", "phone", "foreign_id")


async def _opened_up(workspace: Workspace, rows: Sequence[Row]) -> list[DirectoryEntry]:
    tokens = [(row["id"], row[f"{name}_sealed"]) for row in rows for name in _SEALED]
    opened: list[Any] = await workspace.keyring.reveal(tokens)
    values = iter(opened)
    entries = []
    for row in rows:
        known: dict[str, Any] = {name: row.get(name) for name in DirectoryEntry._fields}
        for name in _SEALED:
            value = next(values)
            if value is not None:
                known[name] = value
        entries.append(DirectoryEntry(**known))
    return entries
