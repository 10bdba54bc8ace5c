"""README.md is run as it stands, in order, in one shell, on a free port and in a directory of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from storage.settings import Settings
from tests.conftest import new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Server

ROOT: Final = Path(__file__).resolve().parent.parent
BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN: Final = {"make test", "make check"}
"""They would run this test again."""
PATIENCE: Final = 120  # seconds one command may take, a first start of everything included


class Step:
    """A command of a console block, and the output shown below it: … stands for anything."""

    def __init__(self, command: str, shown: str) -> None:
        self.command = command
        self.shown = shown

    def __repr__(self) -> str:
        return self.command.partition("\n")[0]

    def agrees(self, output: str) -> bool:
        if not self.shown.strip():
            return True
        parts = [re.escape(" ".join(part.split())) for part in self.shown.split("…")]
        return re.search(r".*?".join(parts).replace(r"\ ", r"\s*"), " ".join(output.split()), re.DOTALL) is not None


def steps(text: str) -> list[Step]:
    """Read `$ command` lines, their continuations (`> `) and the output below them."""
    found: list[Step] = []
    for block in BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:], ""))
            elif line.startswith("> ") or line == ">":
                found[-1].command += "\n" + line[2:]
            else:
                found[-1].shown += line + "\n"
    return found


class Shell:
    """One bash through which the README is typed."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/bash", "--norc", "-s"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, command: str) -> tuple[str, int]:
        """Run a command and give its output and status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\nprintf '\\n--done %d\\n' $?\n")
        self._process.stdin.flush()
        output: list[str] = []
        for line in self._process.stdout:
            if match := re.fullmatch(r"--done (\d+)\n", line):
                return "".join(output), int(match[1])
            output.append(line)
        pytest.fail(f"the shell ended in: {command}\n{''.join(output)}")

    def close(self) -> None:
        """End the shell and all that it started."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture
def port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path, request: pytest.FixtureRequest, port: int) -> Iterator[dict[str, str]]:
    """Give the desk a record of its own: an embedded server, or a database where the run was given a server."""
    if shutil.which("curl") is None:
        pytest.skip("the tour of the README uses curl, which is not installed here")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_URL"))}
    kept |= {
        "DESK_DATA_DIR": str(tmp_path / "desk data"),
        "DESK_PORT": str(port),
        "COLUMNS": "120",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    if Settings.from_environment().embedded:
        yield kept
        return
    server: Server = request.getfixturevalue("server")
    with new_database(server, "readme") as name:
        yield kept | {"DATABASE_URL": server.settings(name, tmp_path, tmp_path / "root.key").database_url or ""}


def test_every_command_in_the_readme_does_what_is_shown(tmp_path: Path, environment: dict[str, str], port: int) -> None:
    text = (ROOT / "README.md").read_text("utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    found = steps(text)
    assert len(found) > 15
    desk: subprocess.Popen[bytes] | None = None
    printed = tmp_path / "run.txt"
    shell = Shell(tmp_path, environment)
    try:
        for step in found:
            if step.command in NOT_RUN:
                continue
            if step.command == "make run":
                desk = start(environment, printed)
                await_ready(desk, port, printed, step)
                continue
            output, status = shell.type(step.command)
            assert status == 0, f"{step.command}\n{output}"
            assert step.agrees(output), f"{step.command}\n--- shown\n{step.shown}--- was\n{output}"
    finally:
        shell.close()
        if desk is not None:
            os.killpg(desk.pid, signal.SIGINT)  # as Ctrl-C does: to make and to all that it started
            desk.wait(PATIENCE)
    assert "Stopped." in printed.read_text()


def start(environment: dict[str, str], printed: Path) -> subprocess.Popen[bytes]:
    """Type `make run` in the checkout."""
    with printed.open("wb") as output:
        return subprocess.Popen(
            ["make", "run"],  # noqa: S607 - the make of whoever runs the tests
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def await_ready(desk: subprocess.Popen[bytes], port: int, printed: Path, step: Step) -> None:
    """Wait until the desk answers and has printed what the README shows."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert desk.poll() is None, printed.read_text()
        try:
            ready = httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            ready = False
        if ready and step.agrees(printed.read_text()):
            return
        time.sleep(0.1)
    pytest.fail(f"the desk did not become ready:\n{printed.read_text()}")
