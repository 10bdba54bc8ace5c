"""What `desk run` sets up and prints for somebody who has never seen the desk."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING, Final, NamedTuple

from commands.demo import NotEmpty, load_demo
from commands.desk import Desk
from domain.event import SYSTEM_ACTOR, Role
from domain.ticket import Ticket
from projections.registry import VIEWS
from projections.runner import Runner
from storage import credentials
from storage.database import Database
from storage.migrations import create_workspace, migrate

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from rich.console import Console

    from storage.database import Workspace
    from storage.settings import Settings

CREDENTIALS_FILE: Final = "credentials.json"
STAFF: Final = (
    Role.AGENT,
    Role.TEAM_LEAD,
    Role.SUPERVISOR,
    Role.AUDITOR,
    Role.DEVELOPER,
    Role.ADMINISTRATOR,
)
RECENT: Final = 5_000  # events looked through for a ticket that can still be worked on
LABEL: Final = "made by desk run"


class Examples(NamedTuple):
    """Whom and what the printed examples are about: agents, a customer, and the number of that one's ticket."""

    agents: list[UUID]
    requester: UUID | None
    ticket: int | None


class Opened(NamedTuple):
    """A desk that is ready to be tried, with a token for each role."""

    workspace: str
    tokens: dict[Role, str]
    examples: Examples


async def prepare(settings: Settings, console: Console) -> Opened:
    """Bring everything up to date, load the demo desk where there is nothing yet, and have a credential per role."""
    await migrate(settings)
    await create_workspace(settings, settings.workspace)
    async with await Database.open(settings) as database:
        workspace = await database.workspace(settings.workspace)
        if (await workspace.log.head()).position == 0:
            console.print("Loading a demo desk …")
            with suppress(NotEmpty):  # somebody else was quicker
                await load_demo(workspace)
            # So that the first look at a list finds it whole; later on the views keep up by themselves.
            runner = Runner(database, VIEWS)
            await runner.catch_up(workspace)
            await runner.release()
        examples = await _examples(workspace)
        tokens = await _tokens(workspace, settings.data_dir / CREDENTIALS_FILE, examples)
    return Opened(settings.workspace, tokens, examples)


async def _examples(workspace: Workspace) -> Examples:
    """Find people to act as, and a ticket that can still be worked on."""
    head = await workspace.log.head()
    agents = await workspace.log.page(0, len(STAFF), topics=["agent.created"])
    recent = await workspace.log.page(max(0, head.position - RECENT), RECENT, topics=["ticket.opened"])
    desk = Desk(workspace)
    for row in reversed(recent):
        ticket = await desk.load(Ticket, row.stream)
        if "assign" in ticket.allowed_commands():
            return Examples([agent.stream for agent in agents], ticket.requester_id, row.position)
    return Examples([agent.stream for agent in agents], None, None)


async def _tokens(workspace: Workspace, file: Path, examples: Examples) -> dict[Role, str]:
    """Give a token for each role: those of the last run where they still work, else new ones."""
    kept = _read(file)
    mine = kept.setdefault(workspace.name, {})
    actors = dict(zip(STAFF, cycle(examples.agents or [SYSTEM_ACTOR]), strict=False))
    if examples.requester is not None:
        actors[Role.CUSTOMER] = examples.requester
    tokens: dict[Role, str] = {}
    for role, actor_id in actors.items():
        token = mine.get(role)
        found = await credentials.find(workspace.database, token) if token else None
        if token is None or found is None or found.workspace != workspace.name:
            token = await credentials.issue(workspace.database, workspace.name, role, actor_id, label=LABEL)
        tokens[role] = mine[role] = token
    _write(file, kept)
    return tokens


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        kept = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {
        str(workspace): {str(role): str(token) for role, token in tokens.items()}
        for workspace, tokens in (kept.items() if isinstance(kept, dict) else ())
        if isinstance(tokens, dict)
    }


def _write(file: Path, kept: dict[str, dict[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump(kept, out, indent=2)
        out.write("\n")
    aside.replace(file)


def describe(opened: Opened, address: str) -> str:
    """Say where the desk is and how to try it."""
    width = max(map(len, Role))
    lines = [
        "",
        f"Ledgerdesk serves the workspace {opened.workspace} at  {address}",
        f"Interactive documentation                {address}/docs",
        "",
        "Credentials, one a role:",
        *(f"  {role:<{width}}  {token}" for role, token in opened.tokens.items()),
        "",
    ]
    agent, examples = opened.tokens.get(Role.AGENT), opened.examples
    if agent is not None and examples.agents and examples.ticket is not None:
        said = {"requester_id": str(examples.requester), "subject": "Printer on fire", "body": "It smokes."}
        given = {"agent_id": str(examples.agents[0])}
        curl = f"curl -s -H 'Authorization: Bearer {agent}'"
        post = f"{curl} -H 'Content-Type: application/json' -d"
        ticket = f"{address}/tickets/{examples.ticket}"
        lines += [
            "Try it: open a ticket, assign one, read its history.",
            f"  {post} '{json.dumps(said)}' {address}/tickets",
            f"  {post} '{json.dumps(given)}' {ticket}/assign",
            f"  {curl} {ticket}/history",
            "",
        ]
    lines.append("Ctrl-C stops everything that this command started.")
    return "\n".join(lines)
