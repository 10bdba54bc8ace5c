"""What differs between two moments of the queue is told ticket by ticket, as folding up to either tells it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from projections.ticket_queue import EVERY_TICKET, QueueFilter
from replay.as_of import NoSuchMoment
from replay.queue_diff import queue_difference
from tests.replay.test_queue_as_of import begun, fits

if TYPE_CHECKING:
    from projections.ticket_queue import QueueEntry
    from storage.database import Workspace
    from tests.replay.test_queue_as_of import Told

OWN = ("ticket_id", "number")


def listed(told: Told, position: int, tickets: QueueFilter) -> dict[int, QueueEntry]:
    return {one.number: one for one in told.entries(position) if fits(one, tickets)}


async def test_tickets_that_entered_left_and_changed_are_those_whose_folds_differ(alpha: Workspace) -> None:
    told, desk = await begun(alpha, 21, tickets=20, steps=300)
    chance = random.Random(3)  # noqa: S311 - repeatable moments, no secret
    filters = (
        EVERY_TICKET,
        QueueFilter(statuses=["open"]),
        QueueFilter(teams=[desk.teams[0].id]),
        QueueFilter(agent="unassigned", priorities=["high", "urgent"]),
        QueueFilter(tags=["vip"]),
    )
    parts = [0, 0, 0]
    for tickets in filters * 4:
        start, end = sorted(chance.sample(range(len(told.recorded) + 1), 2))
        found = await queue_difference(alpha, start, end, tickets)
        before, after = listed(told, start, tickets), listed(told, end, tickets)
        assert [one.entry.number for one in found.entered] == sorted(after.keys() - before.keys())
        assert [one.entry.number for one in found.left] == sorted(before.keys() - after.keys())
        same = before.keys() & after.keys()
        assert [one.entry.number for one in found.changed] == sorted(n for n in same if before[n] != after[n])
        everything = [{one.number: one for one in told.entries(place)} for place in (start, end)]
        for one in (*found.entered, *found.left, *found.changed):
            assert (one.before, one.after) == tuple(entries.get(one.entry.number) for entries in everything)
            for column, old, new in one.changes():
                assert old != new
                assert (old, new) == (getattr(one.before, column, None), getattr(one.after, column, None))
                assert column not in OWN
        assert (found.start.position, found.end.position) == (start, end)
        parts = [known + len(part) for known, part in zip(parts, found[2:], strict=True)]
    assert min(parts) > 5  # of each kind there were some


async def test_a_moment_differs_from_itself_in_nothing_and_time_goes_forward(alpha: Workspace) -> None:
    told, _ = await begun(alpha, 22, steps=60)
    last = told.recorded[-1].recorded_at
    found = await queue_difference(alpha, last, len(told.recorded))
    assert (found.entered, found.left, found.changed) == ([], [], [])
    assert (found.start.provisional, found.end.provisional) == (True, False)
    with pytest.raises(NoSuchMoment, match="from later to earlier"):
        await queue_difference(alpha, len(told.recorded), 3)
    with pytest.raises(NoSuchMoment):
        await queue_difference(alpha, 3, len(told.recorded) + 1)
