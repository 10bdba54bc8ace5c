"""A foreign log as a file: its header, its rows by case, and what is wrong with a line before anybody reads it."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple

from commands.imports.format import NULLS, Format, ImportRefused, Line, Row
from domain.text import printable_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """Where a file keeps what its format wants."""

    path: Path
    format: Format[Row]
    delimiter: str
    width: int
    places: tuple[int, ...]

    @property
    def case_place(self) -> int:
        """The place of the column that names the case."""
        return self.places[list(self.format.columns).index(self.format.case)]


@dataclass(frozen=True, slots=True)
class Survey:
    """How many rows a file has, and of each case where the rows of some case do not lie together."""

    rows: int
    blank_lines: int
    scattered: Counter[str] | None


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


@contextmanager
def _read(path: Path) -> Iterator[io.TextIOBase]:
    """Open a file. Whatever goes wrong with it while it is read becomes ImportRefused."""
    try:
        with _opened(path) as text:
            yield text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"{path} is damaged: {error}."
        raise ImportRefused(message) from None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}."
        raise ImportRefused(message) from None


def layout_of(path: Path, format_: Format[Row]) -> Layout[Row]:
    """Find the columns of a file. Raises ImportRefused."""
    with _read(path) as text:
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
    return Layout(path, format_, delimiter, len(header), _places(path, format_, header))


def survey(layout: Layout[Any]) -> Survey:
    """Read a file through to count its rows, and to see whether its cases lie together. Raises ImportRefused."""
    rows = blank = 0
    counts: Counter[str] = Counter()
    scattered = False
    last = None
    place, width = layout.case_place, layout.width
    with _read(layout.path) as text:
        text.readline()
        for _, _, cells in _records(text, layout.delimiter):
            if not cells:
                blank += 1
                continue
            rows += 1
            if len(cells) == width and not isinstance(cells, _Broken):
                name = cells[place]
                if name != last:
                    scattered = scattered or name in counts
                    last = name
                counts[name] += 1
    return Survey(rows, blank, counts if scattered else None)


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


Record = tuple[int, str, list[str] | _Broken]
"""The line it starts on, its text, and its cells."""


def _records(text: io.TextIOBase, delimiter: str) -> Iterator[Record]:
    """Give each record after the header.

    Up to the first quotation mark a record is a line cut at its delimiters, which takes half the time of `csv`.
    """
    for number, line in enumerate(text, start=2):
        if '"' in line:
            yield from _quoted_records(chain([line], text), delimiter, number)
            return
        whole = line.rstrip("\r\n")
        yield number, whole, whole.split(delimiter) if whole else []


def _quoted_records(lines: Iterable[str], delimiter: str, start: int) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=delimiter)
    first = start
    while True:
        try:
            for cells in reader:
                yield start, delimiter.join(cells), cells
                start = first + reader.line_num
        except csv.Error as error:
            yield start, "", _Broken(f"cannot be read: {error}")
            start = first + reader.line_num
        else:
            return


def cases(layout: Layout[Row], scattered: Counter[str] | None = None) -> Iterator[Case[Row] | Refusal]:
    """Give each case as soon as its last row was read, in that order, and each row that belongs to none.

    A case ends where another begins, unless `scattered` says how many rows each has. A file whose cases lie together
    is read in flat memory. Raises ImportRefused, also where the file is not, or no longer, as it was surveyed.
    """
    waiting: dict[str, Case[Row]] = {}
    done: set[str] = set()
    last: Case[Row] | None = None
    add = _adder(layout)
    place, width = layout.case_place, layout.width
    with _read(layout.path) as text:
        text.readline()
        for number, whole, cells in _records(text, layout.delimiter):
            if len(cells) != width or isinstance(cells, _Broken):
                if cells:
                    wrong = cells if isinstance(cells, _Broken) else f"has {len(cells)} cells, the header has {width}"
                    yield Refusal(number, "", wrong)
                continue
            name = cells[place]
            case = waiting.get(name)
            if case is None:
                if name in done:
                    message = f"{layout.path} changed while it was read."
                    raise ImportRefused(message)
                if scattered is None and last is not None:
                    yield _complete(waiting, last, done)
                case = waiting[name] = last = Case(name, [], 0, [], {})
            case.rows += 1
            add(case, number, whole, cells)
            if scattered is not None and case.rows == scattered[name]:
                yield _complete(waiting, case, done)
    for case in list(waiting.values()):
        yield _complete(waiting, case, done)


def _complete(waiting: dict[str, Case[Row]], case: Case[Row], done: set[str]) -> Case[Row]:
    done.add(case.name)
    del waiting[case.name]
    case.seen.clear()
    if case.name.strip() in NULLS:
        case.refusals += [Refusal(line.number, _shown(case.name), "names no case") for line in case.lines]
        case.lines.clear()
    return case


def _adder(layout: Layout[Row]) -> Callable[[Case[Row], int, str, list[str]], None]:
    """Give the function that puts a row under its case: as a line, a duplicate or a refusal."""
    make: Callable[[Sequence[str]], Row] = layout.format.row._make  # type: ignore[attr-defined]
    pick = itemgetter(*layout.places)
    width = layout.width

    def add(case: Case[Row], number: int, whole: str, cells: list[str]) -> None:
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
