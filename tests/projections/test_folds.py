"""Folds are pure, and neither where a page of the log ends nor how streams interleave makes a difference to them."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from domain.ticket_events import TicketEvent
from projections.registry import BY_NAME, VIEWS
from projections.sla_clock import VIEW as CLOCKS
from projections.ticket_queue import VIEW as QUEUE
from projections.view import topics_of
from tests.projections.desk_days import DeskDays, as_recorded

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from domain.event import Event
    from projections.table import Rows
    from projections.view import View
    from storage.codec import Recorded

MANY = settings(max_examples=25, deadline=None)
LOCAL = [view for view in VIEWS if view.stream_local]


def folded(
    view: View, recorded: Sequence[Recorded], cuts: Sequence[int] = (), *, of: Sequence[Recorded] | None = None
) -> Rows:
    """Fold events, which are part `of` all there are, in pages that end at the cuts."""
    rows: Rows = {}
    looked_up = told(view, recorded if of is None else of)
    wanted = [one for one in recorded if view.wants(one.event.TOPIC)]
    places = [0, *sorted(cut % (len(wanted) + 1) for cut in cuts), len(wanted)]
    for start, stop in pairwise(places):
        page = wanted[start:stop]
        streams = {(view.needs or of_stream)(one.event) for one in page}
        rows |= view.fold({key: row for key, row in rows.items() if key[0] in streams}, page, *looked_up)
    return rows


def told(view: View, recorded: Iterable[Recorded]) -> tuple[Any, ...]:
    """Give what a fold looks up beside the events, if it does, from all of them."""
    if view.reference is None:
        return ()
    stream = view.reference.stream
    return (view.reference.read([one.event for one in recorded if one.event.originator_id == stream]),)


def of_stream(event: Event) -> UUID:
    return event.originator_id


def interleaved(recorded: Sequence[Recorded], chance: random.Random) -> list[Recorded]:
    """Mix the streams anew; each keeps its own order, and every event its position."""
    places = [one.event.originator_id for one in recorded]
    chance.shuffle(places)
    streams = {stream: iter([one for one in recorded if one.event.originator_id == stream]) for stream in set(places)}
    return [next(streams[stream]) for stream in places]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@MANY
@given(seed=some.integers(0, 10_000), cuts=some.lists(some.integers(0, 400), max_size=8))
def test_a_batch_may_be_cut_anywhere(view: View, seed: int, cuts: list[int]) -> None:
    desk = DeskDays(seed)
    recorded = as_recorded([*desk.first(), *desk.more(120)])
    assert folded(view, recorded, cuts) == folded(view, recorded)


@pytest.mark.parametrize("view", [view for view in VIEWS if view.follow is not None], ids=lambda view: view.name)
@MANY
@given(seed=some.integers(0, 10_000), cuts=some.lists(some.integers(0, 400), max_size=8), now_and_then=some.randoms())
def test_rows_that_are_followed_over_pages_and_finished_now_and_then_are_those_that_are_folded(
    view: View, seed: int, cuts: list[int], now_and_then: random.Random
) -> None:
    desk = DeskDays(seed)
    recorded = as_recorded([*desk.first(), *desk.more(120)])
    assert view.follow is not None
    assert view.finish is not None
    (looked_up,) = told(view, recorded)

    def fold(rows: Rows, page: Sequence[Recorded], book: Any) -> Rows:
        changed = follow(rows, page, book)
        for row in changed.values():
            if now_and_then.random() < 0.2:
                finish(row, book)
        return changed

    follow, finish = view.follow, view.finish
    rows = folded(dataclasses.replace(view, fold=fold), recorded, cuts)
    for row in rows.values():
        finish(row, looked_up)
    assert rows == folded(view, recorded)


@pytest.mark.parametrize("view", LOCAL, ids=lambda view: view.name)
@MANY
@given(seed=some.integers(0, 10_000), chance=some.randoms(), cuts=some.lists(some.integers(0, 400), max_size=8))
def test_streams_may_interleave_in_any_way(view: View, seed: int, chance: random.Random, cuts: list[int]) -> None:
    """As for a rebuild, which goes through the streams in another order than the log has them."""
    desk = DeskDays(seed)
    recorded = as_recorded([*desk.first(), *desk.more(120)])
    assert folded(view, interleaved(recorded, chance), cuts) == folded(view, recorded)


@pytest.mark.parametrize("view", LOCAL, ids=lambda view: view.name)
@MANY
@given(seed=some.integers(0, 10_000), lanes=some.integers(2, 5))
def test_lanes_that_divide_the_streams_share_no_row_and_have_all(view: View, seed: int, lanes: int) -> None:
    desk = DeskDays(seed)
    recorded = as_recorded([*desk.first(), *desk.more(120)])
    divided = [
        folded(view, [one for one in recorded if one.event.originator_id.bytes[-1] % lanes == lane], of=recorded)
        for lane in range(lanes)
    ]
    assert sum(map(len, divided)) == len({key for rows in divided for key in rows})
    assert {key: row for rows in divided for key, row in rows.items()} == folded(view, recorded)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_fold_leaves_the_rows_it_was_given_as_they_were(view: View) -> None:
    desk = DeskDays(7)
    first = as_recorded([*desk.first(), *desk.more(200)])
    rows = folded(view, first)
    before = deepcopy(rows)
    later = as_recorded(desk.more(200), after=1_000)
    assert view.fold(rows, [one for one in later if view.wants(one.event.TOPIC)], *told(view, [*first, *later]))
    assert rows == before


def test_views_that_follow_tickets_know_every_event_of_theirs() -> None:
    for name in ("ticket_queue", "customer_history", "queue_history"):
        assert topics_of(TicketEvent) <= (BY_NAME[name].topics or frozenset()), name


@MANY
@given(seed=some.integers(0, 10_000))
def test_the_queue_shows_every_ticket_as_its_aggregate_has_it(seed: int) -> None:
    desk = DeskDays(seed)
    rows = folded(QUEUE, as_recorded([*desk.first(), *desk.more(150)]))
    assert len(rows) == len(desk.tickets)
    for ticket in desk.tickets:
        row = rows[(ticket.id,)]
        for name in (
            "status", "priority", "type", "category", "team_id", "agent_id", "requester_id", "level", "opened_at",
            "solved_at", "wake_at", "version",
        ):  # fmt: skip
            assert row[name] == getattr(ticket, name), name
        assert tuple(row["tags"]) == ticket.tags
        assert row["subject_sealed"] == ticket.subject


@MANY
@given(seed=some.integers(0, 10_000), cuts=some.lists(some.integers(0, 400), max_size=8))
def test_a_ticket_in_the_queue_is_due_when_the_first_of_its_running_clocks_is(seed: int, cuts: list[int]) -> None:
    desk = DeskDays(seed)
    recorded = as_recorded([*desk.first(), *desk.more(150)])
    rows = folded(QUEUE, recorded, cuts)
    running: dict[UUID, list[datetime]] = {ticket.id: [] for ticket in desk.tickets}
    for clock in folded(CLOCKS, recorded).values():
        if clock["due_at"] is not None and clock["ended_at"] is None and clock["paused_at"] is None:
            running[clock["ticket_id"]].append(clock["due_at"])
    assert {ticket: row["due_at"] for (ticket,), row in rows.items()} == {
        ticket: min(due, default=None) for ticket, due in running.items()
    }


@pytest.mark.parametrize("view", [view for view in VIEWS if view.needs is None], ids=lambda view: view.name)
def test_an_event_of_a_stream_that_never_began_is_an_error(view: View) -> None:
    desk = DeskDays(3)
    desk.first()
    ticket = desk.open()
    ticket.collect_events()
    ticket.assign(agent=desk.agents[0], act=desk.act())
    (assigned,) = ticket.collect_events()
    desk.agents[0].rename(name="New", act=desk.act())
    (renamed,) = desk.agents[0].collect_events()
    orphan = assigned if view.wants("ticket.assigned") else renamed
    with pytest.raises(ValueError, match="never"):
        view.fold({}, as_recorded([orphan]))  # type: ignore[list-item]
