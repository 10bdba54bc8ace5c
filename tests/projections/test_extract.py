"""What a rebuild reads of an event is what the event says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from pydantic_core import to_json

from domain.event import Event
from domain.event_history import load
from projections import extract
from projections.extract import Extract
from projections.page import Page
from projections.registry import BY_NAME, VIEWS
from projections.view import events_of
from storage.append import NewEvent, Submission
from storage.codec import NewerShape, UnknownTopic, UnreadableEvent, decode
from storage.log_reader import StoredRow
from tests.projections.desk_days import DeskDays, record
from tests.projections.test_folds import told

if TYPE_CHECKING:
    from projections.view import View
    from storage.database import Workspace

EACH_VIEW = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)


@EACH_VIEW
async def test_the_fields_that_a_view_reads_are_those_of_the_whole_event(alpha: Workspace, view: View) -> None:
    desk = DeskDays(13, tickets=30)
    await record(alpha, [*desk.first(), *desk.more(600)])
    rows = await alpha.log.page(0, 5_000)
    wanted = [row for row in rows if view.wants(row.topic)]
    read = list(Extract(view).recorded(rows))
    assert len(read) == len(wanted) > 0
    for row, (event, position, recorded_at) in zip(wanted, read, strict=True):
        whole = decode(row).event
        assert (position, recorded_at, type(event)) == (row.position, row.recorded_at, type(whole))
        names = set(type(whole).model_fields)
        for name in names if view.reads is None else names & view.reads | {"originator_id", "originator_version"}:
            assert getattr(event, name) == getattr(whole, name), (row.topic, name)


@EACH_VIEW
async def test_every_page_folds_to_the_same_rows_from_extracts(alpha: Workspace, view: View) -> None:
    desk = DeskDays(14, tickets=30)
    await record(alpha, [*desk.first(), *desk.more(400)])
    rows = await alpha.log.page(0, 5_000)
    whole = [decode(row) for row in rows if view.wants(row.topic)]
    known = told(view, list(map(decode, rows)))
    assert view.fold({}, Extract(view).recorded(rows), *known) == view.fold({}, whole, *known)


async def test_what_cannot_be_read_says_so_as_decoding_does(alpha: Workspace) -> None:
    desk = DeskDays(15)
    for topic, state in (
        ("ticket.opened", b"{}"),
        ("ticket.opened", b"["),
        ("ticket.closed", b'{"timestamp":"2026-01-01T00:00:00","status":"closed"}'),
        ("ticket.enchanted", b"{}"),
    ):
        event = NewEvent(desk.new_id(), 1, topic, state, None)
        position = (await alpha.log.append(Submission(events=[event]))).position
        rows = await alpha.log.page(position - 1, 1)
        for view in VIEWS:
            if view.wants(topic) or topic == "ticket.enchanted":
                with pytest.raises(UnreadableEvent) as extracted:
                    list(Extract(view).recorded(rows))
                with pytest.raises(UnreadableEvent) as decoded:
                    decode(rows[0])
                assert str(extracted.value) == str(decoded.value)
    assert isinstance(decoded.value, UnknownTopic)


def test_an_event_is_read_alike_in_every_shape_that_only_lacks_fields_and_not_in_a_newer_one() -> None:
    queue = BY_NAME["ticket_queue"]
    reading = replace(queue, reads=(queue.reads or frozenset()) | {"tier", "terms"})
    now = datetime.now(UTC)
    states = [load()[f"ticket.opened.v{number}.json"]["example_state"] for number in (1, 2)]
    texts = {"commitments": {"subject": "salted", "body": "salted"}}
    rows = [StoredRow(1, UUID(int=1), 1, "ticket.opened", to_json(state | texts), None, now) for state in states]
    for row, (event, *_) in zip(rows, Extract(reading).recorded(rows), strict=True):
        whole = decode(row).event
        assert (event.tier, event.terms, event.priority) == (whole.tier, whole.terms, whole.priority)
        assert "class_version" not in event.__dict__
    for number in (3, 0, 2**40):
        newer = rows[1]._replace(state=to_json(states[1] | texts | {"class_version": number}))
        with pytest.raises(NewerShape):
            list(Extract(reading).recorded([newer]))
    noted = StoredRow(1, UUID(int=1), 1, "ticket.closed", b'{"class_version":2}', None, now)
    with pytest.raises(NewerShape):
        list(Extract(reading).recorded([noted]))


@EACH_VIEW
def test_no_event_is_decoded_in_full_for_a_view_that_names_its_fields(view: View) -> None:
    if view.reads is None:
        return
    now = datetime.now(UTC)
    for cls in events_of(Event):
        # Other tests have events of their own, some with shapes of several versions; steps are read with their rules.
        if view.wants(cls.TOPIC) and cls.__module__.startswith("domain.") and not cls.model_fields.keys() & {"step"}:
            shape = Extract(view)._shape(StoredRow(1, UUID(int=1), 1, cls.TOPIC, b"", None, now))
            assert shape.read is not extract._whole, cls.TOPIC


async def test_views_that_are_folded_together_find_what_each_of_them_reads(alpha: Workspace) -> None:
    desk = DeskDays(16, tickets=20)
    await record(alpha, [*desk.first(), *desk.more(300)])
    rows = await alpha.log.page(0, 5_000)
    made_by = replace(
        BY_NAME["directory"], name="made_by", reads=frozenset({"by", "attachments", "reason"}), topics=None
    )
    together = list(Extract(BY_NAME["ticket_queue"], BY_NAME["directory"], made_by).recorded(rows))
    assert len(together) == len(rows)
    for row, (event, *_) in zip(rows, together, strict=True):
        whole = decode(row).event
        assert (event.by, event.reason) == (whole.by, whole.reason)
        assert event.by.model_dump() == whole.by.model_dump()
        for view in (BY_NAME["ticket_queue"], BY_NAME["directory"]):
            if view.wants(row.topic):
                for name in type(whole).model_fields.keys() & (view.reads or type(whole).model_fields.keys()):
                    assert getattr(event, name) == getattr(whole, name), (row.topic, name)


@EACH_VIEW
async def test_a_page_of_which_only_what_views_look_at_is_decoded_folds_to_the_same_rows(
    alpha: Workspace, view: View
) -> None:
    desk = DeskDays(17, tickets=30)
    await record(alpha, [*desk.first(), *desk.more(400)])
    rows = await alpha.log.page(0, 5_000)
    whole, part = Page(rows), Page(rows, views=VIEWS)
    assert part.streams(view, 0, len(part)) == whole.streams(view, 0, len(whole))
    known = told(view, list(map(decode, rows)))
    extracted, decoded = (page.recorded(view, 0, len(page)) for page in (part, whole))
    assert view.fold({}, extracted, *known) == view.fold({}, decoded, *known)
