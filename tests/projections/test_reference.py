"""A view that looks things up in another stream knows what was told there, however its pages and rebuilds fall."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from domain import ticket_events as happened
from domain.event import Rejected
from domain.status import Status
from domain.team import Team
from projections import runner
from projections.bookkeeping import FAILED, LIVE, reached, view_status
from projections.past import Past
from projections.reference import told
from projections.registry import BY_NAME, VIEWS
from projections.runner import Runner
from projections.selection import Sort, Where
from projections.table import Column, Table
from projections.view import Reference, View, topics_of
from replay import rebuild_lane
from replay.past_listing import Asked, Instant, list_rows_at
from replay.rebuild import RebuildFailed, rebuild
from replay.rebuild_together import rebuild_together
from replay.verification import verify_view
from storage.append import NewEvent, Submission
from storage.database import Database
from storage.log_reader import LogReader
from tests.projections.desk_days import DeskDays, as_recorded, record, rows_of
from tests.storage.test_epochs import set_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from domain.event import Event
    from projections.table import Rows
    from storage.codec import Recorded
    from storage.database import Workspace
    from storage.settings import Settings

RULES = UUID(int=0x5EED << 64, version=5)


def read(events: Sequence[Any]) -> dict[str, str]:
    """Give what the team was called in each version, which here stands for a policy that tickets name by its version."""
    named: dict[str, str] = {}
    for event in events:
        named[str(event.originator_version)] = event.name
    return named


def fold(rows: Rows, recorded: Iterable[Recorded], rules: dict[str, str]) -> Rows:
    """Tell of each ticket by which rule it goes: its category names the version. One that is not known is an error."""
    changed: Rows = {}
    for event, position, _ in recorded:
        key = (event.originator_id,)
        row = dict(changed.get(key) or rows.get(key) or {"ticket_id": event.originator_id, "version": 0, "rule": ""})
        row["since"], row["version"], row["updated_at"] = position, event.originator_version, event.timestamp
        if isinstance(event, happened.Categorised | happened.Opened):
            category = event.category or ""
            row["rule"] = rules[category] if category.isdecimal() else ""
        changed[key] = row
    return changed


BY_RULES = Reference(RULES, read)
GOES_BY = View(
    name="goes_by",
    version=1,
    table=Table(
        columns=(
            Column("ticket_id", "uuid", null=False),
            Column("since", "bigint", null=False),
            Column("version", "bigint", null=False),
            Column("updated_at", "timestamptz", null=False),
            Column("rule", "text", null=False),
        ),
        key=("ticket_id",),
        keeps_past=True,
    ),
    fold=fold,
    topics=topics_of(happened.TicketEvent),
    reads=frozenset({"category", "timestamp"}),
    stream_local=True,
    reference=BY_RULES,
)

PAST = Past(
    name="gone_by",
    view=GOES_BY,
    asked=("rule", "updated_at"),
    fixed=("ticket_id",),
    changed="updated_at",
    settled_by="rule",
    settled=("settled",),
    settled_indexes=(),
    moving_index="rule",
)
PAIR = (GOES_BY, PAST.history)


class Desk(DeskDays):
    """Days on which rules are adopted, and tickets go by one that has been."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, tickets=25)
        self.rules = Team.create(team_id=RULES, name="Rule 1", act=self.act())

    def days(self, steps: int = 12) -> list[Event]:
        """Give what happens while a few rules are adopted."""
        found: list[Event] = self.first() if not self.tickets else []
        for _ in range(steps):
            found += self.adopted() if self.rules.pending_events or self.chance.random() < 0.3 else []
            found += self.more(8)
            found += [event for _ in range(3) for event in self.named()]
        return found

    def adopted(self, name: str | None = None) -> list[Event]:
        """Adopt a rule, but for the first time, when there is one."""
        if not self.rules.pending_events:
            self.rules.rename(name=name or f"Rule {self.rules.version + 1}", act=self.act())
        return self.rules.collect_events()  # type: ignore[return-value]

    def named(self) -> list[Event]:
        """Let a ticket go by a rule; of some the newest, of others an older one."""
        ticket = self.chance.choice(self.tickets)
        version = self.chance.choice((self.rules.version, self.chance.randint(1, self.rules.version)))
        with suppress(Rejected):
            ticket.categorise(category=str(version), act=self.act())
        return ticket.collect_events()  # type: ignore[return-value]


def expected(recorded: Sequence[Recorded]) -> dict[UUID, str]:
    """Give by which rule each ticket goes, told without folds."""
    goes_by: dict[UUID, str] = {}
    names = {str(one.event.originator_version): one.event.name for one in recorded if one.event.originator_id == RULES}
    for event, _, _ in recorded:
        if isinstance(event, happened.Categorised | happened.Opened):
            goes_by[event.originator_id] = names.get(event.category or "", "")
    return goes_by


async def shown(workspace: Workspace) -> dict[UUID, str]:
    return {row[0]: row[4] for row in await rows_of(workspace, GOES_BY.label)}


async def catch_up(workspace: Workspace, views: Sequence[View] = PAIR) -> None:
    follower = Runner(workspace.database, views)
    await follower.catch_up(workspace)
    await follower.release()


@pytest.mark.parametrize("together", [0, 100])
@pytest.mark.parametrize("size", [1, 3, 20, 500])
async def test_pages_may_end_anywhere_between_what_is_told_and_what_names_it(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, size: int, together: int
) -> None:
    monkeypatch.setattr(runner, "FIRST_PAGE", size)
    monkeypatch.setattr(runner, "LARGEST_PAGE", size)
    monkeypatch.setattr(runner, "TOGETHER", together)
    events = Desk(size).days(24)
    await record(alpha, events)
    await catch_up(alpha, (*VIEWS, *PAIR))
    goes_by = expected(as_recorded(events))
    assert len(set(goes_by.values())) > 2
    assert await shown(alpha) == goes_by
    for view in PAIR:
        assert (await verify_view(alpha, view, workers=1)).same


async def test_what_is_told_between_two_pages_is_known_in_the_next(alpha: Workspace) -> None:
    desk = Desk(1)
    events = desk.days(2)
    await record(alpha, events)
    follower = Runner(alpha.database, PAIR)
    await follower.catch_up(alpha)
    for _ in range(8):
        some = [*desk.adopted(), *desk.named(), *desk.named(), *desk.more(3)]
        await record(alpha, some)
        events += some
        await follower.catch_up(alpha)
        assert await shown(alpha) == expected(as_recorded(events))


async def test_it_is_not_read_again_while_it_stays_as_it_is(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(2)
    await record(alpha, desk.days(3))
    follower = Runner(alpha.database, PAIR)
    await follower.catch_up(alpha)
    read: list[UUID] = []
    stream_by_now = LogReader.stream_by_now

    async def counted(self: LogReader, connection: Any, stream: UUID, *, after: int) -> Any:
        read.append(stream)
        return await stream_by_now(self, connection, stream, after=after)

    monkeypatch.setattr(LogReader, "stream_by_now", counted)
    for _ in range(5):
        await record(alpha, [*desk.more(5), *desk.named()])
        await follower.catch_up(alpha)
    assert read == []
    await record(alpha, [*desk.adopted(), *desk.named()])
    await follower.catch_up(alpha)
    assert read == [RULES]


async def test_what_another_process_took_in_is_known_to_the_one_that_goes_on(
    settings: Settings, alpha: Workspace
) -> None:
    desk = Desk(3)
    events = desk.days(2)
    await record(alpha, events)
    await catch_up(alpha)
    async with await Database.open(settings) as other:
        some = desk.adopted()
        events += some
        await record(alpha, some)
        await catch_up(await other.workspace("alpha"))
    for _ in range(6):
        some = desk.named()
        events += some
        await record(alpha, some)
        await catch_up(alpha)
    assert desk.rules.name in (await shown(alpha)).values()
    assert await shown(alpha) == expected(as_recorded(events))


async def test_after_a_restore_it_is_what_the_log_now_tells(settings: Settings, alpha: Workspace) -> None:
    desk = Desk(4)
    events = desk.days(2)
    kept = await record(alpha, events)
    await catch_up(alpha)
    lost = Desk(4)
    lost.days(2)
    await record(alpha, lost.adopted("Lost"))
    assert (await told(alpha, BY_RULES, kept + 1)).value[str(lost.rules.version)] == "Lost"
    set_back(settings, kept)
    await alpha.database.pool.drain()  # the connections that ended with the server
    some = [*desk.adopted("In its place"), *(event for _ in range(6) for event in desk.named())]
    events += some
    await record(alpha, some)
    await catch_up(alpha)
    assert "In its place" in (await shown(alpha)).values()
    assert await shown(alpha) == expected(as_recorded(events))


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_lanes_of_a_rebuild_know_what_the_live_view_knew(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(rebuild_lane, "PAGE_EVENTS", 11)
    desk = Desk(5)
    events = desk.days(20)
    await record(alpha, events)
    await catch_up(alpha)
    live = [await rows_of(alpha, view.label) for view in PAIR]
    for view in PAIR:
        report = await rebuild(alpha, view, workers=workers)
        assert report.swapped
        assert report.comparison is not None
        assert report.comparison.same
    assert [await rows_of(alpha, view.label) for view in PAIR] == live
    assert await shown(alpha) == expected(as_recorded(events))
    for told_of in await rebuild_together(alpha, (*PAIR, BY_NAME["ticket_queue"]), workers=workers):
        assert told_of.comparison is None or told_of.comparison.same
    assert [await rows_of(alpha, view.label) for view in PAIR] == live


async def test_a_rebuild_knows_what_is_told_while_it_goes_on(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(6)
    events = desk.days(4)
    await record(alpha, events)
    await catch_up(alpha)
    shadow = GOES_BY.shelf(alpha.schema, "_build")
    make_indexes = shadow.create_indexes

    async def and_meanwhile(connection: Any) -> None:
        await make_indexes(connection)
        some = [*desk.adopted(), *(event for _ in range(6) for event in desk.named())]
        events.extend(some)
        await record(alpha, some)

    monkeypatch.setattr(shadow, "create_indexes", and_meanwhile)
    assert (await rebuild(alpha, GOES_BY, workers=1)).swapped
    await catch_up(alpha)
    assert desk.rules.name in (await shown(alpha)).values()
    assert await shown(alpha) == expected(as_recorded(events))


async def test_every_moment_of_the_past_is_told_by_what_its_events_name(alpha: Workspace) -> None:
    desk = Desk(7)
    events = desk.days(8)
    await record(alpha, events)
    await catch_up(alpha)
    recorded = as_recorded(events)
    for position in range(40, len(events) + 1, 23):
        row = await alpha.log.row(position)
        assert row is not None
        found = await list_rows_at(
            alpha,
            PAST,
            Asked(Where()),
            Instant(position, row.recorded_at),
            Sort(("updated_at",)),
            limit=500,
        )
        assert {one["ticket_id"]: one["rule"] for one in found} == expected(recorded[:position])


@pytest.mark.spoils_views
async def test_only_what_names_something_that_cannot_be_read_stops_a_view_which_says_why(alpha: Workspace) -> None:
    desk = Desk(8)
    await record(alpha, desk.days(3))
    newer = NewEvent(RULES, desk.rules.version + 1, "team.renamed", b'{"name":{"en":"Rule 9"},"class_version":7}', None)
    beyond = (await alpha.log.append(Submission([newer]))).position
    head = await record(alpha, [*desk.more(20), *desk.named()])
    await catch_up(alpha)
    assert await reached(alpha, GOES_BY) == (head, LIVE)
    ticket = next(one for one in desk.tickets if one.status is not Status.CLOSED)
    ticket.categorise(category=str(desk.rules.version + 1), act=desk.act())
    head = await record(alpha, ticket.collect_events()[:1])  # type: ignore[arg-type]
    await record(alpha, desk.more(20))
    await catch_up(alpha)
    for status in await view_status(alpha, PAIR):
        assert (status.position, status.state) == (head - 1, FAILED)
        assert status.failure is not None
        assert f"event {beyond} (team.renamed" in status.failure.error
    with pytest.raises(RebuildFailed, match=f"event {beyond} .team.renamed"):
        await rebuild(alpha, GOES_BY, workers=2)
