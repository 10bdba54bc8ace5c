"""Looking after the timer: how late it is, and how far adoptions have come."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from api.cli.sla_keeping import sla
from api.cli.surroundings import surroundings_of, work
from api.timer_standing import Adoption, TimerStanding, adoptions
from replay.terminal import console_for, visible

if TYPE_CHECKING:
    from collections.abc import Sequence


def add_to(_: typer.Typer) -> None:
    """Add these commands to the command line."""
    sla.command("timer")(show_timer)


def show_timer(context: typer.Context) -> None:
    """Show how late the timer is, and how far what was adopted has been carried to open tickets."""

    async def look() -> tuple[TimerStanding, Sequence[Adoption]]:
        async with surroundings_of(context).workspace() as workspace:
            return await TimerStanding.of(workspace), await adoptions(workspace)

    standing, adopted = work(look())
    typer.echo(_told(standing))
    if adopted:
        table = Table("adopted", "at", "open tickets", box=None, pad_edge=False)
        for one in adopted:
            table.add_row(visible(one.what), f"{one.at:%Y-%m-%d %H:%M}", standing.progress_of(one))
        console_for(sys.stdout).print(table)


def _told(standing: TimerStanding) -> str:
    if not standing.watching:
        return "There is no queue yet, by which the timer goes: `desk serve` or `desk project` keeps it up."
    if standing.next_at is None:
        return "Nothing is going to fall due."
    if standing.lag_seconds > 0:
        return f"The timer is {standing.lag_seconds:,.1f} s late: something fell due at {standing.next_at:%Y-%m-%d %H:%M:%S}."
    return f"The next thing falls due at {standing.next_at:%Y-%m-%d %H:%M:%S} UTC."
