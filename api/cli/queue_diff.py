"""Comparing the queue at two moments on the command line."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer
from pydantic_core import to_json
from rich.table import Table
from rich.text import Text

from api.cli.reading import AsJson  # noqa: TC001 - typer reads the annotation at run time
from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of, work
from api.conditions import parse_moment
from domain.event import Channel  # noqa: TC001 - typer reads the annotation at run time
from domain.priority import Priority  # noqa: TC001 - typer reads the annotation at run time
from domain.status import Status  # noqa: TC001 - typer reads the annotation at run time
from domain.ticket_events import TicketType  # noqa: TC001 - typer reads the annotation at run time
from projections import directory, queue_history
from projections.runner import Runner
from projections.ticket_queue import QueueFilter
from replay.queue_diff import queue_difference
from replay.terminal import console_for, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from api.conditions import PositionToken
    from replay.queue_as_of import Moment
    from replay.queue_diff import Difference, QueueDifference
    from storage.database import Workspace

QUEUE: Final = "ticket_queue"
LINES_SHOWN: Final = 200
_ALWAYS_DIFFERENT: Final = ("version", "updated_at")  # shown where nothing else is different


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("diff")(diff)


def diff(
    context: typer.Context,
    start: Annotated[str, typer.Option("--from", help="The first moment: an instant with its zone, or a position.")],
    end: Annotated[str, typer.Option("--to", help="The second moment.")],
    view: Annotated[str, typer.Option(help=f"The view to compare; only {QUEUE} keeps its past.")] = QUEUE,
    team: Annotated[list[UUID] | None, typer.Option(help="Tickets of any of these teams.")] = None,
    agent: Annotated[str | None, typer.Option(help="Of an agent, by id, or unassigned.")] = None,
    status: Annotated[list[Status] | None, typer.Option(help="In any of these statuses.")] = None,
    priority: Annotated[list[Priority] | None, typer.Option(help="Of any of these priorities.")] = None,
    of_type: Annotated[list[TicketType] | None, typer.Option("--type", help="Of any of these types.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="With all of these tags.")] = None,
    customer: Annotated[UUID | None, typer.Option(help="Requested by this customer.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="Come in through this channel.")] = None,
    category: Annotated[str | None, typer.Option(help="Of this category.")] = None,
    as_json: AsJson = False,  # noqa: FBT002 - options of the command line
) -> None:
    """Tell what entered the queue between two moments, what left it, and what changed in it."""
    if view != QUEUE:
        message = f"Only {QUEUE} can be compared, not {view!r}: of other views no past is kept."
        raise Failure(message, MISCONFIGURED)
    tickets = QueueFilter(
        teams=team or None,
        agent=_agent(agent),
        statuses=status or None,
        priorities=priority or None,
        types=of_type or None,
        tags=tag or None,
        customer=customer,
        channel=channel,
        category=category,
    )
    found, names = work(_compare(context, _moment("--from", start), _moment("--to", end), tickets))
    if as_json:
        typer.echo(to_json(_told(found), indent=2).decode())
    else:
        _write(found, names, console_for(sys.stdout))


async def _compare(
    context: typer.Context, start: datetime | PositionToken, end: datetime | PositionToken, tickets: QueueFilter
) -> tuple[QueueDifference, Mapping[UUID, str]]:
    async with surroundings_of(context).workspace() as workspace:
        await _keep_up(workspace)
        first, second = [await _place(workspace, one) for one in (start, end)]
        found = await queue_difference(workspace, first, second, tickets)
        entries = [one for part in found[2:] for pair in part for one in pair if one is not None]
        ids = {one for entry in entries for one in (entry.agent_id, entry.team_id, entry.requester_id) if one}
        return found, await directory.names(workspace, ids)


async def _keep_up(workspace: Workspace) -> None:
    """Bring the view that keeps the past to the log's end, unless another process has it; that one does."""
    runner = Runner(workspace.database, [queue_history.VIEW])
    try:
        await runner.catch_up(workspace)
    finally:
        await runner.release()


async def _place(workspace: Workspace, moment: datetime | PositionToken) -> datetime | int:
    if isinstance(moment, datetime):
        return moment
    if moment.epoch is not None and not await workspace.log.epochs.hold(moment.position, moment.epoch):
        message = f"What was at position {moment.position} in epoch {moment.epoch} is not in the log any more."
        raise Failure(message)
    return moment.position


def _moment(option: str, text: str) -> datetime | PositionToken:
    moment = parse_moment(text)
    if moment is None:
        message = (
            f"{option} takes an instant with its zone, such as 2026-01-31T12:00:00+08:00, or a position, not {text!r}."
        )
        raise Failure(message, MISCONFIGURED)
    return moment


def _agent(text: str | None) -> Any:
    if text is None or text == "unassigned":
        return text
    try:
        return UUID(text)
    except ValueError:
        message = f"--agent takes the id of an agent or unassigned, not {text!r}."
        raise Failure(message, MISCONFIGURED) from None


def _told(found: QueueDifference) -> dict[str, Any]:
    def moment(one: Moment) -> dict[str, Any]:
        return {"position": one.position, "recorded_at": one.recorded_at, "provisional": one.provisional}

    def part(differences: list[Difference]) -> list[dict[str, Any]]:
        return [
            {
                "ticket_id": one.entry.ticket_id,
                "number": one.entry.number,
                "subject": one.entry.subject,
                "changes": [change._asdict() for change in one.changes()],
            }
            for one in differences
        ]

    return {
        "view": QUEUE,
        "from": moment(found.start),
        "to": moment(found.end),
        "entered": part(found.entered),
        "left": part(found.left),
        "changed": part(found.changed),
    }


def _write(found: QueueDifference, names: Mapping[UUID, str], console: Console) -> None:
    for word, moment in (("from", found.start), ("to", found.end)):
        at = "the beginning" if moment.recorded_at is None else moment.recorded_at.isoformat(" ", "seconds")
        may_move = " (may still gain events)" if moment.provisional else ""
        console.print(Text(f"{word:<4} position {moment.position}, {at}{may_move}"))
    console.print(f"{len(found.entered)} entered, {len(found.left)} left, {len(found.changed)} changed")
    table = Table(box=None, pad_edge=False)
    for heading in ("", "ticket", "subject", "column", "from", "to"):
        table.add_column(heading, overflow="fold")
    lines = [
        (word, one, changes)
        for word, part in (("entered", found.entered), ("left", found.left), ("changed", found.changed))
        for one in part
        if (changes := _worth_telling(one))
    ]
    for word, one, changes in lines[:LINES_SHOWN]:
        first = (word, str(one.entry.number), one.entry.subject or "")
        for number, (column, old, new) in enumerate(changes):
            told = first if number == 0 else ("", "", "")
            cells = (*told, column, _value(old, names), _value(new, names))
            table.add_row(*(Text(visible(cell)) for cell in cells))
    if lines:
        console.print(table)
    if len(lines) > LINES_SHOWN:
        console.print(f"and {len(lines) - LINES_SHOWN} tickets more; --json tells all")


def _worth_telling(one: Difference) -> list[tuple[str, Any, Any]]:
    changes: list[tuple[str, Any, Any]] = list(one.changes())
    if one.before is None:
        return [("status", None, one.entry.status)]
    return [change for change in changes if change[0] not in _ALWAYS_DIFFERENT] or changes


def _value(value: Any, names: Mapping[UUID, str]) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return str(names.get(value, value)) if isinstance(value, UUID) else str(value)
