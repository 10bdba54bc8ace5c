"""Reads from an event only the fields that its views look at: a rebuild meets every event there ever was."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from functools import partial
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
)
from uuid import UUID

from msgspec import DecodeError, Meta
from msgspec.json import Decoder
from pydantic import AwareDatetime, BaseModel

from domain.event import Event
from projections.view import events_of
from storage.codec import Recorded, decode, event_type, sealed
from storage.log_reader import StoredRow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from pydantic.fields import FieldInfo

    from projections.view import View
    from storage.log_reader import RawRow

_SHAPE: Final = "class_version"
_PLAIN: Final = (str, int, bool, UUID, NoneType)
_recorded: Final[Callable[[tuple[Any, int, datetime]], Recorded]] = partial(tuple.__new__, Recorded)
_put: Final = object.__setattr__


class _Shape(NamedTuple):
    """How the events of a topic are read; `read` None: nobody wants them."""

    cls: Any
    read: Callable[[bytes], dict[str, Any]] | None
    fields: int
    """How many there are where none is left out."""
    absent: dict[str, Any]
    """What fields are that the stored state leaves out."""
    models: tuple[tuple[str, type[BaseModel], dict[str, Any]], ...]
    """Fields that are models, or None, with what their own fields are when left out."""
    personal: frozenset[str]


class Extract:
    """Decodes events for views that are folded together.

    What it gives are events of their own classes with the fields that one of the views reads and no others; personal
    values are sealed. A type whose shapes differ by more than fields gained is decoded in full, and so is an event that
    is not as expected, or of a shape that is not known here.
    Events at positions `skipped` are passed over, whatever they are (`bookkeeping.skipped`).
    """

    def __init__(self, *views: View, skipped: Collection[int] = ()) -> None:
        self._views = views
        self._skipped = skipped
        self._shapes: dict[str, _Shape] = {}
        known = events_of(Event)
        # Whatever is not known here is read whole: it may be something that a view should fold.
        self.without: Final = [cls.TOPIC for cls in known if not self._wanting(cls.TOPIC)]
        """Topics that need not be read."""
        self.bare: Final = [
            cls.TOPIC for cls in known if (reads := self._reads(cls)) is not None and not reads & cls.PERSONAL.keys()
        ]
        """Topics of which no personal values need be read."""

    def recorded(self, rows: Iterable[RawRow]) -> Iterator[Recorded]:
        """Give the events that the views fold. Raises UnknownTopic, UndecodableState."""
        shapes = self._shapes
        if skipped := self._skipped:
            rows = (row for row in rows if row[0] not in skipped)
        for row in rows:
            position, stream, version, topic, state, _, recorded_at = row
            try:
                cls, read, fields, absent, models, personal = shapes[topic]
            except KeyError:
                cls, read, fields, absent, models, personal = shapes[topic] = self._shape(StoredRow._make(row))
            if read is None:
                continue
            if read is _whole:
                yield decode(StoredRow._make(row))
                continue
            try:
                values = read(state)
            except (DecodeError, UnicodeDecodeError):
                yield decode(StoredRow._make(row))  # says what is wrong as it is said everywhere
                continue
            if len(values) != fields:
                values = absent | values
            if models:
                _model_fields(values, models)
            if personal:
                has = values.pop("commitments")
                values.update(dict.fromkeys(personal), **sealed(StoredRow._make(row), personal & has.keys()))
            values["originator_id"] = stream
            values["originator_version"] = version
            event = cls.__new__(cls)
            _put(event, "__dict__", values)
            yield _recorded((event, position, recorded_at))

    def _wanting(self, topic: str) -> list[View]:
        return [view for view in self._views if view.wants(topic)]

    def _reads(self, cls: type[Event]) -> frozenset[str] | None:
        """Give the fields of a type that its views read; None for all of them."""
        reads: frozenset[str] = frozenset()
        for view in self._wanting(cls.TOPIC):
            if view.reads is None or not cls.ONLY_GAINED_FIELDS:
                return None
            reads |= view.reads
        return reads

    def _shape(self, row: StoredRow) -> _Shape:
        cls: Any = event_type(row)
        if not self._wanting(row.topic):
            return _Shape(cls, None, 0, {}, (), frozenset())
        reads = self._reads(cls)
        whole = _Shape(cls, _whole, 0, {}, (), frozenset())
        if reads is None:
            return whole
        personal = reads & cls.PERSONAL.keys()
        # A field without a default that may be None is left out of the stored state.
        fields = {
            name: (field, field.default if not field.is_required() else None)
            for name, field in cls.model_fields.items()
            if name in reads - personal
        }
        optional = {name for name, (field, _) in fields.items() if not field.is_required() or name in cls._ABSENT}
        try:
            kinds = _kinds({name: field for name, (field, _) in fields.items()}, optional)
            models = tuple(
                (name, model, _defaults(model))
                for name, (field, _) in fields.items()
                if (model := _model(field.annotation)) is not None
            )
        except TypeError:
            return whole
        absent = {name: value for name, (_, value) in fields.items() if name in optional}
        if personal:
            kinds["commitments"] = NotRequired[dict[str, str]]
            absent["commitments"] = {}
        return _Shape(
            cls,
            _reader(cls, kinds),
            len(kinds),
            absent,
            models,
            personal,
        )


def _whole(state: bytes) -> dict[str, Any]:
    """Stand for decoding in full; never called."""
    raise NotImplementedError(state)


def _reader(cls: type[Event], kinds: dict[str, Any]) -> Callable[[bytes], dict[str, Any]]:
    """Give what reads fields of these types, and fails on a shape that is newer than what is known here."""
    shapes: Any = NotRequired[cast("Any", Literal)[tuple(range(1, cls.class_version + 1))]]
    read: Callable[[bytes], dict[str, Any]] = Decoder(TypedDict(cls.__name__, kinds | {_SHAPE: shapes})).decode  # type: ignore[operator]
    if cls.class_version == 1:
        return read

    def read_counted(state: bytes) -> dict[str, Any]:
        values = read(state)
        values.pop(_SHAPE, None)
        return values

    return read_counted


def _kinds(fields: dict[str, FieldInfo], optional: Iterable[str]) -> dict[str, Any]:
    """Give the types of fields as they lie in JSON. Raises TypeError where one says more than its type does."""
    kinds: dict[str, Any] = {}
    for name, field in fields.items():
        if field.default_factory is not None or field.alias is not None or field.metadata:
            raise TypeError(name)
        kind = _kind(field.annotation)
        kinds[name] = NotRequired[kind] if name in optional else kind
    return kinds


def _kind(annotation: Any) -> Any:
    """Give a type as it lies in JSON. Raises TypeError where there is more to it."""
    if annotation in _PLAIN or (isinstance(annotation, type) and issubclass(annotation, Enum)):
        return annotation
    if annotation is AwareDatetime:
        return Annotated[datetime, Meta(tz=True)]
    if _is_model(annotation):
        return TypedDict(annotation.__name__, _kinds(annotation.model_fields, _defaults(annotation)))  # type: ignore[operator]
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(map(_kind, get_args(annotation)))]  # noqa: UP007 - of types known only now
    if get_origin(annotation) is tuple and get_args(annotation)[1:] == (...,):
        return tuple.__class_getitem__((_kind(get_args(annotation)[0]), ...))
    raise TypeError(annotation)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _model(annotation: Any) -> type[BaseModel] | None:
    """Give the model that a field is, or is unless it is None. Raises TypeError where it may be another as well."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation if _is_model(annotation) else None
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if not any(map(_is_model, kinds)):
        return None
    if len(kinds) > 1:
        raise TypeError(annotation)
    model: type[BaseModel] = kinds[0]
    return model


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.default for name, field in model.model_fields.items() if not field.is_required()}


def _model_fields(values: dict[str, Any], models: tuple[tuple[str, type[BaseModel], dict[str, Any]], ...]) -> None:
    for name, model, left_out in models:
        if values[name] is not None:
            values[name] = _modelled(model, left_out | values[name])


def _modelled(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    made = model.__new__(model)
    _put(made, "__dict__", values)
    _put(made, "__pydantic_fields_set__", values.keys())
    _put(made, "__pydantic_extra__", None)
    _put(made, "__pydantic_private__", None)
    return made
