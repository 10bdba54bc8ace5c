"""Looking after the views: how far each has come, what stopped it, letting it go on, building it anew."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from api.cli import new_view
from api.cli.progress import progress_of
from api.cli.surroundings import MISCONFIGURED, Failure, explain, surroundings_of, work
from api.problems import sentence
from projections import bookkeeping
from projections.bookkeeping import view_status
from projections.registry import BY_NAME, VIEWS
from projections.skipping import skip, skips
from replay.rebuild import RebuildFailed, RebuildRunning, RebuildStopped, rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from projections.bookkeeping import ViewStatus
    from projections.skipping import Skip
    from projections.view import View

views = typer.Typer(help="The views: how far each has come, and what stopped it.")

ViewName = Annotated[str, typer.Argument(metavar="VIEW", help=f"One of: {', '.join(sorted(BY_NAME))}.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    new_view.add_to(views)
    app.add_typer(views, name="views")
    app.command("rebuild")(rebuild_view)


def view_named(name: str) -> View:
    """Give the view of this release that has a name. Raises Failure."""
    view = BY_NAME.get(name)
    if view is None:
        message = f"There is no view {name!r}; there are {', '.join(sorted(BY_NAME))}."
        raise Failure(message, MISCONFIGURED)
    return view


@views.callback(invoke_without_command=True)
def list_views(context: typer.Context) -> None:
    """List the views: version, position, lag and state of each."""
    if context.invoked_subcommand is not None:
        return

    async def look() -> tuple[list[ViewStatus], list[Skip]]:
        async with surroundings_of(context).workspace() as workspace:
            return await view_status(workspace, VIEWS), await skips(workspace)

    found, passed_over = work(look())
    console = Console(soft_wrap=True)
    console.print(_table(found))
    for line in _remarks(found, passed_over):
        console.print(line, markup=False)


def _table(found: Sequence[ViewStatus]) -> Table:
    table = Table("view", "version", "position", "behind", "lag", "state", box=None, pad_edge=False)
    for view in found:
        lag = f"{view.lag_seconds:.1f} s" if view.lag_events else "-"
        table.add_row(view.name, str(view.version), f"{view.position:,}", f"{view.lag_events:,}", lag, view.state)
    return table


def _remarks(found: Sequence[ViewStatus], passed_over: Sequence[Skip]) -> Iterator[str]:
    """Say what stopped views, and what they were told to pass over."""
    for view in found:
        if view.failure is not None:
            yield (
                f"{view.name} stopped at event {view.failure.position} ({view.failure.topic}),"
                f" {_minute(view.failure.failed_at)}: {view.failure.error}"
            )
    for one in passed_over:
        yield (
            f"{one.view} v{one.version} passes over event {one.position} ({one.topic}), told so by {one.skipped_by},"
            f" {_minute(one.skipped_at)}: {one.reason} It had said: {one.error}"
        )


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}"


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


def rebuild_view(
    context: typer.Context,
    view: ViewName,
    workers: Annotated[
        int | None, typer.Option(min=1, max=16, help="Processes to divide the streams among; else one a processor.")
    ] = None,
) -> None:
    """Fold a view again from the whole log, beside the live one, and put it in its place."""
    wanted = view_named(view)

    async def carry_out() -> None:
        async with surroundings_of(context).workspace() as workspace:
            with progress_of(wanted.name, "events") as show:
                report = await rebuild(workspace, wanted, lambda now: show(now.done, now.total), workers=workers)
        begun = f", of which {report.resumed_at:,} were done by an earlier run" if report.resumed_at else ""
        typer.echo(
            f"{report.view} holds {report.rows:,} rows as of position {report.position:,}{begun};"
            f" {report.seconds:.1f} s, {report.rate:,.0f} events/s."
        )

    try:
        work(carry_out())
    except (RebuildRunning, RebuildFailed, RebuildStopped) as error:
        message = str(error) or f"{view} is being rebuilt by somebody else."
        raise Failure(message) from None
