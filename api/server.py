"""The HTTP server: one process, or several that share a listening socket, with the views kept up beside them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import signal
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import uvicorn
import uvloop

from api.app import create_app
from api.timer import Timer
from api.transport import HttpProtocol
from commands.desk import MARKS
from projections import ticket_queue
from projections.registry import VIEWS
from projections.runner import Runner
from storage import metrics
from storage.database import ROLE_NAMES, Database
from storage.ending import end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableSequence, Sequence
    from multiprocessing.context import SpawnProcess

    from fastapi import FastAPI

    from storage.settings import Settings

logger = logging.getLogger("ledgerdesk.server")

BACKLOG: Final = 2048
COLLECTED_AFTER: Final = (50_000, 20, 50)  # new objects, collections of these, collections of those that were left
GRACE_SECONDS: Final = 15  # commands under way end in milliseconds; a slow download may take longer and is cut
ACCEPT_DEFERENCE: Final = 0.002  # seconds in which a process with fewer connections is let first
ACCEPT_PAUSE: Final = 0.1  # seconds before a connection is taken again after the process ran out of descriptors
RESTART_PAUSE: Final = 1.0  # seconds before a process that died is replaced, so that a broken one does not spin

Part = Literal["http", "views", "both"]


class AddressUnavailable(Exception):
    """The address cannot be listened on; the message is one sentence for a person."""


def listen(host: str, port: int) -> socket.socket:
    """Take the address. Raises AddressUnavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        message = f"Cannot listen on {host}:{port}: {reason}."
        raise AddressUnavailable(message) from None
    listener.setblocking(False)  # noqa: FBT003 - the socket module's own signature
    return listener


async def serve(
    settings: Settings, listener: socket.socket | None, *, workers: int, views: bool, ready: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished first. A second signal cuts them off.

    With one worker everything runs in this process; with more, each worker and the views have their own.
    Without a listener only the views are kept up. `ready` is called once all of it runs.
    """
    if listener is None:
        await _run_part(settings, None, "views", ready)
    elif workers == 1:
        await _run_part(settings, _Door(listener, [0], 0, None), "both" if views else "http", ready)
    else:
        shared = multiprocessing.get_context("spawn").RawArray
        counts, marks = shared("i", workers), shared("q", MARKS)
        parts: list[tuple[Part, _Door | None]] = [
            ("http", _Door(listener, counts, place, marks)) for place in range(workers)
        ]
        await _supervise(settings, [*parts, ("views", None)] if views else parts, ready)


def collect_seldom() -> None:
    """Have the collector of cycles leave alone what is loaded, and look through the rest less often.

    It looks through everything that a process remembers again and again, while nobody is answered, and finds little:
    what a request leaves behind is freed without it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


def event_loop() -> asyncio.Runner:
    """Give the loop that servers run in."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


class _HttpServer(uvicorn.Server):
    """Leaves the signals to this module, and takes connections one by one, so that processes share them fairly."""

    def __init__(self, app: FastAPI, door: _Door) -> None:
        super().__init__(_http_config(app))
        self._app = app
        self._door = door
        self._connecting: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections from `sockets`, which are listening."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            loop.add_reader(listener, self._come, loop, listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and finish those there are."""
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            loop.remove_reader(listener)
        self._app.state.ending.set()
        await super().shutdown(sockets)

    def _come(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        """Take one connection, unless another process has fewer: that one is given time to be first.

        The kernel wakes every process that listens, and the same one is first every time: it would get all of the
        connections, and keep them for as long as they are kept open.
        """
        if self._door.spared(len(self.server_state.connections) + len(self._connecting)):
            self._pause(loop, listener, ACCEPT_DEFERENCE, self._accept)
        else:
            self._accept(loop, listener)

    def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was first, or the caller has gone again
        except OSError as error:
            # Out of descriptors or memory: what waits keeps waiting, and this process must not spin meanwhile.
            logger.error("no connection can be taken: %s", error.strerror)  # noqa: TRY400
            self._pause(loop, listener, ACCEPT_PAUSE, self._come)
            return
        connection.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        task = loop.create_task(self._connect(loop, connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _pause(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        seconds: float,
        then: Callable[[asyncio.AbstractEventLoop, socket.socket], None],
    ) -> None:
        loop.remove_reader(listener)

        def go_on() -> None:
            if not self.should_exit:
                loop.add_reader(listener, self._come, loop, listener)
                then(loop, listener)

        loop.call_later(seconds, go_on)

    async def _connect(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        try:
            await loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        return HttpProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


class _Door(NamedTuple):
    """The listening socket of this process, and what it shares with those that listen at it as well.

    That is how many connections each has, and the marks of what each changed (see Desk).
    """

    listener: socket.socket
    counts: MutableSequence[int]
    place: int
    marks: MutableSequence[int] | None

    def spared(self, own: int) -> bool:
        """Tell whether another process should take the next connection; `own` is how many this one has."""
        self.counts[self.place] = own
        return own > min(self.counts)


class _Ending:
    """Whether this process was asked to end, and what asking does."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.server: _HttpServer | None = None

    def ask(self) -> None:
        """End: the first time in order, the second time at once."""
        if self.server is not None:
            self.server.force_exit = self.asked.is_set()
            self.server.should_exit = True
        self.asked.set()

    @contextlib.contextmanager
    def on_signals(self, *numbers: signal.Signals) -> Iterator[None]:
        """Be asked by signals."""
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, self.ask)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


async def _run_part(
    settings: Settings, door: _Door | None, part: Part, ready: Callable[[], None], *, child: bool = False
) -> None:
    ending = _Ending()
    numbers = (signal.SIGTERM,) if child else (signal.SIGTERM, signal.SIGINT)
    collect_seldom()
    async with AsyncExitStack() as stack:
        stack.enter_context(ending.on_signals(*numbers))
        if child:
            _end_with_parent(ending)
        database = await stack.enter_async_context(await Database.open(settings))
        if child:
            stack.push_async_callback(end, asyncio.create_task(metrics.keep_refreshed(database), name="metrics"))
        if part != "http":
            stop = asyncio.Event()
            views = Runner(database, VIEWS)
            parts = {"views": views.run(stop)}
            if settings.timer:
                parts["timer"] = Timer(lambda: views.keeping(ticket_queue.VIEW)).run(stop)
            for name, work in parts.items():
                running = asyncio.create_task(work, name=name)
                running.add_done_callback(lambda _: ending.ask())
                stack.push_async_callback(_finish, running, stop)
        if door is None or part == "views":
            ready()
            await ending.asked.wait()
        else:
            reading = None
            if settings.read_database_url is not None:
                reading = await stack.enter_async_context(await Database.open_for_reading(settings))
            ending.server = _HttpServer(create_app(database, reading=reading, marks=door.marks), door)
            ending.server.should_exit = ending.asked.is_set()
            ready()
            await ending.server.serve(sockets=[door.listener])


def _http_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


async def _finish(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Let a task end; where it has failed, so does this."""
    stop.set()
    await task


def _end_with_parent(ending: _Ending) -> None:
    """End when the parent does: one that was killed cannot tell its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop = asyncio.get_running_loop()
        sentinel = parent.sentinel

        def orphaned() -> None:
            loop.remove_reader(sentinel)
            ending.ask()

        loop.add_reader(sentinel, orphaned)


async def _supervise(settings: Settings, parts: Sequence[tuple[Part, _Door | None]], ready: Callable[[], None]) -> None:
    """Keep one process for each part until asked to end; the embedded server is held meanwhile."""
    ending = _Ending()
    with ending.on_signals(signal.SIGTERM, signal.SIGINT), metrics.shared():
        async with settings.server_conninfo(ROLE_NAMES["application"]):
            keepers = [
                asyncio.create_task(_keep(settings, door, part, f"{part}-{number}", ending))
                for number, (part, door) in enumerate(parts, start=1)
            ]
            ready()
            await ending.asked.wait()
            await asyncio.gather(*keepers)


async def _keep(settings: Settings, door: _Door | None, part: Part, name: str, ending: _Ending) -> None:
    """Keep one process of a part running; end it when asked to."""
    while not ending.asked.is_set():
        process = _start(settings, door, part, name)
        ended = asyncio.create_task(_ended(process))
        asked = asyncio.create_task(ending.asked.wait())
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), GRACE_SECONDS * 2)
            if not ended.done():
                process.kill()
            await ended
        elif not ending.asked.is_set():
            logger.error("a process for %s ended with status %s; starting another", part, process.exitcode)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.asked.wait(), RESTART_PAUSE)
        asked.cancel()
        process.join()
        metrics.ended(name)


def _start(settings: Settings, door: _Door | None, part: Part, name: str) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(settings, door, part), name=name)
    # Ctrl-C reaches the whole group of a terminal; who inherits "ignore" leaves the ending to this process.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    return process


def _child(settings: Settings, door: _Door | None, part: Part) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with event_loop() as runner:
        runner.run(_run_part(settings, door, part, _nothing, child=True))


def _nothing() -> None:
    return None


async def _ended(process: SpawnProcess) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    sentinel = process.sentinel
    loop.add_reader(sentinel, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(sentinel)
