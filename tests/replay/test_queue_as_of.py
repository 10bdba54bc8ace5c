"""The queue as of any moment is the fold of the events up to it: every filter, order and grouping, page by page."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from psycopg.sql import SQL, Identifier

from domain.event import ERASED
from projections import queue_history, ticket_queue
from projections.bookkeeping import prepare
from projections.listing import CursorExpired, CursorInvalid
from projections.past import LONGEST, OPEN
from projections.runner import Runner
from projections.ticket_queue import EVERY_TICKET, SORTS, QueueEntry, QueueFilter, list_tickets
from projections.together import Memory
from projections.waiting import NotReached
from replay.as_of import NoSuchMoment
from replay.queue_as_of import MomentAsked, count_tickets_at, list_tickets_at, resolve
from replay.rebuild import rebuild
from storage.codec import Recorded
from storage.database import Database, Workspace
from tests.projections.desk_days import DeskDays, as_recorded, record, rows_of
from tests.projections.test_folds import folded, told

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from uuid import UUID

    from domain.event import Event
    from projections.table import Row
    from storage.settings import Settings

VIEWS = (ticket_queue.VIEW, queue_history.VIEW)
FEW = hypothesis_settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
"""The same examples every time; what was recorded for one stays for the next, so that none can be made smaller."""

AHEAD = datetime(2300, 1, 1, tzinfo=UTC)

ORDERS: dict[str, Callable[[QueueEntry], Any]] = {
    "updated": lambda one: (-one.updated_at.timestamp(), -one.number),
    "due": lambda one: (one.due_at or datetime.max.replace(tzinfo=UTC), one.number),
    "opened": lambda one: (one.opened_at, one.number),
    "priority": lambda one: (["urgent", "high", "normal", "low"].index(one.priority), one.opened_at, one.number),
    "number": lambda one: one.number,
}
GROUPS = {"status": "status", "team": "team_id", "agent": "agent_id", "priority": "priority"}


@dataclass
class Told:
    """The log as a list of events in memory, and what follows from it without a database."""

    recorded: list[Recorded] = field(default_factory=list)
    desks: list[DeskDays] = field(default_factory=list)

    def note(self, events: Sequence[Event], rows: Sequence[Any]) -> None:
        assert len(events) == len(rows)
        self.recorded += [
            Recorded(event, row.position, row.recorded_at) for event, row in zip(events, rows, strict=True)
        ]

    def position_at(self, instant: datetime) -> int:
        return max((one.position for one in self.recorded if one.recorded_at <= instant), default=0)

    def entries(self, position: int, occurred_at: datetime | None = None) -> list[QueueEntry]:
        """Fold what is recorded up to a position, and had occurred, in one go."""
        upto = [one for one in self.recorded if one.position <= position and queue_history.VIEW.wants(one.event.TOPIC)]
        if occurred_at is not None:
            late: set[UUID] = set()
            for one in upto:
                if one.event.timestamp > occurred_at:
                    late.add(one.event.originator_id)
                if one.event.originator_id in late:
                    upto = [other for other in upto if other is not one]
        rows = ticket_queue.fold({}, upto, *told(ticket_queue.VIEW, self.recorded))
        return [entry_of(row) for row in rows.values()]


def entry_of(row: Row) -> QueueEntry:
    """Tell a row of events in memory, where a subject is its own text."""
    return QueueEntry(
        **{name: row[name] for name in QueueEntry._fields if name != "subject"}, subject=row["subject_sealed"]
    )


def fits(one: QueueEntry, tickets: QueueFilter) -> bool:
    """Say what a filter means, apart from SQL."""
    return all(
        (
            tickets.teams is None or one.team_id in tickets.teams,
            tickets.agent is None
            or (one.agent_id is None if tickets.agent == "unassigned" else one.agent_id == tickets.agent),
            tickets.statuses is None or one.status in tickets.statuses,
            tickets.priorities is None or one.priority in tickets.priorities,
            tickets.types is None or one.type in tickets.types,
            tickets.tags is None or set(tickets.tags) <= set(one.tags),
            tickets.customer is None or one.requester_id == tickets.customer,
            tickets.channel is None or one.channel == tickets.channel,
            tickets.category is None or one.category == tickets.category,
        )
    )


async def tell(workspace: Workspace, told: Told, events: list[Event]) -> None:
    """Record events and take them into the views."""
    before = (await workspace.log.head()).position
    await record(workspace, events)
    told.note(events, await workspace.log.page(before, len(events) + 1))
    await Runner(workspace.database, VIEWS, "us").catch_up(workspace)


async def every_page(
    workspace: Workspace,
    asked: MomentAsked,
    tickets: QueueFilter = EVERY_TICKET,
    *,
    sort: str = "updated",
    limit: int = 7,
) -> list[QueueEntry]:
    """Page through a list to its end."""
    page = await list_tickets_at(workspace, asked, tickets, sort=sort, limit=limit)
    found = list(page.items)
    while page.cursor is not None:
        page = await list_tickets_at(workspace, asked, tickets, sort=sort, limit=limit, cursor=page.cursor)
        found += page.items
    return found


class Ask(NamedTuple):
    """A question, drawn as numbers that are given a meaning by what is recorded by then."""

    kind: str
    place: float
    occurred: float | None
    close: timedelta
    picks: tuple[int, ...]
    sort: str
    limit: int

    def moment(self, told: Told) -> MomentAsked:
        """Mean a position, an instant about that of an event, or all there is; and an instant at the source, or not."""
        event = told.recorded[int(self.place * (len(told.recorded) - 1))]
        recorded: dict[str, datetime | int | None] = {
            "position": event.position,
            "nothing": 0,
            "instant": event.recorded_at + self.close,
            "all": None,
        }
        occurred_at = None
        if self.occurred is not None:
            times = sorted(one.event.timestamp for one in told.recorded)
            occurred_at = times[int(self.occurred * (len(times) - 1))] + self.close
        return MomentAsked(recorded[self.kind], occurred_at)

    def tickets(self, desk: DeskDays) -> QueueFilter:
        """Mean conditions that some tickets of a desk fulfil."""
        teams = [team.id for team in desk.teams]
        values: dict[str, Sequence[Any]] = {
            "teams": (teams[:1], teams[1:], teams),
            "agent": ("unassigned", *(agent.id for agent in desk.agents)),
            "statuses": (["open"], ["new", "open", "pending"], ["closed", "solved"], ["solved", "open"], []),
            "priorities": (["urgent"], ["low", "normal"]),
            "types": (["incident"], ["question", "task", "problem"]),
            "tags": (["vip"], ["会议室"], ["vip", "laptop"], ["seen"]),
            "customer": [customer.id for customer in desk.customers],
            "channel": ("email", "phone"),
            "category": ("hardware", "network"),
        }
        chosen = {
            name: some[pick] for (name, some), pick in zip(values.items(), self.picks, strict=True) if pick < len(some)
        }
        return QueueFilter(**chosen)


ASKS = some.builds(
    Ask,
    kind=some.sampled_from(["position", "instant", "all", "nothing"]),
    place=some.floats(0, 1),
    occurred=some.one_of(some.none(), some.floats(0, 1)),
    close=some.sampled_from([timedelta(0), timedelta(microseconds=-1), timedelta(days=-1)]),
    # Beyond what there is to choose from, which is mostly so, means that the filter does not ask.
    picks=some.tuples(*[some.integers(0, 30)] * 9),
    sort=some.sampled_from(sorted(SORTS)),
    limit=some.sampled_from([1, 3, 50]),
)


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Workspace, Callable[[Coroutine[Any, Any, Any]], Any]]]:
    """Give a workspace and a way of asking it, for examples that are drawn outside of any event loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()

        async def begin() -> Workspace:
            database = await stack.enter_async_context(await Database.open(settings))
            return await database.workspace("alpha")

        try:
            yield runner.run(begin()), runner.run
        finally:
            runner.run(stack.aclose())


def test_any_list_and_count_at_any_moment_is_the_fold_of_what_came_up_to_it(settings: Settings) -> None:
    told = Told()
    with opened(settings) as (workspace, run):

        @FEW
        @given(
            desk=some.integers(0, 5),
            tickets=some.sampled_from([2, 9]),
            steps=some.integers(1, 90),
            asks=some.lists(ASKS, min_size=3, max_size=5),
        )
        def holds(desk: int, tickets: int, steps: int, asks: list[Ask]) -> None:
            if desk >= len(told.desks):
                levels = told.desks[0].levels if told.desks else None
                told.desks.append(DeskDays(len(told.desks), tickets=tickets, levels=levels))
                if len(told.desks) % 3 == 0:
                    told.desks[-1].at = AHEAD  # a source may claim any time
                run(tell(workspace, told, told.desks[-1].first()))
            asked_of = told.desks[min(desk, len(told.desks) - 1)]
            run(tell(workspace, told, asked_of.more(steps)))
            for ask in asks:
                run(agrees(workspace, told, ask.moment(told), ask.tickets(asked_of), ask.sort, ask.limit))

        holds()
        assert len(told.recorded) > 500  # much was asked about
        assert run(sealed(workspace)) > 0


async def sealed(workspace: Workspace) -> int:
    """Count the stretches that have become too long to go on."""
    place = f'"{workspace.schema}"."{queue_history.VIEW.label}"'
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(f"SELECT count(*) FROM {place} WHERE sealed_at > 0".encode())
        row = await cursor.fetchone()
    return row[0] if row is not None else 0


async def agrees(
    workspace: Workspace, told: Told, asked: MomentAsked, tickets: QueueFilter, sort: str, limit: int
) -> None:
    if asked.recorded is None:
        position = len(told.recorded)
    elif isinstance(asked.recorded, int):
        position = asked.recorded
    else:
        position = told.position_at(asked.recorded)
    wanted = [one for one in told.entries(position, asked.occurred_at) if fits(one, tickets)]
    assert (await resolve(workspace, asked)).position == position
    assert await every_page(workspace, asked, tickets, sort=sort, limit=limit) == sorted(wanted, key=ORDERS[sort])
    for by, name in GROUPS.items():
        counts = await count_tickets_at(workspace, asked, tickets, by=by)  # type: ignore[arg-type]
        assert counts.counts == Counter(getattr(one, name) for one in wanted)
        assert counts.moment.position == position


async def begun(workspace: Workspace, seed: int, *, tickets: int = 12, steps: int = 200) -> tuple[Told, DeskDays]:
    """Give a workspace in which something has happened."""
    told, desk = Told(), DeskDays(seed, tickets=tickets)
    await tell(workspace, told, [*desk.first(), *desk.more(steps)])
    return told, desk


@pytest.mark.parametrize("sort", SORTS)
async def test_a_list_of_a_moment_gives_each_ticket_once_while_everything_changes(alpha: Workspace, sort: str) -> None:
    told, desk = await begun(alpha, 5)
    position = len(told.recorded) * 2 // 3
    times = sorted(one.event.timestamp for one in told.recorded)
    for asked in (MomentAsked(position), MomentAsked(None, times[len(times) // 2])):
        page = await list_tickets_at(alpha, asked, sort=sort, limit=2)
        moment, found = page.moment, list(page.items)
        wanted = sorted(told.entries(moment.position, moment.occurred_at), key=ORDERS[sort])
        while page.cursor is not None:
            await tell(alpha, told, desk.more(10))
            # The moment may be said again or left to the cursor.
            again = asked if len(found) % 4 else None
            page = await list_tickets_at(alpha, again, sort=sort, limit=2, cursor=page.cursor)
            assert page.moment[:3] == moment[:3]
            found += page.items
        assert found == wanted


async def test_a_moment_is_the_same_after_the_view_was_built_again(alpha: Workspace) -> None:
    told, desk = await begun(alpha, 6, tickets=2)
    assert await sealed(alpha) > 0
    position = len(told.recorded) // 2
    before = await every_page(alpha, MomentAsked(position))
    first = await list_tickets_at(alpha, MomentAsked(position), limit=1)
    await tell(alpha, told, desk.more(30))
    rows = await rows_of(alpha, queue_history.VIEW.label)
    report = await rebuild(alpha, queue_history.VIEW)
    assert report.position == len(told.recorded)
    assert await rows_of(alpha, queue_history.VIEW.label) == rows
    assert await every_page(alpha, MomentAsked(position)) == before
    assert (await list_tickets_at(alpha, None, limit=9, cursor=first.cursor)).items == before[1:]


async def test_before_the_first_event_there_is_nothing_and_beyond_the_last_no_moment(alpha: Workspace) -> None:
    await prepare(alpha, VIEWS)
    empty = await list_tickets_at(alpha, MomentAsked(datetime.now(UTC)))
    assert (empty.items, empty.moment.position, empty.moment.provisional) == ([], 0, True)
    told, _ = await begun(alpha, 7, steps=30)
    first = told.recorded[0].recorded_at
    for asked in (
        MomentAsked(0),
        MomentAsked(first - timedelta(microseconds=1)),
        MomentAsked(None, datetime(1, 1, 1, tzinfo=UTC)),
    ):
        page = await list_tickets_at(alpha, asked)
        assert (page.items, page.cursor) == ([], None)
        assert (await count_tickets_at(alpha, asked)).counts == {}
        assert page.moment.position == (0 if asked.occurred_at is None else len(told.recorded))
    with pytest.raises(NoSuchMoment, match="positions 1 to"):
        await list_tickets_at(alpha, MomentAsked(len(told.recorded) + 1))
    with pytest.raises(NoSuchMoment):
        await count_tickets_at(alpha, MomentAsked(-1))
    with pytest.raises(ValueError, match="zone"):
        await resolve(alpha, MomentAsked(datetime(2026, 1, 1)))  # noqa: DTZ001 - that is what is wrong with it


async def test_a_moment_is_provisional_until_something_later_is_recorded(alpha: Workspace) -> None:
    told, desk = await begun(alpha, 8, steps=30)
    now = told.recorded[-1].recorded_at
    for asked, provisional in (
        (MomentAsked(now), True),
        (MomentAsked(now - timedelta(days=1)), False),
        (MomentAsked(len(told.recorded)), False),
        (MomentAsked(None, now), True),
        (MomentAsked(3, now), False),
    ):
        assert (await list_tickets_at(alpha, asked)).moment.provisional is provisional
    position = len(told.recorded)
    await tell(alpha, told, desk.more(30))
    moment = (await count_tickets_at(alpha, MomentAsked(now))).moment
    assert moment == (position, now, None, False)


async def test_a_moment_waits_for_the_view_that_keeps_the_past(alpha: Workspace) -> None:
    told, desk = await begun(alpha, 9, steps=30)
    events = desk.more(20)
    await record(alpha, events)
    with pytest.raises(NotReached):
        await list_tickets_at(alpha, MomentAsked(len(told.recorded) + 1), wait=0.05)
    asking = asyncio.create_task(list_tickets_at(alpha, MomentAsked(len(told.recorded) + len(events)), wait=30))
    await Runner(alpha.database, VIEWS, "us").catch_up(alpha)
    assert (await asking).moment.position == len(told.recorded) + len(events)


async def test_a_cursor_is_of_one_moment_and_one_list_only(alpha: Workspace, beta: Workspace) -> None:
    told, _ = await begun(alpha, 10)
    await begun(beta, 10)
    position = len(told.recorded)
    cursor = (await list_tickets_at(alpha, MomentAsked(position), limit=2)).cursor
    live = (await list_tickets(alpha, limit=2)).cursor
    assert cursor is not None
    assert live is not None
    for asked, tickets, sort in (
        (MomentAsked(position - 1), EVERY_TICKET, "updated"),
        (MomentAsked(position, told.recorded[0].recorded_at), EVERY_TICKET, "updated"),
        (None, QueueFilter(statuses=["open"]), "updated"),
        (None, EVERY_TICKET, "number"),
    ):
        with pytest.raises(CursorInvalid):
            await list_tickets_at(alpha, asked, tickets, sort=sort, cursor=cursor)
    with pytest.raises(CursorInvalid):
        await list_tickets(alpha, cursor=cursor)
    with pytest.raises(CursorInvalid):
        await list_tickets_at(alpha, MomentAsked(position), cursor=live)
    with pytest.raises(CursorExpired):  # another log, so another epoch
        await list_tickets_at(beta, None, cursor=cursor)
    for text in ("", "x", "W10", "bnVsbA", "a" * 5_000):
        with pytest.raises(CursorInvalid):
            await list_tickets_at(alpha, None, cursor=text)


async def test_what_was_erased_since_shows_as_erased_at_every_moment(alpha: Workspace, settings: Settings) -> None:
    told, desk = await begun(alpha, 11)
    position = len(told.recorded) // 2
    before = await every_page(alpha, MomentAsked(position))
    gone = desk.customers[0].id
    async with await psycopg.AsyncConnection.connect(settings.database_url or "") as owner:
        await owner.execute(
            SQL("DELETE FROM {}.personal_keys WHERE subject_id = %s").format(Identifier(alpha.schema)), (gone,)
        )
    alpha.keyring.forget()
    after = await every_page(alpha, MomentAsked(position))
    assert [one._replace(subject=None) for one in after] == [one._replace(subject=None) for one in before]
    changed = {one.ticket_id: one.subject for one, other in zip(after, before, strict=True) if one != other}
    assert set(changed.values()) == {ERASED}
    assert len(changed) < len(after)


async def test_a_long_life_is_told_from_the_last_stretch_before_the_moment(alpha: Workspace) -> None:
    told, _ = await begun(alpha, 12, tickets=1, steps=400)
    assert await sealed(alpha) >= 3
    for position in range(len(told.recorded) - 150, len(told.recorded), 7):
        (entry,) = (await list_tickets_at(alpha, MomentAsked(position))).items
        assert [entry] == told.entries(position)
    assert len(told.recorded) > 3 * LONGEST


async def test_tickets_that_claim_a_later_time_than_they_were_recorded_at_are_listed_in_their_places(
    alpha: Workspace,
) -> None:
    told, desk = await begun(alpha, 13, tickets=40, steps=400)
    desk.at = AHEAD
    await tell(alpha, told, desk.more(80))
    position = len(told.recorded)
    settled = QueueFilter(statuses=["solved", "closed"])
    for occurred_at in (None, AHEAD + timedelta(days=1), AHEAD - timedelta(days=1)):
        wanted = [one for one in told.entries(position, occurred_at) if fits(one, settled)]
        if occurred_at is None:
            assert {one.updated_at > AHEAD for one in wanted} == {True, False}
        for sort in SORTS:
            asked = MomentAsked(position, occurred_at)
            assert await every_page(alpha, asked, settled, sort=sort, limit=2) == sorted(wanted, key=ORDERS[sort])


async def test_of_a_long_life_only_what_goes_on_is_loaded_and_remembered(alpha: Workspace) -> None:
    _, desk = await begun(alpha, 12, tickets=1, steps=400)
    shelf, memory = queue_history.VIEW.shelf(alpha.schema), Memory()
    (ticket,) = desk.tickets
    async with alpha.database.pool.connection() as connection:
        rows = await shelf.load(connection, [ticket.id])
    assert list(rows) == [(ticket.id, OPEN)]
    changed = folded(queue_history.VIEW, as_recorded(DeskDays(12, tickets=1).more(400)))
    assert len(changed) > 3
    memory.keep(shelf, [next(iter(changed))[0]], changed)
    assert memory.held == 1
