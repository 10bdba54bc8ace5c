"""Measuring the desk beside the plain way of doing the same; the measurements live with the tests, in a checkout."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of, work
from storage.settings import project_root

if TYPE_CHECKING:
    from types import ModuleType

benchmarks = typer.Typer(no_args_is_help=True, help="Benchmarks; each ends in one line of JSON.")

Seconds = Annotated[float | None, typer.Option(min=0.1, help="How long each part is measured.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(benchmarks, name="bench")


@benchmarks.command("append")
def append(context: typer.Context, seconds: Seconds = None) -> None:
    """Measure appends of one event."""
    _measure(context, "append", seconds=seconds)


@benchmarks.command("commands")
def commands(
    context: typer.Context,
    seconds: Seconds = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes that serve HTTP.")] = None,
) -> None:
    """Measure commands over HTTP, with all views live."""
    _measure(context, "commands", seconds=seconds, workers=workers)


@benchmarks.command("rebuild")
def rebuild(
    context: typer.Context,
    events: Annotated[int | None, typer.Option(min=1, help="Events in the log that is rebuilt from.")] = None,
) -> None:
    """Measure the rebuilding of a view."""
    _measure(context, "rebuild", events=events)


def _measure(context: typer.Context, name: str, **options: Any) -> None:
    settings = surroundings_of(context).settings()
    benchmark, machine = _module(name), _module("machine")
    given = {option: value for option, value in options.items() if value is not None}
    typer.echo(machine.figures_line(work(benchmark.main(settings, **given))))


def _module(name: str) -> ModuleType:
    root = project_root()
    if root is not None and str(root) not in sys.path:
        # The tests are not part of what is installed, so the command knows of them by their place alone.
        sys.path.append(str(root))
    try:
        return importlib.import_module(f"tests.benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("tests"):
            raise
        message = "Benchmarks are part of a checkout of Ledgerdesk; run this inside one, in the environment it makes."
        raise Failure(message, MISCONFIGURED) from None
