"""How fast deadlines that have passed are put on record, and how late those of a minute are in which many pass."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from api.timer import Timer
from domain.agent import Agent
from domain.calendar import CalendarTerms
from domain.customer import Customer
from domain.event import Act, Channel, Provenance, Role
from domain.service_levels import ServiceLevels
from domain.sla_policy import PolicyTerms, Step, Target
from domain.sla_terms import Metric
from domain.team import Team
from domain.ticket import Ticket
from projections.registry import VIEWS
from projections.runner import Runner
from storage.append import Submission
from storage.codec import encode
from storage.database import Database
from storage.migrations import create_workspace
from storage.settings import Settings
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.pgbench import due_rows_per_second
from tests.benchmarks.processes import use

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from domain.event import Event
    from storage.database import Workspace
    from tests.benchmarks.ground import Ground

TICKETS: Final = 100_000
MINUTE: Final = 60.0
PLAIN_SECONDS: Final = 5.0
PLAIN_CLIENTS: Final = 2
PROMISED: Final = timedelta(hours=4)
LIVE: Final = "live"
PATIENCE: Final = 900.0
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


async def main(settings: Settings, *, tickets: int = TICKETS, minute: float = MINUTE) -> dict[str, Any]:
    """Let a deadline of each of many tickets pass, all of them before the timer starts, and then within a minute.

    `ours_per_second` is of the first, with all views followed by the same process, from the start until the last breach
    is on record; `visible_seconds` until the views have them. `plain_per_second` is that of a bare table from which
    pgbench takes rows that are due one by one; `ratio` is ours over it. Views that nobody waits for are left out. Of the second, `late_milliseconds` is how long
    after its deadline each breach was recorded, of which a second is waited on purpose. Raises MeasurementError.
    """
    async with ground(settings) as place, await Database.open(place.settings) as database:
        await create_workspace(place.settings, LIVE)
        workspace, other = await database.workspace(WORKSPACE), await database.workspace(LIVE)
        began = time.perf_counter()
        say(f"breaches: {tickets:,} tickets whose deadline has passed")
        await _opened(workspace, tickets, datetime.now(UTC) - timedelta(seconds=minute + 1), minute)
        prepared = time.perf_counter() - began
        await place.checkpoint()
        before = _processor_seconds(place)
        recorded, visible = await _announced(workspace, tickets)
        after = _processor_seconds(place)
        say(f"breaches: {tickets / recorded:,.0f} a second on record, all of them seen after {visible:.1f} s")
        starts_at = datetime.now(UTC) + timedelta(seconds=prepared * 1.5 + 5)
        say(f"breaches: {tickets:,} tickets whose deadlines pass within {minute:g} s")
        await _opened(other, tickets, starts_at, minute)
        late = (starts_at - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(late, 0))
        await _announced(other, tickets)
        delays = await _delays(other)
        plain = await asyncio.to_thread(
            due_rows_per_second, await place.database(), min(PLAIN_SECONDS, minute), PLAIN_CLIENTS
        )
    ended = starts_at + timedelta(seconds=minute)
    return {
        "benchmark": "breaches",
        "ratio": round(tickets / recorded / plain, 2),
        "ours_per_second": round(tickets / recorded),
        "plain_per_second": round(plain),
        "seconds": round(recorded, 1),
        "visible_seconds": round(visible, 1),
        "processor_seconds": {name: round(after[name] - spent, 1) for name, spent in before.items()},
        "late_milliseconds": milliseconds(delay for _, delay in delays),
        "seconds_after_the_minute": round(max((at - ended).total_seconds() for at, _ in delays), 2),
        "tickets": tickets,
        "minute": minute,
        "server": place.durability,
    }


async def _opened(workspace: Workspace, tickets: int, due_at: datetime, minute: float) -> None:
    """Open tickets whose first deadlines pass evenly within a minute from an instant on, and let the views follow."""
    by = Provenance(actor_id=uuid4(), role=Role.CUSTOMER, channel=Channel.EMAIL)
    before = Act(due_at - timedelta(days=30), by)
    levels = ServiceLevels.unwritten(before.at)
    # Open round the clock, so that deadlines fall where they are wanted; it is counted window by window all the same.
    hours = {day: [["00:00", "12:30"], ["12:30", "24:00"]] for day in DAYS}
    calendar = CalendarTerms.model_validate({"time_zone": "Europe/Berlin", "hours": hours})
    levels.adopt_calendar(name="hours", terms=calendar, open_tickets="keep", act=before)
    targets = (
        Target(metric=Metric.FIRST_REPLY, amount=int(PROMISED.total_seconds())),
        Target(
            metric=Metric.TOTAL_RESOLUTION,
            amount=5 * 86_400,
            steps=(Step(offset_seconds=-3600, action="remind"),),
        ),
    )
    levels.adopt_policy(
        name="all", terms=PolicyTerms(calendar="hours", targets=targets), open_tickets="keep", act=before
    )
    customer = Customer.register(customer_id=uuid4(), name="Ann", email=f"{uuid4()}@firm.example", act=before)
    team = Team.create(team_id=uuid4(), name="Network", act=before)
    agent = Agent.create(agent_id=uuid4(), name="Bob", teams=[team], act=before)

    def lives() -> Iterator[Event]:
        for one in (levels, customer, team, agent):
            yield from one.collect_events()  # type: ignore[misc]
        for number in range(tickets):
            at = due_at - PROMISED + timedelta(seconds=minute * number / tickets)
            ticket = Ticket.open(
                ticket_id=uuid4(),
                requester_id=customer.id,
                subject="Printer on fire",
                body="It smokes.",
                channel=Channel.EMAIL,
                book=levels.book,
                act=Act(at, by),
            )
            ticket.assign(agent=agent, team=team, act=Act(at + timedelta(minutes=5), by))
            ticket.categorise(category="hardware", act=Act(at + timedelta(minutes=6), by))
            yield from ticket.collect_events()  # type: ignore[misc]

    await _recorded(workspace, lives())
    runner = Runner(workspace.database, VIEWS)
    await runner.catch_up(workspace)
    await runner.release()


async def _recorded(workspace: Workspace, events: Iterable[Event], at_once: int = 500) -> None:
    batch: list[Event] = []

    async def append() -> None:
        await workspace.keyring.ensure({subject for event in batch for subject in event.data_subjects()})
        await workspace.log.append(Submission([encode(event, workspace.keyring) for event in batch]))
        batch.clear()

    for event in events:
        batch.append(event)
        if len(batch) == at_once:
            await append()
    if batch:
        await append()


async def _announced(workspace: Workspace, breaches: int) -> tuple[float, float]:
    """Run timer and views, as `desk project` does, until so many breaches are recorded and seen; gives seconds of each."""
    head = (await workspace.log.head()).position
    stop = asyncio.Event()
    runner = Runner(workspace.database, VIEWS)
    began = time.perf_counter()
    running = [asyncio.create_task(runner.run(stop)), asyncio.create_task(Timer(lambda: [workspace]).run(stop))]
    recorded = None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                await asyncio.sleep(0.05)
                behind = await _behind(workspace)
                if recorded is None and (await workspace.log.head()).position >= head + breaches:
                    recorded = time.perf_counter() - began
                if recorded is not None and behind == 0:
                    return recorded, time.perf_counter() - began
                for task in running:
                    if task.done():
                        task.result()
    except TimeoutError:
        message = f"{breaches:,} breaches were not on record and seen after {PATIENCE:g} seconds"
        raise MeasurementError(message) from None
    finally:
        stop.set()
        await asyncio.gather(*running)


async def _behind(workspace: Workspace) -> int:
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            f"SELECT (SELECT max(notification_id) FROM {workspace.schema}.events) - min(position)"
            f" FROM {workspace.schema}.views WHERE name = ANY(%s)".encode(),
            ([view.name for view in VIEWS if not view.at_leisure],),
        )
        row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def _delays(workspace: Workspace) -> list[tuple[datetime, float]]:
    """Give when each breach was recorded, and how many seconds after its deadline."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            f"""
            SELECT recorded_at, extract(epoch FROM recorded_at
                - (convert_from(state, 'UTF8')::jsonb ->> 'timestamp')::timestamptz)::float8
            FROM {workspace.schema}.events WHERE topic = 'ticket.sla_breached'
            """.encode()
        )
        return list(await cursor.fetchall())


def _processor_seconds(place: Ground) -> dict[str, float]:
    """Give what this process, timer and views in one, and the server have used so far, as far as that is to be seen."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    server = use(os.getpid(), 0, place.cluster).postgres
    return {"desk": used.ru_utime + used.ru_stime} | ({} if server is None else {"postgres": server})


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
