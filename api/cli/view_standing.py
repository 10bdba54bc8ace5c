"""How far the views have come, as a table, or again and again for somebody who watches."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from projections.bookkeeping import view_status
from projections.registry import VIEWS
from projections.runner import is_passing
from projections.skipping import skips
from replay.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from projections.bookkeeping import ViewStatus
    from projections.skipping import Skip
    from storage.database import Workspace

REFRESH_SECONDS: Final = 1.0


class Standing(NamedTuple):
    """How the views of a workspace stand."""

    views: Sequence[ViewStatus]
    skips: Sequence[Skip]

    @classmethod
    async def of(cls, workspace: Workspace) -> Standing:
        """Look."""
        return cls(await view_status(workspace, VIEWS), await skips(workspace))

    def shown(self) -> RenderableType:
        """Give it as a table, with what stopped views and what they pass over below."""
        table = Table("view", "version", "position", "behind", "lag", "state", box=None, pad_edge=False)
        for view in self.views:
            lag = f"{view.lag_seconds:.1f} s" if view.lag_events else "-"
            table.add_row(view.name, str(view.version), f"{view.position:,}", f"{view.lag_events:,}", lag, view.state)
        return Group(table, *(Text(visible(line)) for line in self._remarks()))

    def lines(self) -> dict[str, str]:
        """Give a line for each view and for each remark, under what it is about."""
        found = {
            view.name: f"{view.name} v{view.version} position {view.position:,}, {view.lag_events:,} events behind"
            f" ({view.lag_seconds:.1f} s), {view.state}"
            for view in self.views
        }
        return found | {line: visible(line) for line in self._remarks()}

    def _remarks(self) -> Iterator[str]:
        for view in self.views:
            if view.failure is not None:
                yield (
                    f"{view.name} stopped at event {view.failure.position} ({view.failure.topic}),"
                    f" {_minute(view.failure.failed_at)}: {view.failure.error}"
                )
        for one in self.skips:
            yield (
                f"{one.view} v{one.version} passes over event {one.position} ({one.topic}), told so by"
                f" {one.skipped_by}, {_minute(one.skipped_at)}: {one.reason} It had said: {one.error}"
            )


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}"


def show(standing: Standing) -> None:
    """Print it once."""
    Console(soft_wrap=True, highlight=False).print(standing.shown())


async def watch(workspace: Workspace) -> None:
    """Show it again each second until cancelled; where there is no terminal, in lines, each when it has changed."""
    told: dict[str, str] = {}
    with ExitStack() as stack:
        live = None
        if sys.stdout.isatty():
            live = stack.enter_context(Live(console=Console(highlight=False), auto_refresh=False))
        while True:
            try:
                standing = await Standing.of(workspace)
                shown, lines = standing.shown(), standing.lines()
            except Exception as error:
                if not is_passing(error):
                    raise
                # An outage is a thing to watch, too.
                message = f"The database does not answer: {visible(str(error).partition(chr(10))[0])}"
                shown, lines = Text(message), {"": message}
            if live is not None:
                live.update(shown, refresh=True)
            else:
                for what, line in lines.items():
                    if told.get(what) != line:
                        typer.echo(f"{datetime.now(UTC):%H:%M:%S} {line}")
                sys.stdout.flush()
                told = lines
            await asyncio.sleep(REFRESH_SECONDS)
