"""Showing how far long work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_EVERY_SECONDS: Final = 5.0


class Show(Protocol):
    """Is told what is done and what there is in all; also what is being done now, and a rate a second it knows better."""

    def __call__(self, done: int, total: int, *, doing: str | None = None, rate: float | None = None) -> None:
        """Show it."""


@contextmanager
def progress_of(what: str, unit: str) -> Iterator[Show]:
    """Give a function to be told how far the work is; rate and time left are shown with it."""
    began = time.perf_counter()
    if not sys.stderr.isatty():
        yield _line_by_line(what, unit, began)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit + ", {task.fields[rate]:,.0f}/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=0, rate=0.0)

        def show(done: int, total: int, *, doing: str | None = None, rate: float | None = None) -> None:
            bar.update(
                task,
                description=what if doing is None else f"{what}: {doing}",
                completed=done,
                total=total,
                rate=_rate(done, began) if rate is None else rate,
            )

        yield show


def _line_by_line(what: str, unit: str, began: float) -> Show:
    shown_at = began

    def show(done: int, total: int, *, doing: str | None = None, rate: float | None = None) -> None:
        nonlocal shown_at
        now = time.perf_counter()
        if now - shown_at >= LINE_EVERY_SECONDS:
            shown_at = now
            rate = _rate(done, began) if rate is None else rate
            left = (total - done) / rate if rate else 0.0
            said = what if doing is None else f"{what}: {doing}"
            typer.echo(f"{said}: {done:,} of {total:,} {unit}, {rate:,.0f}/s, {left:.0f} s left", err=True)

    return show


def _rate(done: int, began: float) -> float:
    return done / max(time.perf_counter() - began, 1e-9)
