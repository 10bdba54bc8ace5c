"""The desk's own PostgreSQL comes up, is shared, and goes, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from storage import embedded, programs, unprivileged
from storage.embedded import EmbeddedServer
from storage.programs import EmbeddedServerError
from storage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

QUICK = {"fsync": "off"}
ROOT = os.geteuid() == 0
PROJECT = Path(__file__).parent.parent.parent

USER = """
import sys
from pathlib import Path
from storage.embedded import EmbeddedServer

with EmbeddedServer(Path(sys.argv[1]), options={"fsync": "off"}) as server:
    print(server.conninfo(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that the user of a root's server may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="ledgerdesk-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


def desk(data_dir: Path) -> EmbeddedServer:
    return EmbeddedServer(data_dir, options=QUICK)


class User:
    """Another process that uses the server until it is told to leave or is killed."""

    def __init__(self, data_dir: Path, before: Sequence[str | Path] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", USER, data_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )

    def wait_until_up(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> int:
        self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


@contextmanager
def using(data_dir: Path, before: Sequence[str | Path] = ()) -> Iterator[User]:
    user = User(data_dir, before)
    try:
        yield user
    finally:
        user.kill()


def lives(data_dir: Path) -> bool:
    """Ask the lock that every process of the server holds."""
    with (data_dir / "alive.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def postmaster(server: EmbeddedServer) -> int:
    pid = server._postmaster()
    assert pid is not None
    return pid


def answers(server: EmbeddedServer) -> bool:
    try:
        psycopg.connect(server.conninfo(), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def another_answers(server: EmbeddedServer, killed: int) -> bool:
    return server._postmaster() not in {None, killed} and answers(server)


def caretakers(data_dir: Path) -> list[int]:
    """Find the caretaker: the parent of the server."""
    pid = postmaster(desk(data_dir))
    parent = int(Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[1])
    return [parent] if b"caretaker" in Path(f"/proc/{parent}/cmdline").read_bytes() else []


def nobody(_data_dir: Path) -> list[int]:
    """Leave the caretaker alone."""
    return []


def write(server: EmbeddedServer, text: str) -> None:
    with psycopg.connect(server.conninfo()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", (text,))


def words(server: EmbeddedServer) -> list[str]:
    with psycopg.connect(server.conninfo()) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY word")]


@pytest.mark.parametrize("version", programs.VERSIONS)
def test_a_new_directory_gets_a_database_and_its_roles(place: Path, version: int) -> None:
    with EmbeddedServer(place / "desk", version=version, options=QUICK) as server:
        with psycopg.connect(server.conninfo()) as connection:
            assert connection.info.server_version // 10000 == version
            row = connection.execute(
                "SELECT pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba),"
                " current_setting('data_checksums'), current_setting('listen_addresses'), current_setting('jit'),"
                " current_user FROM pg_database WHERE datname = current_database()"
            ).fetchone()
            assert row == ("UTF8", "C", "C", "ledgerdesk_owner", "on", "", "off", "ledgerdesk_owner")
            roles = connection.execute(
                "SELECT rolname, rolsuper, rolcanlogin FROM pg_roles WHERE rolname LIKE 'ledgerdesk%' ORDER BY rolname"
            ).fetchall()
            assert roles == [
                ("ledgerdesk_app", False, True),
                ("ledgerdesk_owner", False, True),
                ("ledgerdesk_reader", False, True),
            ]
        assert str(version) in server.run("pgbench", "--version").stdout
        assert (
            server.run("psql", "-Atc", "SELECT current_user", user="ledgerdesk_reader").stdout == "ledgerdesk_reader\n"
        )
    assert not lives(place / "desk")


def test_what_was_written_is_there_after_a_stop_and_a_start(place: Path) -> None:
    with desk(place) as server:
        write(server, "once")
    assert not lives(place)
    with desk(place) as server:
        write(server, "twice")
        assert words(server) == ["once", "twice"]


def test_many_may_start_it_at_once_and_the_last_to_leave_stops_it(place: Path) -> None:
    with using(place) as one, using(place) as two, using(place) as three:
        assert len({user.wait_until_up() for user in (one, two, three)}) == 1
        for user in (one, two):
            assert user.leave() == 0
            assert lives(place)
        assert three.leave() == 0
        assert not lives(place)


def test_a_server_whose_starter_was_killed_is_joined_and_stopped_by_the_next(place: Path) -> None:
    with using(place) as starter, using(place) as joined:
        starter.wait_until_up()
        before = postmaster(desk(place))
        joined.wait_until_up()
        starter.kill()
        with desk(place) as server:
            assert joined.leave() == 0
            assert postmaster(server) == before
            write(server, "still here")
        assert not lives(place)


def test_a_server_outlives_its_killed_users_only_by_moments(place: Path) -> None:
    with using(place) as user:
        user.wait_until_up()
    assert eventually(lambda: not lives(place))
    with desk(place) as server:
        assert "not properly shut down" not in server.log_file.read_text("utf-8")


def test_without_its_caretaker_a_server_is_stopped_by_the_next_user(place: Path) -> None:
    with using(place) as user:
        user.wait_until_up()
        for pid in caretakers(place):
            os.kill(pid, signal.SIGKILL)
    assert lives(place)
    desk(place).__enter__().stop()
    assert not lives(place)


def test_a_killed_server_recovers_at_the_next_start(place: Path) -> None:
    with desk(place) as server:
        write(server, "committed")
        os.kill(postmaster(server), signal.SIGKILL)
        with desk(place) as again:
            assert words(again) == ["committed"]
    assert not lives(place)
    assert "not properly shut down" in server.log_file.read_text("utf-8")


def test_after_everything_was_killed_the_next_start_recovers(place: Path) -> None:
    with using(place) as user:
        user.wait_until_up()
        write(desk(place), "committed")
        for pid in [*caretakers(place), postmaster(desk(place))]:
            os.kill(pid, signal.SIGKILL)
    with desk(place) as server:
        assert words(server) == ["committed"]


def test_a_killed_server_comes_back_to_those_who_use_it(place: Path) -> None:
    data_dir = place / "desk"

    async def use() -> None:
        async with Settings(data_dir, place / "root.key").server_conninfo("ledgerdesk_owner"):
            server = desk(data_dir)
            for companions in (nobody, caretakers):
                await asyncio.to_thread(write, server, "kept")
                killed = postmaster(server)
                # Asked each time: every server has a caretaker of its own.
                for pid in [*companions(data_dir), killed]:
                    os.kill(pid, signal.SIGKILL)
                assert await asyncio.to_thread(eventually, partial(another_answers, server, killed))
            assert words(server) == ["kept", "kept"]

    asyncio.run(use())
    assert not lives(data_dir)


def test_only_one_of_many_users_starts_a_killed_server_again(place: Path) -> None:
    data_dir = place / "desk"
    users = [desk(data_dir) for _ in range(4)]
    with ExitStack() as stack, ThreadPoolExecutor(len(users)) as threads:
        for user in users:
            stack.enter_context(user)
        assert not any(user.revive() for user in users)
        os.kill(postmaster(users[0]), signal.SIGKILL)
        assert eventually(lambda: not lives(data_dir))
        assert sorted(threads.map(EmbeddedServer.revive, users)) == [False, False, False, True]
        assert answers(users[0])
    assert not lives(data_dir)
    assert not users[0].revive()


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="only /proc shows which processes work in a directory")
def test_a_backend_that_does_not_notice_is_ended_when_its_server_is_brought_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ORPHAN_PATIENCE", 0.5)
    with desk(place / "desk") as server:
        connection = psycopg.connect(server.conninfo(), autocommit=True)
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            os.kill(postmaster(server), signal.SIGKILL)
            assert eventually(server.revive)
            assert answers(server)
            assert not Path(f"/proc/{backend}/cwd").exists()
        finally:
            connection.close()
            with suppress(ProcessLookupError):
                os.kill(backend, signal.SIGKILL)


def test_a_backend_that_has_not_noticed_its_server_was_killed_is_ended(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ORPHAN_PATIENCE", 0.5)
    with desk(place) as server:
        busy = subprocess.Popen(
            [server.bin("psql"), server.conninfo(), "-c", "SELECT count(*) FROM generate_series(1, 1e11)"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            query = "SELECT count(*) = 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate%1e11%' AND application_name = 'psql'"
            assert eventually(lambda: connection.execute(query).fetchone() == (True,))
            os.kill(postmaster(server), signal.SIGKILL)
        with desk(place) as again:
            write(again, "on we go")
        busy.wait(timeout=30)


def test_a_stale_pid_file_may_name_a_living_stranger(place: Path) -> None:
    with desk(place) as server:
        user = programs.server_user(server.cluster, server.data_dir)
        (uid, gid) = (user.uid, user.gid) if user else (os.geteuid(), os.getegid())
        remains = (server.cluster / "postmaster.pid").read_text("ascii")
    # A process of the very user the server runs as: the server would take it for another server.
    stranger = (
        subprocess.Popen(["/bin/sleep", "60"], user=uid, group=gid) if ROOT else subprocess.Popen(["/bin/sleep", "60"])
    )
    try:
        _, *rest = remains.splitlines()
        (server.cluster / "postmaster.pid").write_text("\n".join([str(stranger.pid), *rest, ""]), "ascii")
        with desk(place) as server:
            write(server, "alive")
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_made_database_is_made_anew(place: Path) -> None:
    (place / "postgres.new" / "base").mkdir(parents=True)
    (place / "postgres.new" / "PG_VERSION").write_text("18\n")
    with desk(place) as server:
        write(server, "whole")
    assert not (place / "postgres.new").exists()


@pytest.mark.parametrize(
    "name", ["a b/c", "comma,space ' quote \" back\\slash", "工单", "x" * 120, "%s $HOME *"], ids=lambda name: name[:8]
)
def test_any_path_will_do(place: Path, name: str) -> None:
    with desk(place / name) as server:
        write(server, name)
        assert server.run("psql", "-Atc", "SELECT word FROM words").stdout.strip() == name
    with desk(place / name) as server:
        assert words(server) == [name]


def test_a_cleaner_of_temporary_directories_does_no_lasting_harm(place: Path) -> None:
    deep = place / ("d" * 120)
    with desk(deep) as server:
        link = programs.short_link(server._socket_dir)
        assert link is not None
        assert link.parent.stat().st_mode & 0o777 == 0o700
        link.unlink()
        write(server, "by a new link")
        link.unlink()
        assert eventually(link.is_symlink), "the caretaker renews it for those who keep an address"
    assert not link.is_symlink()


def test_another_ones_directory_of_links_is_not_trusted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    (place / f"ledgerdesk-{os.geteuid()}").mkdir(mode=0o755)
    with pytest.raises(EmbeddedServerError, match="no short one can be made"):
        desk(place / ("d" * 120)).start()


def test_data_and_programs_below_a_closed_directory_are_reached_without_opening_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ROOT and not programs.may_keep_search():
        pytest.skip("this system gives root no CAP_DAC_READ_SEARCH")
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    # As in a checkout below root's home.
    installed = programs.installation(18)
    copied = closed / installed.parent.name / installed.name
    shutil.copytree(installed, copied, symlinks=True)
    copied.parent.with_suffix(".libs").symlink_to(installed.parent.with_suffix(".libs"))
    monkeypatch.setattr(embedded, "installation", lambda _: copied)
    with desk(closed / "desk") as server:
        write(server, "behind closed doors")
        status = Path(f"/proc/{postmaster(server)}/status").read_text("ascii")
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert "0" not in uids
        effective = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
        assert int(effective, 16) == (1 << unprivileged.CAP_DAC_READ_SEARCH if ROOT else 0)
        assert (closed / "desk" / "socket").stat().st_mode & 0o777 == 0o700
        assert (closed / "desk" / "postgres").stat().st_mode & 0o777 == 0o700
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_an_ordinary_user_has_a_server_of_their_own(place: Path) -> None:
    uid = gid = 65534
    os.chown(place, uid, gid)
    # The interpreter of this run may lie below root's home, so the user is let through to it.
    become = [sys.executable, "-I", "-S", Path(unprivileged.__file__), str(uid), str(gid), "keep"]
    with using(place / "desk", before=[str(part) for part in become]) as user:
        assert "host=" in user.wait_until_up()
        assert Path(f"/proc/{postmaster(desk(place / 'desk'))}").stat().st_uid == uid
        assert user.leave() == 0
    assert not lives(place / "desk")
    with desk(place / "desk") as server:
        write(server, "root may use it, too")
        assert Path(f"/proc/{postmaster(server)}").stat().st_uid == uid
    assert {path.stat().st_uid for path in (place / "desk").iterdir()} == {uid}


def test_the_log_quotes_neither_statements_nor_values(place: Path) -> None:
    with desk(place) as server:
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE people (email text PRIMARY KEY)")
            for _ in range(2):
                try:
                    connection.execute("INSERT INTO people VALUES (%s)", ("ann@secret.example",))
                except psycopg.errors.UniqueViolation:
                    continue
        log = server.log_file.read_text("utf-8")
    assert "people_pkey" in log
    assert "secret" not in log
    assert "INSERT" not in log


def test_variables_about_another_server_are_not_heeded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGHOST": "nowhere.invalid",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "nobody-here",
        "PGDATABASE": "nothing",
        "PGOPTIONS": "-c role=missing",
        "PGSSLMODE": "verify-full",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGTARGETSESSIONATTRS": "standby",
        "LC_ALL": "xx_XX.nonsense",
    }.items():
        monkeypatch.setenv(name, value)
    with desk(place) as server:
        write(server, "mine")
        assert server.run("psql", "-Atc", "SELECT word FROM words").stdout == "mine\n"


def test_where_root_may_not_share_its_view_a_closed_directory_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not ROOT:
        pytest.skip("an ordinary user's server is that user")
    monkeypatch.setattr(embedded, "may_keep_search", lambda: False)
    (place / "closed").mkdir(mode=0o700)
    with pytest.raises(
        EmbeddedServerError, match=r"to whom /\S+ is closed, .* move the installation and DESK_DATA_DIR"
    ):
        desk(place / "closed" / "desk").start()


def test_a_server_that_cannot_start_says_why(place: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"did not start.*shared_buffers"):
        EmbeddedServer(place, options={**QUICK, "shared_buffers": "a lot"}).start()
    with desk(place) as server:
        write(server, "nothing is left in the way")


def test_data_of_another_version_is_refused(place: Path) -> None:
    desk(place).__enter__().stop()
    with pytest.raises(EmbeddedServerError, match="is of PostgreSQL 18, not 16"):
        EmbeddedServer(place, version=16).start()


def test_an_unknown_version_is_refused(place: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="no programs for PostgreSQL 17; there are for 18, 16"):
        EmbeddedServer(place, version=17).start()


def test_a_directory_that_cannot_be_made_gives_one_sentence(place: Path) -> None:
    (place / "file").write_text("in the way")
    with pytest.raises(EmbeddedServerError, match=r"cannot be used: .*/file: File exists\.$"):
        desk(place / "file" / "desk").start()


def test_a_removed_data_directory_ends_its_server(place: Path) -> None:
    server = desk(place / "desk")
    server.start()
    pid = postmaster(server)
    shutil.rmtree(place / "desk")
    server.stop()
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())
