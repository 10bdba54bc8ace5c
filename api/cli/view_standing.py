"""How far views and consumers have come, as tables, or again and again for somebody who watches."""

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

from projections.bookkeeping import FAILED, view_status
from projections.consumer_register import consumer_skips, consumer_status
from projections.registry import VIEWS
from projections.runner import is_passing
from projections.skipping import skips
from replay.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from projections.bookkeeping import ViewStatus
    from projections.consumer_register import ConsumerSkip, ConsumerStatus
    from projections.skipping import Skip
    from storage.database import Workspace

REFRESH_SECONDS: Final = 1.0


class Standing(NamedTuple):
    """How the views and consumers of a workspace stand."""

    views: Sequence[ViewStatus]
    skips: Sequence[Skip]
    consumers: Sequence[ConsumerStatus]
    consumer_skips: Sequence[ConsumerSkip]

    @classmethod
    async def of(cls, workspace: Workspace) -> Standing:
        """Look."""
        return cls(
            await view_status(workspace, VIEWS),
            await skips(workspace),
            await consumer_status(workspace),
            await consumer_skips(workspace),
        )

    def shown(self) -> RenderableType:
        """Give it as tables, each with what stopped and what was passed over below."""
        table = Table("view", "version", "position", "behind", "lag", "state", box=None, pad_edge=False)
        for view in self.views:
            table.add_row(view.name, str(view.version), *_place(view), view.state)
        parts: list[RenderableType] = [table, *_visible(self._of_views())]
        if self.consumers or self.consumer_skips:
            parts += ["", self.shown_consumers()]
        return Group(*parts)

    def shown_consumers(self) -> RenderableType:
        """Give the consumers alone."""
        table = Table("consumer", "position", "behind", "lag", "state", box=None, pad_edge=False)
        for one in self.consumers:
            table.add_row(one.name, *_place(one), one.state)
        return Group(table, *_visible(self._of_consumers()))

    def lines(self) -> dict[str, str]:
        """Give a line for each view and for each remark, under what it is about."""
        found = {
            view.name: f"{view.name} v{view.version} position {view.position:,}, {view.lag_events:,} events behind"
            f" ({view.lag_seconds:.1f} s), {view.state}"
            for view in self.views
        }
        found |= {
            f"consumer {one.name}": f"consumer {one.name} position {one.position:,}, {one.lag_events:,} events behind"
            f" ({one.lag_seconds:.1f} s), {one.state}"
            for one in self.consumers
        }
        return found | {line: visible(line) for line in (*self._of_views(), *self._of_consumers())}

    def _of_consumers(self) -> Iterator[str]:
        for one in self.consumers:
            if one.failure is not None:
                yield (
                    f"{one.name} {'stopped' if one.state == FAILED else 'waits'} at event {one.failure.position}"
                    f" ({one.failure.topic}), tried {one.attempts} times, {_minute(one.failure.failed_at)}:"
                    f" {one.failure.error}"
                )
        for skip in self.consumer_skips:
            yield (
                f"{skip.consumer} passed over event {skip.position} ({skip.topic}), told so by {skip.skipped_by},"
                f" {_minute(skip.skipped_at)}: {skip.reason} What had been said: {skip.error}"
            )

    def _of_views(self) -> Iterator[str]:
        for view in self.views:
            if view.failure is not None:
                yield (
                    f"{view.name} stopped at event {view.failure.position} ({view.failure.topic}),"
                    f" {_minute(view.failure.failed_at)}: {view.failure.error}"
                )
        absent = [view.name for view in self.views if view.state == "absent"]
        if absent:
            yield (
                f"Not there yet: {', '.join(absent)}. Whoever keeps the views up makes them; where an older version was"
                " live, `desk rebuild VIEW` does."
            )
        for one in self.skips:
            yield (
                f"{one.view} v{one.version} passes over event {one.position} ({one.topic}), told so by"
                f" {one.skipped_by}, {_minute(one.skipped_at)}: {one.reason} It had said: {one.error}"
            )


def _place(one: ViewStatus | ConsumerStatus) -> tuple[str, str, str]:
    lag = f"{one.lag_seconds:.1f} s" if one.lag_events else "-"
    return f"{one.position:,}", f"{one.lag_events:,}", lag


def _visible(lines: Iterable[str]) -> list[Text]:
    return [Text(visible(line)) for line in lines]


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}"


def show(shown: RenderableType) -> None:
    """Print it once."""
    Console(soft_wrap=True, highlight=False).print(shown)


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
