"""What can happen to a desk: each mishap begins, lasts as long as it lasts, and may leave something to be repaired."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.conninfo import make_conninfo

from tests.faults.rig import PATIENCE, SCHEMA, WATCH, DidNotComeBack, end_group, eventually, kill

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from tests.faults.rig import Rig

    Mishap = Callable[[Rig, random.Random], Awaitable[None]]

OURS: Final = "starts_with(application_name, 'desk')"
STALLS: Final = (0.2, 3.0)  # seconds, from hardly felt to longer than a client waits


async def worker_killed(rig: Rig, chance: random.Random) -> None:
    """kill -9 of a process that serves HTTP; or, seldom, of two."""
    projection = await rig.projection()
    workers = [pid for pid in rig.workers() if pid != projection]
    for pid in chance.sample(workers, min(len(workers), chance.choice((1, 1, 2)))):
        kill(pid)


async def projection_killed(rig: Rig, chance: random.Random) -> None:  # noqa: ARG001
    """kill -9 of the process that keeps the views."""
    pid = await rig.projection()
    if pid is not None:
        kill(pid)


async def desk_killed(rig: Rig, chance: random.Random) -> None:  # noqa: ARG001
    """kill -9 of everything that is not PostgreSQL; an init system starts it again."""
    for process in list(rig.processes.values()):
        for pid in (process.pid, *rig.workers()):
            kill(pid)


async def desk_restarted(rig: Rig, chance: random.Random) -> None:
    """An orderly restart, as for a new release."""
    await asyncio.to_thread(end_group, rig.processes[chance.choice(list(rig.processes))])


async def postgres_killed(rig: Rig, chance: random.Random) -> None:
    """kill -9 of PostgreSQL, every process of it, or the first alone, which leaves its backends to find out."""
    processes = rig.postgres_processes()
    for pid in processes if chance.random() < 0.7 else processes[:1]:
        kill(pid)
    await _postgres_back(rig)


async def backend_killed(rig: Rig, chance: random.Random) -> None:
    """kill -9 of one backend, upon which PostgreSQL ends all others and recovers."""
    with contextlib.suppress(psycopg.OperationalError):
        backends = await rig.query(f"SELECT pid FROM pg_stat_activity WHERE {OURS} ORDER BY backend_start")
        if backends:
            kill(chance.choice(backends)[0])
    await _postgres_back(rig)


async def postgres_restarted(rig: Rig, chance: random.Random) -> None:
    """A fast restart, or an immediate one, by an administrator."""
    processes = rig.postgres_processes()
    if processes:
        kill(processes[0], chance.choice((signal.SIGINT, signal.SIGINT, signal.SIGQUIT)))
        await asyncio.sleep(0.3)
    await _postgres_back(rig)


async def connections_terminated(rig: Rig, chance: random.Random) -> None:
    """pg_terminate_backend of any of the desk's connections, several times."""
    for _ in range(chance.randint(3, 8)):
        with contextlib.suppress(psycopg.OperationalError):
            share = chance.choice((0.2, 0.5, 1.0))
            await rig.query(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS} AND random() < %s", (share,)
            )
        await asyncio.sleep(chance.uniform(0.02, 0.3))


async def replies_cut(rig: Rig, chance: random.Random) -> None:
    """Connections cut after PostgreSQL has committed and before its reply arrives, several times."""
    if rig.proxy is None:
        await connections_terminated(rig, chance)
        return
    proxy = rig.proxy
    for _ in range(chance.randint(3, 6)):
        count = chance.randint(1, 3)
        wanted = proxy.cut_after_commit + count
        kind = chance.choice(("append", "append", "commit", ""))
        if kind == "commit":
            proxy.cut_commits(count)
        else:
            proxy.cut_replies(count, only=kind)

        async def cut(wanted: int = wanted) -> bool:
            return proxy.cut_after_commit >= wanted

        # Where nothing of the kind comes by, the next kind will do.
        with contextlib.suppress(DidNotComeBack):
            await eventually(cut, "the replies are cut", 2)
    proxy.flow()


async def wires_cut(rig: Rig, chance: random.Random) -> None:
    """Every connection cut as it stands, with requests and replies half on their way."""
    if rig.proxy is None:
        await connections_terminated(rig, chance)
        return
    for _ in range(chance.randint(1, 4)):
        rig.proxy.cut_all()
        await asyncio.sleep(chance.uniform(0.05, 0.4))


async def wires_stalled(rig: Rig, chance: random.Random) -> None:
    """Nothing passes between desk and PostgreSQL for a while; then everything does, late."""
    if rig.proxy is None:
        await worker_stalled(rig, chance)
        return
    rig.proxy.stall()
    await asyncio.sleep(chance.uniform(*STALLS))
    rig.proxy.flow()


async def worker_stalled(rig: Rig, chance: random.Random) -> None:
    """A process of the desk is stopped for a while and then goes on as if nothing had been."""
    workers = rig.workers()
    if workers:
        pid = chance.choice(workers)
        kill(pid, signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(*STALLS))
        kill(pid, signal.SIGCONT)


async def projection_stalled(rig: Rig, chance: random.Random) -> None:
    """The process that keeps the views is stopped until another has taken them over, and then goes on unawares."""
    stalled = await rig.projection()
    if rig.together or stalled is None:
        await worker_stalled(rig, chance)
        return
    kill(stalled, signal.SIGSTOP)

    async def taken_over() -> bool:
        return await rig.projection() not in {None, stalled}

    try:
        await eventually(taken_over, "another process keeps the views")
    finally:
        kill(stalled, signal.SIGCONT)


async def disk_full(rig: Rig, chance: random.Random) -> None:
    """No space is left for PostgreSQL: really, on a small disk; else said by a trigger where writing would fail.

    A file system of one's own takes root. An ordinary user has no honest way to fill a disk that others write to; an
    error raised inside the server, in the transaction that would have met it and with its code (53100), is the
    nearest.
    """
    seconds = chance.uniform(0.5, 2.0)
    if rig.disk is not None:
        rig.disk.fill()
        await asyncio.sleep(seconds)
        rig.disk.free()
        await _postgres_back(rig)
        return
    tables = chance.choice((["events"], ["command_outcomes"], ["events", "command_outcomes"]))
    await _persistently(rig, NO_SPACE)
    for table in tables:
        await _persistently(rig, NO_SPACE_IN.format(table=table))
    await asyncio.sleep(seconds)
    await _persistently(rig, f"DROP FUNCTION {SCHEMA}.no_space CASCADE")


async def idle_in_transaction(rig: Rig, chance: random.Random) -> None:
    """Sessions that have a snapshot of the log, a row of the views or the append lock, and do nothing with it."""
    for statement, seconds in (
        (f"SELECT count(*) FROM {SCHEMA}.events", None),
        (f"SELECT * FROM {SCHEMA}.views ORDER BY name LIMIT 1 FOR UPDATE", chance.uniform(0.2, 1.5)),
        (f"SELECT {SCHEMA}.lock_log()", chance.uniform(0.2, 2.0)),
    ):
        with contextlib.suppress(psycopg.OperationalError):
            connection = await psycopg.AsyncConnection.connect(rig.conninfo(), application_name="stranger")
            rig.held.append(connection)
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await connection.execute(statement.encode())
            if seconds is not None:
                await asyncio.sleep(seconds)
                await connection.rollback()


async def strangers_write(rig: Rig, chance: random.Random) -> None:
    """Transactions that write elsewhere in the cluster and stay open: another schema, another database."""
    for elsewhere in (rig.conninfo(), make_conninfo(rig.conninfo(), dbname="postgres")):
        with contextlib.suppress(psycopg.OperationalError):
            connection = await psycopg.AsyncConnection.connect(elsewhere, application_name="stranger")
            rig.held.append(connection)
            await connection.execute("CREATE SCHEMA IF NOT EXISTS elsewhere")
            await connection.execute("CREATE TABLE IF NOT EXISTS elsewhere.work (done text)")
            await connection.commit()
            for _ in range(chance.randint(1, 5)):
                await connection.execute(
                    "INSERT INTO elsewhere.work SELECT repeat('x', 100) FROM generate_series(1, 200)"
                )
                await asyncio.sleep(chance.uniform(0.0, 0.05))


ALL: Final[tuple[Mishap, ...]] = (
    worker_killed,
    projection_killed,
    postgres_killed,
    connections_terminated,
    replies_cut,
    disk_full,
    postgres_restarted,
    idle_in_transaction,
    strangers_write,
    backend_killed,
    wires_cut,
    wires_stalled,
    worker_stalled,
    desk_killed,
    desk_restarted,
)
"""What happens in every run."""

LONG: Final[tuple[Mishap, ...]] = (*ALL, projection_stalled)
"""What happens where there is time: a lease on the views has to run out."""


async def _postgres_back(rig: Rig) -> None:
    """Wait until PostgreSQL answers, which it does by the desk's own doing."""

    async def answers() -> bool:
        try:
            await rig.query("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    await eventually(answers, "PostgreSQL answers again")


async def _persistently(rig: Rig, statement: str) -> None:
    """Carry a statement out that may have to wait for the desk's own."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            await rig.query(f"SET lock_timeout = '1s'; {statement}")
        except psycopg.OperationalError as error:
            if asyncio.get_running_loop().time() > deadline:
                message = f"{statement!r} was never carried out: {error}"
                raise DidNotComeBack(message) from error
            await asyncio.sleep(WATCH)
        else:
            return


NO_SPACE: Final = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.no_space() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END;
$body$"""

NO_SPACE_IN: Final = f"""
CREATE OR REPLACE TRIGGER no_space AFTER INSERT ON {SCHEMA}.{{table}}
FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.no_space()"""
