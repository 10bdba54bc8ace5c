"""How soon the queue is told as it was at any instant, from a log of millions of events, beside the queue as it is."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg.sql import SQL, Identifier

from projections import queue_history, ticket_queue
from projections.ticket_queue import QueueFilter, count_tickets, list_tickets
from replay.queue_as_of import MomentAsked, count_tickets_at, list_tickets_at, resolve
from replay.rebuild import rebuild
from storage.database import Database
from storage.settings import Settings
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.ground import WORKSPACE, MeasurementError, ground, say
from tests.benchmarks.machine import figures_line
from tests.benchmarks.seed import fill

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from uuid import UUID

    from projections.view import View
    from storage.database import Workspace

T = TypeVar("T")

EVENTS = 10_000_000
LOOKS = 60  # at instants spread over the whole log, by each question
WARM_UP_LOOKS = 5
PAGE: Final = 50
THE_QUESTION: Final = "team_open_by_due"


async def main(settings: Settings, *, events: int = EVENTS, looks: int = LOOKS) -> dict[str, Any]:
    """Ask for a page of the queue at random moments, by position and by the source's time, and for the page of now.

    The first question is a team's open tickets by when they are due, 50 a page: the figures not under another's name are
    of it. `fold_prefix_seconds` is what it takes to fold half of the log, at the pace of the rebuild in this run: that
    is how long an instant in the middle takes with nothing kept of the past, and `ratio` how many times longer than the
    median of ours. Raises MeasurementError.
    """
    async with ground(settings) as place, await Database.open(place.settings) as database:
        workspace = await database.workspace(WORKSPACE)
        await fill(place.settings, workspace, events)
        await place.checkpoint()
        rates = {view.name: await _built(workspace, view) for view in (ticket_queue.VIEW, queue_history.VIEW)}
        await place.checkpoint()
        questions = await _questions(workspace)
        chance = random.Random(1)  # noqa: S311 - repeatable moments, no secret
        positions = [chance.randint(1, events) for _ in range(looks)]
        told: dict[str, dict[str, Any]] = {}
        for name, (tickets, sort) in questions.items():
            say(f"as-of: {name}")
            told[name] = await _told(workspace, tickets, sort, positions)
        counts = await _counted(workspace, questions[THE_QUESTION][0], positions)
        await _check(workspace, positions[:10])
        log_bytes = await _bytes(workspace, "events")
        past_bytes = await _bytes(workspace, queue_history.VIEW.label)
        queue_bytes = await _bytes(workspace, ticket_queue.VIEW.label)
    first = told.pop(THE_QUESTION)
    middle = first["as_of_milliseconds"]["p50"]
    fold_seconds = events / 2 / rates[ticket_queue.VIEW.name]
    return {
        "benchmark": "as_of",
        "ratio": round(fold_seconds * 1000 / middle, 1),
        "ratio_to_live": round(middle / first["live_milliseconds"]["p50"], 1),
        **first,
        **counts,
        "fold_prefix_seconds": round(fold_seconds, 2),
        "other_questions": told,
        "events": events,
        "looks": looks,
        "past_bytes_per_event": round(past_bytes / events, 1),
        "queue_bytes_per_event": round(queue_bytes / events, 1),
        "log_bytes_per_event": round(log_bytes / events, 1),
        "rebuild_events_per_second": {name: round(rate) for name, rate in rates.items()},
        "server": place.durability,
    }


async def _built(workspace: Workspace, view: View) -> float:
    """Build a view from the log; gives events a second."""
    report = await rebuild(workspace, view)
    say(f"as-of: {report.rows:,} rows of {view.name} in {report.seconds:.1f} s, {report.rate:,.0f} events/s")
    return report.rate


async def _questions(workspace: Workspace) -> dict[str, tuple[QueueFilter, str]]:
    """Give questions about the team with the most open tickets, its busiest agent, and the whole desk."""
    teams = (await count_tickets(workspace, QueueFilter(statuses=["open"]), by="team")).counts
    team = _most(teams)
    agents = (await count_tickets(workspace, QueueFilter(teams=[team]), by="agent")).counts
    return {
        THE_QUESTION: (QueueFilter(teams=[team], statuses=["open"]), "due"),
        "team_closed_by_updated": (QueueFilter(teams=[team], statuses=["closed"]), "updated"),
        "agent_by_priority": (QueueFilter(agent=_most(agents)), "priority"),
        "all_by_updated": (QueueFilter(), "updated"),
        "unassigned_urgent_by_opened": (QueueFilter(agent="unassigned", priorities=["urgent"]), "opened"),
    }


def _most(counts: dict[Any, int]) -> UUID:
    found: UUID | None = max((one for one in counts if one is not None), key=lambda one: counts[one], default=None)
    if found is None:
        message = "the log is too short to have an open ticket of a team and an agent's ticket in it"
        raise MeasurementError(message)
    return found


async def _told(workspace: Workspace, tickets: QueueFilter, sort: str, positions: list[int]) -> dict[str, Any]:
    """Ask one question by turns of the queue as it is and as it was, in recorded time and in the source's."""
    live: list[float] = []
    recorded: list[float] = []
    occurred: list[float] = []
    items = 0
    for number, position in enumerate([*positions[:WARM_UP_LOOKS], *positions]):
        moment = await resolve(workspace, MomentAsked(position))
        took_live, _ = await _timed(list_tickets(workspace, tickets, sort=sort, limit=PAGE))
        took_recorded, page = await _timed(
            list_tickets_at(workspace, MomentAsked(position), tickets, sort=sort, limit=PAGE)
        )
        took_occurred, _ = await _timed(
            list_tickets_at(workspace, MomentAsked(None, moment.recorded_at), tickets, sort=sort, limit=PAGE)
        )
        if number >= WARM_UP_LOOKS:
            live.append(took_live)
            recorded.append(took_recorded)
            occurred.append(took_occurred)
            items += len(page.items)
    return {
        "as_of_milliseconds": milliseconds(recorded),
        "occurred_as_of_milliseconds": milliseconds(occurred),
        "live_milliseconds": milliseconds(live),
        "items_a_page": round(items / len(positions), 1),
    }


async def _counted(workspace: Workspace, tickets: QueueFilter, positions: list[int]) -> dict[str, Any]:
    """Count by priority what the first question lists, as it is and as it was."""
    live, recorded = [], []
    for position in positions:
        took_live, _ = await _timed(count_tickets(workspace, tickets, by="priority"))
        took, _ = await _timed(count_tickets_at(workspace, MomentAsked(position), tickets, by="priority"))
        live.append(took_live)
        recorded.append(took)
    return {"counts_as_of_milliseconds": milliseconds(recorded), "counts_live_milliseconds": milliseconds(live)}


async def _timed(asking: Awaitable[T]) -> tuple[float, T]:
    started = time.perf_counter()
    answer = await asking
    return time.perf_counter() - started, answer


async def _check(workspace: Workspace, positions: list[int]) -> None:
    """Compare what is counted as of moments with the tickets that the log had by then. Raises MeasurementError."""
    opened = SQL("SELECT count(*) FROM {}.events WHERE notification_id <= %s AND topic = 'ticket.opened'")
    for position in positions:
        counted = sum((await count_tickets_at(workspace, MomentAsked(position))).counts.values())
        async with workspace.database.pool.connection() as connection:
            cursor = await connection.execute(opened.format(Identifier(workspace.schema)), (position,))
            row = await cursor.fetchone()
        if row is None or counted != row[0]:
            message = f"as of position {position} there are {counted} tickets in the queue, in the log {row}"
            raise MeasurementError(message)


async def _bytes(workspace: Workspace, table: str) -> int:
    """Give the size of a table with its indexes and what is stored aside."""
    async with workspace.database.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT pg_total_relation_size(to_regclass(%s))", (f'"{workspace.schema}"."{table}"',)
        )
        row = await cursor.fetchone()
    return int(row[0]) if row is not None else 0


if __name__ == "__main__":
    sys.stdout.write(figures_line(asyncio.run(main(Settings.from_environment()))) + "\n")
