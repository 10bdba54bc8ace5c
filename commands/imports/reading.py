"""A foreign log as a file: its header, its rows by case, and what is wrong with a line before anybody reads it."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple

from commands.imports.format import NULLS, Format, ImportRefused, Line, Row
from domain.text import printable_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

DELIMITERS: Final = ",;\t"
LONGEST_CELL: Final = 1_000  # characters; the cells that matter are names and codes
_GZIP: Final = b"\x1f\x8b"


class Refusal(NamedTuple):
    """A row that was not imported, and why; `case` is empty where the row could not be read so far."""

    line: int
    case: str
    reason: str


@dataclass(frozen=True, slots=True)
class Layout(Generic[Row]):
    """Where a file keeps what its format wants, and how many rows each case has."""

    path: Path
    format: Format[Row]
    delimiter: str
    width: int
    places: tuple[int, ...]
    rows: int
    blank_lines: int
    rows_of_case: Counter[str]

    @property
    def case_place(self) -> int:
        """The place of the column that names the case."""
        return self.places[list(self.format.columns).index(self.format.case)]


@dataclass(slots=True)
class Case(Generic[Row]):
    """All rows of one case, duplicates set aside, in the order of the file."""

    name: str
    lines: list[Line[Row]]
    duplicates: int
    refusals: list[Refusal]
    seen: dict[str, list[str]]
    """Its rows so far, to know a row that comes twice; empty once the case is complete."""
    rows: int = 0
    """How many rows of the file it has, counted as they are read."""


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOBase]:
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if packed else file as raw:
            # Undecodable bytes become surrogates, so that one bad line is refused by itself and by its number.
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def survey(path: Path, format_: Format[Row]) -> Layout[Row]:
    """Read a file once to find its columns and count its rows by case. Raises ImportRefused."""
    try:
        with _opened(path) as text:
            return _survey(path, format_, text)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"{path} is damaged: {error}."
        raise ImportRefused(message) from None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}."
        raise ImportRefused(message) from None


def _survey(path: Path, format_: Format[Row], text: io.TextIOBase) -> Layout[Row]:
    first = text.readline()
    if not first.strip():
        message = f"{path} is empty." if not first else f"{path} has no header."
        raise ImportRefused(message)
    delimiter = max(DELIMITERS, key=first.count)
    try:
        header = next(csv.reader([first], delimiter=delimiter))
    except csv.Error as error:
        message = f"The header of {path} cannot be read: {error}."
        raise ImportRefused(message) from None
    places = _places(path, format_, header)
    layout = Layout(path, format_, delimiter, len(header), places, 0, 0, Counter())
    place = layout.case_place
    rows = blank = 0
    for _, cells in _records(text, delimiter):
        if not cells:
            blank += 1
            continue
        rows += 1
        if isinstance(cells, list) and len(cells) == layout.width:
            layout.rows_of_case[cells[place]] += 1
    return Layout(path, format_, delimiter, len(header), places, rows, blank, layout.rows_of_case)


def _places(path: Path, format_: Format[Any], header: Sequence[str]) -> tuple[int, ...]:
    """Find each field's column by name; where a name stands twice, the first counts."""
    by_name: dict[str, int] = {}
    for place, name in enumerate(header):
        by_name.setdefault(name.strip().casefold(), place)
    found: list[int] = []
    missing: list[str] = []
    for field, names in format_.columns.items():
        places = [by_name[name.casefold()] for name in names if name.casefold() in by_name]
        if not places and field in format_.required:
            missing.append(names[0])
        found.append(places[0] if places else len(header))  # one past the end: an empty cell is put there
    if missing:
        columns = ", ".join(name if name.isprintable() else repr(name) for name in header[:12])
        more = ", …" if len(header) > 12 else ""  # noqa: PLR2004 - enough to recognise a file by
        message = (
            f"{path} is not a {format_.title} log: column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)} missing (it has {columns[:400]}{more})."
        )
        raise ImportRefused(message)
    return tuple(found)


class _Broken(str):
    """Stands for a record that cannot be read: what is wrong with it."""

    __slots__ = ()


def _records(text: io.TextIOBase, delimiter: str) -> Iterator[tuple[int, list[str] | _Broken]]:
    """Give each record after the header with the line it starts on."""
    reader = csv.reader(text, delimiter=delimiter)
    start = 2
    while True:
        try:
            for cells in reader:
                yield start, cells
                start = reader.line_num + 2
        except csv.Error as error:
            yield start, _Broken(f"cannot be read: {error}")
            start = reader.line_num + 2
        else:
            return


def cases(layout: Layout[Row]) -> Iterator[Case[Row] | Refusal]:
    """Give each case as soon as its last row was read, in that order, and each row that belongs to none.

    A file whose cases lie together is read in flat memory. Raises ImportRefused where the file has changed since
    it was surveyed.
    """
    left = Counter(layout.rows_of_case)
    waiting: dict[str, Case[Row]] = {}
    add = _adder(layout)
    place, width = layout.case_place, layout.width
    with _opened(layout.path) as text:
        text.readline()
        for number, cells in _records(text, layout.delimiter):
            if len(cells) != width or isinstance(cells, _Broken):
                if cells:
                    wrong = cells if isinstance(cells, _Broken) else f"has {len(cells)} cells, the header has {width}"
                    yield Refusal(number, "", wrong)
                continue
            name = cells[place]
            case = waiting.get(name)
            if case is None:
                case = waiting[name] = Case(name, [], 0, [], {})
            case.rows += 1
            add(case, number, cells)
            left[name] -= 1
            if left[name] <= 0:
                if left[name] < 0:
                    message = f"{layout.path} changed while it was read."
                    raise ImportRefused(message)
                yield _complete(waiting.pop(name))


def _adder(layout: Layout[Row]) -> Callable[[Case[Row], int, list[str]], None]:
    """Give the function that puts a row under its case: as a line, a duplicate or a refusal."""
    make: Callable[[Sequence[str]], Row] = layout.format.row._make  # type: ignore[attr-defined]
    pick = itemgetter(*layout.places)
    width = layout.width

    def add(case: Case[Row], number: int, cells: list[str]) -> None:
        whole = "|".join(cells)
        first = case.seen.setdefault(whole, cells)
        if first is not cells and first[:width] == cells:
            case.duplicates += 1
            return
        wrong = None if whole.isprintable() and len(whole) <= LONGEST_CELL else _wrong(cells)
        cells.append("")  # what a column that the file does not have is read from
        if wrong is None:
            case.lines.append(Line(number, make(pick(cells))))
        else:
            case.refusals.append(Refusal(number, _shown(case.name), wrong))

    return add


def _complete(case: Case[Row]) -> Case[Row]:
    case.seen.clear()
    if case.name.strip() in NULLS:
        case.refusals += [Refusal(line.number, _shown(case.name), "names no case") for line in case.lines]
        case.lines.clear()
    return case


def _wrong(cells: Sequence[str]) -> str | None:
    """Say what no format could make anything of."""
    try:
        whole = "\n".join(cells)
        whole.encode()
        printable_text(whole)
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    except ValueError as error:
        return str(error)
    if max(map(len, cells)) > LONGEST_CELL:
        return f"has a cell of more than {LONGEST_CELL} characters"
    return None


def _shown(case: str) -> str:
    return case.encode("utf-8", "replace").decode()[:100]
