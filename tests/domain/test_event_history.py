"""Events that were ever stored can be read for ever."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from uuid import UUID

import pytest
from pydantic import Field

from domain import event_history, ticket_events
from domain.event import Event, Personal, UnknownShape
from domain.event_history import (
    SHARED_WORDS,
    complaints,
    example_of,
    file_name,
    golden_of,
    load,
    load_words,
    only_words_added,
    stored_events,
    word_complaints,
)
from domain.event_history.__main__ import main
from domain.sla_terms import Metric
from domain.status import Status

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.pure


class Printed(Event):
    """An event that is in its third shape.

    Version 1 had a `title`, a number of `sheets` on one side each, and the personal `who`. Version 2 called the
    person `printed_for`. Version 3 calls the title `document` and counts `pages`, of which a sheet has `sides`.
    """

    TOPIC: ClassVar[str] = "test.printed"
    class_version: ClassVar[int] = 3

    document: str
    pages: int
    sides: int
    person_id: UUID
    printed_for: Annotated[str, Personal("person_id")]

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> dict[str, Any]:
        """Give the person another name."""
        state["printed_for"] = state.pop("who")
        return state

    @staticmethod
    def upcast_v2_v3(state: dict[str, Any]) -> dict[str, Any]:
        """Count pages."""
        state["document"] = state.pop("title")
        state["sides"] = 1
        state["pages"] = state.pop("sheets")
        return state


STREAM, PERSON = UUID(int=1), UUID(int=2)
BY = {"actor_id": str(UUID(int=3)), "role": "agent", "channel": "api"}
COMMON = {"timestamp": "2026-03-01T09:30:00Z", "by": BY, "person_id": str(PERSON)}
HISTORY: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {
    1: ({**COMMON, "title": "Manual", "sheets": 12}, {"who": "Carol"}),
    2: ({**COMMON, "class_version": 2, "title": "Manual", "sheets": 12}, {"printed_for": "Carol"}),
    3: ({**COMMON, "class_version": 3, "document": "Manual", "pages": 12, "sides": 1}, {"printed_for": "Carol"}),
}


@pytest.mark.parametrize("version", HISTORY)
def test_every_version_is_lifted_to_the_latest(version: int) -> None:
    state, personal = HISTORY[version]
    before = json.dumps([state, personal])
    event = Printed.from_state(stream=STREAM, version=4, state=state, personal=personal)
    assert (event.document, event.pages, event.sides, event.printed_for) == ("Manual", 12, 1, "Carol")
    assert (event.originator_id, event.originator_version) == (STREAM, 4)
    assert json.loads(event.state_json()) == HISTORY[3][0], "what is read from any version is stored as the latest"
    assert json.dumps([state, personal]) == before, "reading leaves the stored state alone"


@pytest.mark.parametrize("shape", [4, 0, -1, "2", None])
def test_a_version_that_is_not_known_is_refused(shape: object) -> None:
    state, personal = HISTORY[3]
    with pytest.raises(UnknownShape, match=r"test\.printed"):
        Printed.from_state(stream=STREAM, version=1, state={**state, "class_version": shape}, personal=personal)


def test_golden_files_of_all_versions_are_read_or_complained_about() -> None:
    recorded = {
        file_name("test.printed", version): {"example_state": state, "example_personal": personal}
        for version, (state, personal) in HISTORY.items()
    }
    recorded["test.printed.v3.json"] = golden_of(Printed)
    assert complaints(Printed, recorded) == ()
    del recorded["test.printed.v2.json"]
    recorded["test.printed.v1.json"] = {"example_state": COMMON, "example_personal": {}}
    unreadable, missing = complaints(Printed, recorded)
    assert "test.printed.v1.json cannot be read by version 3" in unreadable
    assert "test.printed.v2.json is missing" in missing


@pytest.mark.parametrize("event_class", stored_events(), ids=lambda cls: cls.TOPIC)
def test_a_stored_shape_has_not_changed(event_class: type[Event]) -> None:
    assert complaints(event_class, load()) == ()


def test_every_golden_file_has_a_class() -> None:
    expected = {file_name(cls.TOPIC, v) for cls in stored_events() for v in range(1, cls.class_version + 1)}
    assert set(load()) <= expected, "an event class was dropped or renamed its TOPIC, but such events are stored"


def test_topics_name_the_aggregate_and_what_happened() -> None:
    topics = [cls.TOPIC for cls in stored_events()]
    assert len(set(topics)) == len(topics)
    assert {topic.split(".")[0] for topic in topics} == {"ticket", "customer", "agent", "team", "service_levels"}


def test_a_changed_shape_is_told_with_what_to_do() -> None:
    recorded = golden_of(ticket_events.Categorised)
    recorded["schema"]["properties"]["category"] = {"type": "string"}
    (complaint,) = complaints(ticket_events.Categorised, {"ticket.categorised.v1.json": recorded})
    assert "ticket.categorised version 1 has changed its shape in category" in complaint
    assert "class_version = 2" in complaint
    assert "upcast_v1_v2" in complaint


def test_a_value_that_becomes_personal_is_a_changed_shape() -> None:
    recorded = golden_of(ticket_events.SubjectChanged)
    recorded["personal"] = {}
    assert complaints(ticket_events.SubjectChanged, {"ticket.subject_changed.v1.json": recorded})


def test_a_new_member_of_an_enumeration_needs_recording_but_no_new_version() -> None:
    now = golden_of(ticket_events.Reopened)
    recorded = json.loads(json.dumps(now))
    recorded["schema"]["$defs"]["Status"]["enum"].remove("on_hold")
    assert only_words_added(recorded, now)
    assert not only_words_added(now, recorded), "a member that is gone cannot be read any more"
    (complaint,) = complaints(ticket_events.Reopened, {"ticket.reopened.v1.json": recorded})
    assert "new members" in complaint


def test_recording_writes_what_is_missing_and_refuses_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("domain.event_history.__main__.load", lambda: load(tmp_path))
    monkeypatch.setattr("domain.event_history.__main__.FOLDER", tmp_path)
    monkeypatch.setattr("domain.event_history.__main__.WORDS", tmp_path / "words")
    (tmp_path / "words").mkdir()
    assert main() == 0
    assert load_words(tmp_path / "words") == load_words()
    present = {file_name(cls.TOPIC, cls.class_version) for cls in stored_events()}
    assert load(tmp_path) == {name: golden for name, golden in load(event_history.FOLDER).items() if name in present}
    capsys.readouterr()
    assert main() == 0
    assert capsys.readouterr().out == "", "a second time there is nothing to record"
    changed = tmp_path / "ticket.closed.v1.json"
    changed.write_text(changed.read_text("utf-8").replace('"timestamp"', '"time"'), "utf-8")
    before = changed.read_bytes()
    assert main() == 1
    assert "ticket.closed version 1 has changed its shape in time, timestamp" in capsys.readouterr().err
    assert changed.read_bytes() == before
    words = tmp_path / "words" / "Metric.json"
    words.write_text('["first_reply", "mood"]', "utf-8")
    assert main() == 1
    assert "Metric 'mood' is gone, but such events are stored" in capsys.readouterr().err


def test_every_word_that_events_share_is_recorded_and_none_that_ever_was_is_gone() -> None:
    assert [complaint for kind in SHARED_WORDS for complaint in word_complaints(kind, load_words())] == []
    new, gone = word_complaints(Metric, {"Metric": [*list(Metric)[1:], "mood"]})
    assert "Metric 'first_reply' is new" in new
    assert "Metric 'mood' is gone" in gone


def test_documentation_is_no_part_of_a_shape() -> None:
    class Documented(Event):
        """One."""

        TOPIC: ClassVar[str] = "test.documented"
        title: Annotated[str, Field(description="One")]

    class DocumentedBetter(Event):
        """Two."""

        TOPIC: ClassVar[str] = "test.documented_better"
        title: Annotated[str, Field(description="Two")]

    assert golden_of(Documented)["schema"] == golden_of(DocumentedBetter)["schema"]
    assert "title" in golden_of(Documented)["schema"]["properties"]


def test_the_example_of_an_event_fills_every_field() -> None:
    event = example_of(ticket_events.SetPending)
    assert isinstance(event, ticket_events.SetPending)
    assert event.status is Status.NEW
    assert all(getattr(event, name) is not None for name in type(event).model_fields)
