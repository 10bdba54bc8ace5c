"""Bringing the histories of other desks in."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads the annotation at run time
from typing import Annotated

import typer

from api.cli.progress import progress_of
from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of, work
from commands.imports import FORMATS, ImportRefused, Summary, run_import
from domain.ticket_events import TicketType  # noqa: TC001 - typer reads the annotation at run time


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("import")(bring_in)


def bring_in(
    context: typer.Context,
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {', '.join(sorted(FORMATS))}.")],
    file: Annotated[Path, typer.Argument(help="CSV, plain or gzipped.")],
    *,
    rejects: Annotated[Path | None, typer.Option(help="Where refused rows go, with line and reason, as CSV.")] = None,
    zone: Annotated[str | None, typer.Option(help="For times that name none, instead of the format's.")] = None,
    ticket_type: Annotated[TicketType | None, typer.Option("--type", help="Of the tickets.")] = None,
    announce: Annotated[
        bool,
        typer.Option("--announce", help="Breaches and reminders of what has passed are recorded, and steps taken."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The account as one line of JSON.")] = False,
) -> None:
    """Turn a foreign log into customers, tickets and their events; doing it again adds nothing."""
    found = FORMATS.get(format_name)
    if found is None:
        message = f"There is no format {format_name!r}; there are {', '.join(sorted(FORMATS))}."
        raise Failure(message, MISCONFIGURED)

    async def carry_out() -> Summary:
        async with surroundings_of(context).workspace() as workspace:
            with progress_of(file.name, "rows") as progress:
                return await run_import(
                    workspace,
                    found,
                    file,
                    zone=zone,
                    ticket_type=ticket_type,
                    progress=progress,
                    rejects_path=rejects,
                    announce=announce,
                )

    try:
        summary = work(carry_out())
    except ImportRefused as refusal:
        raise Failure(str(refusal)) from None
    except OSError as error:
        message = f"{error.filename or file} cannot be used: {error.strerror or error}."
        raise Failure(message) from None
    typer.echo(json.dumps(summary.as_json(), ensure_ascii=False) if as_json else summary.as_text())
