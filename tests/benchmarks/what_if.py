"""How fast a what-if compares the promises on a million tickets, beside only reading them and their timelines."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Identifier

from domain.calendar import CalendarTerms
from domain.event import SYSTEM_ACTOR, Act, Channel, Provenance, Role
from domain.priority import Priority
from domain.service_levels import ServiceLevels
from domain.sla_policy import Match, PolicyTerms, Target, Unit
from domain.sla_terms import Metric
from domain.ticket_timeline import decode
from domain.what_if import Axis
from projections import directory, ticket_queue
from replay.rebuild import rebuild
from replay.rebuild_workers import processors
from replay.what_if import what_if
from replay.what_if_asked import Asked, GivenPolicy
from storage.append import Submission
from storage.codec import encode
from storage.database import Database
from storage.settings import Settings
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.rebuild import memory_used
from tests.benchmarks.seed import fill
from tests.benchmarks.seeded_course import STARTED_AT

if TYPE_CHECKING:
    from storage.database import Workspace

TICKETS = 1_000_000
PLAYED_EVENTS = 120_000  # some 15,000 lives; the tickets beyond live one of these
EVENTS_A_TICKET = 6
HOURS = {"urgent": 1, "high": 4, "normal": 8, "low": 16}
METRICS = (Metric.FIRST_REPLY, Metric.NEXT_REPLY, Metric.REQUESTER_WAIT, Metric.TOTAL_RESOLUTION)
DAYS = ("mon", "tue", "wed", "thu", "fri")


async def main(settings: Settings, *, tickets: int = TICKETS, workers: int | None = None) -> dict[str, Any]:
    """Ask by both axes what shorter targets would have done, on a desk that counts by opening hours.

    `seconds` is the longer of the two; `ratio` our tickets a second over those of one process that only reads the same
    rows and the timelines in them, in this run. Raises MeasurementError.
    """
    async with ground(settings) as place, await Database.open(place.settings) as database:
        workspace = await database.workspace(WORKSPACE)
        say(f"what-if: {tickets:,} tickets")
        await fill(place.settings, workspace, max(min(PLAYED_EVENTS, tickets * EVENTS_A_TICKET), 1_000))
        await _adopt(workspace)
        for view in (ticket_queue.VIEW, directory.VIEW):
            await rebuild(workspace, view)
        number, facts = await _multiply(workspace, tickets)
        await place.checkpoint()
        plain = max([await _read(workspace, number) for _ in range(2)])
        say(f"what-if: only reading {plain:,.0f} tickets/s")
        seconds: dict[str, float] = {}
        processor: dict[str, float] = {}
        async with memory_used() as used:
            for axis in Axis:
                seconds[axis], processor[axis] = await _asked(workspace, axis, number, workers)
        longest = max(seconds.values())
    return {
        "benchmark": "what_if",
        "ratio": round(number / longest / plain, 3),
        "seconds": round(longest, 2),
        "tickets_per_second": round(number / longest),
        "seconds_by_axis": {axis: round(taken, 2) for axis, taken in seconds.items()},
        "processor_seconds_by_axis": {axis: round(taken, 2) for axis, taken in processor.items()},
        "plain_tickets_per_second": round(plain),
        "memory_mebibytes": used(),
        "tickets": number,
        "facts_a_ticket": round(facts, 1),
        "metrics": len(METRICS),
        "workers": processors() if workers is None else workers,
        "server": place.durability,
    }


async def _adopt(workspace: Workspace) -> None:
    by = Provenance(actor_id=SYSTEM_ACTOR, role=Role.SYSTEM, channel=Channel.SYSTEM)
    act = Act(STARTED_AT - timedelta(hours=1), by)
    levels = ServiceLevels.unwritten(act.at)
    hours = {day: [["09:00", "12:00"], ["13:30", "18:00"]] for day in DAYS}
    closed = {(STARTED_AT + timedelta(days=days)).date(): "Holiday" for days in (0, 40, 41, 42, 92, 120)}
    calendar = CalendarTerms.model_validate({"time_zone": "Asia/Shanghai", "hours": hours, "closed_days": closed})
    levels.adopt_calendar(name="office", terms=calendar, act=act)
    levels.adopt_policy(name="all", terms=PolicyTerms(calendar="office", targets=_targets(1.0)), act=act)
    events: list[Any] = list(levels.collect_events())
    await workspace.log.append(Submission([encode(event, workspace.keyring) for event in events]))


def _targets(times: float) -> tuple[Target, ...]:
    return tuple(
        Target(
            metric=metric,
            match=Match(priorities=(priority,)),
            amount=round(HOURS[priority] * 3600 * times * (1 if "reply" in metric else 6)),
            unit=Unit.BUSINESS,
        )
        for metric in METRICS
        for priority in Priority
    )


async def _multiply(workspace: Workspace, tickets: int) -> tuple[int, float]:
    """Have as many tickets as are wanted, by ids of their own; gives how many there are, and facts a ticket."""
    shelf = ticket_queue.VIEW.shelf(workspace.schema)
    values = {"ticket_id": SQL("gen_random_uuid()"), "number": SQL("number + copy * 1000000000")}
    columns = ticket_queue.TABLE.names
    selected = SQL(", ").join(values.get(name, Identifier(name)) for name in columns)
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = %s AND indexname NOT LIKE %s",
            (workspace.schema, shelf.name, "%pkey"),
        )
        for (index,) in await cursor.fetchall():
            await connection.execute(SQL("DROP INDEX {}").format(Identifier(workspace.schema, index)))
        parts = {"place": shelf.place, "columns": shelf.columns, "selected": selected}
        count = SQL("SELECT count(*) FROM {}").format(shelf.place)
        number = (await (await connection.execute(count)).fetchone() or (0,))[0]
        await connection.execute(
            SQL(_MULTIPLY).format(**parts), {"copies": tickets // max(number, 1), "more": tickets - number}
        )
        await connection.execute(SQL("VACUUM ANALYZE {}").format(shelf.place))
        number = (await (await connection.execute(count)).fetchone() or (0,))[0]
        some = await connection.execute(SQL("SELECT timeline FROM {} LIMIT 5000").format(shelf.place))
        timelines = [decode(text) for (text,) in await some.fetchall()]
    return number, sum(len(timeline.facts) for timeline in timelines) / len(timelines)


async def _read(workspace: Workspace, tickets: int) -> float:
    """Read every ticket and its timeline in one process, and do nothing with them; gives tickets a second."""
    statement = SQL(
        "COPY (SELECT number, ticket_id, priority, team_id, requester_id, timeline FROM {}) TO STDOUT (FORMAT binary)"
    )
    place = ticket_queue.VIEW.shelf(workspace.schema).place
    started = time.perf_counter()
    found = 0
    async with (
        workspace.database.pool.connection() as connection,
        connection.cursor() as cursor,
        cursor.copy(statement.format(place)) as copy,
    ):
        copy.set_types(["int8", "uuid", "text", "uuid", "uuid", "text"])
        async for row in copy.rows():
            decode(row[5])
            found += 1
    if found != tickets:
        message = f"{found:,} tickets were read of {tickets:,}"
        raise MeasurementError(message)
    return found / (time.perf_counter() - started)


async def _asked(workspace: Workspace, axis: Axis, tickets: int, workers: int | None) -> tuple[float, float]:
    """Ask once; gives the seconds it took, and those of processors of ours. Raises MeasurementError."""
    policy = GivenPolicy(name="all", calendar="office", targets=_targets(0.75))
    before, started = _processor_seconds(), time.perf_counter()
    report = await what_if(workspace, Asked(policies=(policy,), axis=axis), now=datetime.now(UTC), workers=workers)
    seconds = time.perf_counter() - started
    if report.tickets != tickets or {line.metric for line in report.promises} != set(METRICS):
        message = f"{report.tickets:,} tickets were compared of {tickets:,}, by {len(report.promises)} metrics"
        raise MeasurementError(message)
    used = _processor_seconds() - before
    say(f"what-if: {axis} in {seconds:.1f} s, {used:.1f} s of processors; {report.flips.worse:,} promises flip")
    return seconds, used


def _processor_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


_MULTIPLY = """
INSERT INTO {place} ({columns})
SELECT {selected} FROM {place} CROSS JOIN generate_series(1, %(copies)s::bigint) copy
ORDER BY copy LIMIT greatest(%(more)s::bigint, 0)
"""


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
