"""What the desk promises, on the command line: its calendars and policies."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import uuid4

import typer
from pydantic import ValidationError
from rich.table import Table

from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of, work
from commands.catalogue import COMMANDS
from commands.desk import Desk
from commands.execution import execute
from commands.request import Caller, Command, Request
from commands.service_levels import AdoptCalendar, AdoptPolicy, RetirePolicy
from domain.event import SYSTEM_ACTOR, Channel, Role
from domain.service_levels import SERVICE_LEVELS_ID
from replay.terminal import console_for, visible

if TYPE_CHECKING:
    from domain.service_levels import Book, OpenTickets

C = TypeVar("C", bound=Command)

File = Annotated[
    Path, typer.Argument(allow_dash=True, help="JSON, as the command takes it over HTTP; - reads the input.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave open tickets on what they go by; else they move.")]

sla = typer.Typer(no_args_is_help=True, help="Service levels: calendars, policies, and how tickets stand by them.")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(sla, name="sla")


@sla.command("adopt-calendar")
def adopt_calendar(context: typer.Context, file: File, *, keep: Keep = False) -> None:
    """Adopt a calendar, or another version of one."""
    command = command_in(file, AdoptCalendar)
    _adopt(context, "adopt-calendar", command, keep=keep)


@sla.command("adopt-policy")
def adopt_policy(context: typer.Context, file: File, *, keep: Keep = False) -> None:
    """Adopt a policy, or another version of one."""
    command = command_in(file, AdoptPolicy)
    _adopt(context, "adopt-policy", command, keep=keep)


@sla.command("retire-policy")
def retire_policy(context: typer.Context, name: str, *, keep: Keep = False) -> None:
    """Choose a policy for no ticket any more."""
    try:
        command = RetirePolicy(name=name)
    except ValidationError as error:
        raise Failure(_first(error), MISCONFIGURED) from None
    _adopt(context, "retire-policy", command, keep=keep)


def command_in(file: Path, model: type[C]) -> C:
    """Read a command from a file of JSON. Raises Failure."""
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}."
        raise Failure(message, MISCONFIGURED) from None
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        message = f"{file}: {_first(error)}"
        raise Failure(message, MISCONFIGURED) from None


def _first(error: ValidationError) -> str:
    """Say the first thing that is wrong, and how many there are, in one sentence."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(map(str, errors[0]["loc"]))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    said = errors[0]["msg"].removeprefix("Value error, ")
    return visible(f"{where}: {said}{more}." if where else f"{said}{more}.").replace("\n", " ")


def _adopt(
    context: typer.Context, name: str, command: AdoptCalendar | AdoptPolicy | RetirePolicy, *, keep: bool
) -> None:
    open_tickets: OpenTickets = "keep" if keep else command.open_tickets
    command = command.model_copy(update={"open_tickets": open_tickets})
    # Whoever may start this command holds the root key: nothing can be kept from that person.
    caller = Caller(uuid4(), Role.ADMINISTRATOR, SYSTEM_ACTOR, channel=Channel.COMMAND_LINE, client="desk sla")

    async def carry_out() -> tuple[bool, Book]:
        async with surroundings_of(context).workspace() as workspace:
            desk = Desk(workspace)
            request = Request(caller, datetime.now(UTC), uuid4())
            outcome = await execute(desk, request, COMMANDS["service_levels", name], SERVICE_LEVELS_ID, command)
            return outcome.changed, await desk.book(fresh=True)

    changed, book = work(carry_out())
    typer.echo(_told(command, book, changed=changed))


def _told(command: AdoptCalendar | AdoptPolicy | RetirePolicy, book: Book, *, changed: bool) -> str:
    shown = visible(command.name)
    stay = "move to it" if command.open_tickets == "move" else "stay with what they go by"
    match command:
        case AdoptCalendar():
            said = f"calendar {shown}, version {len(book.calendars[command.name])}"
        case AdoptPolicy():
            said = f"policy {shown}, version {len(book.policies[command.name])}"
        case _:
            leave = "go by another" if command.open_tickets == "move" else "stay with it"
            return (
                f"Retired the policy {shown}; open tickets {leave}." if changed else f"It was retired before: {shown}."
            )
    return f"Adopted the {said}; open tickets {stay}." if changed else f"In force already: {said}."


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
