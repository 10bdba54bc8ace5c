"""A what-if over a whole desk, held against counting its tickets one by one."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from domain.calendar import CalendarTerms
from domain.customer_events import Registered, TierChanged
from domain.event import Act, Role
from domain.priority import Priority
from domain.service_levels import EMPTY_BOOK, Book, ServiceLevelsEvent
from domain.sla_clocks import ClockState, clocks, state, used
from domain.sla_policy import Attributes, Match, PolicyTerms, Target, Unit
from domain.sla_terms import Metric, SlaTerms
from domain.spans import instant, microseconds
from domain.ticket_events import Opened, TicketEvent
from domain.ticket_timeline import PLACES, TERMS, Timeline, after
from domain.what_if import Axis
from projections import directory, ticket_queue
from projections.bookkeeping import ViewsNotReady
from projections.runner import Runner
from replay import what_if as what_if_module
from replay import what_if_scan
from replay.what_if import WhatIfStopped, what_if
from replay.what_if_asked import Asked, GivenCalendar, GivenPolicy
from replay.what_if_comparing import Comparison
from replay.what_if_report import Outcome
from replay.what_if_scan import Snapshot, Which, reading, snapshot_of
from storage.codec import decode
from tests.projections.desk_days import DeskDays, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from domain.sla_clocks import Clock
    from domain.sla_counting import Levels
    from replay.what_if_report import Counts, Flip, Line, Report, Spread
    from storage.database import Workspace

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
STEPS = 1500


def promise(metric: Metric, hours: int, **match: Any) -> Target:
    return Target(metric=metric, match=Match(**match), amount=hours * 3600, unit=Unit.BUSINESS)


STRICT = GivenPolicy(
    name="strict",
    order=5,
    match=Match(priorities=(Priority.URGENT, Priority.HIGH)),
    targets=(promise(Metric.FIRST_REPLY, 1), promise(Metric.NEXT_REPLY, 2), promise(Metric.TOTAL_RESOLUTION, 8)),
)
EASY = GivenPolicy(
    name="easy",
    order=9,
    targets=(
        promise(Metric.FIRST_REPLY, 8, tiers=("vip", "gold")),
        promise(Metric.FIRST_REPLY, 48),
        promise(Metric.OWNERSHIP, 24),
        promise(Metric.TOTAL_RESOLUTION, 90),
    ),
)


async def filled(workspace: Workspace, seed: int, *, steps: int = STEPS) -> DeskDays:
    """Let days go by at a desk, and bring the views that are read up to date."""
    days = DeskDays(seed, tickets=steps // 8)
    await record(workspace, [*days.first(), *days.more(steps)])
    await caught_up(workspace)
    return days


async def caught_up(workspace: Workspace) -> None:
    runner = Runner(workspace.database, [ticket_queue.VIEW, directory.VIEW])
    await runner.catch_up(workspace)
    await runner.release()


@dataclass
class Ticket:
    """A ticket as the log tells of it."""

    number: int
    requester: Any
    timeline: Timeline


@dataclass
class Log:
    """All that a log tells, read event by event."""

    tickets: dict[Any, Ticket]
    tiers: dict[Any, str]
    books: list[tuple[int, Book]]

    @classmethod
    async def read(cls, workspace: Workspace) -> Log:
        found = cls({}, {}, [])
        book = EMPTY_BOOK
        for row in await workspace.log.page(0, 100_000):
            event: Any = decode(row).event
            if isinstance(event, TicketEvent):
                if isinstance(event, Opened):
                    found.tickets[row.stream] = Ticket(row.position, event.requester_id, after(None, event))
                else:
                    ticket = found.tickets[row.stream]
                    ticket.timeline = after(ticket.timeline, event)
                    ticket.requester = event.requester_id
            elif isinstance(event, Registered | TierChanged):
                found.tiers[row.stream] = str(event.tier)
            elif isinstance(event, ServiceLevelsEvent):
                book = book.extended(event)
                found.books.append((microseconds(event.timestamp), book))
        return found

    @property
    def latest(self) -> Book:
        return self.books[-1][1] if self.books else EMPTY_BOOK

    def tier(self, ticket: Ticket) -> str | None:
        recorded: str | None = ticket.timeline.latest("i")
        return recorded or self.tiers[ticket.requester]


def chosen(
    ticket: Timeline,
    tier: str | None,
    choose: Callable[[Attributes, SlaTerms | None, int, SlaTerms | None], SlaTerms | None],
) -> Timeline:
    """Write terms into a timeline at its beginning and after everything that happened, the slow and simple way."""

    def plain(terms: SlaTerms | None) -> Any:
        if terms is None:
            return None
        return (terms.policy, terms.policy_version, terms.calendar, terms.calendar_version)

    def named(terms: Any) -> SlaTerms | None:
        if terms is None:
            return None
        return SlaTerms(policy=terms[0], policy_version=terms[1], calendar=terms[2], calendar_version=terms[3])

    def attributes() -> Attributes:
        return Attributes.read(*values)

    values: list[Any] = list(ticket.attributes)
    values[1] = values[1] or tier
    begin = tuple(values)
    own = ticket.terms
    first = now = plain(choose(attributes(), named(own), ticket.opened, None))
    facts: list[Any] = []
    for at, kind, value in ticket.facts:
        if kind == TERMS:
            own = value
        else:
            facts.append((at, kind, value))
        if kind in PLACES:
            values[PLACES[kind]] = value
        then = plain(choose(attributes(), named(own), at, named(now)))
        if then != now:
            facts.append((at, TERMS, then))
            now = then
    return Timeline(
        opened=ticket.opened,
        by_agent=ticket.by_agent,
        status=ticket.status,
        attributes=begin,
        terms=first,
        announces_from=ticket.announces_from,
        facts=tuple(facts),
    )


class Imagined:
    """The policies that are given and no others, by the calendars that were known then, or are known now, or given."""

    def __init__(self, log: Log, policies: Sequence[GivenPolicy], axis: Axis) -> None:
        self._log = log
        self._axis = axis
        self._policies: dict[str | None, Any] = {one.name: one for one in policies}
        terms = CalendarTerms.model_validate(MINE.model_dump(exclude={"name"}))
        self._mine = Book({"mine": (terms,)}, {}).calendar("mine", 1)

    def choose(self, ticket: Attributes, own: SlaTerms | None, at: int, held: SlaTerms | None) -> SlaTerms:
        for policy in sorted(self._policies.values(), key=lambda one: (one.order, one.name)):
            if policy.match.holds(ticket):
                name = policy.calendar
                version = None if name in {None, "mine"} else self._version(policy, own, at, held)
                return SlaTerms(policy=policy.name, policy_version=1, calendar=name, calendar_version=version)
        return SlaTerms()

    def _version(self, policy: Any, own: SlaTerms | None, at: int, held: SlaTerms | None) -> int:
        name = policy.calendar
        if self._axis is Axis.AS_CORRECTED:
            return len(self._log.latest.calendars[name])
        if own is not None and own.calendar == name:
            return own.calendar_version or 0
        if held is not None and held.policy == policy.name:
            return held.calendar_version or 0
        by_then = [len(book.calendars.get(name, ())) for since, book in self._log.books if since <= at]
        return max(by_then, default=0) or 1

    def policy(self, terms: SlaTerms | None, /) -> PolicyTerms:
        return PolicyTerms(targets=()) if terms is None or terms.policy is None else self._policies[terms.policy]

    def hours(self, terms: SlaTerms | None, /) -> Any:
        if terms is None or terms.calendar is None:
            return None
        return self._mine if terms.calendar == "mine" else self._log.latest.hours(terms)


MINE = GivenCalendar.model_validate(
    {
        "name": "mine",
        "time_zone": "Asia/Shanghai",
        "hours": {day: [["08:00", "12:00"], ["13:30", "19:00"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat")},
    }
)


def outcome_of(clock: Clock | None) -> Outcome:
    match state(clock, NOW):
        case ClockState.MET:
            return Outcome.MET
        case ClockState.BREACHED:
            return Outcome.BREACHED
        case ClockState.ACTIVE | ClockState.PAUSED:
            return Outcome.RUNNING
        case _:
            return Outcome.NOT_PROMISED


Counted = dict[tuple[str, str | None, Metric], Counter[Any]]


def counted_by_hand(log: Log, policies: Sequence[GivenPolicy], axis: Axis) -> tuple[Counted, dict[Any, Any], int]:
    """Count outcomes by grouping, group and metric; give the times used as well, and how many tickets changed."""
    imagined = Imagined(log, policies, axis)
    found: Counted = {}
    times: dict[Any, Any] = {}
    changed = 0
    for ticket in log.tickets.values():
        tier = log.tier(ticket)
        before = ticket.timeline
        if axis is Axis.AS_CORRECTED:
            before = chosen(before, tier, lambda attributes, *_: log.latest.choose(attributes))
        then = {(one.metric, one.serial): one for one in clocks(before, log.latest)}
        would = {
            (one.metric, one.serial): one for one in clocks(chosen(ticket.timeline, tier, imagined.choose), imagined)
        }
        differs = False
        for key in then.keys() | would.keys():
            sides = (then.get(key), would.get(key))
            pair = (outcome_of(sides[0]), outcome_of(sides[1]))
            differs = differs or pair[0] != pair[1]
            any_of_them: Any = sides[0] or sides[1]
            team = any_of_them.team_id or ticket.timeline.latest("t")
            groups = {
                "priority": ticket.timeline.latest("p"),
                "tier": tier,
                "team": None if team is None else str(team),
                "month": f"{instant(ticket.timeline.opened):%Y-%m}",
                "all": None,
            }
            for grouping, group in groups.items():
                found.setdefault((grouping, group, key[0]), Counter())[pair] += 1
            both: tuple[tuple[Clock | None, Levels], ...] = ((sides[0], log.latest), (sides[1], imagined))
            for number, (side, levels) in enumerate(both):
                if side is not None and side.fulfilled:
                    spent = used(side, levels, NOW).total_seconds()
                    times.setdefault((key[0], number), []).append(spent)
        changed += differs
    return found, times, changed


def check(report: Report, found: Counted, times: dict[Any, Any]) -> None:
    """Hold every number of a report against what was counted by hand."""
    told: dict[tuple[str, str | None, Metric], Line] = {("all", None, line.metric): line for line in report.promises}
    for grouping, lines in report.by.items():
        told |= {(grouping, line.group, line.metric): line for line in lines}
    assert told.keys() == found.keys()
    for key, line in told.items():
        pairs = found[key]
        for outcome in Outcome:
            assert getattr(line.then, outcome) == sum(n for (then, _), n in pairs.items() if then is outcome)
            assert getattr(line.given, outcome) == sum(n for (_, would), n in pairs.items() if would is outcome)
        broken = Outcome.BREACHED
        assert line.worse == sum(n for (then, would), n in pairs.items() if then is not broken and would is broken)
        assert line.better == sum(n for (then, would), n in pairs.items() if then is broken and would is not broken)
    for line in report.promises:
        for number, spread in enumerate((line.used_then, line.used_given)):
            check_spread(spread, times.get((line.metric, number), []))
    assert report.flips.worse == sum(line.worse for line in report.promises)
    assert report.flips.better == sum(line.better for line in report.promises)


def check_spread(spread: Spread | None, times: list[float]) -> None:
    ordered = sorted(times)
    assert (0 if spread is None else spread.count) == len(ordered)
    if spread is not None and ordered:
        for hundredths, value in ((50, spread.p50), (90, spread.p90), (95, spread.p95), (99, spread.p99)):
            assert value == pytest.approx(ordered[math.ceil(len(ordered) * hundredths / 100) - 1])


@pytest.mark.parametrize("axis", Axis)
@pytest.mark.parametrize("seed", [3, 8])
async def test_every_number_is_that_of_counting_ticket_by_ticket(alpha: Workspace, seed: int, axis: Axis) -> None:
    await filled(alpha, seed)
    log = await Log.read(alpha)
    desks_own = next(iter(log.latest.calendars))
    policies = (STRICT.model_copy(update={"calendar": desks_own}), EASY.model_copy(update={"calendar": "mine"}))
    asked = Asked(policies=policies, calendars=(MINE,), axis=axis)
    report = await what_if(alpha, asked, now=NOW)
    found, times, changed = counted_by_hand(log, policies, axis)
    assert (report.tickets, report.tickets_changed) == (len(log.tickets), changed)
    assert report.position == (await alpha.log.head()).position
    assert report.flips.worse
    assert report.flips.better
    check(report, found, times)


async def test_only_the_tickets_that_are_asked_about_are_counted(alpha: Workspace) -> None:
    days = await filled(alpha, 3)
    log = await Log.read(alpha)
    opened = sorted(ticket.timeline.opened for ticket in log.tickets.values())
    begin, end = instant(opened[len(opened) // 4]), instant(opened[3 * len(opened) // 4])
    teams = tuple(team.id for team in days.teams[:2])
    asked = Asked(
        policies=(EASY.model_copy(update={"calendar": None}),), opened_from=begin, opened_to=end, team_ids=teams
    )
    report = await what_if(alpha, asked, now=NOW)
    wanted = [
        ticket
        for ticket in log.tickets.values()
        if microseconds(begin) <= ticket.timeline.opened < microseconds(end)
        and ticket.timeline.latest("t") in {str(team) for team in teams}
    ]
    assert report.tickets == len(wanted) > 0
    assert (report.opened_from, report.opened_to, report.teams) == (begin, end, teams)
    assert {report.names[team.id] for team in days.teams[:2]} == {"Team 0", "Team 1"}
    none = await what_if(alpha, asked.model_copy(update={"opened_from": NOW, "opened_to": None}), now=NOW)
    assert (none.tickets, none.promises, none.flips.shown) == (0, (), ())


async def test_it_makes_no_difference_how_many_processes_divide_the_tickets(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(what_if_scan, "STRETCH_BLOCKS", 1)
    await filled(alpha, 3)
    asked = Asked(policies=(STRICT, EASY), flips=2)
    told: list[tuple[int, int]] = []
    reports = [
        await what_if(alpha, asked, lambda done, total: told.append((done, total)), now=NOW, workers=workers)
        for workers in (1, 2, 3)
    ]
    assert len({report.model_copy(update={"seconds": 0.0}).model_dump_json() for report in reports}) == 1
    assert told[-1] == (reports[0].tickets, reports[0].tickets)
    assert len(told) > 6
    flips = reports[0].flips
    worse, better = ([one for one in flips.shown if one.direction == way] for way in ("worse", "better"))
    assert (len(worse), len(better)) == (2, 2)
    assert flips.worse + flips.better > 4
    everything = (await what_if(alpha, asked.model_copy(update={"flips": 1000}), now=NOW)).flips
    assert len(everything.shown) == flips.worse + flips.better
    latest = sorted((one for one in everything.shown if one.direction == "worse"), key=_latest, reverse=True)
    assert worse == latest[:2]


def _latest(flip: Flip) -> Any:
    return (flip.opened_at, flip.number, flip.metric, flip.serial)


async def test_a_flip_is_explained_on_both_sides_and_by_the_axis_that_was_asked(alpha: Workspace) -> None:
    thursday = datetime(2026, 4, 30, 15, tzinfo=UTC)
    await record(alpha, holiday_entered_late(thursday))
    await caught_up(alpha)
    quick = GivenPolicy(name="all", calendar="office", targets=(promise(Metric.FIRST_REPLY, 3),))
    asked = Asked(policy=quick, as_of=thursday + timedelta(days=30))
    known = await what_if(alpha, asked, now=NOW)
    corrected = await what_if(alpha, asked.model_copy(update={"axis": Axis.AS_CORRECTED}), now=NOW)
    # Answered on the fourth of May at 10:30: as was known, the first was a working day on which it was due.
    assert outcomes(known.promises[0]) == ("breached", "breached")
    assert outcomes(corrected.promises[0]) == ("met", "breached")
    assert "was not known" in known.axis_says
    assert "counts" in corrected.axis_says
    assert known.flips.shown == ()
    (flip,) = corrected.flips.shown
    assert (flip.direction, flip.then.policy, flip.given.policy) == ("worse", "all 1", "all (given)")
    assert (flip.then.calendar, flip.given.calendar) == ("office 2", "office 2")
    assert (flip.then.due_at, flip.given.due_at) == (
        datetime(2026, 5, 4, 11, tzinfo=UTC),
        datetime(2026, 5, 4, 10, tzinfo=UTC),
    )
    assert flip.then.used_seconds == flip.given.used_seconds == 3.5 * 3600
    assert flip.given.explanation == (
        "3:00:00 of opening hours",
        "from Thu 2026-04-30 15:00:00 UTC",
        "counted Thu 2026-04-30 15:00:00 UTC to Thu 2026-04-30 17:00:00 UTC: 2:00:00",
        "counted Mon 2026-05-04 09:00:00 UTC to Mon 2026-05-04 10:00:00 UTC: 1:00:00",
        "due Mon 2026-05-04 10:00:00 UTC, after 3:00:00",
        "fulfilled Mon 2026-05-04 10:30:00 UTC, after 3:30:00",
        "breached at Sat 2026-05-30 15:00:00 UTC",
    )


def outcomes(line: Line) -> tuple[str, str]:
    """Give how the only promise of a line ended on both sides."""

    def only(counts: Counts) -> str:
        (name,) = (name for name, number in counts.model_dump().items() if number)
        return str(name)

    return only(line.then), only(line.given)


def holiday_entered_late(thursday: datetime) -> list[Any]:
    """Open a ticket before the first of May, which is entered as a holiday on the fourth; then it is answered."""
    days = DeskDays(1)
    hours = {day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")}
    office = {"time_zone": "UTC", "hours": hours}
    days.at = thursday - timedelta(days=60)
    days.levels.adopt_calendar(
        name="office", terms=CalendarTerms.model_validate(office), open_tickets="keep", act=_act(days, days.at)
    )
    days.levels.adopt_policy(
        name="all",
        terms=PolicyTerms(calendar="office", targets=(promise(Metric.FIRST_REPLY, 4),)),
        open_tickets="keep",
        act=_act(days, days.at),
    )
    ticket = days.open(act=_act(days, thursday, Role.CUSTOMER))
    ticket.choose_terms(book=days.book, act=_act(days, thursday))
    late = office | {"closed_days": {"2026-05-01": "Labour day"}}
    days.levels.adopt_calendar(
        name="office",
        terms=CalendarTerms.model_validate(late),
        open_tickets="keep",
        act=_act(days, thursday + timedelta(days=3)),
    )
    answered = datetime(2026, 5, 4, 10, 30, tzinfo=UTC)
    ticket.reply(text="Done.", agent_id=days.agents[0].id, act=_act(days, answered))
    events: list[Any] = [*days.first(), *days.levels.collect_events(), *ticket.collect_events()]
    return events


def _act(days: DeskDays, at: datetime, role: Role = Role.AGENT) -> Act:
    return replace(days.act(role), at=at)


async def test_the_policies_that_there_are_change_nothing(alpha: Workspace) -> None:
    await record(alpha, holiday_entered_late(datetime(2026, 4, 30, 15, tzinfo=UTC)))
    await caught_up(alpha)
    own = GivenPolicy(name="all", calendar="office", targets=(promise(Metric.FIRST_REPLY, 4),))
    for axis in Axis:
        for asked in (Asked(policy=own, axis=axis), Asked(policies=(own,), axis=axis)):
            report = await what_if(alpha, asked, now=NOW)
            assert (report.tickets, report.tickets_changed) == (1, 0)
            assert report.promises[0].then == report.promises[0].given
            assert report.promises[0].used_then == report.promises[0].used_given


async def test_what_is_adopted_just_before_the_tickets_are_read_is_known(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = what_if_scan.snapshot_of

    @asynccontextmanager
    async def late(workspace: Workspace, which: Which) -> AsyncIterator[Snapshot]:
        await record(alpha, holiday_entered_late(datetime(2026, 4, 30, 15, tzinfo=UTC)))
        await caught_up(alpha)
        async with looked(workspace, which) as snapshot:
            yield snapshot

    monkeypatch.setattr(what_if_module, "snapshot_of", late)
    report = await what_if(alpha, Asked(policies=(EASY,)), now=NOW)
    assert (report.tickets, report.promises[0].then.promised) == (1, 1)


async def test_nothing_can_be_changed_by_what_reads(alpha: Workspace) -> None:
    await filled(alpha, 3, steps=200)
    async with snapshot_of(alpha, Which()) as snapshot, reading(alpha, snapshot) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(f"DELETE FROM {alpha.schema}.ticket_queue_v{ticket_queue.VIEW.version}".encode())


async def test_one_of_whose_processes_is_killed_says_so_and_leaves_nothing(
    alpha: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(what_if_scan, "STRETCH_BLOCKS", 1)
    await filled(alpha, 3)
    parent = os.getpid()
    take = Comparison.take

    def killed(comparison: Comparison, rows: Any) -> None:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        take(comparison, rows)

    monkeypatch.setattr(Comparison, "take", killed)
    with pytest.raises(WhatIfStopped, match="status -9; ask again"):
        await what_if(alpha, Asked(policies=(EASY,)), now=NOW, workers=2)
    assert await left(alpha) == 0


async def test_who_no_longer_wants_to_know_ends_it(alpha: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what_if_scan, "STRETCH_BLOCKS", 1)
    await filled(alpha, 3)
    begun = asyncio.Event()
    asking = asyncio.create_task(
        what_if(alpha, Asked(policies=(EASY,)), lambda _done, _total: begun.set(), now=NOW, workers=2)
    )
    await asyncio.wait_for(begun.wait(), 20)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await left(alpha) == 0


async def left(workspace: Workspace) -> int:
    """Count the connections of what-ifs that are left, once the server has had time to notice that they ended."""
    number = 1
    async with asyncio.timeout(20):
        while number:
            async with workspace.database.pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'desk what-if'"
                    " AND datname = current_database()"
                )
                number = (await cursor.fetchone() or (0,))[0]
            await asyncio.sleep(0.02)
    return number


async def test_a_desk_whose_queue_is_not_there_says_so(alpha: Workspace) -> None:
    with pytest.raises(ViewsNotReady):
        await what_if(alpha, Asked(policies=(EASY,)), now=NOW)
