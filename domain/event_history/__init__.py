"""Every event shape ever stored, one golden file each, and the comparison that guards them.

After adding an event, or raising an event's `class_version` and writing its upcaster, record the new shape with

    python -m domain.event_history

An existing shape is never recorded anew, except that an enumeration may gain members. Words that events of many types
share have a file of their own in `words`, so that another one does not touch them all.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import AwareDatetime, BaseModel

from domain.calendar import CalendarTerms
from domain.event import Event, Sealed, plain
from domain.sla_policy import PolicyTerms
from domain.sla_terms import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
WORDS = FOLDER / "words"
SHARED_WORDS: Final[tuple[type[Enum], ...]] = (Metric,)
MODULES_WITH_EVENTS = ("domain.ticket", "domain.customer", "domain.agent", "domain.team", "domain.service_levels")
EXAMPLE_STREAM = uuid5(NAMESPACE_URL, "stream")
EXAMPLE_INSTANT = datetime(2026, 3, 1, 9, 30, 0, 250_000, tzinfo=UTC)

Golden = dict[str, Any]
"""topic, class_version, the data subject of each personal field, the JSON schema, an example's state and values."""


@cache
def stored_events() -> tuple[type[Event], ...]:
    """List the event classes of the desk that have a stored shape, by topic."""
    for module in MODULES_WITH_EVENTS:
        import_module(module)
    # A creating event has two bases among the events and is met by both.
    found = {cls for cls in _subclasses(Event) if "TOPIC" in cls.__dict__ and cls.__module__.startswith("domain.")}
    return tuple(sorted(found, key=lambda cls: cls.TOPIC))


def golden_of(event_class: type[Event]) -> Golden:
    """Derive the golden file from the class as it is now."""
    event = example_of(event_class)
    return {
        "topic": event_class.TOPIC,
        "class_version": event_class.class_version,
        "personal": dict(event_class.PERSONAL),
        "example_state": json.loads(event.state_json()),
        "example_personal": event.personal_values(),
        "schema": _without_shared_words(_without_prose(event_class.model_json_schema())),
    }


def example_of(event_class: type[Event]) -> Event:
    """Make an event of the class, every field filled, always the same."""
    hints = get_type_hints(event_class, include_extras=False)
    return event_class.model_validate(
        {
            name: field.default if isinstance(field.default, bool) else _example(hints[name], name)
            for name, field in event_class.model_fields.items()
        }
        | {"originator_id": EXAMPLE_STREAM, "originator_version": 7}
    )


def read(golden: Golden, event_class: type[Event]) -> Event:
    """Read the example of a golden file, of whatever version, into the class as it is now."""
    return event_class.from_state(
        stream=EXAMPLE_STREAM,
        version=7,
        state=dict(golden["example_state"]),
        personal=dict(golden["example_personal"]),
    )


def file_name(topic: str, class_version: int) -> str:
    """Name the golden file of a shape."""
    return f"{topic}.v{class_version}.json"


def load(folder: Path = FOLDER) -> dict[str, Golden]:
    """Read the golden files of a folder, by file name."""
    return {path.name: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def complaints(event_class: type[Event], recorded: dict[str, Golden]) -> tuple[str, ...]:
    """Say what is wrong between a class and the golden files of its topic; nothing where all is well."""
    topic, current = event_class.TOPIC, event_class.class_version
    found = []
    for version in range(1, current + 1):
        name = file_name(topic, version)
        if name not in recorded:
            found.append(f"{name} is missing: run `python -m domain.event_history` and commit the file")
            continue
        try:
            read(recorded[name], event_class)
        except Exception as error:  # noqa: BLE001 - whatever an upcaster does wrong is the finding
            found.append(f"{name} cannot be read by version {current} of {topic}: {error}")
    name = file_name(topic, current)
    if name in recorded and recorded[name] != golden_of(event_class):
        found.append(difference(name, recorded[name], golden_of(event_class)))
    return tuple(found)


def load_words(folder: Path = WORDS) -> dict[str, list[str]]:
    """Read which words of shared enumerations were ever stored."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def word_complaints(kind: type[Enum], recorded: dict[str, list[str]]) -> tuple[str, ...]:
    """Say which words are not recorded, and which are that are no more; nothing where all is well."""
    before, now = recorded.get(kind.__name__, []), [plain(word) for word in kind]
    found = [
        f"{kind.__name__} {word!r} is new: run `python -m domain.event_history`" for word in now if word not in before
    ]
    found += [f"{kind.__name__} {word!r} is gone, but such events are stored" for word in before if word not in now]
    return tuple(found)


def difference(name: str, recorded: Golden, now: Golden) -> str:
    """Say in which fields a recorded shape and the present one differ, and what to do."""
    if only_words_added(recorded, now):
        return f"{name}: an enumeration has new members; record them with `python -m domain.event_history`"
    before, after = recorded["schema"]["properties"], now["schema"]["properties"]
    fields = sorted(field for field in before.keys() | after.keys() if before.get(field) != after.get(field))
    what = f"in {', '.join(fields)}" if fields else "in something its fields have in common"
    topic, version = now["topic"], now["class_version"]
    return (
        f"{topic} version {version} has changed its shape {what}, and events of the recorded shape are stored. "
        f"Set class_version = {version + 1}, write upcast_v{version}_v{version + 1}, then record the new shape with "
        f"`python -m domain.event_history`"
    )


def only_words_added(recorded: Golden, now: Golden) -> bool:
    """Tell whether enumerations gained members and nothing else changed; such events still read as before."""
    return recorded != now and _with_words_of(recorded, now) == now


def _with_words_of(recorded: Any, now: Any) -> Any:
    if isinstance(recorded, dict) and isinstance(now, dict):
        merged = {key: _with_words_of(value, now.get(key)) for key, value in recorded.items()}
        if "enum" in recorded and "enum" in now and set(recorded["enum"]) <= set(now["enum"]):
            merged["enum"] = now["enum"]
        return merged
    return recorded


_WITH_RULES: Final[dict[Any, Any]] = {
    CalendarTerms: {
        "time_zone": "Asia/Shanghai",
        "hours": {"mon": [["09:00", "12:00"], ["13:30", "18:00"]], "sat": [["22:00", "06:00"]]},
        "holidays": {
            "country": "CN",
            "subdivision": "SH",
            "source": "holidays 0.109",
            "years": [2026],
            "closed": {"2026-10-01": "国庆节"},
            "working": ["2026-10-10"],
            "working_as": "fri",
        },
        "closed_days": {"2026-06-30": "stock-taking"},
        "special_days": {"2026-12-24": [["09:00", "12:00"]]},
        "breaks": {"2026-03-02": [["10:00", "10:30"]]},
        "valid_from": "2026-01-01",
    },
    PolicyTerms: {
        "order": 10,
        "match": {"tiers": ["gold", "vip"], "teams": [str(uuid5(NAMESPACE_URL, "team_id"))], "tags": ["tag"]},
        "calendar": "name",
        "targets": [
            {
                "metric": "first_reply",
                "match": {"priorities": ["urgent"], "types": ["incident"], "channels": ["phone"], "categories": ["a"]},
                "amount": 3600,
                "unit": "business",
                "steps": [{"offset_seconds": -600, "action": "remind", "note": "note"}],
            },
            {"metric": "total_resolution", "amount": 2, "unit": "business_days", "end_of_day": True},
        ],
        "pauses": {"first_reply": ["pending"]},
        "until_closed": ["total_resolution"],
    },
}
"""Examples of values that have rules of their own."""


def _subclasses(cls: type[Event]) -> Iterator[type[Event]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _without_prose(schema: Any) -> Any:
    """Leave out what documentation changes may change."""
    if isinstance(schema, list):
        return [_without_prose(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_prose(value) for key, value in schema.items() if key not in {"description", "title"}}
    if isinstance(schema.get("properties"), dict):  # fields may themselves be called title or description
        kept["properties"] = {name: _without_prose(value) for name, value in schema["properties"].items()}
    return kept


def _without_shared_words(schema: dict[str, Any]) -> dict[str, Any]:
    for kind in SHARED_WORDS:
        if kind.__name__ in schema.get("$defs", {}):
            schema["$defs"][kind.__name__] = {"words": kind.__name__}
    return schema


def _example(hint: Any, name: str) -> Any:  # noqa: PLR0911 - one return a type
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and hint in _WITH_RULES:
        return _WITH_RULES[hint]
    if origin is Literal:
        return arguments[0]
    if origin is Annotated:
        return _example(arguments[0], name)
    if origin in {Union, UnionType}:
        return _example(next(choice for choice in arguments if choice not in {NoneType, Sealed}), name)
    if origin is tuple:
        return [_example(arguments[0], name)]
    if origin is dict:
        return {"key": _example(arguments[1], name)}
    if hint is NoneType:
        return None
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        hints = get_type_hints(hint)
        return {field: _example(hints[field], field) for field in hint.model_fields}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return plain(next(iter(hint)))
    simple = {UUID: uuid5(NAMESPACE_URL, name), AwareDatetime: EXAMPLE_INSTANT, str: name, int: 3, bool: True}
    return simple[hint]
