"""Running the desk: everything at once for a first look, or the HTTP server and the views by themselves."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from api.cli.first_look import Opened, describe, prepare
from api.cli.surroundings import surroundings_of
from api.server import event_loop, listen, serve
from storage.database import ROLE_NAMES
from storage.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from storage.settings import Settings

Host = Annotated[str | None, typer.Option(help="The address to listen on; else DESK_HOST, else 127.0.0.1.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Else DESK_PORT, else 8000; 0 takes a free one.")]
Workers = Annotated[
    int | None, typer.Option(min=1, max=64, help="Processes that serve HTTP; else DESK_WORKERS, else 1.")
]
Views = Annotated[bool, typer.Option("--views/--no-views", help="Whether to keep the views up as well.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("run")(run)
    app.command("serve")(serve_http)
    app.command("project")(project)


def run(context: typer.Context, host: Host = None, port: Port = None, workers: Workers = None) -> None:
    """Set everything up, load a demo desk if there is nothing yet, serve it, and print how to try it."""
    settings = _with(surroundings_of(context).settings(), host, port, workers)
    console = Console(soft_wrap=True, highlight=False)
    log_warnings()
    with event_loop() as loop, contextlib.closing(listen(settings.host, settings.port)) as listener:
        loop.run(_run(settings, listener, console))
    console.print("Stopped. The next `desk run` finds everything as it is.")


async def _run(settings: Settings, listener: socket, console: Console) -> None:
    # Held throughout, so that the server is started once.
    async with settings.server_conninfo(ROLE_NAMES["owner"]):
        opened: Opened = await prepare(settings, console)
        address = _address(listener)
        await serve(
            settings,
            listener,
            workers=settings.workers,
            views=True,
            ready=lambda: console.print(describe(opened, address), markup=False),
        )


def serve_http(
    context: typer.Context, host: Host = None, port: Port = None, workers: Workers = None, *, views: Views = True
) -> None:
    """Serve HTTP, and keep the views up."""
    settings = _with(surroundings_of(context).settings(), host, port, workers)
    log_warnings()
    with event_loop() as loop, contextlib.closing(listen(settings.host, settings.port)) as listener:
        address = _address(listener)
        loop.run(_migrated(settings, listener, views, lambda: typer.echo(f"Serving on {address}")))


def project(context: typer.Context) -> None:
    """Keep the views up, without serving HTTP."""
    log_warnings()
    with event_loop() as loop:
        settings = surroundings_of(context).settings()
        loop.run(_migrated(settings, None, True, lambda: typer.echo("Keeping the views up")))  # noqa: FBT003


async def _migrated(settings: Settings, listener: socket | None, views: bool, ready: Callable[[], None]) -> None:  # noqa: FBT001
    async with settings.server_conninfo(ROLE_NAMES["owner"]):
        await migrate(settings)
        await serve(settings, listener, workers=settings.workers, views=views, ready=ready)


def _with(settings: Settings, host: str | None, port: int | None, workers: int | None) -> Settings:
    return replace(
        settings,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        workers=settings.workers if workers is None else workers,
    )


def _address(listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def log_warnings() -> None:
    """Write what goes wrong to standard error, as a process that runs for long does."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
