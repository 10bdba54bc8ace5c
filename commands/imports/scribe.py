"""The reading and telling of a file, in a process of its own where that is cheap to have."""

from __future__ import annotations

import asyncio
import gc
import marshal
import multiprocessing
import os
import signal
import sys
import warnings
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from commands.imports.format import Clock, ImportRefused
from commands.imports.parcel import Packer, Unpacker
from commands.imports.reading import Refusal, cases, layout_of, survey
from commands.imports.story import Source
from commands.imports.telling import tell

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from commands.imports.format import Format
    from commands.imports.parcel import Parcel
    from commands.imports.reading import Layout

    Group = list[Parcel | Refusal]
    from domain.ticket_events import TicketType

CASES_AT_ONCE: Final = 64  # told in about 15 ms

Message = tuple[int, Any]
_GROUP, _REFUSED, _ENDS = range(3)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be read, and how."""

    format: Format[Any]
    path: Path
    zone: str
    ticket_type: TicketType

    def source(self) -> Source:
        """Make the foreign desk ready to be told of. Raises ImportRefused."""
        try:
            clock = Clock(self.format.parse_time, ZoneInfo(self.zone))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            message = f"There is no time zone {self.zone!r}."
            raise ImportRefused(message) from None
        return Source(self.format.name, self.ticket_type, clock, f"desk import {self.format.name}")


@dataclass(frozen=True, slots=True)
class Told:
    """A file being told: its size, and its cases in groups, rows that belong to none among them."""

    rows: int
    blank_lines: int
    groups: AsyncIterator[Group]


@asynccontextmanager
async def telling(order: Order) -> AsyncIterator[Told]:
    """Tell a file while the caller records what was told. Raises ImportRefused.

    Telling costs more than recording, so it gets a process of its own where one can be forked (Linux) and there is a
    second processor. It shares nothing but a pipe with this one, and ends with it. It sets out on the assumption that
    the rows of each case lie together; where the survey finds otherwise, another begins with what was found.
    """
    layout = layout_of(order.path, order.format)
    tell = _in_another_process if _can_fork() else _in_this_process
    messages = tell(order, layout, None)
    try:
        first = asyncio.ensure_future(anext(messages))
        try:
            found = await asyncio.to_thread(survey, layout)
        finally:
            await asyncio.wait([first])
        if found.scattered is not None:
            first.cancel()
            with suppress(ImportRefused):
                await first
            await messages.aclose()
            messages = tell(order, layout, found.scattered)
            first = asyncio.ensure_future(anext(messages))
        yield Told(found.rows, found.blank_lines, _groups(first, messages))
    finally:
        await messages.aclose()


def _can_fork() -> bool:
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


async def _groups(first: asyncio.Future[Message], others: AsyncIterator[Message]) -> AsyncIterator[Group]:
    unpacker = Unpacker()
    kind, group = await first
    while kind == _GROUP:
        yield [Refusal(*item) if len(item) == _REFUSAL_PARTS else unpacker.unpack(item) for item in group]
        kind, group = await anext(others)


_REFUSAL_PARTS: Final = len(Refusal._fields)


def _tell(order: Order, layout: Layout[Any], scattered: Counter[str] | None) -> Iterator[Message]:
    """Give the messages of a telling: group after group, and the end."""
    source = order.source()
    packer = Packer()
    items = cases(layout, scattered)
    while group := [
        tuple(item) if isinstance(item, Refusal) else packer.pack(item, tell(order.format, source, item))
        for item in islice(items, CASES_AT_ONCE)
    ]:
        yield _GROUP, group
    yield _ENDS, None


async def _in_this_process(
    order: Order, layout: Layout[Any], scattered: Counter[str] | None
) -> AsyncGenerator[Message, None]:
    for message in _tell(order, layout, scattered):
        yield message
        await asyncio.sleep(0)  # lets what arrived from the database be answered before the next group


async def _in_another_process(
    order: Order, layout: Layout[Any], scattered: Counter[str] | None
) -> AsyncGenerator[Message, None]:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    scribe = context.Process(
        target=_write, args=(_tell(order, layout, scattered), here, there), name="desk import", daemon=True
    )
    with warnings.catch_warnings():
        # Other threads may hold locks at the fork; the child uses nothing that they could hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        scribe.start()
    there.close()
    try:
        while True:
            try:
                kind, content = marshal.loads(await asyncio.to_thread(here.recv_bytes))  # noqa: S302 - from our own child
            except EOFError:
                await asyncio.to_thread(scribe.join)
                message = f"the process that reads {order.path} ended with status {scribe.exitcode}"
                raise RuntimeError(message) from None
            if kind == _REFUSED:
                raise ImportRefused(content)
            yield kind, content
            if kind == _ENDS:
                return
    finally:
        scribe.terminate()
        await asyncio.to_thread(scribe.join)
        here.close()
        scribe.close()


def _write(messages: Iterator[Message], here: Connection, there: Connection) -> None:
    """Write the messages of a telling into a pipe, in the child; the pipe breaks when the parent is gone."""
    here.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()  # collecting would copy the pages shared with the parent, and there is next to no cyclic garbage
    with suppress(BrokenPipeError):
        try:
            for message in messages:
                there.send_bytes(marshal.dumps(message))
        except ImportRefused as refusal:
            there.send_bytes(marshal.dumps((_REFUSED, str(refusal))))
