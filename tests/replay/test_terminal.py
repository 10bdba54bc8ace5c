"""A history on the screen is readable, and what people wrote cannot drive the reader's terminal."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console

from replay.history import history
from replay.terminal import as_json, console_for, visible, write, write_json
from tests.replay.lives import Cast, act, append

if TYPE_CHECKING:
    from replay.history import History
    from storage.database import Workspace


async def lived(workspace: Workspace) -> History:
    cast = await Cast().recorded(workspace)
    ticket = cast.lived()
    await append(workspace, ticket)
    return await history(workspace, ticket.id)


def printed(told: History, **options: object) -> str:
    file = io.StringIO()
    console = Console(file=file, highlight=False, **options) if options else console_for(file)  # type: ignore[arg-type]
    write(told, console)
    return file.getvalue()


async def test_a_file_gets_plain_text_with_names_in_place_of_ids(alpha: Workspace) -> None:
    told = await lived(alpha)

    text = printed(told)

    lines = text.splitlines()
    assert lines[0] == f"Ticket #{told.number}   {told.stream}   8 events, the last at position {told.position}"
    assert "\x1b" not in text
    assert [line for line in lines if line != line.rstrip()] == []
    position = told.entries[5].position
    assert f"  v6  2026-03-02 12:05:00 UTC  escalated  by Ann Lee (agent) via web   position {position}" in lines
    assert "      because: needs the network people" in lines
    assert "      team   First line → 网络组" in lines
    assert "      │ internal note" in lines
    assert (
        "      ! corrected by v8, 2026-03-02 12:07:00 UTC, by Ann Lee (agent): priority is high. clicked the wrong one"
        in lines
    )


async def test_a_terminal_gets_colours_and_no_line_wider_than_it_is(alpha: Workspace) -> None:
    cast = await Cast().recorded(alpha)
    ticket = cast.open()
    ticket.add_note(text="打印机" * 40, act=act(cast.ann.id, 1))
    await append(alpha, ticket)
    told = await history(alpha, ticket.id)

    assert "\x1b[" in printed(told, force_terminal=True, width=80, color_system="truecolor")
    narrow = printed(told, width=60, color_system=None)
    assert max(cell_len(line) for line in narrow.splitlines()) <= 60
    assert narrow.count("打印机") + narrow.count("打印\n") >= 30


async def test_json_keys_stay_and_every_value_is_json(alpha: Workspace) -> None:
    told = await lived(alpha)
    file = io.StringIO()

    write_json(told, file)

    found = json.loads(file.getvalue())
    assert found == as_json(told)
    assert list(found) == ["kind", "id", "number", "version", "position", "names", "entries", "unreadable"]
    assert list(found["entries"][0]) == [
        "version", "position", "topic", "event", "occurred_at", "recorded_at", "actor", "channel", "contact_channel",
        "client", "source_address", "reason", "command_id", "correlation_id", "causation_id", "changes", "message",
        "corrects", "corrections",
    ]  # fmt: skip
    assert found["entries"][4]["corrections"] == [found["entries"][7]["corrects"]]
    assert "打印机不工作" in file.getvalue()


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert visible("a\x1b[2Jb\x07\x9b\tc\r\nd\u202e\u2066") == "a\\x1b[2Jb\\x07\\x9b    c\nd\\u202e\\u2066"
    assert visible("王小明 — naïve 🙂") == "王小明 — naïve 🙂"
