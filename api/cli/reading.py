"""Reading one ticket on the command line: as it is, as it was, and its whole life."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final
from uuid import uuid4

import typer
from rich.table import Table
from rich.text import Text

from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of, work
from api.ticket_pages import NOW, Moment, TicketTold, ticket_told
from commands.desk import Desk
from commands.request import Caller
from domain.event import SYSTEM_ACTOR, Channel, Role
from replay.history import history
from replay.terminal import console_for, visible, write, write_json
from storage.codec import UnreadableEvent

if TYPE_CHECKING:
    from rich.console import Console

    from replay.history import History

MESSAGES_SHOWN: Final = 1_000
_POSITION = re.compile(r"[0-9]{1,18}")

Reference = Annotated[str, typer.Argument(metavar="TICKET", help="Its id, short number or foreign id.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("replay")(replay)
    app.command("ticket")(show)


def show(context: typer.Context, ticket: Reference, *, as_json: AsJson = False) -> None:
    """Show a ticket as it is."""
    told, _ = work(_read(context, ticket, NOW))
    if isinstance(told, UnreadableEvent):
        raise told
    if as_json:
        typer.echo(told.model_dump_json(indent=2))
    else:
        _write_ticket(told, console_for(sys.stdout))


def replay(
    context: typer.Context,
    ticket: Reference,
    as_of: Annotated[str | None, typer.Option(help="As the desk knew it at an instant, with its zone.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="As of a version.")] = None,
    position: Annotated[str | None, typer.Option(help="As of a position of the log.")] = None,
    as_json: AsJson = False,  # noqa: FBT002 - options of the command line
) -> None:
    """Tell a ticket's whole life, or its life up to a moment and how it stood then."""
    if sum(one is not None for one in (as_of, version, position)) > 1:
        message = "Give --as-of, --version or --position, not several."
        raise Failure(message, MISCONFIGURED)
    moment = Moment(version, None if as_of is None else _instant(as_of), None if position is None else _place(position))
    told, life = work(_read(context, ticket, moment))
    console = console_for(sys.stdout)
    if as_json and not moment.past:
        write_json(life, sys.stdout)
    elif not as_json:
        upto = life.version if isinstance(told, UnreadableEvent) else told.version
        write(_upto(life, upto), console)
    if isinstance(told, UnreadableEvent):
        raise told
    if as_json and moment.past:
        typer.echo(told.model_dump_json(indent=2))
    elif moment.past:
        console.print()
        _write_ticket(told, console)


def _upto(life: History, version: int) -> History:
    entries = tuple(entry for entry in life.entries if entry.version <= version)
    return replace(life, entries=entries, unreadable=tuple(mark for mark in life.unreadable if mark.version <= version))


async def _read(context: typer.Context, reference: str, moment: Moment) -> tuple[TicketTold | UnreadableEvent, History]:
    """Give a ticket as of a moment, or what keeps it from being told, and its whole life as far as it can be read."""
    async with surroundings_of(context).workspace() as workspace:
        stream = await Desk(workspace).resolve("ticket", reference)
        # Whoever may start this command holds the root key: nothing can be kept from that person.
        caller = Caller(uuid4(), Role.ADMINISTRATOR, SYSTEM_ACTOR, channel=Channel.COMMAND_LINE)
        told: TicketTold | UnreadableEvent
        try:
            told = await ticket_told(workspace, stream, caller, moment, limit=MESSAGES_SHOWN)
        except UnreadableEvent as error:
            told = error
        return told, await history(workspace, stream, kind="ticket", marked=True)


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        message = f"--as-of takes an instant with its zone, such as 2026-01-31T12:00:00+08:00, not {text!r}."
        raise Failure(message, MISCONFIGURED)
    return instant


def _place(text: str) -> int:
    if _POSITION.fullmatch(text) is None:
        message = f"--position takes a number, not {text!r}."
        raise Failure(message, MISCONFIGURED)
    return int(text)


def _write_ticket(told: TicketTold, console: Console) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    moment = " (may still gain events)" if told.provisional else ""
    lines = {
        "ticket": f"{told.number}  {told.id}",
        "subject": told.subject,
        "as of": f"version {told.version}, position {told.position}{moment}",
        "status": told.status,
        "priority": told.priority,
        "type": told.type,
        "category": told.category,
        "requester": told.requester.name or str(told.requester.id),
        "agent": told.agent and (told.agent.name or str(told.agent.id)),
        "team": told.team and (told.team.name or str(told.team.id)),
        "level": str(told.level) if told.level else None,
        "tags": ", ".join(told.tags),
        "foreign id": told.foreign_id,
        "opened": told.opened_at.isoformat(" ", "seconds"),
        "solved": told.solved_at and told.solved_at.isoformat(" ", "seconds"),
        "closed": told.closed_at and told.closed_at.isoformat(" ", "seconds"),
        "waits for": told.third_party,
        "resolution": told.resolution_code,
        **{name: value for name, value in told.custom_fields.items() if name not in TicketTold.model_fields},
        "messages": str(len(told.messages.items)),
        "allowed": ", ".join(told.allowed_commands),
    }
    for name, value in lines.items():
        if value:
            table.add_row(Text(visible(name)), Text(visible(value)))
    console.print(table)
