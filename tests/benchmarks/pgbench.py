"""What bare PostgreSQL does with rows like events: as many as it can, or so many a second and how soon each is in."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from storage.programs import VERSIONS, installation
from tests.benchmarks.delays import milliseconds
from tests.benchmarks.ground import MeasurementError
from tests.benchmarks.writers import PERSONAL, STATE, TOPIC

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = """
CREATE TABLE one_row_each (
    notification_id    bigserial PRIMARY KEY,
    originator_id      uuid NOT NULL,
    originator_version bigint NOT NULL,
    topic              text NOT NULL,
    state              bytea NOT NULL,
    personal           bytea,
    recorded_at        timestamptz NOT NULL,
    UNIQUE (originator_id, originator_version)
)
"""
INSERT = (
    "INSERT INTO one_row_each (originator_id, originator_version, topic, state, personal, recorded_at) VALUES"
    f" (gen_random_uuid(), 1, '{TOPIC}', '{STATE.decode()}', '{PERSONAL.decode()}', clock_timestamp());\n"
)
DUE = """
CREATE TABLE due_rows (id bigserial PRIMARY KEY, due_at timestamptz NOT NULL, breached_at timestamptz);
CREATE INDEX ON due_rows (due_at, id) WHERE breached_at IS NULL;
CREATE TABLE breaches (id bigserial PRIMARY KEY, row_id bigint NOT NULL, due_at timestamptz NOT NULL, state bytea NOT NULL);
INSERT INTO due_rows (due_at) SELECT now() - interval '1 hour' + n * interval '1 millisecond' FROM generate_series(1, {rows}) n;
"""
TAKE = (
    "WITH due AS (SELECT id, due_at FROM due_rows WHERE breached_at IS NULL AND due_at <= now()"
    " ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED),"
    " taken AS (UPDATE due_rows d SET breached_at = due.due_at FROM due WHERE d.id = due.id RETURNING d.id, d.due_at)"
    f" INSERT INTO breaches (row_id, due_at, state) SELECT id, due_at, '{STATE.decode()}' FROM taken;\n"
)
LIKELY_RATE = 50_000  # no server takes so many rows a second, each in a transaction: it must not run out of them
DELAY = 2  # place of a transaction's microseconds, from when it was due, in a line of pgbench's log


def rows_per_second(address: str, seconds: float, clients: int) -> float:
    """Insert single rows of an event's size and indexes, each in a transaction, as fast as Postgres itself can."""
    with tempfile.TemporaryDirectory() as directory:
        output = _run(address, Path(directory), seconds, clients, [])
    return _rate(output)


def due_rows_per_second(address: str, seconds: float, clients: int) -> float:
    """Take rows that are due one by one, as queues in Postgres do, mark each and write down that it was."""
    table = DUE.format(rows=int(max(1, round(seconds)) * LIKELY_RATE))
    with tempfile.TemporaryDirectory() as directory:
        output = _run(address, Path(directory), seconds, clients, [], table=table, script=TAKE)
    return _rate(output)


def _rate(output: str) -> float:
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if found is None:
        message = "pgbench did not say how fast it was"
        raise MeasurementError(message)
    return float(found[1])


def paced(address: str, seconds: float, clients: int, rate: float) -> dict[str, float]:
    """Insert so many such rows a second; gives percentiles of their milliseconds, counted from when each was due."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        _run(address, Path(directory), seconds, clients, [f"--rate={rate:g}", "--log", f"--log-prefix={log}"])
        lines = [line.split() for file in log.parent.glob("log.*") for line in file.read_text("ascii").splitlines()]
    return milliseconds(int(line[DELAY]) / 1_000_000 for line in lines)


def _run(
    address: str,
    directory: Path,
    seconds: float,
    clients: int,
    further: Sequence[str],
    *,
    table: str = TABLE,
    script: str = INSERT,
) -> str:
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(table.encode())
        info = connection.info
        target = [f"--host={info.host}", f"--port={info.port}", f"--username={info.user}", info.dbname]
        environment = {**os.environ, "PGPASSWORD": info.password or ""}
    program = str(installation(next(iter(VERSIONS))) / "bin" / "pgbench")
    load = [f"--client={clients}", "--jobs=2", f"--time={max(1, round(seconds))}"]
    file = directory / "script.sql"
    file.write_text(script, encoding="ascii")
    command = [program, "--no-vacuum", "--protocol=prepared", *load, *further, f"--file={file}", *target]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        message = f"pgbench failed: {' '.join(outcome.stderr.split())[-300:]}"
        raise MeasurementError(message)
    return outcome.stdout
