"""What is wrong with something that is to be adopted: each value that makes no sense, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from domain.event import Rejected
from domain.text import printable_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Complaint(NamedTuple):
    """One value that makes no sense. `pointer` is a JSON pointer to it, as `/targets/0/amount`; `detail` says why."""

    pointer: str
    detail: str


class NotSound(Rejected):
    """What is to be adopted makes no sense as it stands; `errors` names each value that is wrong, and why."""

    problem = "not-sound"

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        found = list(complaints)
        said = "; ".join(f"{pointer.removeprefix('/').replace('/', '.')}: {detail}" for pointer, detail in found)
        super().__init__(said, errors=[{"pointer": f"#{pointer}", "detail": detail} for pointer, detail in found])


def require_sound(complaints: Iterable[Complaint]) -> None:
    """Raise NotSound where there is any complaint."""
    found = list(complaints)
    if found:
        raise NotSound(found)


def not_text(value: Any, pointer: str = "") -> Iterator[Complaint]:
    """Name every string in a value, as `model_dump` gives it, that holds what is not text."""
    match value:
        case str():
            try:
                printable_text(value)
            except ValueError as error:
                yield Complaint(pointer, str(error))
        case dict():
            for key, one in value.items():
                yield from not_text(key, f"{pointer}/{key}")
                yield from not_text(one, f"{pointer}/{key}")
        case tuple() | list():
            for number, one in enumerate(value):
                yield from not_text(one, f"{pointer}/{number}")
