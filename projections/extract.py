"""Reads from an event only the fields that a view looks at: a rebuild meets every event there ever was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ConfigDict, ValidationError, create_model

from domain.event import Event
from projections.view import events_of
from storage.codec import Recorded, UndecodableState, decode, event_type, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from projections.view import View
    from storage.log_reader import StoredRow


class Extract:
    """Decodes events for one view.

    What it gives are events of their own classes with the fields that the view reads and no others; personal values
    are sealed. A type that has had other shapes is decoded in full. Events at positions `skipped` are passed over,
    whatever they are (`bookkeeping.skipped`).
    """

    def __init__(self, view: View, skipped: Collection[int] = ()) -> None:
        self._view = view
        self._skipped = skipped
        self._readers: dict[str, Callable[[StoredRow], Recorded] | None] = {}
        known = events_of(Event)
        # Whatever is not known here is read whole: it may be something that the view should fold.
        self.without: Final = [cls.TOPIC for cls in known if not view.wants(cls.TOPIC)]
        """Topics that need not be read."""
        self.bare: Final = [
            cls.TOPIC
            for cls in known
            if view.reads is not None and cls.class_version == 1 and not view.reads & cls.PERSONAL.keys()
        ]
        """Topics of which no personal values need be read."""

    def recorded(self, rows: Iterable[StoredRow]) -> Iterator[Recorded]:
        """Give the events that the view folds. Raises UnknownTopic, UndecodableState."""
        readers = self._readers
        if skipped := self._skipped:
            rows = (row for row in rows if row.position not in skipped)
        for row in rows:
            try:
                reader = readers[row.topic]
            except KeyError:
                reader = readers[row.topic] = self._reader(row)
            if reader is not None:
                yield reader(row)

    def _reader(self, row: StoredRow) -> Callable[[StoredRow], Recorded] | None:
        cls: Any = event_type(row)
        view = self._view
        if not view.wants(row.topic):
            return None
        if view.reads is None or cls.class_version != 1:
            return decode
        personal = view.reads & cls.PERSONAL.keys()
        # A field without a default that may be None is left out of the stored state.
        fields: dict[str, Any] = {
            name: (field.rebuild_annotation(), None if field.is_required() and name in cls._ABSENT else field)
            for name, field in cls.model_fields.items()
            if name in view.reads - personal
        }
        if personal:
            fields["commitments"] = (dict[str, str], {})
        model = create_model(cls.__name__, __config__=ConfigDict(extra="ignore"), **fields)
        validate = model.__pydantic_validator__.validate_json
        make, put = cls.__new__, object.__setattr__

        def read(row: StoredRow) -> Recorded:
            try:
                values = validate(row.state).__dict__
            except ValidationError:
                decode(row)  # says what is wrong as it is said everywhere
                message = f"cannot be read for {view.name}"
                raise UndecodableState(row, message) from None
            if personal:
                has = values.pop("commitments")
                values.update(dict.fromkeys(personal), **sealed(row, personal & has.keys()))
            values["originator_id"] = row.stream
            values["originator_version"] = row.version
            event = make(cls)
            put(event, "__dict__", values)
            return Recorded(event, row.position, row.recorded_at)

        return read
