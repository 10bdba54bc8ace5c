"""The timer looks where the queue says, keeps to what is its own, and carries adoptions to open tickets."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from api import timer as timing
from api import timer_walk
from api.timer import Timer
from api.timer_standing import TimerStanding
from commands.timer.rollout import rollout
from domain.event import Channel
from domain.sla_terms import Metric
from projections import ticket_queue
from projections.registry import VIEWS
from projections.runner import Runner
from tests.commands.timed_desk import TimedDesk, minutes, replies_within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from domain.ticket import Ticket
    from storage.database import Workspace
    from storage.log_reader import StoredRow


SETTLED = timing.SETTLE / timedelta(minutes=1)
"""What the timer waits, in minutes."""


class Clock:
    """Tells the minute after noon that it is set to, with the second that the timer waits."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return minutes(self.at) + timing.SETTLE


async def follow(workspace: Workspace) -> None:
    """Let the views take in the whole log."""
    runner = Runner(workspace.database, VIEWS)
    await runner.catch_up(workspace)
    await runner.release()


async def rounds(timer: Timer, workspace: Workspace, count: int = 3) -> None:
    for _ in range(count):
        await follow(workspace)
        await timer.round()
    await follow(workspace)


async def opened(desk: TimedDesk, count: int) -> list[Ticket]:
    tickets = [desk.opening(at=number / 60) for number in range(count)]
    await desk.keep(*tickets)
    return tickets


async def every_one(desk: TimedDesk, tickets: Sequence[Ticket]) -> Counter[tuple[tuple[str, float], ...]]:
    """Count tickets by what the desk put on their records."""
    return Counter([tuple(await desk.told(ticket)) for ticket in tickets])


async def test_what_falls_due_is_noticed_when_its_time_has_come_and_not_before(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    early, late = await desk.ticket(at=0), await desk.ticket(at=30)
    clock = Clock(59)
    timer = Timer(lambda: [alpha], clock)
    await follow(alpha)
    assert await timer.round() == pytest.approx(timing.POLL_SECONDS)
    assert await desk.told(early) == []
    clock.at = 60 - 0.3 / 60
    assert await timer.round() == pytest.approx(0.3, abs=0.001)
    clock.at = 61
    await rounds(timer, alpha)
    assert await desk.told(early) == [("sla_breached", 60)]
    assert await desk.told(late) == []
    clock.at = 24 * 60
    await rounds(timer, alpha)
    assert await desk.told(early) == [("sla_breached", 60)]
    assert await desk.told(late) == [("sla_breached", 90)]


async def test_waits_and_deadlines_of_many_tickets_are_seen_to_in_one_walk(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer_walk, "PAGE_TICKETS", 7)
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    tickets = await opened(desk, 30)
    waiting = await desk.ticket()
    await desk.reply(waiting, 1)
    await desk.happen(waiting, lambda act: waiting.set_pending(wake_at=minutes(20), act=act), 10)
    timer = Timer(lambda: [alpha], Clock(24 * 60))
    await follow(alpha)
    await timer.round()
    assert await every_one(desk, [*tickets, waiting]) == Counter(
        [(("sla_breached", 60 + number / 60),) for number in range(30)] + [(("resumed", 20),)]
    )


async def test_a_wait_that_is_set_anew_is_seen_to_when_it_ends_now(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    sooner, later = await desk.ticket(), await desk.ticket()
    for ticket, first, second in ((sooner, 500, 100), (later, 100, 500)):
        await desk.happen(ticket, lambda act, t=ticket, at=first: t.set_pending(wake_at=minutes(at), act=act), 10)
        await follow(alpha)
        await desk.happen(ticket, lambda act, t=ticket, at=second: t.set_pending(wake_at=minutes(at), act=act), 20)
    await rounds(Timer(lambda: [alpha], Clock(200)), alpha)
    assert await desk.told(sooner) == [("resumed", 100)]
    assert await desk.told(later) == []


async def test_an_imported_ticket_waits_for_nothing(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    ticket = await desk.ticket(channel=Channel.IMPORT)
    ticket.set_pending(wake_at=minutes(60), act=desk.act(10, channel=Channel.IMPORT))
    await desk.keep(ticket)
    await rounds(Timer(lambda: [alpha], Clock(200)), alpha)
    assert await desk.told(ticket) == []
    assert (await TimerStanding.of(alpha)).next_at is None


async def test_a_queue_that_is_behind_makes_no_ticket_be_looked_at_again(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    tickets = await opened(desk, 5)
    timer = Timer(lambda: [alpha], Clock(24 * 60))
    await follow(alpha)
    await timer.round()
    looked: list[UUID] = []
    whole = alpha.log.whole

    async def noted(streams: Sequence[UUID]) -> dict[UUID, list[StoredRow]]:
        looked.extend(streams)
        return await whole(streams)

    monkeypatch.setattr(alpha.log, "whole", noted)
    await timer.round()
    assert looked == []
    await rounds(timer, alpha)
    assert looked == []
    assert await every_one(desk, tickets) == Counter([(("sla_breached", 60 + number / 60),) for number in range(5)])


async def test_what_falls_due_next_does_not_wait_for_a_queue_that_is_behind(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer_walk, "PAGE_TICKETS", 2)
    monkeypatch.setattr(timer_walk, "IDLE_PAGES", 1)
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    tickets = await opened(desk, 20)
    next_one = await desk.ticket(at=30)
    await follow(alpha)
    clock = Clock(61)
    timer = Timer(lambda: [alpha], clock)
    await timer.round()
    clock.at = 91
    await timer.round()
    assert await every_one(desk, tickets) == Counter([(("sla_breached", 60 + number / 60),) for number in range(20)])
    assert await desk.told(next_one) == [("sla_breached", 90)]
    await desk.reply(tickets[7], 59)  # learnt late, which falls due in the past
    for _ in range(12):
        await rounds(timer, alpha, 1)
    assert await desk.told(tickets[7]) == [("sla_breached", 60 + 7 / 60), ("sla_breach_withdrawn", 91 + SETTLED)]


async def test_the_timer_keeps_to_the_workspaces_that_are_its_own(alpha: Workspace, beta: Workspace) -> None:
    desks = [await TimedDesk.at(workspace) for workspace in (alpha, beta)]
    for desk in desks:
        await desk.adopt(replies_within(60))
        await follow(desk.workspace)
    tickets = [await desk.ticket() for desk in desks]
    for desk in desks:
        await follow(desk.workspace)
    await Timer(lambda: [beta], Clock(24 * 60)).round()
    assert [await desk.told(ticket) for desk, ticket in zip(desks, tickets, strict=True)] == [
        [],
        [("sla_breached", 60)],
    ]
    await Timer(list, Clock(24 * 60)).round()


async def test_a_workspace_without_a_queue_does_not_hold_up_the_others(alpha: Workspace, beta: Workspace) -> None:
    desk = await TimedDesk.at(beta)
    await desk.adopt(replies_within(60))
    ticket = await desk.ticket()
    await follow(beta)
    await Timer(lambda: [alpha, beta], Clock(24 * 60)).round()
    assert await desk.told(ticket) == [("sla_breached", 60)]


async def test_whoever_keeps_the_queue_is_the_timer(alpha: Workspace) -> None:
    runner = Runner(alpha.database, VIEWS)
    assert runner.keeping(ticket_queue.VIEW) == []
    stop = asyncio.Event()
    running = asyncio.create_task(runner.run(stop))
    async with asyncio.timeout(30):
        while alpha not in runner.keeping(ticket_queue.VIEW):  # noqa: ASYNC110 - the runner tells nobody
            await asyncio.sleep(0.01)
    stop.set()
    await running


async def test_an_adoption_is_carried_to_every_open_ticket_also_where_nothing_falls_due(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "BATCH_TICKETS", 4)
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(6_000))
    await follow(alpha)
    tickets = await opened(desk, 10)
    solved = await desk.ticket()
    await desk.happen(solved, lambda act: solved.solve(resolution_code="fixed", act=act), 5)
    await desk.adopt(replies_within(5_000), at=30, open_tickets="move")
    after = await desk.ticket(at=31)
    timer = Timer(lambda: [alpha], Clock(60))
    await rounds(timer, alpha)
    assert await every_one(desk, tickets) == {(("sla_terms_changed", 30),): 10}
    assert await every_one(desk, [solved, after]) == {(): 2}
    state = await rollout(alpha)
    assert (state.done_upto, state.upto, state.total, state.looked_at, state.moved) == (2, None, 10, 10, 10)
    assert state.finished_at is not None


async def test_a_walk_that_was_interrupted_is_gone_on_with_by_whoever_is_the_timer_then(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "BATCH_TICKETS", 4)
    monkeypatch.setattr(timing, "WORK_SECONDS", 0.0001)  # so that a round does one batch
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(6_000))
    await follow(alpha)
    tickets = await opened(desk, 10)
    await desk.adopt(replies_within(5_000), at=30, open_tickets="move")
    await follow(alpha)
    seen = []
    for _ in range(20):
        await Timer(lambda: [alpha], Clock(60)).round()  # a process each, as if the one before had been killed
        seen.append((await rollout(alpha)).looked_at)
    assert seen == sorted(seen)
    assert {4, 8, 10} <= set(seen)
    assert await every_one(desk, tickets) == {(("sla_terms_changed", 30),): 10}
    assert (await rollout(alpha)).done_upto == 2


async def test_a_walk_begins_when_the_queue_has_all_tickets_from_before_the_adoption(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(6_000))
    await follow(alpha)
    ticket = await desk.ticket()
    await desk.adopt(replies_within(5_000), at=30, open_tickets="move")
    timer = Timer(lambda: [alpha], Clock(60))
    await timer.round()  # by a queue that has not heard of the ticket
    await rounds(timer, alpha)
    assert await desk.told(ticket) == [("sla_terms_changed", 30)]


async def test_an_adoption_that_comes_during_a_walk_reaches_every_ticket_as_well(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "BATCH_TICKETS", 4)
    monkeypatch.setattr(timing, "WORK_SECONDS", 0.0001)
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(6_000))
    await follow(alpha)
    tickets = await opened(desk, 10)
    await desk.adopt(replies_within(5_000), at=30, open_tickets="move")
    await follow(alpha)
    timer = Timer(lambda: [alpha], Clock(60))
    while (await rollout(alpha)).looked_at != 4:
        await timer.round()
    await desk.adopt(replies_within(4_000), at=40, open_tickets="move")
    for _ in range(30):
        await rounds(timer, alpha, 1)
    told = await every_one(desk, tickets)
    assert told == {(("sla_terms_changed", 30), ("sla_terms_changed", 40)): 10}
    assert (await rollout(alpha)).done_upto == 3


async def test_adoptions_that_move_nobody_are_passed_over(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(6_000))
    ticket = await desk.ticket()
    await desk.adopt(replies_within(5_000), at=30)
    await rounds(Timer(lambda: [alpha], Clock(60)), alpha)
    state = await rollout(alpha)
    assert (state.done_upto, state.upto, state.started_at) == (2, None, None)
    assert await desk.told(ticket) == []


async def test_how_late_the_timer_is_can_be_asked(alpha: Workspace) -> None:
    assert await TimerStanding.of(alpha) == TimerStanding(
        watching=False, next_at=None, lag_seconds=0.0, rollout=await rollout(alpha), adopted=0
    )
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    await follow(alpha)
    assert (await TimerStanding.of(alpha)).next_at is None
    await desk.ticket()
    await follow(alpha)
    late = await TimerStanding.of(alpha)
    assert late.lag_seconds > 86_400
    await rounds(Timer(lambda: [alpha], Clock(24 * 60)), alpha)
    assert (await TimerStanding.of(alpha)).lag_seconds == 0


async def test_a_stay_with_a_team_is_announced_for_each_stay(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60, metric=Metric.OWNERSHIP))
    ticket = await desk.ticket()
    await desk.happen(ticket, lambda act: ticket.transfer(team=desk.team, act=act), 10)
    await desk.happen(ticket, lambda act: ticket.transfer(team=desk.other_team, act=act), 20)
    await rounds(Timer(lambda: [alpha], Clock(24 * 60)), alpha)
    assert await desk.told(ticket) == [("sla_breached", 80)]
    assert (await desk.events(ticket))[-1].owning_team_id == desk.other_team.id
