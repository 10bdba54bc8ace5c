"""What a view is: a name, a version, a table, and a pure fold of events into its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domain import agent, customer, service_levels, team, ticket  # noqa: F401 - with an aggregate come all its events
from projections.table import shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from domain.event import Event
    from projections.table import Row, Rows, Shelf, Table


class ViewError(Exception):
    """A view could not do what was asked."""


@dataclass(frozen=True, eq=False)  # looked up by itself, as views are
class Reference:
    """A stream that a view looks things up in: other streams' events name what is told there, as versions of policies.

    `read` makes of its events, all that there are by then, what a fold is given to look them up in. That may tell of
    more than there was at the events being folded: whatever is told once has to mean the same ever after.
    """

    stream: UUID
    read: Callable[[Sequence[Any]], Any]


@dataclass(frozen=True, eq=False)  # one view is one object: looked up by it, its fields are not gone through
class View:
    """A view of the log.

    `fold(rows, recorded)` takes the rows as they stood and events in order, and gives the rows that changed, whole;
    it neither changes `rows` nor looks anywhere else, so that where a page of the log ends makes no difference.
    `rows` holds those of every stream that `needs` names, without it of the events' own. With a `reference`, the fold's
    third argument is what that makes of its stream. `topics` None means every event. `reads` are the fields of events that the fold looks at, beside stream and version; a rebuild decodes no
    others. `stream_local` says that a row depends on the events of one stream alone, so that a rebuild may divide the
    streams among processes. A view `at_leisure` may be a tenth of a second late while there is much to do, so that the
    others are not. A rebuild, which holds rows over many pages, may `follow`
    instead: as `fold` does and failing where it fails, but for what only the last state of a row decides, which `finish`
    works out in place before the row is written. A change of table or fold is a new `version`, built beside the old one.
    """

    name: str
    version: int
    table: Table
    fold: Callable[..., Rows]
    topics: frozenset[str] | None = None
    needs: Callable[[Event], UUID | None] | None = None
    reads: frozenset[str] | None = None
    stream_local: bool = False
    at_leisure: bool = False
    follow: Callable[..., Rows] | None = None
    finish: Callable[..., None] | None = None
    reference: Reference | None = None

    @property
    def label(self) -> str:
        """Name and version; also the name of the table."""
        return f"{self.name}_v{self.version}"

    def wants(self, topic: str) -> bool:
        """Tell whether events of a topic are folded."""
        return self.topics is None or topic in self.topics

    def shelf(self, schema: str, suffix: str = "") -> Shelf:
        """Give the view's table in a workspace's schema."""
        return shelf(self.table, schema, self.label + suffix)


def events_of(base: type[Event]) -> list[type[Event]]:
    """Give every event derived from `base` so far that has a topic."""
    own = [base] if "TOPIC" in base.__dict__ else []
    return own + [event for derived in base.__subclasses__() for event in events_of(derived)]


def topics_of(base: type[Event]) -> frozenset[str]:
    """Give the topics of all events derived from `base` so far."""
    return frozenset(event.TOPIC for event in events_of(base))


class Draft:
    """Rows while they are folded: a row is copied when it is first changed."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.changed: Rows = {}

    def look(self, *key: Any) -> Row | None:
        """Give a row to be read only, or None where there is none."""
        return self.changed.get(key) or self._rows.get(key)

    def get(self, *key: Any) -> Row | None:
        """Give a row to be changed, or None where there is none."""
        row = self.changed.get(key)
        if row is None:
            found = self._rows.get(key)
            if found is None:
                return None
            row = self.changed[key] = found.copy()
        return row

    def put(self, row: Row, *key: Any) -> None:
        """Add a row, or replace one."""
        self.changed[key] = row
