"""What the processes of a server count of their work, in the form that Prometheus reads."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import contextmanager
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client import Metric
    from prometheus_client.registry import Collector

    from storage.database import Database

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which the package finds the files that processes share; it is read when that is imported."""
PREFIX: Final = "ledgerdesk-metrics-"
REFRESH_SECONDS: Final = 1.0

if SHARED in os.environ:
    # A process started in the place of one that died goes on with its files, so that there are as many as parts.
    _part = current_process().name
    values.ValueClass = values.MultiProcessValue(lambda: _part)  # type: ignore[no-untyped-call]
disable_created_metrics()  # type: ignore[no-untyped-call]

_OWN: Final = CollectorRegistry()
_OF_COMMAND = ("workspace", "command", "outcome")

COMMANDS: Final = Counter("desk_commands", "Commands by what came of them", _OF_COMMAND, registry=_OWN)
BATCHES: Final = Histogram(
    "desk_append_batch_commands",
    "Commands that one append wrote together",
    ("workspace",),
    registry=_OWN,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
SECONDS: Final = Histogram(
    "desk_append_seconds",
    "How long one append took, until it was durable or had failed",
    ("workspace",),
    registry=_OWN,
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WAITING: Final = Gauge(
    "desk_append_waiting_commands",
    "Commands that wait for an append",
    ("workspace",),
    registry=_OWN,
    multiprocess_mode="livesum",
)
BUSY: Final = Counter(
    "desk_append_busy", "Commands refused because too many waited for the log", ("workspace",), registry=_OWN
)
TOO_LARGE: Final = Counter("desk_events_too_large", "Events refused for their size", ("workspace",), registry=_OWN)
UNREADABLE: Final = Counter(
    "desk_unreadable_events",
    "How often an event that cannot be read was met, by why",
    ("workspace", "reason"),
    registry=_OWN,
)
TIMER_EVENTS: Final = Counter(
    "desk_timer_events", "Events that the timer recorded, by type", ("workspace", "topic"), registry=_OWN
)
TIMER_CONFLICTS: Final = Counter(
    "desk_timer_conflicts",
    "Looks of the timer at a ticket that somebody else changed meanwhile; it looks again",
    ("workspace",),
    registry=_OWN,
)
TIMER_FAILURES: Final = Counter(
    "desk_timer_failures", "Tickets that the timer could not judge and left for a minute", ("workspace",), registry=_OWN
)
CONNECTIONS: Final = Gauge(
    "desk_pool_connections",
    "Connections to the database in the pools, by state",
    ("state",),
    registry=_OWN,
    multiprocess_mode="livesum",
)
POOL_WAITING: Final = Gauge(
    "desk_pool_waiting_requests",
    "Those waiting for a connection of a pool",
    registry=_OWN,
    multiprocess_mode="livesum",
)


class LogMeter:
    """What is counted of one workspace's log. Its counters are found once, since commands come by the thousand."""

    __slots__ = ("_batch", "_seconds", "busy", "too_large")

    def __init__(self, workspace: str) -> None:
        self._batch = BATCHES.labels(workspace).observe
        self._seconds = SECONDS.labels(workspace).observe
        self.busy: Callable[[], None] = BUSY.labels(workspace).inc
        self.too_large: Callable[[], None] = TOO_LARGE.labels(workspace).inc

    def appended(self, commands: int, seconds: float) -> None:
        """Count one append."""
        self._batch(commands)
        self._seconds(seconds)


class CommandMeter:
    """What is counted of one command."""

    __slots__ = ("_command", "_found")

    def __init__(self, command: str) -> None:
        self._command = command
        self._found: dict[tuple[str, str], Callable[[], None]] = {}

    def __call__(self, workspace: str, outcome: str) -> None:
        """Count one; outcomes are done, unchanged, replayed, refused and failed."""
        count = self._found.get((workspace, outcome))
        if count is None:
            count = self._found[workspace, outcome] = COMMANDS.labels(workspace, self._command, outcome).inc
        count()


class TimerMeter:
    """What is counted of the timer of one workspace."""

    __slots__ = ("_found", "_workspace", "conflict", "failed")

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self._found: dict[str, Callable[[], None]] = {}
        self.conflict: Callable[[], None] = TIMER_CONFLICTS.labels(workspace).inc
        self.failed: Callable[[], None] = TIMER_FAILURES.labels(workspace).inc

    def recorded(self, topic: str) -> None:
        """Count one event."""
        count = self._found.get(topic)
        if count is None:
            count = self._found[topic] = TIMER_EVENTS.labels(self._workspace, topic).inc
        count()


def refresh(database: Database) -> None:
    """Set what is not counted but stands at a level: the queues and the pool of this process."""
    for workspace in database.opened():
        WAITING.labels(workspace.name).set(workspace.log.waiting)
    stats = database.pool.get_stats()
    size, idle = stats.get("pool_size", 0), stats.get("pool_available", 0)
    CONNECTIONS.labels("used").set(size - idle)
    CONNECTIONS.labels("idle").set(idle)
    POOL_WAITING.set(stats.get("requests_waiting", 0))


async def keep_refreshed(database: Database) -> None:
    """Keep the levels true for whichever process is asked, until cancelled."""
    while True:
        refresh(database)
        await asyncio.sleep(REFRESH_SECONDS)


def exposition(workspace: str, more: Sequence[Metric]) -> bytes:
    """Write what all processes of this server counted for one workspace or for none, and some metrics more."""
    source: Collector = _OWN
    if SHARED in os.environ:
        source = CollectorRegistry()
        multiprocess.MultiProcessCollector(source)  # type: ignore[no-untyped-call]
    told = CollectorRegistry()
    told.register(_Of(workspace, source, more))
    return generate_latest(told)


class _Of:
    """The samples that one workspace may see: its own and those of no workspace."""

    def __init__(self, workspace: str, source: Collector, more: Sequence[Metric]) -> None:
        self._workspace = workspace
        self._source = source
        self._more = more

    def collect(self) -> Iterable[Metric]:
        for metric in (*self._source.collect(), *self._more):
            metric.samples = [one for one in metric.samples if one.labels.get("workspace") in {self._workspace, None}]
            yield metric


@contextmanager
def shared() -> Iterator[None]:
    """Let the processes started meanwhile add up what they count, through files of their own that go in the end."""
    _clear_away()
    directory = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
    before = os.environ.get(SHARED)
    os.environ[SHARED] = directory
    try:
        yield
    finally:
        if before is None:
            del os.environ[SHARED]
        else:
            os.environ[SHARED] = before
        shutil.rmtree(directory, ignore_errors=True)


def ended(part: str) -> None:
    """Take away the levels of a process that has ended; what it counted stays counted."""
    multiprocess.mark_process_dead(part)  # type: ignore[no-untyped-call]


def _clear_away() -> None:
    """Remove the files of servers that were killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = directory.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not _lives(int(owner)):
            shutil.rmtree(directory, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True
