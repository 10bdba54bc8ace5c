"""The arithmetic of a ticket's clocks is all there, line by line, and comes to what the clocks say."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from domain.sla_clocks import ClockState
from domain.sla_explanation import LineKind
from domain.ticket_breach_events import SlaBreached
from projections.registry import VIEWS
from projections.runner import Runner
from projections.sla_clock import clocks_of
from replay.explained_clocks import explained
from replay.stream import NoSuchStream
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from storage.database import Workspace


async def test_what_is_explained_is_what_the_view_lists_and_its_lines_add_up(alpha: Workspace) -> None:
    desk = DeskDays(21, tickets=25)
    events = [*desk.first(), *desk.more(500)]
    await record(alpha, events)
    await Runner(alpha.database, VIEWS).catch_up(alpha)
    breaches = {(event.originator_id, event.metric, event.serial) for event in events if isinstance(event, SlaBreached)}
    on_record = set()
    explained_in_full = 0
    for ticket in desk.tickets:
        found = await explained(alpha, ticket.id, now=desk.at)
        assert found.position == (await alpha.log.head()).position
        latest = {one.clock.metric: one.clock for one in found.clocks}
        for listed in (await clocks_of(alpha, ticket.id, now=desk.at)).items:
            if listed.state is not ClockState.NOT_APPLICABLE:
                assert latest[listed.metric]._replace(metric=listed.metric) == listed
        for one in found.clocks:
            counted = [line.counted or timedelta() for line in one.lines if line.kind is LineKind.COUNTED]
            if one.clock.used is not None:
                assert sum(counted, timedelta()) == one.clock.used
                assert {LineKind.TERMS, LineKind.ALLOWED, LineKind.STARTED, LineKind.DUE, LineKind.STATE} <= {
                    line.kind for line in one.lines
                }
                explained_in_full += 1
            for noted in one.on_record:
                assert noted.occurred_at <= noted.recorded_at
                if noted.topic == SlaBreached.TOPIC:
                    on_record.add((ticket.id, one.clock.metric, one.clock.serial))
    assert explained_in_full > 20
    assert on_record
    assert on_record <= breaches


async def test_a_metric_that_is_promised_without_a_clock_does_not_apply(alpha: Workspace) -> None:
    desk = DeskDays(22, tickets=1)
    await record(alpha, [*desk.first(), *desk.more(1)])
    (ticket,) = desk.tickets
    found = (await explained(alpha, ticket.id, now=desk.at)).clocks
    assert {one.clock.metric for one in found} == {"first_reply", "total_resolution"}
    for one in found:
        assert (one.clock.state is ClockState.NOT_APPLICABLE) == (one.clock.due_at is None) == (not one.lines)


async def test_of_a_ticket_that_never_was_nothing_can_be_explained(alpha: Workspace) -> None:
    with pytest.raises(NoSuchStream):
        await explained(alpha, UUID(int=5, version=4), now=DeskDays(1).at)
