"""What a service's processes take: processor time, memory and connections of each, as the system counts them.

Read from /proc; where there is none, nothing is told.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.programs import postgres_processes

if TYPE_CHECKING:
    from collections.abc import Sequence

PROC = Path("/proc")
SHOWN = (PROC / "self" / "stat").exists()
TICK = 1 / os.sysconf("SC_CLK_TCK")
LISTENING, ESTABLISHED = "0A", "01"
PARENT, USER_TIME, SYSTEM_TIME, CHILDREN_USER, CHILDREN_SYSTEM, STARTED = 1, 11, 12, 13, 14, 19
"""Places in /proc/<pid>/stat, counted from the state, which follows the name."""


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB: all that is resident, and with what is shared counted by its share."""

    resident: float
    proportional: float


@dataclass(frozen=True, slots=True)
class Use:
    """Processor seconds so far and connections: of each process that answers, and of everything else."""

    workers: dict[int, float] = field(default_factory=dict)
    connections: dict[int, int] = field(default_factory=dict)
    others: float = 0.0
    postgres: float | None = None


def use(root: int, port: int, cluster: Path | None = None) -> Use:
    """Take stock of a service: `root` and what it started, with who of them answers on `port`.

    `cluster` is the data directory of the PostgreSQL server, where it runs on this machine.
    """
    if not SHOWN:
        return Use()
    pids = _family(root)
    connections = _connections(pids, port)
    seconds = {pid: _seconds(pid) for pid in pids}
    return Use(
        workers={pid: seconds[pid] for pid in connections},
        connections=connections,
        others=sum(spent for pid, spent in seconds.items() if pid not in connections),
        postgres=None if cluster is None else _postgres(cluster),
    )


def told(before: Use, after: Use, client: float, seconds: float) -> dict[str, Any]:
    """Tell what was used between two moments, and by the load client, in processor seconds."""
    spent: dict[str, Any] = {
        "seconds": round(seconds, 2),
        "workers": [round(now - before.workers.get(pid, 0.0), 2) for pid, now in after.workers.items()],
        "connections_by_worker": list(before.connections.values()),
        "others": round(after.others - before.others, 2),
        "client": round(client, 2),
    }
    if before.postgres is not None and after.postgres is not None:
        spent["postgres"] = round(after.postgres - before.postgres, 2)
    return spent


def memory(pid: int) -> Memory | None:
    """Give what memory a process has; None when it is gone or not to be seen."""
    found = {"Rss": 0.0, "Pss": 0.0}
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = round(int(value.split()[0]) / 1024, 1)
    return Memory(found["Rss"], found["Pss"])


def proportional(root: int) -> float:
    """Give the memory of a process and all it started but PostgreSQL, in MiB, what they share counted once.

    0 where it is not to be seen.
    """
    if not SHOWN:
        return 0.0
    server = {one.pid for one in postgres_processes()}
    return sum(found.proportional for pid in _family(root) if pid not in server and (found := memory(pid)) is not None)


def _stat(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def _family(root: int) -> list[int]:
    """Give a process and all below it, in the order they were started."""
    below: dict[int, list[int]] = {}
    started: dict[int, int] = {}
    for entry in PROC.glob("[0-9]*"):
        pid = int(entry.name)
        if values := _stat(pid):
            below.setdefault(int(values[PARENT]), []).append(pid)
            started[pid] = int(values[STARTED])
    found = [root]
    for pid in found:
        found += below.get(pid, [])
    return sorted((pid for pid in found if pid in started), key=lambda pid: (started[pid], pid))


def _seconds(pid: int, *, ended_children: bool = False) -> float:
    values = _stat(pid)
    places = (USER_TIME, SYSTEM_TIME, *((CHILDREN_USER, CHILDREN_SYSTEM) if ended_children else ()))
    return sum(int(values[place]) for place in places) * TICK if values else 0.0


def _connections(pids: Sequence[int], port: int) -> dict[int, int]:
    """Give who holds sockets of a port and how many connections: the workers, or the one process that is all."""
    sockets: dict[str, bool] = {}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / table).read_text("ascii").splitlines()[1:]:
                values = line.split()
                if values[1].endswith(f":{port:04X}") and values[3] in {LISTENING, ESTABLISHED}:
                    sockets[f"socket:[{values[9]}]"] = values[3] == LISTENING
    found: dict[int, int] = {}
    for pid in pids:
        held = []
        with suppress(OSError):
            for descriptor in (PROC / str(pid) / "fd").iterdir():
                with suppress(OSError):
                    held.append(str(descriptor.readlink()))
        if any(name in sockets for name in held):
            found[pid] = sum(not sockets[name] for name in held if name in sockets)
    if len(found) > 1:
        # Whoever started the workers has the listening socket as well, and answers nobody.
        parents = {int(values[PARENT]) for pid in found if (values := _stat(pid))}
        return {pid: number for pid, number in found.items() if pid not in parents or number}
    return found


def _postgres(cluster: Path) -> float | None:
    """Give the processor seconds of a PostgreSQL server so far, those of its ended connections included."""
    try:
        place = cluster.stat()
    except OSError:
        return None
    mine = [one for one in postgres_processes() if os.path.samestat(one.directory, place)]
    ids = {one.pid for one in mine}
    return sum(_seconds(one.pid, ended_children=one.parent not in ids) for one in mine)
