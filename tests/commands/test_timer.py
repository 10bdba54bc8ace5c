"""What time does to tickets is put on record at the instant it fell due, once, whoever notices it and whenever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from commands.timer.noticing import Noticing
from domain.event import Channel, Role
from domain.sla_policy import Step
from domain.sla_terms import Metric
from domain.status import Status
from storage.append import NewEvent, Submission
from tests.commands.timed_desk import TimedDesk, minutes, replies_within

if TYPE_CHECKING:
    from storage.database import Workspace

DAY = 24 * 60


async def test_a_deadline_that_passed_while_nobody_looked_is_dated_when_it_passed(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60, Step(offset_seconds=-600, action="remind")))
    ticket = await desk.ticket()
    (noticed,) = await desk.notice(ticket, at=DAY)
    assert await desk.told(ticket) == [("sla_warned", 50), ("sla_breached", 60)]
    assert (noticed.events, noticed.version, noticed.next_at) == (2, 3, None)
    breach = (await desk.events(ticket))[-1]
    assert (breach.terms.policy, breach.terms.policy_version, breach.started_at, breach.target.amount) == (
        "all",
        1,
        minutes(0),
        3600,
    )


async def test_nothing_is_said_before_its_time_nor_twice(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    ticket = await desk.ticket()
    (early,) = await desk.notice(ticket, at=59)
    assert (early.events, early.version) == (0, 1)
    assert early.next_at is not None
    assert minutes(60) < early.next_at < minutes(60.001)
    for at in (61, 62, DAY):
        await desk.notice(ticket, at=at)
    assert await desk.told(ticket) == [("sla_breached", 60)]


async def test_a_reply_in_the_second_of_the_deadline_is_in_time_or_not_by_the_instants(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    at_the_instant, just_after = await desk.ticket(), await desk.ticket()
    moment = 0.25 / 60 / 1000
    await desk.reply(at_the_instant, 60)
    await desk.reply(just_after, 60 + moment)
    await desk.notice(at_the_instant, just_after, at=DAY)
    assert await desk.told(at_the_instant) == []
    assert await desk.told(just_after) == [("sla_breached", 60)]


async def test_a_reply_that_is_recorded_while_the_timer_decides_is_heard(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    ticket = await desk.ticket()
    ticket.reply(text="Unplug it.", agent_id=desk.agent.id, act=desk.act(59.9))
    async with alpha.log.exclusively() as append:
        batch = await desk.noticing.notice([ticket.id], minutes(61), now=minutes(61), carried=0)
        await append(Submission(await desk.rows(ticket)))
    assert [one.conflict for one in await batch.settled()] == [True]
    await desk.notice(ticket, at=61)
    assert await desk.told(ticket) == []


async def test_a_reply_that_is_recorded_late_withdraws_the_breach(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    ticket = await desk.ticket()
    await desk.notice(ticket, at=61)
    await desk.reply(ticket, 59)
    await desk.notice(ticket, at=70)
    assert await desk.told(ticket) == [("sla_breached", 60), ("sla_breach_withdrawn", 70)]
    breach, withdrawal = (event for event in await desk.events(ticket) if event.by.channel is Channel.SYSTEM)
    assert withdrawal.by.causation_id == breach.by.command_id


async def test_a_breach_is_withdrawn_when_it_is_noticed_after_what_was_learnt(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    ticket = await desk.ticket()
    await desk.notice(ticket, at=61)
    await desk.reply(ticket, 59)
    batch = await desk.noticing.notice([ticket.id], minutes(70), now=minutes(71), carried=0)
    await batch.settled()
    assert (await desk.told(ticket))[-1] == ("sla_breach_withdrawn", 71)


async def test_two_timers_at_once_record_it_once(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    tickets = [await desk.ticket() for _ in range(20)]
    ids = [ticket.id for ticket in tickets]
    timers = [Noticing(alpha) for _ in range(3)]
    async with alpha.log.exclusively():  # so that all of them decide before any records
        batches = await asyncio.gather(
            *(timer.notice(ids, minutes(61), now=minutes(61), carried=0) for timer in timers)
        )
    noticed = [one for batch in batches for one in await batch.settled()]
    assert sum(one.conflict for one in noticed) == 40
    for ticket in tickets:
        assert await desk.told(ticket) == [("sla_breached", 60)]


async def test_an_imported_history_is_silent_until_somebody_of_this_desk_is_at_it(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60, Step(offset_seconds=600, action="notify", note="Please call.")))
    ticket = await desk.ticket(channel=Channel.IMPORT)
    (noticed,) = await desk.notice(ticket, at=DAY)
    assert (noticed.events, noticed.next_at) == (0, None)
    await desk.happen(ticket, lambda act: ticket.add_note(text="Who has this?", act=act), DAY)
    await desk.notice(ticket, at=DAY + 1)
    assert await desk.told(ticket) == []


async def test_an_imported_ticket_is_not_woken(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    ticket = await desk.ticket(channel=Channel.IMPORT)
    ticket.set_pending(wake_at=minutes(60), act=desk.act(10, channel=Channel.IMPORT))
    await desk.keep(ticket)
    (noticed,) = await desk.notice(ticket, at=DAY)
    assert (noticed.events, noticed.next_at) == (0, None)


async def test_a_wait_ends_when_it_was_set_to_end(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(600, metric=Metric.AGENT_WORK))
    ticket = await desk.ticket()
    await desk.happen(ticket, lambda act: ticket.set_pending(wake_at=minutes(120), act=act), 60)
    (early,) = await desk.notice(ticket, at=119)
    assert (early.events, early.next_at) == (0, minutes(120))
    await desk.notice(ticket, at=DAY)
    # An hour of waiting moves the deadline by an hour, however late it was noticed.
    assert await desk.told(ticket) == [("resumed", 120), ("sla_breached", 660)]
    resumed = (await desk.events(ticket))[-2]
    assert resumed.reason == "The time that this ticket was to wait until has come."
    assert (resumed.status, resumed.by.role) == (Status.OPEN, Role.SYSTEM)


async def test_a_wait_that_was_set_anew_ends_at_the_later_time(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    ticket = await desk.ticket()
    await desk.happen(ticket, lambda act: ticket.set_pending(wake_at=minutes(20), act=act), 10)
    await desk.happen(ticket, lambda act: ticket.set_pending(wake_at=minutes(40), act=act), 15)
    await desk.notice(ticket, at=30)
    assert await desk.told(ticket) == []
    await desk.notice(ticket, at=50)
    assert await desk.told(ticket) == [("resumed", 40)]


async def test_a_step_is_an_ordinary_command_with_the_breach_as_its_cause(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    raise_level = Step(offset_seconds=300, action="raise_level", level=2, team_id=desk.other_team.id)
    await desk.adopt(replies_within(60, Step(offset_seconds=0, action="notify", note="Please call."), raise_level))
    ticket = await desk.ticket()
    await desk.notice(ticket, at=DAY)
    assert await desk.told(ticket) == [
        ("sla_breached", 60),
        ("sla_escalated", 60),
        ("note_added", DAY),
        ("sla_escalated", 65),
        ("escalated", DAY),
    ]
    breach, first, note, second, escalated = (await desk.events(ticket))[1:]
    assert first.by.causation_id == second.by.causation_id == breach.by.command_id
    assert note.by.causation_id == first.by.command_id
    assert escalated.by.causation_id == second.by.command_id
    assert len({event.by.correlation_id for event in (breach, first, note, second, escalated)}) == 1
    assert len({event.by.command_id for event in (breach, first, note, second, escalated)}) == 5
    assert note.text == "Please call."
    assert (escalated.level, escalated.team_id) == (2, desk.other_team.id)
    assert escalated.reason == "First reply due at 2026-03-02 13:00:00 UTC by all, version 1."


async def test_a_ticket_is_given_to_whom_a_step_names(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    to_agent = Step(offset_seconds=0, action="reassign", agent_id=desk.agent.id, team_id=desk.team.id)
    to_team = Step(offset_seconds=60, action="reassign", team_id=desk.other_team.id)
    await desk.adopt(replies_within(60, to_agent, to_team))
    ticket = await desk.ticket()
    await desk.notice(ticket, at=60.5)
    await desk.refresh(ticket)
    assert (ticket.agent_id, ticket.team_id) == (desk.agent.id, desk.team.id)
    await desk.notice(ticket, at=62)
    await desk.refresh(ticket)
    assert (ticket.agent_id, ticket.team_id) == (None, desk.other_team.id)


async def test_a_step_that_the_desk_refuses_says_so_on_the_ticket_and_is_not_tried_again(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60, Step(offset_seconds=0, action="raise_level", level=1)))
    ticket = await desk.ticket()  # which no team has
    for at in (61, 62):
        await desk.notice(ticket, at=at)
    assert await desk.told(ticket) == [("sla_breached", 60), ("sla_escalated", 60), ("note_added", 61)]
    note = (await desk.events(ticket))[-1]
    assert note.text.startswith("First reply due at 2026-03-02 13:00:00 UTC by all, version 1. The higher level")
    assert note.text.endswith("was refused: this command wants one of: team_id.")


async def test_a_team_that_was_deactivated_meanwhile_is_seen(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60, Step(offset_seconds=0, action="reassign", team_id=desk.other_team.id)))
    first, second = await desk.ticket(), await desk.ticket()
    await desk.notice(first, at=61)  # by which the timer knows the team
    desk.other_team.deactivate(act=desk.act(62))
    await desk.keep(desk.other_team)
    (noticed,) = await desk.notice(second, at=63)
    assert noticed.conflict
    await desk.notice(second, at=63)
    assert [what for what, _ in await desk.told(second)] == ["sla_breached", "sla_escalated", "note_added"]


async def test_events_of_a_breach_and_of_its_steps_are_recorded_together_or_not_at_all(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60, Step(offset_seconds=0, action="notify")))
    ticket = await desk.ticket()
    batch = await desk.noticing.notice([ticket.id], minutes(61), now=minutes(61), carried=0)
    await batch.settled()
    rows = await alpha.log.stream(ticket.id, after=1)
    assert len(rows) == 3
    assert len({row.recorded_at for row in rows}) == 1


async def test_a_shorter_policy_that_moves_open_tickets_breaches_at_its_own_deadline(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(600))
    ticket = await desk.ticket()
    await desk.adopt(replies_within(60), at=30, open_tickets="move")
    await desk.notice(ticket, at=DAY)
    assert await desk.told(ticket) == [("sla_terms_changed", 30), ("sla_breached", 60)]
    changed = (await desk.events(ticket))[1]
    assert (changed.terms.policy_version, changed.previous_terms.policy_version) == (2, 1)
    assert changed.cause == "policy_adopted"


async def test_a_shorter_policy_that_keeps_open_tickets_leaves_them_alone(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(600))
    before = await desk.ticket()
    await desk.adopt(replies_within(60), at=30, open_tickets="keep")
    after = await desk.ticket(at=31)
    await desk.notice(before, after, at=599)
    assert await desk.told(before) == []
    assert await desk.told(after) == [("sla_breached", 91)]


async def test_a_longer_policy_that_moves_open_tickets_is_heard_before_the_old_deadline_is_announced(
    alpha: Workspace,
) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    ticket = await desk.ticket()
    await desk.adopt(replies_within(600), at=30, open_tickets="move")
    await desk.notice(ticket, at=61)  # because the old deadline has passed
    assert await desk.told(ticket) == [("sla_terms_changed", 30)]


async def test_adoptions_are_made_in_their_order_and_those_before_a_ticket_chose_are_none_of_it(
    alpha: Workspace,
) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(600))
    before = await desk.ticket()
    await desk.adopt(replies_within(500), at=10, open_tickets="move")
    await desk.adopt(replies_within(400), at=20, open_tickets="keep")
    between = await desk.ticket(at=21)
    await desk.notice(before, between, at=30)
    assert await desk.told(before) == [("sla_terms_changed", 10)]
    assert await desk.told(between) == []
    await desk.notice(before, between, at=31)
    assert await desk.told(before) == [("sla_terms_changed", 10)]


async def test_what_is_adopted_while_a_move_is_decided_is_not_overlooked(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(600))
    ticket = await desk.ticket()
    await desk.adopt(replies_within(500), at=10, open_tickets="move")
    desk.levels.adopt_policy(name="all", terms=replies_within(400), open_tickets="move", act=desk.act(20))
    async with alpha.log.exclusively() as append:
        batch = await desk.noticing.notice([ticket.id], minutes(30), now=minutes(30), carried=0)
        await append(Submission(await desk.rows(desk.levels)))
    assert [one.conflict for one in await batch.settled()] == [True]
    await desk.notice(ticket, at=30)
    assert await desk.told(ticket) == [("sla_terms_changed", 10), ("sla_terms_changed", 20)]


async def test_a_solved_ticket_is_not_moved(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(600))
    ticket = await desk.ticket()
    await desk.happen(ticket, lambda act: ticket.solve(resolution_code="fixed", act=act), 5)
    await desk.adopt(replies_within(60), at=30, open_tickets="move")
    await desk.notice(ticket, at=31)
    assert await desk.told(ticket) == []


async def test_a_ticket_that_cannot_be_read_does_not_hold_up_the_others(alpha: Workspace) -> None:
    desk = await TimedDesk.at(alpha)
    await desk.adopt(replies_within(60))
    broken, sound = await desk.ticket(), await desk.ticket()
    await alpha.log.append(Submission([NewEvent(broken.id, 2, "ticket.replied", b"{}", None)]))
    noticed = await desk.notice(broken, sound, at=61)
    assert [one.events for one in noticed] == [0, 1]
    assert await desk.told(sound) == [("sla_breached", 60)]
