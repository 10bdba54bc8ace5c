"""Begins a new view: its module, its routes and its test, which work as they are, and its place in the registry."""

from __future__ import annotations

import builtins
import keyword
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from api.cli.surroundings import MISCONFIGURED, Failure
from projections import registry

ROOT: Final = Path(__file__).resolve().parent.parent.parent
TEMPLATE: Final = Path(__file__).resolve().parent / "view_template"
REGISTRY: Final = "projections/registry.py"
LONGEST_NAME: Final = 40  # room for what PostgreSQL's 63 characters have to hold beside it

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_IMPORTS: Final = re.compile(r"(?<=^from projections import \(\n)(?:    \w+,\n)+(?=\)$)", re.MULTILINE)
_VIEWS: Final = re.compile(
    r"(?<=^VIEWS: Final\[tuple\[View, \.\.\.\]\] = \(\n)(?:    \w+\.VIEW,\n)+(?=\)$)", re.MULTILINE
)


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("new")(new_view)


def new_view(
    name: Annotated[str, typer.Argument(help="Lower-case words joined by _, such as open_by_tier.")],
) -> None:
    """Begin a view in the source of the desk: a module, routes and a test that work, and its place in the registry."""
    if len(name) > LONGEST_NAME or _NAME.fullmatch(name) is None:
        message = (
            f"A view's name is at most {LONGEST_NAME} lower-case letters and digits, in words joined by _ that begin "
            f"with a letter, not {name!r}."
        )
        raise Failure(message, MISCONFIGURED)
    if keyword.iskeyword(name) or hasattr(builtins, name) or hasattr(registry, name):
        message = f"A view cannot be named {name}: there is something of that name already."
        raise Failure(message)
    if not (TEMPLATE.is_dir() and (ROOT / "tests" / "api" / "views").is_dir()):
        message = (
            f"A view is begun in a source checkout of the desk, and {ROOT} is none: run this in one, after make setup."
        )
        raise Failure(message, MISCONFIGURED)
    files = {
        f"projections/{name}.py": _filled_in("projection.py", name),
        f"api/views/{name}.py": _filled_in("routes.py", name),
        f"tests/api/views/test_{name}.py": _filled_in("test_view.py", name),
    }
    listed = (ROOT / REGISTRY).read_text()
    if f"    {name}.VIEW,\n" in listed:
        message = f"There is a view {name} already."
        raise Failure(message)
    # What a run that was killed left is what would be written, and is no obstacle.
    for path, text in files.items():
        place = ROOT / path
        if place.exists() and not (place.is_file() and place.read_text() == text):
            message = f"There is a file {path} already."
            raise Failure(message)
    _write_all(files | {REGISTRY: _registered(listed, name)})
    typer.echo(f"Created the view {name}; what it shows is yours to change:")
    for path in files:
        typer.echo(f"  {path}")
    typer.echo(f"and added it to {REGISTRY}. See that it works: python -m pytest tests/api/views/test_{name}.py")


def _filled_in(file: str, name: str) -> str:
    words = name.split("_")
    text = (TEMPLATE / file).read_text()
    for placeholder, value in (
        ("example_view", name),
        ("ExampleView", "".join(word.capitalize() for word in words)),
        ("Example view", " ".join(words).capitalize()),
        ("example view", " ".join(words)),
    ):
        text = text.replace(placeholder, value)
    return text


def _registered(text: str, name: str) -> str:
    """Give the registry with a view more: imported in order, listed last."""
    imports, views = _IMPORTS.search(text), _VIEWS.search(text)
    if imports is None or views is None:
        message = f"{REGISTRY} is not as it was: add the view there by hand, or put it back."
        raise Failure(message)
    lines = sorted([*imports[0].splitlines(keepends=True), f"    {name},\n"], key=_natural)
    text = _IMPORTS.sub("".join(lines), text)
    return _VIEWS.sub(f"{views[0]}    {name}.VIEW,\n", text)


def _natural(line: str) -> list[tuple[int, str]]:
    """Order names as the linter does, which goes by the value of numbers in them."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", line)]


def _write_all(files: dict[str, str]) -> None:
    """Write every file or none; the last is put in place when all others are. Raises Failure."""
    there = {path: (ROOT / path).exists() for path in files}
    asides = {path: (ROOT / path).with_name(f".{Path(path).name}.new") for path in files}
    done: list[str] = []
    try:
        for path, text in files.items():
            asides[path].write_text(text)
        for path, aside in asides.items():
            aside.replace(ROOT / path)
            done.append(path)
    except OSError as error:
        for path in done:
            if not there[path]:
                (ROOT / path).unlink()
        message = f"Nothing was written: {error.strerror} ({error.filename})."
        raise Failure(message) from None
    finally:
        for aside in asides.values():
            with suppress(OSError):
                aside.unlink()
