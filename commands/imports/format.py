"""What makes a foreign log readable: its columns, its times, the order of its rows and what each row says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from commands.imports.story import Story

NULLS: Final = frozenset({"", "?", "-"})
"""What foreign logs write where they have nothing to say."""


class ImportRefused(Exception):
    """A file cannot be imported at all; the message is one sentence for a person. Nothing was recorded."""


class RowRefused(Exception):
    """A row cannot be told as events; the message says why."""


Row = TypeVar("Row", bound=tuple[Any, ...])


class Line(NamedTuple, Generic[Row]):
    """A row with the number of the line it starts on."""

    number: int
    row: Row


Keyed = tuple[Any, Line[Row]]
"""A row with the key that it is sorted by."""


@dataclass(frozen=True, kw_only=True)
class Format(Generic[Row]):
    """A kind of foreign log.

    `columns` gives for each field of `row` the names that a header may call it by; a field that is not in
    `required` may be missing from the file and then reads "". `key` sorts the rows of one case (file order breaks
    ties), after which `arrange` may correct the order. `tell` says what a row means, given the row before it.
    `zone` holds for times that name none.
    """

    name: str
    title: str
    row: type[Row]
    columns: Mapping[str, Sequence[str]]
    required: frozenset[str]
    case: str
    ticket_type: str
    zone: str
    parse_time: Callable[[str], datetime | None]
    key: Callable[[Row, Clock], Any]
    tell: Callable[[Story, Row, Row | None], None]
    arrange: Callable[[Sequence[Keyed[Row]]], Sequence[Keyed[Row]]] | None = None


@dataclass(slots=True)
class Clock:
    """Reads the times of one file: in the format's own notation or in ISO 8601, in `zone` where they name none.

    A local time that occurs twice is the first of the two; one that a clock change skips is read with the offset
    before it.
    """

    parse: Callable[[str], datetime | None]
    zone: tzinfo
    _read: dict[str, datetime] = field(default_factory=dict)

    def __call__(self, text: str) -> datetime:
        """Give the instant in UTC. Raises RowRefused."""
        found = self._read.get(text)
        if found is None:
            if len(self._read) >= _TIMES_HELD:
                self._read.clear()
            found = self._read[text] = self._instant(text)
        return found

    def _instant(self, text: str) -> datetime:
        try:
            local = self.parse(text) or datetime.fromisoformat(text.strip())
            return (local if local.tzinfo else local.replace(tzinfo=self.zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            message = f"the time {text!r} is none that this format knows" if said(text) else "has no time"
            raise RowRefused(message) from None


_TIMES_HELD = 200_000  # about 30 MB; neighbouring rows share stamps, far ones don't


def time_reader(pattern: str) -> Callable[[str], datetime | None]:
    """Give a reader of local times from a pattern with groups Y, m, d, H, M, S and perhaps f."""
    compiled = re.compile(pattern, re.ASCII)
    with_fraction = "f" in compiled.groupindex

    def read(text: str) -> datetime | None:
        found = compiled.fullmatch(text.strip())
        if found is None:
            return None
        year, month, day, hour, minute = map(int, found.group("Y", "m", "d", "H", "M"))
        second = int(found.group("S") or 0)
        microsecond = int(found.group("f").ljust(6, "0")) if with_fraction and found.group("f") else 0
        return datetime(year, month, day, hour, minute, second, microsecond)  # noqa: DTZ001 - local

    return read


def iso_only(_text: str) -> datetime | None:
    """Leave a time to ISO 8601."""
    return None


def meaning(table: Mapping[str, Any], value: str, what: str) -> Any:
    """Look a word of the source up. Raises RowRefused where the table has none."""
    try:
        return table[value]
    except KeyError:
        message = f"{what} {value!r} is not known"
        raise RowRefused(message) from None


@lru_cache(maxsize=10_000)  # the words of a log are few and come again in every row
def said(value: str) -> str | None:
    """Give a cell's text without surrounding blanks, or None where the source says nothing."""
    text = value.strip()
    return None if text in NULLS else text


def named(value: str, what: str) -> str:
    """Give a cell's text without surrounding blanks. Raises RowRefused where the source says nothing."""
    text = said(value)
    if text is None:
        message = f"has no {what}"
        raise RowRefused(message)
    return text
