"""Why a ticket's clocks stand as they do, on the command line: their arithmetic, line by line."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic_core import to_json
from rich.text import Text

from api.cli.reading import AsJson, Reference  # noqa: TC001 - typer reads the annotation at run time
from api.cli.sla_keeping import sla
from api.cli.surroundings import surroundings_of, work
from api.clocks_told import ticket_told
from commands.desk import Desk
from domain.sla_terms import Metric
from replay.explained_clocks import explained
from replay.terminal import console_for, visible

if TYPE_CHECKING:
    from rich.console import Console

    from replay.explained_clocks import ExplainedClock, ExplainedTicket

Chosen = Annotated[list[Metric] | None, typer.Option("--metric", help="Of this metric only; may be given again.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line; they are in the group that `sla_keeping` adds."""


@sla.command("explain")
def explain(context: typer.Context, ticket: Reference, *, metric: Chosen = None, as_json: AsJson = False) -> None:
    """Tell how every clock of a ticket stands, and line by line why."""
    now = datetime.now(UTC)
    found = work(_read(context, ticket, now))
    if metric:
        found = found._replace(clocks=tuple(one for one in found.clocks if one.clock.metric in metric))
    if as_json:
        typer.echo(to_json(ticket_told(found, now), indent=2).decode())
    else:
        _write(found, console_for(sys.stdout))


async def _read(context: typer.Context, reference: str, now: datetime) -> ExplainedTicket:
    async with surroundings_of(context).workspace() as workspace:
        return await explained(workspace, await Desk(workspace).resolve("ticket", reference), now=now)


def _write(ticket: ExplainedTicket, console: Console) -> None:
    if not ticket.clocks:
        console.print(Text(f"Nothing is promised about ticket {ticket.number}."))
    for one in ticket.clocks:
        console.print(Text(_heading(one), style="bold"))
        for line in one.lines:
            console.print(Text(f"  {visible(line.text)}"), soft_wrap=True)
        for noted in one.on_record:
            at, when = noted.occurred_at, noted.recorded_at
            console.print(
                Text(
                    f"  on record: {noted.topic} at {_instant(at)}, noticed at {_instant(when)}, position {noted.position}"
                ),
                soft_wrap=True,
            )
        console.print()


def _heading(one: ExplainedClock) -> str:
    clock = one.clock
    which = f" {clock.serial}" if clock.serial is not None and clock.serial > 1 else ""
    share = "" if clock.percent_used is None else f", {clock.percent_used:.1f} % used"
    return f"{clock.metric}{which}: {str(clock.state).replace('_', ' ')}{share}"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(" ").replace("+00:00", " UTC")
