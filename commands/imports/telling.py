"""One case of a foreign log, from its rows to the events that tell it."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from commands.imports.format import RowRefused
from commands.imports.parcel import Told
from commands.imports.reading import Refusal
from commands.imports.story import Story
from domain.event import Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commands.imports.format import Clock, Format, Keyed, Line, Row
    from commands.imports.reading import Case
    from commands.imports.story import Source


def tell(format_: Format[Row], source: Source, case: Case[Row]) -> Story:
    """Tell a case row by row; rows that cannot be told are put under the case's refusals."""
    lines = _in_order(format_, source.clock, case)
    refused: set[int] = set()
    while True:
        story = Story(source, case.name.strip())
        before: Row | None = None
        version = met = 0
        for line in lines:
            if line.number in refused:
                continue
            try:
                format_.tell(story, line.row, before)
            except (RowRefused, Rejected, ValueError) as error:
                refused.add(line.number)
                case.refusals.append(Refusal(line.number, case.name, _reason(error)))
                if (story.version, len(story.met)) != (version, met):
                    break  # told by half: tell the case again without this row
                continue
            last = story.version
            story.told.append(Told(line.number, version, last))
            version, met = last, len(story.met)
            before = line.row
        else:
            return story


def _in_order(format_: Format[Row], clock: Clock, case: Case[Row]) -> Sequence[Line[Row]]:
    keyed: list[Keyed[Row]] = []
    for line in case.lines:
        try:
            keyed.append((format_.key(line.row, clock), line))
        except RowRefused as error:
            case.refusals.append(Refusal(line.number, case.name, str(error)))
    keyed.sort(key=_KEY)
    if format_.arrange is not None and len(keyed) > 1:
        return [line for _, line in format_.arrange(keyed)]
    return [line for _, line in keyed]


_KEY = itemgetter(0)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
