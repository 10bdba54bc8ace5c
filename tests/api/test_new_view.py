"""A view is begun by a command, and what it writes is a working view that passes every check."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from api.cli import main, new_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Server

    Begin = Callable[[str], "Done"]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PACKAGES: Final = ("api", "commands", "domain", "projections", "replay", "storage", "tests")
NAMES: Final = ("vip", "q10", "q9_whose_name_is_as_long_as_names_may_be")
"""Lines must neither have to be wrapped nor joined, whatever the length, and numbers are in order by their value."""


class Checkout(NamedTuple):
    """A copy of the project's source, or of as much of it as a new view touches."""

    root: Path

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program in the copy."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DESK_", "PYTEST_"))}
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=kept | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"} | more,
            capture_output=True,
            text=True,
            check=False,
        )

    def files(self) -> dict[str, str]:
        """Give every file's path and text."""
        found = (path for path in self.root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(self.root)): path.read_text() for path in found if path.suffix in {".py", ".new"}}


class Done(NamedTuple):
    """What became of a command."""

    status: int
    said: str


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Begin:
    """Run `desk views new` on a small copy, which `tmp_path` is, without another process."""
    for directory in ("projections", "api/views", "tests/api/views"):
        shutil.copytree(ROOT / directory, tmp_path / directory, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(new_view, "ROOT", tmp_path)

    def run(name: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["desk", "views", "new", name])
        capsys.readouterr()
        status: object = 0
        try:
            main()
        except SystemExit as end:
            status = end.code
        told = capsys.readouterr()
        assert (told.err == "") is (told.out != "") is (status == 0)
        assert isinstance(status, int)
        return Done(status, told.err or told.out)

    return run


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Give a copy of everything in which views were begun, where no database could be reached: none is needed."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    for package in PACKAGES:
        shutil.copytree(ROOT / package, checkout.root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", checkout.root)
    for name in NAMES:
        before = checkout.files()
        done = checkout.run("api.cli", "views", "new", name, DATABASE_URL="postgresql://nowhere.invalid/desk")
        assert done.returncode == 0, done.stderr
        after = checkout.files()
        written = {path for path, text in after.items() if before.get(path) != text}
        assert written == {
            f"projections/{name}.py",
            f"api/views/{name}.py",
            f"tests/api/views/test_{name}.py",
            "projections/registry.py",
        }
        assert all(path in done.stdout for path in written)
        assert before.keys() <= after.keys()
    return checkout


def test_what_is_written_is_tidy_and_free_of_defects(begun: Checkout) -> None:
    for check in (["format", "--check", "--diff"], ["check"]):
        done = begun.run("ruff", *check, "--no-cache", "api/views", "projections", "tests/api/views")
        assert done.returncode == 0, done.stdout + done.stderr


def test_its_types_are_right(begun: Checkout) -> None:
    packages = [f"--package={package}.{NAMES[0]}" for package in ("projections", "api.views")]
    done = begun.run("mypy", "--cache-dir=.mypy_cache", *packages, f"--package=tests.api.views.test_{NAMES[0]}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_imports_what_a_view_may(begun: Checkout) -> None:
    done = begun.run("importlinter.cli", "--no-logo", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_own_test_and_those_of_all_views_pass(begun: Checkout, server: Server) -> None:
    tests = ["tests/api/views", "tests/projections/test_folds.py", "tests/projections/test_extract.py"]
    chosen = ["-k", " or ".join(NAMES), "-p", "no:cacheprovider", *tests]
    done = begun.run("pytest", *chosen, DATABASE_URL=server.administrator)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 2 * len(NAMES), "the tests of all views did not take up the new ones"


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("OpenByTier", 2, "lower-case"),
        ("open-by-tier", 2, "lower-case"),
        ("open__by_tier", 2, "lower-case"),
        ("_open", 2, "lower-case"),
        ("2nd_line", 2, "lower-case"),
        ("../escape", 2, "lower-case"),
        ("客户", 2, "lower-case"),
        ("open\n", 2, "lower-case"),
        ("a" * 41, 2, "40"),
        ("ticket_queue", 1, "already"),
        ("class", 1, "already"),
        ("list", 1, "already"),
        ("annotations", 1, "already"),
        ("runner", 1, "projections/runner.py"),
    ],
)
def test_a_name_that_is_none_or_taken_is_refused(
    begin: Begin, tmp_path: Path, name: str, status: int, said: str
) -> None:
    before = Checkout(tmp_path).files()
    done = begin(name)
    assert (done.status, said in done.said) == (status, True), done
    assert done.said.startswith("desk: ")
    assert done.said.count("\n") == 1
    assert Checkout(tmp_path).files() == before


@pytest.mark.parametrize("obstacle", ["tests/api/views/.test_half.py.new", "projections/.registry.py.new"])
def test_where_one_file_cannot_be_written_none_is(begin: Begin, tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).mkdir()
    before = Checkout(tmp_path).files()
    done = begin("half")
    assert (done.status, "Nothing was written" in done.said) == (1, True)
    assert Checkout(tmp_path).files() == before


def test_what_a_killed_run_left_is_gone_on_with_and_what_somebody_wrote_is_kept(begin: Begin, tmp_path: Path) -> None:
    registry, module = tmp_path / "projections/registry.py", tmp_path / "projections/half.py"
    text = registry.read_text()
    assert begin("half").status == 0
    whole = Checkout(tmp_path).files()
    registry.write_text(text)
    assert begin("half").status == 0
    assert Checkout(tmp_path).files() == whole
    registry.write_text(text)
    module.write_text("mine")
    done = begin("half")
    assert (done.status, "projections/half.py" in done.said) == (1, True)
    assert (module.read_text(), registry.read_text()) == ("mine", text)


def test_a_view_that_is_in_the_registry_is_not_begun_again(begin: Begin, tmp_path: Path) -> None:
    assert begin("half").status == 0
    before = Checkout(tmp_path).files()
    assert begin("half").status == 1
    assert Checkout(tmp_path).files() == before


def test_elsewhere_than_in_a_checkout_it_says_so(begin: Begin, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "tests")
    before = Checkout(tmp_path).files()
    done = begin("open_by_tier")
    assert (done.status, "source checkout" in done.said) == (2, True)
    assert Checkout(tmp_path).files() == before
