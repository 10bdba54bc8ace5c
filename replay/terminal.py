"""A history on the screen: readable by a person on a terminal, and as JSON with keys that stay."""

from __future__ import annotations

import json
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from domain.event import ERASED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import TextIO
    from uuid import UUID

    from rich.console import RenderableType

    from domain.event import Change
    from replay.history import Actor, Correction, Entry, File, History, Message, Unreadable

PLAIN_WIDTH: Final = 120  # columns of a file or pipe, which have no width of their own
LATE: Final = timedelta(minutes=1)  # recorded later than this after it occurred is worth saying
NOTHING: Final = "–"
INDENT: Final = 6
MINIMUM_WIDTH: Final = 20
EVENT_STYLES: Final[Mapping[str, str]] = {
    "opened": "bold green",
    "solved": "bold green",
    "closed": "bold green",
    "reopened": "bold yellow",
    "escalated": "bold red",
    "event_corrected": "bold magenta",
    "source_status_recorded": "bold yellow",
}
DIRECTIONS: Final[Mapping[str, str]] = {
    "from_customer": "from the customer",
    "to_customer": "to the customer",
    "internal": "internal note",
}


def as_json(history: History) -> dict[str, Any]:
    """Give a history as JSON-ready values. Keys are part of the interface: none is ever renamed or left out."""
    return {
        "kind": history.kind,
        "id": str(history.stream),
        "number": history.number,
        "version": history.version,
        "position": history.position,
        "names": dict(sorted(history.names.items())),
        "entries": [entry_json(entry) for entry in history.entries],
        "unreadable": [_unreadable_json(mark) for mark in history.unreadable],
    }


def write_json(history: History, file: TextIO) -> None:
    """Write a history as JSON, indented, in its own characters."""
    json.dump(as_json(history), file, ensure_ascii=False, indent=2)
    file.write("\n")


def console_for(file: TextIO) -> Console:
    """Give a console for a file: colours and the terminal's width on a terminal, plain text otherwise."""
    if file.isatty():
        return Console(file=file, highlight=False)
    return Console(file=file, highlight=False, width=PLAIN_WIDTH, color_system=None, force_terminal=False)


def write(history: History, console: Console) -> None:
    """Write a history for a person: each event with actor, time, reason and what it changed, old → new."""
    console.print(_title(history))
    marks = deque(history.unreadable)
    for entry in history.entries:
        while marks and marks[0].version <= entry.version:
            _write_unreadable(marks.popleft(), console)
        console.print()
        console.print(_headline(entry))
        for line in _circumstances(entry):
            console.print(_indented(line))
        _write_changes(entry.changes, history.names, console)
        if entry.message is not None:
            _write_message(entry.message, console)
        if entry.corrects is not None:
            console.print(_indented(_corrects(entry.corrects)))
        for correction in entry.corrections:
            console.print(_indented(_corrected(correction)))
    for mark in marks:
        _write_unreadable(mark, console)


def _write_unreadable(mark: Unreadable, console: Console) -> None:
    """Say at its place that something of the life cannot be told."""
    console.print()
    what = "missing from here" if mark.reason == "missing_event" else "cannot be read"
    console.print(Text.assemble((f"{f'v{mark.version}':>4}", "cyan"), "  ", (what, "bold red")))
    _write_block(Text(visible(mark.detail)), console, Text(""))


def _indented(content: RenderableType) -> Padding:
    return Padding(content, (0, 0, 0, INDENT), expand=False)


def visible(text: str) -> str:
    """Show control characters instead of obeying them: what a customer wrote must not drive the reader's terminal."""
    return "".join(
        character
        if character == "\n" or (character.isprintable() and character not in _TURNING)
        else "    "
        if character == "\t"
        else f"\\x{ord(character):02x}"
        if ord(character) <= _LAST_BYTE
        else f"\\u{ord(character):04x}"
        for character in text.replace("\r\n", "\n")
    )


_LAST_BYTE: Final = 0xFF
_TURNING: Final = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))  # they reorder a line


def _title(history: History) -> Text:
    count = len(history.entries)
    name = f"#{history.number}" if history.number is not None else visible(history.names.get(str(history.stream), ""))
    return Text.assemble(
        (f"{history.kind.capitalize()} {name}".rstrip(), "bold"),
        (f"   {history.stream}", "dim"),
        f"   {count} event{'s' if count > 1 else ''}, the last at position {history.position}",
    )


def _headline(entry: Entry) -> Text:
    return Text.assemble(
        (f"{f'v{entry.version}':>4}", "cyan"),
        "  ",
        _instant(entry.occurred_at),
        "  ",
        (entry.event.replace("_", " "), EVENT_STYLES.get(entry.event, "bold")),
        "  by ",
        *_actor(entry.actor),
        f" via {entry.contact_channel or entry.channel}".replace("_", " "),
        (f"   position {entry.position}", "dim"),
    )


def _actor(actor: Actor) -> list[Text]:
    parts = [_value(actor.name) if actor.name else Text(str(actor.id), style="dim"), Text(f" ({actor.role})")]
    if actor.on_behalf_of is not None:
        name = actor.on_behalf_of_name
        parts += [Text(" for "), _value(name) if name else Text(str(actor.on_behalf_of), style="dim")]
    return parts


def _circumstances(entry: Entry) -> list[Text]:
    lines = []
    if entry.reason:
        lines.append(Text.assemble(("because: ", "dim"), _value(entry.reason)))
    if abs(entry.recorded_at - entry.occurred_at) > LATE:
        lines.append(Text(f"recorded {_instant(entry.recorded_at)}", style="dim"))
    if entry.contact_channel and entry.contact_channel != entry.channel:
        lines.append(Text(f"entered through {entry.channel}".replace("_", " "), style="dim"))
    return lines


def _write_changes(changes: tuple[Change, ...], names: Mapping[str, str], console: Console) -> None:
    fields = [change.field.removesuffix("_id").removesuffix("_ids").replace("_", " ") for change in changes]
    width = max((cell_len(field) for field in fields), default=0)
    for field, change in zip(fields, changes, strict=True):
        value = _named(change.new, names)
        if change.old is not None:
            value = Text.assemble(_named(change.old, names), (" → ", "dim"), value)
        _write_block(value, console, Text(set_cell_size(visible(field), width) + "  ", style="blue"))


def _named(value: Any, names: Mapping[str, str]) -> Text:
    match value:
        case None | [] | {} | "":
            return Text(NOTHING, style="dim")
        case str():
            return _value(names.get(value, value))
        case list():
            return Text(", ").join(_named(item, names) for item in value)
        case dict():
            return Text("; ").join(Text.assemble(f"{name}: ", _named(item, names)) for name, item in value.items())
        case bool():
            return Text("yes" if value else "no")
        case _:
            return Text(str(value))


def _value(text: str) -> Text:
    return Text(text, style="dim italic") if text == ERASED else Text(visible(text))


def _write_message(message: Message, console: Console) -> None:
    lines = [Text(DIRECTIONS[message.direction], style="dim"), *map(_value, message.text.splitlines() or [""])]
    for file in message.files:
        name = _value(file.name) if file.name else Text(str(file.id))
        lines.append(Text.assemble(("file: ", "dim"), name, f" ({file.content_type}, {file.size:,} bytes)"))
    for line in lines:
        _write_block(line, console, Text("│ ", style="dim"), again=True)


def _write_block(content: Text, console: Console, margin: Text, *, again: bool = False) -> None:
    """Write text beside a margin, which is repeated `again` on every line of the screen or left blank there."""
    for part in content.wrap(console, max(MINIMUM_WIDTH, console.width - INDENT - margin.cell_len)):
        part.rstrip()
        console.print(Text.assemble(" " * INDENT, margin, part), no_wrap=True, crop=False)
        if not again:
            margin = Text(" " * margin.cell_len)


def _corrects(correction: Correction) -> Text:
    return Text.assemble(f"corrects v{correction.corrected_version}", *_belief(correction), style="magenta")


def _corrected(correction: Correction) -> Text:
    """Say beside the wrong event what to believe instead; the event above stays as it was recorded."""
    return Text.assemble(
        f"! corrected by v{correction.by_version}, {_instant(correction.occurred_at)}, by ",
        *_actor(correction.actor),
        *_belief(correction),
        style="magenta",
    )


def _belief(correction: Correction) -> list[Text]:
    parts = [Text(": ")]
    if correction.field is not None:
        value = NOTHING if correction.value is None else str(correction.value)
        parts += [Text(f"{correction.field.replace('_', ' ')} is "), _value(value), Text(". ")]
    return [*parts, _value(correction.note)]


def _instant(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M:%S UTC")


def entry_json(entry: Entry) -> dict[str, Any]:
    """Give an entry as JSON-ready values, as a history has it."""
    return {
        "version": entry.version,
        "position": entry.position,
        "topic": entry.topic,
        "event": entry.event,
        "occurred_at": entry.occurred_at.isoformat(),
        "recorded_at": entry.recorded_at.isoformat(),
        "actor": _actor_json(entry.actor),
        "channel": entry.channel,
        "contact_channel": entry.contact_channel,
        "client": entry.client,
        "source_address": entry.source_address,
        "reason": entry.reason,
        "command_id": _id(entry.command_id),
        "correlation_id": _id(entry.correlation_id),
        "causation_id": _id(entry.causation_id),
        "changes": [{"field": c.field, "old": c.old, "new": c.new, "personal": c.personal} for c in entry.changes],
        "message": _message_json(entry.message),
        "corrects": None if entry.corrects is None else _correction_json(entry.corrects),
        "corrections": [_correction_json(correction) for correction in entry.corrections],
    }


def _unreadable_json(mark: Unreadable) -> dict[str, Any]:
    return {
        "version": mark.version,
        "position": mark.position,
        "topic": mark.topic,
        "recorded_at": mark.recorded_at.isoformat(),
        "reason": mark.reason,
        "detail": mark.detail,
    }


def _actor_json(actor: Actor) -> dict[str, Any]:
    return {
        "id": str(actor.id),
        "role": actor.role,
        "name": actor.name,
        "on_behalf_of": _id(actor.on_behalf_of),
        "on_behalf_of_name": actor.on_behalf_of_name,
    }


def _message_json(message: Message | None) -> dict[str, Any] | None:
    if message is None:
        return None
    return {"direction": message.direction, "text": message.text, "files": [_file_json(file) for file in message.files]}


def _file_json(file: File) -> dict[str, Any]:
    return {
        "id": str(file.id),
        "name": file.name,
        "content_type": file.content_type,
        "size": file.size,
        "sha256": file.sha256,
    }


def _correction_json(correction: Correction) -> dict[str, Any]:
    return {
        "by_version": correction.by_version,
        "corrected_version": correction.corrected_version,
        "field": correction.field,
        "value": correction.value,
        "note": correction.note,
        "occurred_at": correction.occurred_at.isoformat(),
        "actor": _actor_json(correction.actor),
    }


def _id(value: UUID | None) -> str | None:
    return None if value is None else str(value)
