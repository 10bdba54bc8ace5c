"""Looking after the views: how far each has come, what stopped it, letting it go on."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import new_view
from api.cli.surroundings import MISCONFIGURED, Failure, explain, surroundings_of, work
from api.cli.view_standing import Standing, show, watch
from api.problems import sentence
from projections import bookkeeping
from projections.registry import BY_NAME
from projections.skipping import skip

if TYPE_CHECKING:
    from projections.view import View

views = typer.Typer(help="The views: how far each has come, and what stopped it.")

ViewName = Annotated[str, typer.Argument(metavar="VIEW", help=f"One of: {', '.join(sorted(BY_NAME))}.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    new_view.add_to(views)
    app.add_typer(views, name="views")


def view_named(name: str) -> View:
    """Give the view of this release that has a name. Raises Failure."""
    view = BY_NAME.get(name)
    if view is None:
        message = f"There is no view {name!r}; there are {', '.join(sorted(BY_NAME))}."
        raise Failure(message, MISCONFIGURED)
    return view


@views.callback(invoke_without_command=True)
def list_views(
    context: typer.Context,
    *,
    watching: Annotated[bool, typer.Option("--watch", help="Show them again each second, until Ctrl-C.")] = False,
) -> None:
    """List the views: version, position, lag and state of each."""
    if context.invoked_subcommand is not None:
        return

    async def look() -> None:
        async with surroundings_of(context).workspace() as workspace:
            if watching:
                await watch(workspace)
            show((await Standing.of(workspace)).shown())

    with suppress(KeyboardInterrupt) if watching else nullcontext():
        work(look())


@views.command("retry")
def retry_view(context: typer.Context, view: ViewName) -> None:
    """Let a view that stopped try its event again."""
    wanted = view_named(view)

    async def go_on() -> bool:
        async with surroundings_of(context).workspace() as workspace:
            return await bookkeeping.retry(workspace, wanted)

    if not work(go_on()):
        message = f"{view} has not stopped."
        raise Failure(message)
    typer.echo(f"{view} tries its event again.")


@views.command("skip")
def skip_event(
    context: typer.Context,
    view: ViewName,
    position: Annotated[int, typer.Option(min=1, help="Of the event that the view stopped at; no other is possible.")],
    reason: Annotated[str, typer.Option(help="Why its rows may lack the event; kept and shown for ever.")],
) -> None:
    """Let a view that stopped pass over the event it stopped at; its rows will never have it, rebuilt or not."""
    wanted = view_named(view)

    async def go_on() -> None:
        async with surroundings_of(context).workspace() as workspace:
            await skip(workspace, wanted, position=position, reason=reason, by=whoever())

    try:
        work(go_on())
    except ValueError as error:
        raise explain(error) or Failure(sentence(str(error)), MISCONFIGURED) from None
    typer.echo(f"{view} passes over event {position}.")


def whoever() -> str:
    """Say who is at the command line, as far as the machine knows."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
