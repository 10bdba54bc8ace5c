"""Asking on the command line what would have become of tickets under other policies or calendars."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path  # noqa: TC003 - typer reads the annotation at run time
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from uuid import UUID  # noqa: TC003 - typer reads the annotation at run time

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.cli.progress import progress_of
from api.cli.reading import AsJson  # noqa: TC001 - typer reads the annotation at run time
from api.cli.sla_keeping import sla
from api.cli.surroundings import MISCONFIGURED, Failure, surroundings_of, work
from api.cli.what_if_text import write
from api.problems import sentence
from domain.what_if import Axis
from projections import directory, ticket_queue
from projections.runner import Runner
from replay.making_way import make_way
from replay.terminal import console_for
from replay.what_if import WhatIfStopped, what_if
from replay.what_if_asked import MOST_SHOWN, SHOWN, Asked, GivenCalendar, GivenPolicy
from replay.what_if_page import page

if TYPE_CHECKING:
    from replay.what_if_report import Report
    from storage.database import Workspace

LARGEST_FILE = 1_000_000  # bytes; a policy is some thousands


def add_to(_: typer.Typer) -> None:
    """Add this command to those about service levels."""
    sla.command("what-if")(ask)


def ask(
    context: typer.Context,
    *,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON: one policy, as adopt-policy takes it, to stand beside the desk's, or a list of all there are.",
        ),
    ] = None,
    calendar: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="JSON: a calendar, as adopt-calendar takes it, or a list; may be repeated."),
    ] = None,
    opened_from: Annotated[
        str | None, typer.Option("--from", help="Tickets opened from this date (UTC) or instant with its zone on.")
    ] = None,
    opened_to: Annotated[str | None, typer.Option("--to", help="Tickets opened before this date or instant.")] = None,
    team: Annotated[list[UUID] | None, typer.Option(help="Tickets of any of these teams.")] = None,
    axis: Annotated[
        Axis,
        typer.Option(
            help="as-known: by the versions known when each thing happened; as-corrected: by the latest throughout."
        ),
    ] = Axis.AS_KNOWN,
    as_of: Annotated[str | None, typer.Option(help="Outcomes as of this date or instant; else as of now.")] = None,
    flips: Annotated[
        int, typer.Option(min=0, max=MOST_SHOWN, help="Tickets that flip to be shown, in each direction.")
    ] = SHOWN,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it all with plots as one page to this file.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=16, help="Processes to divide the tickets among; else one a processor.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell which promises would have been kept or broken under other policies or calendars. Nothing is changed."""
    policies = None if policy is None else _read("--policy", policy, GivenPolicy)
    begins, ends = _instant("--from", opened_from), _instant("--to", opened_to)
    if begins is not None and ends is not None and ends <= begins:
        message = f"--to {opened_to} does not come after --from {opened_from}."
        raise Failure(message, MISCONFIGURED)
    asked = _asked(
        policy=None if policies is None or policies.several else policies.items[0],
        policies=policies.items if policies is not None and policies.several else None,
        calendars=[one for path in calendar or () for one in _read("--calendar", path, GivenCalendar).items],
        axis=axis,
        opened_from=begins,
        opened_to=ends,
        team_ids=None if team is None else tuple(team),
        as_of=_instant("--as-of", as_of),
        flips=flips,
    )
    if html is not None and not html.parent.is_dir():
        message = f"--html: there is no directory {html.parent}."
        raise Failure(message, MISCONFIGURED)
    try:
        report = work(_compare(context, asked, workers))
    except WhatIfStopped as error:
        raise Failure(sentence(str(error))) from None
    if html is not None:
        try:
            html.write_text(page(report), "utf-8")
        except OSError as error:
            message = f"--html: {html} cannot be written: {error.strerror}."
            raise Failure(message, MISCONFIGURED) from None
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        write(report, console_for(sys.stdout))


async def _compare(context: typer.Context, asked: Asked, workers: int | None) -> Report:
    async with surroundings_of(context).workspace() as workspace:
        await _keep_up(workspace)
        make_way()  # not before: the server may have been started for this
        with progress_of("what if", "tickets") as show:
            return await what_if(workspace, asked, show, now=datetime.now(UTC), workers=workers)


async def _keep_up(workspace: Workspace) -> None:
    """Bring the views that are read to the log's end, unless another process has them; that one does."""
    runner = Runner(workspace.database, [ticket_queue.VIEW, directory.VIEW])
    try:
        await runner.catch_up(workspace)
    finally:
        await runner.release()


def _asked(**given: Any) -> Asked:
    try:
        return Asked(**given)
    except ValidationError as error:
        raise Failure(sentence(_first(error)), MISCONFIGURED) from None


class _Read(NamedTuple):
    items: list[Any]
    several: bool


def _read(option: str, path: Path, kind: type[BaseModel]) -> _Read:
    """Read a file of one thing or a list of them, or end with a sentence that says what is wrong in it."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except OSError as error:
        message = f"{option}: {path} cannot be read: {error.strerror}."
        raise Failure(message, MISCONFIGURED) from None
    if len(text) > LARGEST_FILE:
        message = f"{option}: {path} is larger than {LARGEST_FILE:,} bytes."
        raise Failure(message, MISCONFIGURED)
    several = text.lstrip()[:1] == b"["
    try:
        found: Any = TypeAdapter(list[kind] if several else kind).validate_json(text)  # type: ignore[valid-type]
    except ValidationError as error:
        message = f"{option}: {path}: {_first(error)}."
        raise Failure(message, MISCONFIGURED) from None
    return _Read(found if several else [found], several)


def _first(error: ValidationError) -> str:
    """Say the first of what is wrong, and where."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def _instant(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
    except ValueError:
        message = (
            f"{option} takes a date, such as 2026-01-31, or an instant with its zone, such as"
            f" 2026-01-31T12:00:00+08:00, not {text!r}."
        )
        raise Failure(message, MISCONFIGURED) from None
    return instant
