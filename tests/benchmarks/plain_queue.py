"""The yardstick for pages of the queue: FastAPI and psycopg alone, with the same rows and no more said about them."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import FastAPI
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ADDRESS_VARIABLE = "LEDGERDESK_BENCH_QUEUE_ADDRESS"
PAGE = """
SELECT ticket_id, number, version, subject_sealed, status, priority, type, category, tags, team_id, agent_id,
       requester_id, channel, level, foreign_id, opened_at, updated_at, solved_at, wake_at, due_at
FROM {table} WHERE team_id = {team} AND status = {status}
ORDER BY coalesce(due_at, 'infinity'), number LIMIT {limit}
"""


class Ticket(BaseModel):
    """A ticket with what our queue says of it; the subject stays sealed."""

    ticket_id: UUID
    number: int
    version: int
    subject_sealed: str | None
    status: str
    priority: str
    type: str
    category: str | None
    tags: list[str]
    team_id: UUID | None
    agent_id: UUID | None
    requester_id: UUID
    channel: str
    level: int
    foreign_id: str | None
    opened_at: datetime
    updated_at: datetime
    solved_at: datetime | None
    wake_at: datetime | None
    due_at: datetime | None


def create() -> FastAPI:
    """Make the application; the environment names the database and the table."""
    address, table = os.environ[ADDRESS_VARIABLE].rsplit("|", 1)
    statement = PAGE.format(table=table, team="%(team)s", status="%(status)s", limit="%(limit)s").encode()
    pool = AsyncConnectionPool(address, min_size=5, max_size=10, open=False, kwargs={"autocommit": True})

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/queue")
    async def queue(team: UUID, status: str, limit: int = 50) -> list[Ticket]:
        async with pool.connection() as connection, connection.cursor(row_factory=dict_row, binary=True) as cursor:
            await cursor.execute(statement, {"team": team, "status": status, "limit": limit})
            return await cursor.fetchall()  # type: ignore[return-value]  # the framework makes tickets of them

    return app
