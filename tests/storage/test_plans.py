"""No statement that is asked often walks through a table, however the store has grown under the connection.

One store grows from nothing over hundreds of events to a million. At each size every question is asked over new
connections, whose plans the server tells, and again over connections that have planned everything while the store was
empty, whose work it counts. The million is put in from the side: what a plan is made for is how the tables look at that
moment, and what it costs later is how large they are then, whoever filled them. A million appends in the test's time
would show no more.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
import uvloop
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from domain.service_levels import SERVICE_LEVELS_ID
from projections import queue_history, ticket_queue
from projections.bookkeeping import prepare, reached
from projections.registry import VIEWS
from projections.ticket_queue import QueueFilter, count_tickets, find_ticket, list_tickets
from projections.timetable import Entry, Timetable
from replay.queue_as_of import MomentAsked, count_tickets_at, list_tickets_at
from storage.append import Appended, Claim, Conflict, LogError, NewEvent, Submission
from storage.database import Database, Workspace
from tests.conftest import new_database
from tests.storage.plans import TELL_PLANS, Plan, PlansMade

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from psycopg.sql import Composed

    from projections.table import Column, Table
    from projections.view import View
    from storage.settings import Settings
    from tests.conftest import Server

SCHEMA: Final = "ws_alpha"
SIZES: Final = {"empty": (0, 0), "small": (500, 300), "large": (1_000_000, 20_000)}
"""Events, and rows of each other table."""
ASKED: Final = 7  # times: psycopg prepares, and the server may from the sixth on plan for any parameters

STREAM_VERSION: Final = "events_originator_id_originator_version_key"
PAST: Final = queue_history.VIEW.label
QUEUE: Final = ticket_queue.VIEW.label
TIMETABLE: Final = Timetable(SERVICE_LEVELS_ID)
NOW: Final = datetime.now(UTC)
STRETCHES: Final = {f"{PAST}_node_since_idx", f"{PAST}_node_first_since_idx", f"{PAST}_pkey"}
STRETCHES_OF_THE_SOURCE: Final = {f"{PAST}_time_node_updated_at_idx", f"{PAST}_time_node_first_changed_idx"}
OUTCOMES: Final = {"command_outcomes_week_pkey", "command_outcomes_rest_pkey"}


def id_of(number: int) -> UUID:
    return UUID(f"00000000-0000-4000-8000-{number:012x}")


@dataclass
class Process:
    """The connections of one process: one that reads, one that appends."""

    database: Database
    workspace: Workspace

    @classmethod
    async def start(cls, settings: Settings, stack: AsyncExitStack) -> Process:
        database = await stack.enter_async_context(await Database.open(settings))
        return cls(database, await database.workspace("alpha"))

    async def connections(self) -> list[psycopg.AsyncConnection[Any]]:
        async with self.database.pool.connection() as reading:
            return [reading, await self.workspace.log._own_connection()]


# What is asked, and by which indexes it is to be answered


async def append(process: Process) -> None:
    """Carry out everything that the append function has a statement for."""
    log = process.workspace.log
    stream, other = uuid4(), uuid4()
    key = stream.bytes
    said = Submission(
        [NewEvent(stream, 1, "thing.happened", b"{}", None), NewEvent(other, 1, "thing.happened", b"{}", None)],
        {stream: 0},
        [Claim("email", key, stream)],
        key,
        b"body",
        b"result",
    )
    refused = Submission([NewEvent(stream, 5, "thing.happened", b"{}", None)], {stream: 1})
    released = Submission((), {stream: 1}, [Claim("email", key, stream, release=True)])
    outcomes = [await _outcome(log.append(each)) for each in (said, said, refused, released)]
    assert [type(outcome) for outcome in outcomes] == [Appended, Appended, Conflict, Appended]


async def _outcome(appended: Awaitable[Appended]) -> Appended | LogError:
    try:
        return await appended
    except LogError as error:
        return error


def queue(**filters: Any) -> Callable[[Process], Awaitable[object]]:
    """Ask for two pages of a queue, and for its count."""

    async def ask(process: Process) -> None:
        tickets = QueueFilter(**filters)
        page = await list_tickets(process.workspace, tickets, limit=10)
        if page.cursor is not None:
            await list_tickets(process.workspace, tickets, limit=10, cursor=page.cursor)
        await count_tickets(process.workspace, tickets)

    return ask


def queue_then(*, by_source: bool = False, **filters: Any) -> Callable[[Process], Awaitable[object]]:
    """Ask for a queue as it was where the view stands, and for its count: what changed since would be looked for too."""

    async def ask(process: Process) -> None:
        tickets = QueueFilter(**filters)
        position, _ = await reached(process.workspace, queue_history.VIEW)
        asked = MomentAsked(position, datetime.now(UTC) if by_source else None)
        for sort in ("updated", "due"):
            await list_tickets_at(process.workspace, asked, tickets, sort=sort, limit=10)
        await count_tickets_at(process.workspace, asked, tickets)

    return ask


def load(view: View) -> Callable[[Process], Awaitable[object]]:
    async def ask(process: Process) -> None:
        async with process.database.pool.connection() as connection:
            await view.shelf(SCHEMA).load(connection, _some_keys(view))

    return ask


def save(view: View) -> Callable[[Process], Awaitable[object]]:
    async def ask(process: Process) -> None:
        shelf = view.shelf(SCHEMA)
        async with process.database.pool.connection() as connection:
            rows = await shelf.load(connection, _some_keys(view))
            await shelf.save(connection, rows or {(): _new_row(view.table)})

    return ask


def _some_keys(view: View) -> list[Any]:
    first = next(column for column in view.table.columns if column.name == view.table.key[0])
    return [id_of(n) if first.type == "uuid" else n for n in (11, 12, 13)]


def _new_row(table: Table) -> dict[str, Any]:
    """Make a row far behind the others, so that a statement that saves can be asked for on an empty store, too."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "uuid": uuid4(),
        "timestamptz": now,
        "text": "v",
        "text[]": [],
        "uuid[]": [],
        "jsonb": {},
        "boolean": True,
        **{f"{of}[]": None for of in ("bigint", "smallint", "timestamptz")},
    }
    return {column.name: values.get(column.type, 0) for column in table.columns}


ASKS: Final[dict[str, tuple[Callable[[Process], Awaitable[object]], set[str]]]] = {
    "append": (append, {"events_pkey", STREAM_VERSION, "claims_pkey", *OUTCOMES}),
    "stream": (lambda p: p.workspace.log.stream(id_of(11)), {STREAM_VERSION}),
    "part of a stream": (lambda p: p.workspace.log.stream(id_of(11), after=2, upto=4, limit=1), {STREAM_VERSION}),
    "last of": (lambda p: p.workspace.log.last_of([id_of(11), id_of(12)], ["thing.happened"]), {STREAM_VERSION}),
    "page": (lambda p: p.workspace.log.page(200, 50), {"events_pkey"}),
    "page up to": (lambda p: p.workspace.log.page(200, 50, upto=220), {"events_pkey"}),
    "row": (lambda p: p.workspace.log.row(40), {"events_pkey"}),
    "heads": (lambda p: p.workspace.log.heads([id_of(11), id_of(12)]), {STREAM_VERSION}),
    "head": (lambda p: p.workspace.log.head(), {"events_pkey"}),
    "position at": (lambda p: p.workspace.log.position_at(datetime.now(UTC)), {"events_pkey"}),
    "owner of": (lambda p: p.workspace.log.owner_of("email", b"x"), {"claims_pkey"}),
    "checkpoint": (lambda p: reached(p.workspace, ticket_queue.VIEW), set()),
    "queue of an agent": (queue(agent=id_of(3)), {f"{ticket_queue.VIEW.label}_agent_id_status_updated_at_number_idx"}),
    "queue of a team": (queue(teams=[id_of(3)]), {f"{ticket_queue.VIEW.label}_team_id_status_updated_at_number_idx"}),
    "tickets of a customer": (
        queue(customer=id_of(3)),
        {f"{ticket_queue.VIEW.label}_requester_id_updated_at_number_idx"},
    ),
    "ticket": (lambda p: find_ticket(p.workspace, id_of(11)), {f"{ticket_queue.VIEW.label}_pkey"}),
    "queue of then": (queue_then(teams=[id_of(3)]), {*STRETCHES, f"{PAST}_team_id_status_idx"}),
    "queue of then, by an agent": (queue_then(agent=id_of(3)), STRETCHES),
    "queue of then, in a status": (queue_then(customer=id_of(3), statuses=["closed"]), STRETCHES),
    "queue of then by the source": (
        queue_then(by_source=True, teams=[id_of(3)]),
        {*STRETCHES, *STRETCHES_OF_THE_SOURCE},
    ),
    "parts of streams": (
        lambda p: p.workspace.log.parts_of([(id_of(11), 2, 10**9), (id_of(12), 0, 40)], most=5),
        {STREAM_VERSION},
    ),
    "whole streams": (lambda p: p.workspace.log.whole([id_of(11), id_of(12)]), {STREAM_VERSION}),
    "streams between": (lambda p: p.workspace.log.streams_between(40, 60, ["thing.happened"]), {"events_pkey"}),
    "outlook": (lambda p: TIMETABLE.outlook([p.workspace]), {f"{QUEUE}_timer_at_number_idx", STREAM_VERSION}),
    "due": (lambda p: TIMETABLE.due(p.workspace, NOW, limit=5), {f"{QUEUE}_timer_at_number_idx"}),
    "due after": (
        lambda p: TIMETABLE.due(p.workspace, NOW, after=Entry(id_of(11), 3, 1, NOW - timedelta(days=1)), limit=5),
        {f"{QUEUE}_timer_at_number_idx"},
    ),
    "open": (
        lambda p: TIMETABLE.open_tickets(p.workspace, after=20, before=400, limit=5),
        {f"{QUEUE}_number_idx"},
    ),
    **{f"load {view.name}": (load(view), {f"{view.label}_pkey"}) for view in VIEWS},
    **{f"save {view.name}": (save(view), {f"{view.label}_pkey"}) for view in VIEWS},
}

OF_THE_LOG: Final = [ask for ask, (_, indexes) in ASKS.items() if not re.search(r"_v\d+_", str(indexes))]

SMALL_TABLES: Final = {"views", "log_identity", "workspaces", "sla_rollout"}
"""A row or few for ever."""


# The store


@dataclass(frozen=True)
class Work:
    """What was done to the tables of the workspace by one asking: scans of whole tables, and pages looked at."""

    walked: frozenset[str]
    pages: int


@dataclass
class Store:
    """What was seen at each size: the plans of new connections, and the work of those that have been there from 0."""

    plans: dict[tuple[str, str], list[Plan]] = field(default_factory=dict)
    work: dict[tuple[str, str], Work] = field(default_factory=dict)


@pytest.fixture(scope="module")
def store(server: Server, template: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with (
        new_database(server, "plans", template=template) as name,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        yield runner.run(grown(server.settings(name, tmp_path_factory.mktemp("plans"), key_file)))


async def grown(settings: Settings) -> Store:
    store = Store()
    quiet = replace(settings, pool_size=1)
    telling = make_conninfo(settings.database_url or "", options=TELL_PLANS)
    async with AsyncExitStack() as stack:
        owner = await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True)
        await stack.enter_async_context(owner)
        unbroken = await Process.start(quiet, stack)
        await prepare(unbroken.workspace, VIEWS)
        for size in SIZES:
            await fill(owner, size)
            for ask, (question, _) in ASKS.items():
                store.work[size, ask] = await measured(unbroken, question, owner)
            if size == "large":
                # Not before: statistics make the server plan anew, and what is kept from the beginning is in question.
                await owner.execute("ANALYZE")
            async with AsyncExitStack() as brief:
                fresh = await Process.start(replace(quiet, database_url=telling), brief)
                store.plans |= {(size, ask): plans for ask, plans in (await told(fresh, owner)).items()}
    return store


async def told(process: Process, owner: psycopg.AsyncConnection[Any]) -> dict[str, list[Plan]]:
    """Ask everything over connections that have planned nothing yet, and give the plans made."""
    cursor = await owner.execute("SELECT oid::int8, relname FROM pg_class")
    names = dict(await cursor.fetchall())
    made = PlansMade()
    for connection in await process.connections():
        made.hear(connection)
    found = {}
    for ask, (question, _) in ASKS.items():
        with made.forgotten():
            for _ in range(ASKED):
                await question(process)
        found[ask] = made.plans(names)
    return found


async def measured(
    process: Process, question: Callable[[Process], Awaitable[object]], owner: psycopg.AsyncConnection[Any]
) -> Work:
    """Ask until the plans are settled, and then count what one asking does."""
    for _ in range(ASKED):
        await question(process)
    before = await counters(process, owner)
    await question(process)
    after = await counters(process, owner)
    return Work(
        frozenset(table for table, (walks, _) in after.items() if walks > before[table][0]),
        sum(pages - before[table][1] for table, (_, pages) in after.items()),
    )


async def counters(process: Process, owner: psycopg.AsyncConnection[Any]) -> dict[str, tuple[int, int]]:
    """Give, by table, how often it was walked through and how many pages of it and its indexes were looked at."""
    for connection in await process.connections():
        # Reported before the server is ready for the next statement.
        await connection.execute("SELECT pg_stat_force_next_flush()")
    cursor = await owner.execute(
        "SELECT relname, coalesce(seq_scan, 0),"
        " heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)"
        " FROM pg_stat_all_tables JOIN pg_statio_all_tables USING (relid, schemaname, relname) WHERE schemaname = %s",
        (SCHEMA,),
    )
    return {table: (walks, pages) for table, walks, pages in await cursor.fetchall() if table not in SMALL_TABLES}


async def fill(owner: psycopg.AsyncConnection[Any], size: str) -> None:
    """Put rows into every table, up to a size and without taking statistics."""
    events, rows = SIZES[size]
    place = {"schema": Identifier(SCHEMA)}
    cursor = await owner.execute(SQL("SELECT count(*) FROM {schema}.events").format(**place))
    ((there,),) = await cursor.fetchall()
    # Five events a stream, in the order of their ids, which makes the index on them quick to fill.
    await owner.execute(
        SQL(
            "INSERT INTO {schema}.events SELECT p, " + _ID.format("(p - 1) / 5") + ", (p - 1) % 5 + 1,"
            " 'thing.happened', '{{}}', NULL, now() FROM generate_series({there} + 1, {events}) p"
        ).format(**place, there=there, events=events)
    )
    # Four weeks of outcomes: of the oldest and of the last there is no partition.
    for statement in (
        "command_outcomes SELECT {0}, current_date - 14 + n % 28, 'body', n, n",
        "claims SELECT 'email', {0}, " + _ID.format("n"),
    ):
        inserted = SQL("INSERT INTO {schema}." + statement + " FROM generate_series(1, {rows}) n")
        hashed = SQL("sha256({} || n::text::bytea)").format(size.encode())
        await owner.execute(inserted.format(hashed, **place, rows=rows))
    for view in VIEWS:
        columns, values = _columns(view.table.columns, view.table)
        parts = place | {
            "view": Identifier(view.label),
            "past": Identifier(f"{view.label}_past"),
            "rows": rows,
        }
        parts |= {"columns": columns, "values": values}
        # What a connection's own saving has put in already stays.
        await owner.execute(
            SQL(
                "INSERT INTO {schema}.{view} ({columns}) SELECT {values} FROM generate_series(1, {rows}) n"
                " ON CONFLICT DO NOTHING"
            ).format(**parts)
        )
        if view.table.keeps_past:
            lasting, as_they_were = _columns([column for column in view.table.columns if column.past], view.table)
            parts |= {"columns": lasting, "values": as_they_were}
            await owner.execute(
                SQL(
                    "INSERT INTO {schema}.{past} ({columns}, until, replaced_at)"
                    " SELECT {values}, n + 1, now() FROM generate_series(1, {rows}) n"
                ).format(**parts)
            )
    await owner.execute(SQL("UPDATE {schema}.views SET position = {events}").format(**place, events=events))
    await owner.execute("SELECT pg_stat_force_next_flush()")


_ID: Final = "('00000000-0000-4000-8000-' || lpad(to_hex({}), 12, '0'))::uuid"


def _columns(columns: Sequence[Column], table: Table) -> tuple[Composed, SQL]:
    """Give the names of columns, and something for each of them."""
    names = SQL(", ").join(Identifier(column.name) for column in columns)
    return names, SQL(", ".join(_value(column, table) for column in columns))


def _value(column: Column, table: Table) -> str:
    """Give something for a column of row n: keys are distinct, and each agent, team and customer has 1 in 500."""
    which = "n / 8" if len(table.key) > 1 else "n"
    if column.name == table.key[0]:
        return _ID.format(which) if column.type == "uuid" else which
    if column.name in table.key:
        return "now() + n % 8 * interval '1 hour'" if column.type == "timestamptz" else f"(n % 8)::{column.type}"
    if column.name.endswith("_sealed"):
        return "NULL"
    return {
        "uuid": _ID.format("n % 500"),
        "text": "'v' || n % 4",
        "text[]": "'{}'",
        "uuid[]": "'{}'",
        "jsonb": "'{}'",
        "boolean": "n % 2 = 0",
        **dict.fromkeys(("bigint[]", "smallint[]", "timestamptz[]"), "NULL"),
        "timestamptz": "now() - n * interval '1 second'",
    }.get(column.type, "n % 1000" if column.type == "smallint" else "n")


# What must be so


@pytest.mark.parametrize("ask", ASKS)
def test_a_large_store_is_asked_by_index(store: Store, ask: str) -> None:
    plans = store.plans["large", ask]
    walked = {scan.table for plan in plans for scan in plan.scans if scan.kind == "SEQSCAN"} - SMALL_TABLES
    assert walked == set()
    used = {scan.by for plan in plans for scan in plan.scans}
    assert used >= ASKS[ask][1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ask", OF_THE_LOG)
def test_the_log_is_asked_by_index_whatever_its_size(store: Store, ask: str, size: str) -> None:
    """A plan outlives the moment it was made in, so that one that suits an empty log is wrong soon."""
    plans = store.plans[size, ask]
    walked = {scan.table for plan in plans for scan in plan.scans if scan.kind == "SEQSCAN"} - SMALL_TABLES
    assert walked == set()


@pytest.mark.parametrize(
    "ask", [*OF_THE_LOG, *(ask for ask in ASKS if ask.startswith(("load", "save", "queue of then")))]
)
def test_connections_from_the_first_event_on_walk_through_no_table_at_the_millionth(store: Store, ask: str) -> None:
    assert store.work["large", ask].walked == frozenset()


@pytest.mark.parametrize("ask", OF_THE_LOG)
def test_connections_from_the_first_event_on_look_at_few_more_pages_at_the_millionth(store: Store, ask: str) -> None:
    """A B-tree of a million entries is three levels high, one of hundreds two; an instant is found in twenty halvings."""
    assert store.work["large", ask].pages <= 2 * store.work["small", ask].pages + 20


def test_appending_takes_as_many_looks_at_the_millionth_event_as_at_the_first_hundreds(store: Store) -> None:
    """Outcomes lie in a table for each week, of which there are few, and each is asked by its key."""
    tables = {scan.table for plan in store.plans["large", "append"] for scan in plan.scans}
    assert tables == {"events", "claims", "command_outcomes_week", "command_outcomes_rest"}
    assert not any(plan.sorts for plan in store.plans["large", "append"])
