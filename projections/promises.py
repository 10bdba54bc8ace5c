"""What views make of a ticket's timeline: its clocks, by the calendars and policies of the desk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import sla_clocks, ticket_timeline
from domain.service_levels import SERVICE_LEVELS_ID, Book
from projections.view import Reference

if TYPE_CHECKING:
    from domain.sla_clocks import Clock
    from domain.ticket_timeline import Timeline

REMEMBERED: Final = 5_000  # some 3 kB each; the views of a page ask for the same ones, and the next page for some again

BY_BOOK: Final = Reference(SERVICE_LEVELS_ID, Book.of)
"""Where views look up the versions of calendars and policies that tickets name."""

_known: Final[dict[str, tuple[Timeline, Book, tuple[Clock, ...]]]] = {}


def timeline_in(kept: str | Timeline) -> Timeline:
    """Give the timeline that a row keeps, which may not have been written down yet."""
    if not isinstance(kept, str):
        return kept
    known = _known.get(kept)
    return ticket_timeline.decode(kept) if known is None else known[0]


def clocks_by(text: str, timeline: Timeline, book: Book) -> tuple[Clock, ...]:
    """Give the clocks of a ticket by its timeline, and by the text that a row keeps of it.

    Raises LookupError for terms that the book lacks.
    """
    known = _known.get(text)
    if known is None or known[1] is not book:
        clocks = sla_clocks.clocks(timeline, book)
        if len(_known) >= REMEMBERED:
            _known.clear()
        known = _known[text] = timeline, book, clocks
    return known[2]
