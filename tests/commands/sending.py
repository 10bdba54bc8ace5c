"""Sends commands as the edge does, for tests that are about what comes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from commands.catalogue import COMMANDS
from commands.desk import Desk, Kind
from commands.execution import execute
from commands.request import Caller, Outcome, Request
from domain.event import Channel, Role

if TYPE_CHECKING:
    from storage.database import Workspace


def caller(role: Role = Role.ADMINISTRATOR, actor_id: UUID | None = None) -> Caller:
    return Caller(uuid4(), role, actor_id or uuid4(), channel=Channel.API, source_address="192.0.2.1")


@dataclass
class Sender:
    """Somebody at a desk; `send("ticket", "assign", ticket, agent_id=...)` carries a command out."""

    desk: Desk
    caller: Caller = field(default_factory=caller)

    @classmethod
    def at(cls, workspace: Workspace, **given: Any) -> Sender:
        return cls(Desk(workspace), **given)

    async def send(
        self,
        kind: Kind,
        name: str,
        target: UUID | None = None,
        /,
        *,
        key: str | None = None,
        expected_version: int | None = None,
        **fields: Any,
    ) -> Outcome:
        spec = COMMANDS[kind, name]
        request = Request(self.caller, datetime.now(UTC), uuid4(), key=key, expected_version=expected_version)
        return await execute(self.desk, request, spec, target, spec.model.model_validate(fields))

    def as_caller(self, other: Caller) -> Sender:
        return Sender(self.desk, other)

    async def team(self, name: str = "Network") -> UUID:
        return (await self.send("team", "create", name=name)).stream

    async def agent(self, name: str = "Bob", *, team: UUID | None = None) -> UUID:
        return (await self.send("agent", "create", name=name, team_ids=[] if team is None else [team])).stream

    async def customer(self, name: str = "Ann", **fields: Any) -> UUID:
        return (await self.send("customer", "register", name=name, **fields)).stream

    async def ticket(self, requester: UUID | None = None, **fields: Any) -> UUID:
        given = {"subject": "Printer on fire", "body": "It smokes.", **fields}
        requester_id = requester or await self.customer()
        return (await self.send("ticket", "open", requester_id=requester_id, **given)).stream
