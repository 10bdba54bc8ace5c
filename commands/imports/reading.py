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

from commands.imports.format import Format, ImportRefused, Line, Row
from domain.text import MOST_IN_SUBJECT, printable_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DELIMITERS: Final = ",;\t"
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

    @property
    def rows(self) -> int:
        """How many rows of the file these are."""
        return len(self.lines) + self.duplicates + len(self.refusals)


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOBase]:
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        raw = gzip.open(file) if packed else file
        # Undecodable bytes become surrogates, so that one bad line is refused by itself and by its number.
        with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:  # type: ignore[type-var]
            yield text


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
        place = next((by_name[name.casefold()] for name in names if name.casefold() in by_name), None)
        if place is None and field in format_.required:
            missing.append(names[0])
        found.append(len(header) if place is None else place)  # one past the end: an empty cell is put there
    if missing:
        columns = ", ".join(name if name.isprintable() else repr(name) for name in header[:12])
        more = ", …" if len(header) > 12 else ""  # noqa: PLR2004 - enough to recognise a file by
        message = (
            f"{path} is not a {format_.title} log: column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)} missing (it has {columns[:400]}{more})."
        )
        raise ImportRefused(message)
    return tuple(found)


def _records(text: io.TextIOBase, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Give each record after the header with the line it starts on; a str says what is wrong with a record."""
    reader = csv.reader(text, delimiter=delimiter)
    start = 2
    while True:
        try:
            for cells in reader:
                yield start, cells
                start = reader.line_num + 2
        except csv.Error as error:
            yield start, f"cannot be read: {error}"
            start = reader.line_num + 2
        else:
            return


def cases(layout: Layout[Row]) -> Iterator[Case[Row] | Refusal]:
    """Give each case as soon as its last row was read, in that order, and each row that belongs to none.

    A file whose cases lie together is read in flat memory. Raises ImportRefused where the file has changed since
    it was surveyed.
    """
    left = Counter(layout.rows_of_case)
    waiting: dict[str, tuple[Case[Row], set[tuple[str, ...]]]] = {}
    make = layout.format.row._make  # type: ignore[attr-defined]
    pick = itemgetter(*layout.places)
    place, width = layout.case_place, layout.width
    with _opened(layout.path) as text:
        text.readline()
        for number, cells in _records(text, layout.delimiter):
            if not cells:
                continue
            if isinstance(cells, str):
                yield Refusal(number, "", cells)
                continue
            if len(cells) != width:
                yield Refusal(number, "", f"has {len(cells)} cells where the header has {width}")
                continue
            name = cells[place]
            pair = waiting.get(name)
            if pair is None:
                pair = waiting[name] = Case(name, [], 0, []), set()
            case, seen = pair
            whole = tuple(cells)
            if whole in seen:
                case.duplicates += 1
            else:
                seen.add(whole)
                cells.append("")
                row = make(pick(cells))
                wrong = _wrong(whole, row, name)
                if wrong is None:
                    case.lines.append(Line(number, row))
                else:
                    case.refusals.append(Refusal(number, _shown(name), wrong))
            left[name] -= 1
            if left[name] <= 0:
                del waiting[name]
                if left[name] < 0:
                    message = f"{layout.path} changed while it was read."
                    raise ImportRefused(message)
                yield case


def _wrong(cells: Sequence[str], row: Sequence[str], case: str) -> str | None:
    """Say what no format could make anything of."""
    if not "".join(cells).isprintable():
        whole = "\n".join(cells)
        try:
            whole.encode()
            printable_text(whole)
        except UnicodeEncodeError:
            return "is not UTF-8 text"
        except ValueError as error:
            return str(error)
    if max(map(len, row)) > MOST_IN_SUBJECT:
        return f"has a cell of more than {MOST_IN_SUBJECT} characters"
    if case.strip() in {"", "?"}:
        return "names no case"
    return None


def _shown(case: str) -> str:
    return case.encode("utf-8", "replace").decode()[:100]
