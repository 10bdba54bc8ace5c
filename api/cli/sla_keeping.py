"""What the desk promises, on the command line: its calendars and policies."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from api.cli.surroundings import surroundings_of, work
from commands.desk import Desk
from replay.terminal import console_for, visible

if TYPE_CHECKING:
    from domain.service_levels import Book

sla = typer.Typer(no_args_is_help=True, help="Service levels: calendars, policies, and how tickets stand by them.")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(sla, name="sla")


@sla.command("calendars")
def list_calendars(context: typer.Context) -> None:
    """List the calendars by their latest versions."""
    book = work(_book(context))
    table = Table("calendar", "version", "time zone", "from", "holidays", box=None, pad_edge=False)
    for name, versions in sorted(book.calendars.items()):
        terms = versions[-1]
        holidays = "" if terms.holidays is None else f"{terms.holidays.country} {terms.holidays.subdivision or ''}"
        begins = "" if terms.valid_from is None else terms.valid_from.isoformat()
        table.add_row(visible(name), str(len(versions)), terms.time_zone, begins, holidays.strip())
    _show(table, "No calendar has been adopted.")


@sla.command("policies")
def list_policies(context: typer.Context) -> None:
    """List the policies in the order in which they are tried, retired ones last."""
    book = work(_book(context))
    table = Table("policy", "version", "order", "calendar", "promises", "state", box=None, pad_edge=False)
    for name in (*book.in_force, *sorted(book.retired)):
        terms = book.policies[name][-1]
        metrics = ", ".join(dict.fromkeys(str(target.metric) for target in terms.targets))
        state = "retired" if name in book.retired else "in force"
        version = str(len(book.policies[name]))
        table.add_row(visible(name), version, str(terms.order), visible(terms.calendar or ""), metrics, state)
    _show(table, "No policy has been adopted: the standard promises hold, in calendar time.")


def _show(table: Table, nothing: str) -> None:
    if table.row_count:
        console_for(sys.stdout).print(table)
    else:
        typer.echo(nothing)


async def _book(context: typer.Context) -> Book:
    async with surroundings_of(context).workspace() as workspace:
        return await Desk(workspace).book(fresh=True)
