"""Measuring the desk beside the plain way of doing the same; the measurements live with the tests, in a checkout."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of
from api.problems import sentence
from api.server import event_loop
from storage.settings import project_root

if TYPE_CHECKING:
    from types import ModuleType

benchmarks = typer.Typer(no_args_is_help=True, help="Benchmarks; each ends in one line of JSON.")

Seconds = Annotated[float | None, typer.Option(min=0.1, help="How long each part is measured.")]
Workers = Annotated[int | None, typer.Option(min=1, max=64, help="Processes that serve HTTP.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(benchmarks, name="bench")


@benchmarks.command("append")
def append(
    context: typer.Context,
    seconds: Seconds = None,
    flush_delay: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Microseconds by which every flush is delayed, as by a slow disk."),
    ] = None,
) -> None:
    """Measure appends of one event; with a delay of flushes, from one process and from several."""
    if flush_delay is None:
        _measure(context, "append", seconds=seconds)
    else:
        _measure(context, "delayed", seconds=seconds, flush_delay=flush_delay)


@benchmarks.command("as-of")
def as_of(
    context: typer.Context,
    events: Annotated[int | None, typer.Option(min=1_000, help="Events in the log, ten million if unsaid.")] = None,
) -> None:
    """Measure how soon the queue is told as it was at any instant. Takes minutes and up to 20 GB of disk."""
    _measure(context, "instants", events=events)


@benchmarks.command("breaches")
def breaches(
    context: typer.Context,
    tickets: Annotated[int | None, typer.Option(min=10, help="Of each a deadline passes; 100,000 if unsaid.")] = None,
    minute: Annotated[float | None, typer.Option(min=1, help="Seconds within which they pass; 60 if unsaid.")] = None,
) -> None:
    """Measure how fast deadlines that have passed are put on record, and how late those that pass in one minute are."""
    _measure(context, "breaches", tickets=tickets, minute=minute)


@benchmarks.command("commands")
def commands(
    context: typer.Context,
    seconds: Seconds = None,
    workers: Workers = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1, max=100_000, help="Commands due a second, by a timetable, whatever becomes of the others."),
    ] = None,
) -> None:
    """Measure commands over HTTP, with all views live: as many as there can be, or how soon so many are answered."""
    if rate is None:
        _measure(context, "commands", seconds=seconds, workers=workers)
    else:
        _measure(context, "paced", seconds=seconds, workers=workers, rate=rate)


@benchmarks.command("deadlines")
def deadlines(context: typer.Context) -> None:
    """Measure how many deadlines a second one process computes by opening hours."""
    _measure(context, "deadlines")


@benchmarks.command("growth")
def growth(
    context: typer.Context,
    seconds: Seconds = None,
    stored: Annotated[int | None, typer.Option(min=1_000, help="Events in the large log.")] = None,
) -> None:
    """Measure appends to a log of millions of events beside one of thousands. Takes up to 8 GB of disk."""
    _measure(context, "growth", seconds=seconds, stored=stored)


@benchmarks.command("history")
def history(
    context: typer.Context,
    stored: Annotated[int | None, typer.Option(min=5_000, help="Events in the large log.")] = None,
) -> None:
    """Measure how soon a ticket's history is told from a log of ten million events. Takes up to 20 GB of disk."""
    _measure(context, "history", stored=stored)


@benchmarks.command("hot-ticket")
def hot_ticket(context: typer.Context, seconds: Seconds = None, workers: Workers = None) -> None:
    """Measure commands of many people to one ticket."""
    _measure(context, "hot_ticket", seconds=seconds, workers=workers)


@benchmarks.command("memory")
def memory(
    context: typer.Context,
    workers: Workers = None,
    number: Annotated[
        int | None, typer.Option("--commands", min=100, help="Commands sent, a million if unsaid.")
    ] = None,
) -> None:
    """Measure the memory of a worker as commands go by. Takes minutes."""
    _measure(context, "memory", workers=workers, commands=number)


@benchmarks.command("queue-page")
def queue_page(
    context: typer.Context,
    seconds: Seconds = None,
    workers: Workers = None,
    tickets: Annotated[int | None, typer.Option(min=1_000, help="Tickets in the queue, a million if unsaid.")] = None,
) -> None:
    """Measure pages of a queue of a million tickets, in PostgreSQL and over HTTP. Takes up to 3 GB of disk."""
    _measure(context, "queue_page", seconds=seconds, workers=workers, tickets=tickets)


@benchmarks.command("rebuild")
def rebuild(
    context: typer.Context,
    events: Annotated[int | None, typer.Option(min=1, help="Events in the log that is rebuilt from.")] = None,
    every: Annotated[bool | None, typer.Option("--all", help="All views together, not the queue alone.")] = None,
) -> None:
    """Measure the rebuilding of a view, or of all of them, and the memory that it takes."""
    _measure(context, "rebuild", events=events, every=every)


@benchmarks.command("catch-up")
def catch_up(
    context: typer.Context,
    events: Annotated[int | None, typer.Option(min=1, help="Events that the views are behind.")] = None,
) -> None:
    """Measure how fast live views take in a backlog."""
    _measure(context, "catch_up", events=events)


@benchmarks.command("seed")
def seed(
    context: typer.Context,
    events: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="Events in the log.")],
    number: Annotated[
        int | None,
        typer.Option("--seed", help="Another number gives another desk, the same one the same; 1 if unsaid."),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option("--workspace", "-w", help="The workspace, which is made if it is not there; else seeded."),
    ] = None,
) -> None:
    """Fill a workspace of this desk with a made-up log of believable tickets, to try it with. Views wait meanwhile."""
    _measure(context, "seed", events=events, seed=number, workspace=workspace)


@benchmarks.command("visible")
def visible(
    context: typer.Context,
    workers: Workers = None,
    number: Annotated[int | None, typer.Option("--commands", min=10, help="Commands sent, 400 if unsaid.")] = None,
) -> None:
    """Measure how soon a change is in the queue after its command was answered, one command at a time."""
    _measure(context, "visible", workers=workers, commands=number)


@benchmarks.command("what-if")
def what_if(
    context: typer.Context,
    tickets: Annotated[int | None, typer.Option(min=1_000, help="Tickets compared, a million if unsaid.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=16, help="Processes to divide the tickets among; else one a processor.")
    ] = None,
) -> None:
    """Measure how fast other policies are tried on a million tickets, by both axes. Takes up to 4 GB of disk."""
    _measure(context, "what_if", tickets=tickets, workers=workers)


@benchmarks.command("rebuild-beside")
def rebuild_beside(
    context: typer.Context,
    seconds: Seconds = None,
    events: Annotated[int | None, typer.Option(min=1_000, help="Events in the log that is rebuilt from.")] = None,
    rate: Annotated[float | None, typer.Option(min=1, max=10_000, help="Pages of the queue read a second.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=16, help="Processes that rebuild; else one a processor.")
    ] = None,
) -> None:
    """Measure how soon the queue is answered over HTTP while it is being rebuilt, beside how soon it is otherwise."""
    _measure(context, "beside", seconds=seconds, events=events, rate=rate, workers=workers)


def _measure(context: typer.Context, name: str, **options: Any) -> None:
    settings = surroundings_of(context).settings()
    benchmark, machine = _module(name), _module("machine")
    given = {option: value for option, value in options.items() if value is not None}
    # As servers run: the log's own share of the work is in this process.
    with event_loop() as loop:
        try:
            figures = loop.run(benchmark.main(settings, **given))
        except _module("ground").MeasurementError as error:
            raise Failure(sentence(str(error))) from None
        typer.echo(machine.figures_line(figures))


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
