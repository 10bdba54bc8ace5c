"""Whatever anybody changed can be found by what, who and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import AsyncConnection

from domain.event import ERASED
from projections.audit_trail import AuditEntry, AuditFilter, list_changes
from projections.registry import VIEWS
from projections.runner import Runner
from storage.database import reach
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.event import Event
    from storage.database import Workspace
    from storage.settings import Settings


async def all_changes(workspace: Workspace, changes: AuditFilter, *, sort: str = "oldest") -> list[AuditEntry]:
    found: list[AuditEntry] = []
    cursor = None
    while True:
        page = await list_changes(workspace, changes, sort=sort, limit=23, cursor=cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found


async def desk_in(workspace: Workspace) -> list[Event]:
    desk = DeskDays(9)
    events = [*desk.first(), *desk.more(200)]
    await record(workspace, events)
    await Runner(workspace.database, VIEWS).catch_up(workspace)
    return events


async def test_every_change_of_every_event_is_there_with_its_circumstances(alpha: Workspace, beta: Workspace) -> None:
    events = await desk_in(alpha)
    await Runner(beta.database, VIEWS).catch_up(beta)
    found = await all_changes(alpha, AuditFilter())
    expected = [
        (position, event.by.actor_id, event.by.role, event.by.channel, event.timestamp, event.reason,
         change.field if change else None, change.old if change else None, change.new if change else None)
        for position, event in enumerate(events, start=1)
        for change in event.changes() or (None,)
    ]  # fmt: skip
    assert expected == [
        (one.position, one.actor_id, one.role, one.channel, one.occurred_at, one.reason, one.field, one.old, one.new)
        for one in found
    ]
    assert {one.kind for one in found} == {"ticket", "customer", "agent", "team", "service_levels"}
    assert found == (await all_changes(alpha, AuditFilter(), sort="newest"))[::-1]
    assert await all_changes(beta, AuditFilter()) == []


async def test_changes_are_found_by_stream_actor_and_period(alpha: Workspace) -> None:
    events = await desk_in(alpha)
    everything = await all_changes(alpha, AuditFilter())
    one = events[len(events) // 2]
    times = sorted(event.timestamp for event in events)
    begin, end = times[len(times) // 4], times[len(times) // 2]
    recorded = sorted(entry.recorded_at for entry in everything)
    middle = recorded[len(recorded) // 2]
    cases: tuple[tuple[AuditFilter, Callable[[AuditEntry], bool]], ...] = (
        (AuditFilter(stream=one.originator_id), lambda entry: entry.stream == one.originator_id),
        (AuditFilter(actor=one.by.actor_id), lambda entry: entry.actor_id == one.by.actor_id),
        (AuditFilter(occurred_from=begin, occurred_before=end), lambda entry: begin <= entry.occurred_at < end),
        (AuditFilter(recorded_from=middle), lambda entry: entry.recorded_at >= middle),
        (AuditFilter(recorded_before=middle), lambda entry: entry.recorded_at < middle),
        (AuditFilter(kinds=["customer"], fields=["tier"]), lambda e: e.kind == "customer" and e.field == "tier"),
    )
    for changes, fits in cases:
        assert await all_changes(alpha, changes) == [entry for entry in everything if fits(entry)]


async def test_personal_values_lie_sealed_and_read_erased_once_their_key_is_gone(
    alpha: Workspace, settings: Settings
) -> None:
    events = await desk_in(alpha)
    opened = next(event for event in events if event.TOPIC == "ticket.opened")
    subject: str = opened.subject  # type: ignore[attr-defined]
    async with alpha.database.pool.connection() as connection:
        cursor = await connection.execute(f"SELECT t::text FROM {alpha.schema}.audit_trail_v2 t".encode())
        assert not any(subject in row[0] for row in await cursor.fetchall())
    changes = AuditFilter(stream=opened.originator_id, fields=["subject"])
    assert (await all_changes(alpha, changes))[0].new == subject
    async with (
        reach(settings, "owner") as address,
        await AsyncConnection.connect(address, autocommit=True) as owner,
    ):
        await owner.execute(f"DELETE FROM {alpha.schema}.personal_keys".encode())
    alpha.keyring.forget()
    assert (await all_changes(alpha, changes))[0].new == ERASED
