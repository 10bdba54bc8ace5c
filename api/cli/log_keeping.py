"""Looking after the log: its epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of, work
from api.problems import sentence
from storage import epochs
from storage.database import Database
from storage.migrations import migrate

if TYPE_CHECKING:
    from storage.epochs import Epoch

log = typer.Typer(no_args_is_help=True, help="The log: the epochs that a restore or a failover begins.")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(log, name="log")


@log.command("epochs")
def list_epochs(context: typer.Context) -> None:
    """List the epochs of the log: since when, up to which position the ones before still hold, and why."""

    async def found() -> list[Epoch]:
        async with surroundings_of(context).workspace() as workspace:
            return await workspace.log.epochs.all()

    table = Table("Epoch", "Began", "Takes over up to", "Why")
    for one in work(found()):
        table.add_row(one.epoch, f"{one.started_at:%Y-%m-%d %H:%M:%S}", str(one.after_position), one.reason)
    Console(soft_wrap=True).print(table)


@log.command("renew-epoch")
def renew_epoch(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="What happened to the log; kept with the epoch.")],
    trust: Annotated[
        int, typer.Option(min=0, help="The last position that is surely what it was; those above are refused.")
    ] = 0,
) -> None:
    """Begin an epoch: positions, lists and waits handed out before are refused, except up to --trust.

    For what the log cannot notice by itself: a copy of the data's files, or a snapshot of the disk, put back.
    """
    settings = surroundings_of(context).settings()

    async def renew() -> str:
        async with settings.server_conninfo("ledgerdesk_owner"):
            await migrate(settings)
            async with await Database.open(settings, role="owner", pool_size=1) as database:
                workspace = await database.workspace(settings.workspace)
                try:
                    return await epochs.renew(workspace, reason, trusted=trust)
                except ValueError as error:
                    raise Failure(sentence(str(error)), MISCONFIGURED) from None

    typer.echo(f"The log is in epoch {work(renew())} now.")
