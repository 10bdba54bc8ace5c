"""The other yardstick: the ticket queue kept by the library's `ProjectionRunner`, one transaction an event."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.persistence import Tracking  # noqa: TC002 - read at run time by the dispatcher
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL, Identifier

from tests.benchmarks.ground import MeasurementError
from tests.benchmarks.lives import CATEGORIES, SENTENCES, SUBJECTS
from tests.benchmarks.plain import Desk, Ticket

if TYPE_CHECKING:
    from collections.abc import Mapping

TICKETS_A_SAVE = 10  # a save is one pipeline, and psycopg was seen to wait for ever in one of half a megabyte
LONGEST_SECONDS = 300.0

TABLE = """
CREATE TABLE IF NOT EXISTS {schema}.{table} (
    ticket_id    uuid PRIMARY KEY,
    since        bigint NOT NULL,
    version      bigint NOT NULL,
    subject      text NOT NULL,
    status       text NOT NULL,
    priority     text NOT NULL,
    type         text NOT NULL,
    category     text,
    tags         text[] NOT NULL,
    team_id      uuid,
    agent_id     uuid,
    requester_id uuid NOT NULL,
    channel      text NOT NULL,
    level        smallint NOT NULL,
    opened_at    timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL
)
"""
INDEXES = (
    "CREATE INDEX IF NOT EXISTS queue_by_team ON {schema}.{table} (team_id, status, updated_at)",
    "CREATE INDEX IF NOT EXISTS queue_by_agent ON {schema}.{table} (agent_id, status, updated_at)",
    "CREATE INDEX IF NOT EXISTS queue_by_status ON {schema}.{table} (status, updated_at)",
    "CREATE INDEX IF NOT EXISTS queue_by_requester ON {schema}.{table} (requester_id, updated_at)",
)
INSERT = """
INSERT INTO {schema}.{table} (ticket_id, since, version, subject, status, priority, type, category, tags, requester_id,
    channel, level, opened_at, updated_at)
VALUES (%(ticket_id)s, %(since)s, %(version)s, %(subject)s, 'new', %(priority)s, %(type)s, %(category)s, %(tags)s,
    %(requester_id)s, %(channel)s, 0, %(at)s, %(at)s)
"""
UPDATE = """
UPDATE {schema}.{table} SET since = %(since)s, version = %(version)s, updated_at = %(at)s,
    status = coalesce(%(status)s, status), agent_id = coalesce(%(agent_id)s, agent_id),
    team_id = coalesce(%(team_id)s, team_id), level = coalesce(%(level)s, level)
WHERE ticket_id = %(ticket_id)s
"""


class Queue(PostgresTrackingRecorder):
    """The queue's table; a row and the tracking of its event are written in one transaction."""

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        self._names = {"schema": Identifier(datastore.schema), "table": Identifier("plain_ticket_queue")}
        self.sql_create_statements += [SQL(statement).format(**self._names) for statement in (TABLE, *INDEXES)]
        self._insert, self._update = SQL(INSERT).format(**self._names), SQL(UPDATE).format(**self._names)

    def open(self, values: Mapping[str, Any], tracking: Tracking) -> None:
        """Add a ticket."""
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(self._insert, values, prepare=True)
            self._insert_tracking(cursor, tracking)

    def move(self, values: Mapping[str, Any], tracking: Tracking) -> None:
        """Change a ticket; None leaves a column as it is."""
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(self._update, values, prepare=True)
            self._insert_tracking(cursor, tracking)


class QueueProjection(Projection[Queue]):
    """Follows each ticket's present values, as the library's documentation shows."""

    name = "queue"

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Take in an event by its class."""
        self._move(domain_event, tracking)

    @process_event.register
    def opened(self, domain_event: Ticket.Opened, tracking: Tracking) -> None:  # type: ignore[name-defined]  # made by @event
        """Add the ticket."""
        event: Any = domain_event
        self.view.open(
            {
                "ticket_id": event.originator_id,
                "since": tracking.notification_id,
                "version": event.originator_version,
                "subject": event.subject,
                "priority": event.priority,
                "type": event.type,
                "category": event.category,
                "tags": event.tags,
                "requester_id": event.requester_id,
                "channel": event.channel,
                "at": event.timestamp,
            },
            tracking,
        )

    @process_event.register
    def assigned(self, domain_event: Ticket.Assigned, tracking: Tracking) -> None:  # type: ignore[name-defined]
        """Take agent, team and status."""
        event: Any = domain_event
        self._move(event, tracking, agent_id=event.agent_id, team_id=event.team_id, status="open")

    @process_event.register
    def escalated(self, domain_event: Ticket.Escalated, tracking: Tracking) -> None:  # type: ignore[name-defined]
        """Take level and team."""
        event: Any = domain_event
        self._move(event, tracking, level=event.level, team_id=event.team_id)

    @process_event.register
    def solved(self, domain_event: Ticket.Solved, tracking: Tracking) -> None:  # type: ignore[name-defined]
        """Take the status."""
        self._move(domain_event, tracking, status="solved")

    @process_event.register
    def closed(self, domain_event: Ticket.Closed, tracking: Tracking) -> None:  # type: ignore[name-defined]
        """Take the status."""
        self._move(domain_event, tracking, status="closed")

    def _move(self, event: Any, tracking: Tracking, **values: Any) -> None:
        self.view.move(
            {
                "ticket_id": event.originator_id,
                "since": tracking.notification_id,
                "version": event.originator_version,
                "at": event.timestamp,
                "status": None,
                "agent_id": None,
                "team_id": None,
                "level": None,
                **values,
            },
            tracking,
        )


def fill(environment: Mapping[str, str], events: int, *, seed: int = 1) -> int:
    """Save tickets of some six events each until there are `events`; gives how many there are then."""
    chance = random.Random(seed)  # noqa: S311 - repeatable events, no secret
    ids = [UUID(int=chance.getrandbits(128), version=4) for _ in range(100)]
    written = 0
    with Desk(dict(environment)) as desk:
        while written < events:
            tickets = [_lived(chance, ids) for _ in range(min(TICKETS_A_SAVE, 1 + (events - written) // 6))]
            written += sum(ticket.version for ticket in tickets)
            desk.save(*tickets)
    return written


def _lived(chance: random.Random, ids: list[UUID]) -> Ticket:
    by: dict[str, Any] = {"actor_id": chance.choice(ids), "role": "agent"}
    ticket = Ticket(
        subject=chance.choice(SUBJECTS),
        body=" ".join(chance.sample(SENTENCES, 3)),
        requester_id=chance.choice(ids),
        channel="email",
        type="incident",
        priority=chance.choice(("low", "normal", "high", "urgent")),
        category=chance.choice(CATEGORIES),
        tags=["bench"],
        **by,
    )
    ticket.assign(agent_id=chance.choice(ids), team_id=chance.choice(ids), **by)
    for _ in range(chance.choice((1, 1, 2))):
        ticket.reply(text=" ".join(chance.sample(SENTENCES, 2)), **by)
    if chance.choice((True, False)):
        ticket.escalate(level=1, team_id=chance.choice(ids), reason="needs a specialist", **by)
    ticket.solve(resolution_code="fixed", **by)
    ticket.close(**by)
    return ticket


def run(environment: Mapping[str, str], last: int) -> float:
    """Fold every event up to `last` with a ProjectionRunner; gives events a second. Raises MeasurementError."""
    started = time.perf_counter()
    with ProjectionRunner(
        application_class=Desk, projection_class=QueueProjection, view_class=Queue, env=dict(environment)
    ) as runner:
        runner.wait(last, timeout=LONGEST_SECONDS)
        seconds = time.perf_counter() - started
        reached = runner.view.max_tracking_id("Desk")
    if reached is None or reached < last:
        message = f"the ProjectionRunner came to {reached} of {last} events"
        raise MeasurementError(message)
    return last / seconds
