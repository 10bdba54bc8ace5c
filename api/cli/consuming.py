"""Handing events on to programs outside, and looking after those who do."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic_core import to_json

from api.cli.serving import log_warnings
from api.cli.surroundings import MISCONFIGURED, Failure, explain, surroundings_of, work
from api.cli.view_keeping import whoever
from api.cli.view_standing import Standing, show
from api.problems import sentence
from domain.event import Channel
from projections.consumer import Consumer
from projections.consumer_register import (
    consumer_named,
    register,
    remove,
    retry_consumer,
    skip_delivery,
)
from replay.delivery import told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.consumer import Delivery

consumers = typer.Typer(help="Consumers: programs to which `desk consume` hands events on.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name: lower-case letters, digits, _ and -.")]


class CommandFailed(Exception):
    """The program did not take the event."""


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("consume")(consume)
    app.add_typer(consumers, name="consumers")


def consume(
    context: typer.Context,
    name: Name,
    command: Annotated[list[str], typer.Argument(help="The program and its arguments, after `--`.")],
    *,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="A new consumer begins with the log's first event, not with the next.")
    ] = False,
    opened: Annotated[bool, typer.Option("--open", help="Hand on personal values as well.")] = False,
    imported: Annotated[
        bool, typer.Option("--imported", help="Hand on what imports told of other desks' past as well.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds the program may take for one event.")] = 30,
    attempts: Annotated[int, typer.Option(min=1, max=1000, help="Times an event is tried before this stops.")] = 10,
) -> None:
    """Hand events to a program, as one line of JSON on its standard input; status 0 says that it was taken.

    All that happen at this desk; what an import told of another's past only where that is asked for.

    Each is handed on at least once and in order. One that is not taken is tried again after 1, 2, 4 … 60 seconds. The
    `delivery` in it stays the same, so that a receiver can leave out what it has seen.
    """
    if shutil.which(command[0]) is None:
        message = f"There is no program {command[0]!r}."
        raise Failure(message, MISCONFIGURED)
    log_warnings()

    async def hand_on() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with surroundings_of(context).workspace() as workspace:
            try:
                await register(workspace, name, from_start=from_start)
            except ValueError as error:
                raise Failure(sentence(str(error)), MISCONFIGURED) from None

            async def run(delivery: Delivery) -> None:
                event = await told(workspace, delivery, opened=opened)
                if imported or event["by"]["channel"] != Channel.IMPORT:
                    await _run(command, to_json(event) + b"\n")

            position = (await consumer_named(workspace, name)).position
            typer.echo(f"Handing on what comes after position {position} as {name}")
            await Consumer(workspace, name, run, timeout=timeout, attempts=attempts).run(stop)

    work(hand_on())


async def _run(command: Sequence[str], line: bytes) -> None:
    """Run a program with a line as its input. Raises CommandFailed; where cancelled, all that it started is killed."""
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        await process.communicate(line)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode != 0:
        message = f"{command[0]} ended with status {process.returncode}"
        raise CommandFailed(message)


@consumers.callback(invoke_without_command=True)
def list_consumers(context: typer.Context) -> None:
    """List the consumers: position, lag and state of each, what stopped it, and what was passed over."""
    if context.invoked_subcommand is not None:
        return

    async def look() -> Standing:
        async with surroundings_of(context).workspace() as workspace:
            return await Standing.of(workspace)

    show(work(look()).shown_consumers())


@consumers.command("retry")
def retry(context: typer.Context, name: Name) -> None:
    """Let a consumer that stopped, or waits, try its event again at once."""

    async def go_on() -> bool:
        async with surroundings_of(context).workspace() as workspace:
            return await retry_consumer(workspace, name)

    if not work(go_on()):
        message = f"{name} has not stopped."
        raise Failure(message)
    typer.echo(f"{name} tries its event again.")


@consumers.command("skip")
def skip(
    context: typer.Context,
    name: Name,
    position: Annotated[int, typer.Option(min=1, help="Of the event that it stopped at; no other is possible.")],
    reason: Annotated[str, typer.Option(help="Why the event need not be handed on; kept and shown for ever.")],
) -> None:
    """Let a consumer that stopped pass over the event it stopped at."""

    async def go_on() -> None:
        async with surroundings_of(context).workspace() as workspace:
            await skip_delivery(workspace, name, position=position, reason=reason, by=whoever())

    try:
        work(go_on())
    except ValueError as error:
        raise explain(error) or Failure(sentence(str(error)), MISCONFIGURED) from None
    typer.echo(f"{name} passes over event {position}.")


@consumers.command("remove")
def remove_consumer(context: typer.Context, name: Name) -> None:
    """Forget a consumer and where it stands; one of the same name begins anew."""

    async def go_on() -> None:
        async with surroundings_of(context).workspace() as workspace:
            await remove(workspace, name)

    work(go_on())
    typer.echo(f"Removed the consumer {name}.")
