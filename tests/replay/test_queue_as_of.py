"""The queue as of any moment is the fold of the events up to it: every filter, order and grouping, page by page."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import uvloop
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from projections import queue_history, ticket_queue
from projections.runner import Runner
from projections.ticket_queue import EVERY_TICKET, SORTS, QueueEntry, QueueFilter
from replay.queue_as_of import MomentAsked, count_tickets_at, list_tickets_at, resolve
from storage.codec import Recorded
from storage.database import Database, Workspace
from tests.projections.desk_days import DeskDays, record

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
        rows = ticket_queue.fold({}, upto)
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
    picks=some.tuples(*[some.integers(0, 12)] * 9),
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
                told.desks.append(DeskDays(len(told.desks), tickets=tickets))
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
