"""The server as a real process: started, stopped, started again, with workers, and with the address taken."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


@contextmanager
def running(environment: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run a server in a process group of its own; give it, its address, and what it printed until it served."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", *arguments, "--port", "0"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith(("Serving on", "Ctrl-C stops")):
                break
        found = re.search(r"http://127\.0\.0\.1:\d+", printed)
        assert found is not None, printed
        wait_until_it_answers(found[0])
        yield process, found[0], printed
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        if process.stdout is not None:
            process.stdout.close()


def wait_until_it_answers(address: str) -> None:
    """Ask until somebody is ready."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/health/ready", timeout=PATIENCE).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("the server did not answer")


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> str:
    """Press Ctrl-C, which the whole group gets, and give what was printed last."""
    os.killpg(process.pid, number)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert "Traceback" not in printed
    return printed


def credentials_in(printed: str) -> dict[str, str]:
    """Read the credentials that `desk run` prints."""
    return dict(re.findall(r"^  (\w+) +(desk_\S+)$", printed, re.MULTILINE))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Name a directory that is not there yet, below one that any user may pass through."""
    with tempfile.TemporaryDirectory(prefix="ledgerdesk_test_") as above:
        Path(above).chmod(0o711)
        yield Path(above) / "data of a desk"


def test_a_desk_that_is_run_stopped_and_run_again_finds_its_data(data_dir: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "DATABASE_URL"))}
    environment = kept | {"DESK_DATA_DIR": str(data_dir)}
    with running(environment, "run") as (process, address, printed):
        tokens = credentials_in(printed)
        assert set(tokens) == {
            "agent", "team_lead", "supervisor", "auditor", "developer", "administrator", "customer",
        }  # fmt: skip
        assert (data_dir / "credentials.json").stat().st_mode & 0o777 == 0o600
        curls = re.findall(r"^  (curl .*)$", printed, re.MULTILINE)
        opened, assigned, history = (as_curl_would(curl) for curl in curls)
        assert (opened["version"], opened["changed"]) == (1, True)
        assert assigned["changed"] is True
        assert [entry["event"] for entry in history["entries"]][-1] == "assigned"
        headers = {"Authorization": f"Bearer {tokens['agent']}"}
        page = httpx.get(f"{address}/queue?after={opened['position']}", headers=headers).json()
        assert page["items"]
        counted = httpx.get(f"{address}/queue/counts", headers=headers).json()["total"]
        assert counted > 200
        assert "Stopped." in stop(process)
    assert nobody_listens(address)
    with running(environment, "run") as (process, address, printed):
        assert credentials_in(printed) == tokens
        found = httpx.get(f"{address}/tickets/{opened['number']}", headers=headers).json()
        assert (found["id"], found["version"]) == (opened["id"], 1)
        assert httpx.get(f"{address}/queue/counts", headers=headers).json()["total"] == counted
        stop(process, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while (data_dir / "postgres" / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def as_curl_would(line: str) -> Any:
    """Send what a printed curl line says, as curl need not be there; give what is answered."""
    words = shlex.split(line)
    assert words[:2] == ["curl", "-s"]
    options = [(words[place], words[place + 1]) for place in range(2, len(words) - 1, 2)]
    headers = httpx.Headers(
        [(name, said) for name, _, said in (value.partition(": ") for option, value in options if option == "-H")]
    )
    data = [value for option, value in options if option == "-d"]
    assert {option for option, _ in options} <= {"-H", "-d"}
    answer = httpx.request("POST" if data else "GET", words[-1], headers=headers, content="".join(data))
    assert answer.is_success, answer.text
    return answer.json()


def nobody_listens(address: str) -> bool:
    """Tell whether an address is free again."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) != 0


def test_workers_share_an_address_and_end_with_their_parent(environment: dict[str, str]) -> None:
    token = issue(environment)
    headers = {"Authorization": f"Bearer {token}"}
    with running(environment, "serve", "--workers", "2") as (process, address, _):
        positions = []
        for number in range(20):
            answer = httpx.post(f"{address}/teams", json={"name": f"Team {number}"}, headers=headers)
            assert answer.status_code == 201, answer.text
            positions.append(answer.json()["position"])
        assert positions == list(range(1, 21))
        page = httpx.get(f"{address}/teams?after={positions[-1]}&limit=50", headers=headers)
        assert len(page.json()["items"]) == 20
        stop(process)
    assert nobody_listens(address)


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="only /proc tells whose a connection is")
def test_workers_take_about_as_many_connections_each(environment: dict[str, str]) -> None:
    with running(environment, "serve", "--workers", "2") as (process, address, _):
        port = int(address.rpartition(":")[2])
        deadline = time.monotonic() + PATIENCE
        counts = [0]
        while 0 in counts:  # one may still be starting
            assert time.monotonic() < deadline
            with connected(port, 4):
                counts = connections_of_workers(process.pid, port)
        with connected(port, 40):
            counts = connections_of_workers(process.pid, port)
            assert sum(counts) >= 40
            assert min(counts) >= 10, counts
        stop(process)


@contextmanager
def connected(port: int, number: int) -> Iterator[None]:
    """Keep connections open, one made after the other, each of which was answered."""
    with ExitStack() as stack:
        for _ in range(number):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        yield


def connections_of_workers(server: int, port: int) -> list[int]:
    """Count the connections that each of two processes that serve HTTP has; those are started before the views'."""
    established, local = "01", f":{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[3] == established and line[1].endswith(local)}
    children = map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())
    workers = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()][:2]
    return [sum(held in sockets for held in open_files(worker)) for worker in workers]


def open_files(process: int) -> list[str]:
    """Name what a process has open."""
    found = []
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return found


def test_workers_do_not_outlive_a_parent_that_was_killed(environment: dict[str, str]) -> None:
    with running(environment, "serve", "--workers", "2") as (process, address, _):
        process.kill()
        process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not nobody_listens(address) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert nobody_listens(address)


def test_an_address_that_is_taken_gives_one_sentence_and_status_2(environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in ("run", "serve"):
            done = subprocess.run(
                [sys.executable, "-m", "api.cli", command, "--port", port],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
            assert done.returncode == 2
            assert done.stderr == f"desk: Cannot listen on 127.0.0.1:{port}: Address already in use.\n"


def test_a_body_larger_than_is_taken_is_refused_while_it_arrives(environment: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {issue(environment)}", "Content-Type": "application/json"}
    with running(environment, "serve") as (process, address, _), httpx.Client(base_url=address) as client:

        def endless() -> Iterator[bytes]:
            for _ in range(100):
                yield b" " * 100_000

        for content in (b" " * 10_000_000, endless()):
            answer = client.post("/customers", content=content, headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")
        # The connection is still good.
        assert client.get("/log", headers=headers).json()["position"] == 0
        upload = client.post(
            "/attachments?name=a",
            content=b"x" * (25 * 1024 * 1024 + 1),
            headers={"Authorization": headers["Authorization"]},
        )
        assert upload.status_code == 413
        stop(process)


def test_what_is_no_http_does_not_end_the_server(environment: dict[str, str]) -> None:
    with running(environment, "serve") as (process, address, _):
        port = int(address.rpartition(":")[2])
        for said in (
            b"\x00\x01\x02\x03\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /log HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: -1\r\n\r\n",
            b"POST /tickets HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
            b"GET /tickets/%zz HTTP/1.1\r\nHost: \xff\r\nAuthorization: Bearer \xff\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.settimeout(0.5)
                connection.sendall(said)
                with suppress(TimeoutError):
                    assert b" 500 " not in connection.recv(1000)
        assert httpx.get(f"{address}/health/live").status_code == 200
        stop(process)


def issue(environment: dict[str, str]) -> str:
    """Have a credential of an administrator."""
    command = [sys.executable, "-m", "api.cli", "credential", "issue", "--role", "administrator"]
    return subprocess.check_output(command, env=environment, cwd=ROOT, text=True).strip()
