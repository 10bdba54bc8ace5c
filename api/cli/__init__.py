"""The `desk` command: run the desk, look after its record, read a ticket's past, bring foreign histories in."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from api.cli import (
    bench,
    consuming,
    importing,
    keeping,
    log_keeping,
    programs,
    queue_diff,
    reading,
    rebuilding,
    serving,
    sla_explaining,
    sla_keeping,
    timer_keeping,
    view_keeping,
    what_if,
)
from api.cli.surroundings import Failure, Surroundings, explain

app = typer.Typer(
    name="desk",
    help="A service desk whose record can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (
    serving,
    keeping,
    view_keeping,
    rebuilding,
    consuming,
    log_keeping,
    programs,
    reading,
    queue_diff,
    importing,
    sla_keeping,
    what_if,
    timer_keeping,
    sla_explaining,
    bench,
):
    part.add_to(app)


@app.callback()
def surroundings(
    context: typer.Context,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="The workspace to work on; else DESK_WORKSPACE, else main.")
    ] = None,
) -> None:
    """Run a service desk whose record can be trusted."""
    context.obj = Surroundings(workspace)


def main() -> None:
    """Run the command line; a failure is one sentence on standard error and a status.

    Status 1: refused or failed. Status 2: the command line, the settings or the database are not right.
    """
    try:
        app(prog_name="desk")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        failure = error if isinstance(error, Failure) else explain(error)
        if failure is None:
            raise
        typer.echo(f"desk: {failure}", err=True)
        sys.exit(failure.status)
