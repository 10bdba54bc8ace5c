"""A desk behind HTTP: two workspaces, a credential of every role in each, and somebody to serve."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import pytest

from api.app import create_app
from domain.event import Role
from projections.registry import VIEWS
from projections.runner import Runner
from storage import credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from storage.database import Database

LONGEST_WAIT = 0.3


@dataclass
class DeskOverHttp:
    """One workspace of a desk as its callers meet it."""

    client: httpx.AsyncClient
    database: Database
    workspace: str
    tokens: dict[Role, str]
    actors: dict[Role, UUID]
    ids: dict[str, str] = field(default_factory=dict)

    async def request(
        self, method: str, path: str, *, role: Role | None = Role.AGENT, headers: Any = None, **more: Any
    ) -> httpx.Response:
        """Send a request with the credential of a role, or with none."""
        sent = httpx.Headers(headers)
        if role is not None:
            sent.setdefault("Authorization", f"Bearer {self.tokens[role]}")
        return await self.client.request(method, path, headers=sent, **more)

    async def get(self, path: str, **more: Any) -> httpx.Response:
        """Read."""
        return await self.request("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Send a command."""
        return await self.request("POST", path, json={} if body is None else body, **more)

    async def done(self, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        """Send a command that is expected to be carried out; give what is told of it."""
        answer = await self.post(path, body, **more)
        assert answer.status_code in {200, 201}, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def open(self, **more: Any) -> dict[str, Any]:
        """Open a ticket for the customer."""
        body = {"subject": "Printer on fire", "body": "It smokes.", "requester_id": self.ids["customer"]}
        return await self.done("/tickets", body | more)

    async def head(self) -> int:
        """Give the log's end."""
        return (await (await self.database.workspace(self.workspace)).log.head()).position

    async def catch_up(self) -> None:
        """Bring every view to the log's end."""
        runner = Runner(self.database, VIEWS)
        await runner.catch_up(await self.database.workspace(self.workspace))
        await runner.release()

    async def people(self) -> None:
        """Have an agent, a team and a customer; the credentials of agent and customer are theirs."""
        administrator = Role.ADMINISTRATOR
        team = await self.done("/teams", {"name": "First line"}, role=administrator)
        agent = await self.done("/agents", {"name": "Ann Lee", "team_ids": [team["id"]]}, role=administrator)
        customer = await self.done("/customers", {"name": "王小明", "email": "wang@example.com"}, role=administrator)
        self.ids = {"team": team["id"], "agent": agent["id"], "customer": customer["id"]}
        for role in (Role.AGENT, Role.CUSTOMER):
            actor = UUID(self.ids[role])
            self.tokens[role] = await credentials.issue(self.database, self.workspace, role, actor, label="test")
            self.actors[role] = actor


@pytest.fixture
def app(database: Database) -> FastAPI:
    """Give the application; a revoked credential ends at once."""
    return create_app(database, longest_wait=LONGEST_WAIT, believed_seconds=0.0)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Call the application without a network between."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk.test") as found:
        yield found


async def over_http(client: httpx.AsyncClient, database: Database, workspace: str) -> DeskOverHttp:
    """Give a workspace with a credential of every role."""
    actors = {role: uuid4() for role in Role}
    tokens = {
        role: await credentials.issue(database, workspace, role, actor, label="test") for role, actor in actors.items()
    }
    desk = DeskOverHttp(client, database, workspace, tokens, actors)
    await desk.people()
    return desk


@pytest.fixture
async def desk(client: httpx.AsyncClient, database: Database) -> DeskOverHttp:
    """Give the desk of workspace alpha."""
    return await over_http(client, database, "alpha")


@pytest.fixture
async def other_desk(client: httpx.AsyncClient, database: Database) -> DeskOverHttp:
    """Give the desk of workspace beta, which must not notice."""
    return await over_http(client, database, "beta")
