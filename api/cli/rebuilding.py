"""Changing views: building them anew beside the live ones, going back, clearing away, and checking them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from api.cli.progress import progress_of
from api.cli.surroundings import MISCONFIGURED, REFUSED, Failure, surroundings_of, work
from api.cli.view_keeping import ViewName, view_named, views
from api.problems import sentence
from projections.bookkeeping import ViewsNotReady
from projections.registry import BY_NAME, VIEWS
from replay.comparison import NotComparable
from replay.making_way import make_way
from replay.pruning import prune
from replay.rebuild import (
    RebuildFailed,
    RebuildRefused,
    RebuildRunning,
    RebuildStopped,
    UnknownColumns,
    rebuild,
)
from replay.rebuild_together import rebuild_together
from replay.rollback import NothingKept, roll_back
from replay.terminal import visible
from replay.verification import verify_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from api.cli.progress import Show
    from api.cli.surroundings import Surroundings
    from projections.view import View
    from replay.builds import Progress
    from replay.comparison import Comparison
    from replay.pruning import Leftover
    from replay.rebuild import Report
    from replay.rollback import RolledBack
    from storage.database import Workspace

LONGEST_VALUE = 40  # characters of a sample, so that a line of the table stays one

verifications = typer.Typer(no_args_is_help=True, help="Checks of what the desk shows against its log.")

Workers = Annotated[
    int | None, typer.Option(min=1, max=16, help="Processes to divide the streams among; else one a processor.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The report as one line of JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("rebuild")(rebuild_view)
    views.command("rollback")(roll_view_back)
    views.command("prune")(prune_views)
    app.add_typer(verifications, name="verify")


def rebuild_view(
    context: typer.Context,
    view: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(sorted(BY_NAME))}.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All views, from one reading of the log.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and compare, report, and drop what was built.")
    ] = False,
    workers: Workers = None,
    require_equal: Annotated[
        bool, typer.Option("--require-equal", help="Put nothing in place that differs from what is live.")
    ] = False,
    expect_columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="Put nothing in place that differs elsewhere than in these.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fold a view again from the whole log, beside the live one; compare the two, and put it in its place.

    What was live is kept for `desk views rollback`. With status 1, nothing has changed; of --all, one view at least has
    not.
    """
    if every == (view is not None):
        message = "Name a view or give --all."
        raise Failure(message, MISCONFIGURED)
    wanted = VIEWS if view is None else (view_named(view),)
    if require_equal and expect_columns is not None:
        message = "Give --require-equal or --expect-columns, not both."
        raise Failure(message, MISCONFIGURED)
    expected = None if expect_columns is None else _names(expect_columns)

    async def carry_out() -> list[Report]:
        async with surroundings_of(context).workspace() as workspace:
            make_way()  # not before: the server may have been started for this
            with progress_of("all views" if every else wanted[0].name, "events") as show:
                rebuilding = rebuild_together if every else _alone
                return await rebuilding(
                    workspace,
                    wanted,
                    _shown(show),
                    workers=workers,
                    dry_run=dry_run,
                    expected=frozenset() if require_equal else expected,
                    tell=told.append,
                )

    told: list[Report] = []
    try:
        work(carry_out())
    except UnknownColumns as error:
        raise Failure(sentence(str(error)), MISCONFIGURED) from None
    except RebuildRefused as refused:
        _tell(refused.report, as_json=as_json)
        raise Failure(sentence(str(refused))) from None
    except (RebuildRunning, RebuildFailed, RebuildStopped) as error:
        raise Failure(str(error)) from None
    finally:
        for report in told:
            _tell(report, as_json=as_json)


async def _alone(
    workspace: Workspace,
    views: Sequence[View],
    progress: Callable[[Progress], None],
    *,
    tell: Callable[[Report], None],
    **options: Any,
) -> list[Report]:
    """Rebuild one view as `rebuild_together` does several."""
    (view,) = views
    report = await rebuild(workspace, view, progress, **options)
    tell(report)
    return [report]


def _names(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(","))
    if "" in names:
        message = f"--expect-columns takes names of columns with commas between them, not {text!r}."
        raise Failure(message, MISCONFIGURED)
    return names


def _shown(show: Show) -> Callable[[Progress], None]:
    return lambda now: show(now.done, now.total, doing=now.phase, rate=now.rate)


def _tell(report: Report, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False, default=str))
        return
    if report.comparison is not None:
        _print_comparison(report.comparison)
    elif report.note is not None:
        typer.echo(sentence(report.note))
    begun = f", of which {report.resumed_at:,} were done by an earlier run" if report.resumed_at else ""
    holds = "holds" if report.swapped else "would hold"
    typer.echo(
        f"{report.view} {holds} {report.rows:,} rows as of position {report.position:,}{begun};"
        f" {report.seconds:.1f} s, {report.rate:,.0f} events/s."
    )


def _print_comparison(found: Comparison) -> None:
    """Print what differs, as tables; where nothing does, one line says so."""
    typer.echo(
        f"{found.new} beside {found.old}, as of position {found.position:,}:"
        f" {found.equal:,} rows equal, {found.changed:,} changed,"
        f" {found.only_old:,} only in the old, {found.only_new:,} only in the new."
    )
    for what, names in (("added", found.added), ("removed", found.removed)):
        if names:
            typer.echo(f"Columns {what}: {', '.join(names)}.")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if found.columns:
        table = Table("column", "rows", "key", "old", "new", box=None, pad_edge=False)
        for column in found.columns:
            said = [column.name, f"{column.rows:,}"]
            for sample in column.samples:
                table.add_row(*said, _key(sample.key), _value(sample.old), _value(sample.new))
                said = ["", ""]
        console.print(table)
    for what, keys in (("Only in the old", found.only_old_keys), ("Only in the new", found.only_new_keys)):
        if keys:
            console.print(f"{what}, among others: {', '.join(map(_key, keys))}")


def _key(key: list[Any]) -> str:
    return visible(" ".join(map(str, key)))


def _value(value: Any) -> str:
    text = visible("-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def roll_view_back(context: typer.Context, view: ViewName) -> None:
    """Put back the table that a rebuild replaced; again, and the rebuilt one is back.

    It first catches up, by this release's code. What an older version of a view had is not put back by this, but by
    running the release that has that version: its table stays until `desk views prune`.
    """
    wanted = view_named(view)

    async def carry_out() -> RolledBack:
        async with surroundings_of(context).workspace() as workspace:
            with progress_of(wanted.name, "events") as show:
                return await roll_back(workspace, wanted, _shown(show))

    try:
        done = work(carry_out())
    except (NothingKept, RebuildRunning, RebuildFailed, RebuildStopped) as error:
        raise Failure(sentence(str(error))) from None
    typer.echo(
        f"{done.view} is what it was before its last rebuild or rollback, as of position {done.position:,}"
        f" (kept at {done.kept_at:,}); another rollback undoes this."
    )
    if done.other_code:
        typer.echo(
            "Its rows were folded by other code than this release's, which goes on with them:"
            " to go back in code as well, run the release before."
        )


def prune_views(
    context: typer.Context,
    view: Annotated[
        str | None, typer.Argument(metavar="[VIEW]", help=f"One of: {', '.join(sorted(BY_NAME))}; else all of them.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be dropped, and drop nothing.")] = False,
) -> None:
    """Drop the tables kept for going back and those of older versions, and say how large they were."""
    wanted = VIEWS if view is None else (view_named(view),)

    async def carry_out() -> list[Leftover]:
        async with surroundings_of(context).workspace() as workspace:
            return await prune(workspace, wanted, dry_run=dry_run)

    found = work(carry_out())
    table = Table("table", "size", "what", "", box=None, pad_edge=False)
    for one in found:
        dropped = "would be dropped" if dry_run else "dropped"
        table.add_row(one.table, _size(one.size), one.what, f"spared: {one.spared}" if one.spared else dropped)
    if found:
        Console(soft_wrap=True, highlight=False, markup=False).print(table)
    else:
        typer.echo("There is nothing to drop.")


def _size(number: int) -> str:
    kib = 1024
    return f"{number / kib / kib:,.1f} MiB" if number >= kib * kib else f"{number / kib:,.0f} KiB"


@verifications.command("views")
def verify_views(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[VIEW]...", help=f"Of: {', '.join(sorted(BY_NAME))}; else all.")
    ] = None,
    *,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Compare live views with a fresh fold of the log; status 1 where any of them differs, with the keys."""
    wanted = [view_named(name) for name in names] if names else list(VIEWS)

    found = work(_verified(surroundings_of(context), wanted, workers))
    if as_json:
        told = {
            view.name: {"error": outcome} if isinstance(outcome, str) else outcome.as_json() for view, outcome in found
        }
        typer.echo(json.dumps({"views": told}, ensure_ascii=False, default=str))
    else:
        for view, outcome in found:
            _print_verification(view, outcome)
    wrong = [view.name for view, outcome in found if isinstance(outcome, str) or not outcome.same]
    if wrong:
        message = f"Not as the log has them: {', '.join(wrong)}. `desk rebuild` makes a view anew."
        raise Failure(message, REFUSED)


async def _verified(
    surroundings: Surroundings, wanted: Iterable[View], workers: int | None
) -> list[tuple[View, Comparison | str]]:
    """Give for each view what differs, or why it could not be verified."""
    found: list[tuple[View, Comparison | str]] = []
    async with surroundings.workspace() as workspace:
        make_way()
        for view in dict.fromkeys(wanted):
            with progress_of(view.name, "events") as show:
                try:
                    found.append((view, await verify_view(workspace, view, _shown(show), workers=workers)))
                except (NotComparable, ViewsNotReady, RebuildRunning, RebuildFailed, RebuildStopped) as error:
                    found.append((view, str(error)))
    return found


def _print_verification(view: View, outcome: Comparison | str) -> None:
    if isinstance(outcome, str):
        typer.echo(f"{view.name} was not verified: {outcome}")
    elif outcome.same:
        typer.echo(f"{view.name}: {outcome.equal:,} rows as the log has them, up to position {outcome.position:,}.")
    else:
        typer.echo(f"{view.name} is not what the log makes of it; the old table is the live one.")
        _print_comparison(outcome)
