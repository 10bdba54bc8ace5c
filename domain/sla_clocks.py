"""How the promises about a ticket run: every clock follows from the ticket's timeline and the terms that it names."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from domain.sla_counting import counted, deadline
from domain.sla_policy import Attributes, Match, Unit
from domain.sla_terms import Metric
from domain.spans import instant, microseconds
from domain.ticket_timeline import (
    CUSTOMER_MESSAGE,
    DUE_DATE,
    PLACES,
    PUBLIC_REPLY,
    STATUS,
    TEAM,
    TERMS,
    sla_terms,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain import ticket_timeline
    from domain.sla_counting import Calendars, Levels
    from domain.sla_policy import PolicyTerms, Target
    from domain.sla_terms import SlaTerms
    from domain.spans import Span
    from domain.ticket_timeline import Timeline

FINISHED: Final = frozenset({"solved", "closed"})
CLOSED: Final = frozenset({"closed"})


class ClockState(StrEnum):
    """How a promise stands at an instant."""

    ACTIVE = "active"
    PAUSED = "paused"
    MET = "met"
    BREACHED = "breached"
    NOT_APPLICABLE = "not_applicable"


class Trigger(StrEnum):
    """What starts and ends clocks."""

    OPENED = "opened"
    """The ticket came to be."""
    ASKED = "asked"
    """A customer got in touch, by opening the ticket or by writing, and has never been answered."""
    ASKED_AGAIN = "asked_again"
    """A customer wrote after having been answered before."""
    ANSWERED = "answered"
    """An agent answered, visibly to the customer."""
    HANDED_OVER = "handed_over"
    """Another team has the ticket."""


class WhenSolved(StrEnum):
    """What becomes of a clock while its ticket is solved or closed, or closed only where a policy says so of the metric.

    Reopened, it runs on where it was.
    """

    STANDS_STILL = "stands_still"
    """It is still owed."""
    FULFILLED = "fulfilled"
    LAPSES = "lapses"
    """It is not owed, and neither kept nor broken unless it was broken before."""


class Rule(NamedTuple):
    """How the clocks of a metric come and go. A clock that runs is not started again."""

    starts: frozenset[Trigger]
    ends: frozenset[Trigger]
    when_solved: WhenSolved


_ANSWER: Final = frozenset({Trigger.ANSWERED})
_WORK: Final = Rule(frozenset({Trigger.OPENED}), frozenset(), WhenSolved.FULFILLED)
RULES: Final[dict[Metric, Rule]] = {
    Metric.FIRST_REPLY: Rule(frozenset({Trigger.ASKED}), _ANSWER, WhenSolved.STANDS_STILL),
    Metric.NEXT_REPLY: Rule(frozenset({Trigger.ASKED_AGAIN}), _ANSWER, WhenSolved.STANDS_STILL),
    Metric.PERIODIC_UPDATE: Rule(_ANSWER, _ANSWER, WhenSolved.LAPSES),
    Metric.REQUESTER_WAIT: _WORK,
    Metric.AGENT_WORK: _WORK,
    Metric.TOTAL_RESOLUTION: _WORK,
    Metric.OWNERSHIP: Rule(frozenset({Trigger.HANDED_OVER}), frozenset({Trigger.HANDED_OVER}), WhenSolved.FULFILLED),
}
METRICS: Final = tuple(RULES)


class Clock(NamedTuple):
    """One promise about one ticket; instants are microseconds since 1970, and properties give them as such.

    `serial` counts the clocks of this metric on this ticket from 1. `ended` is when nothing was owed any more, because it
    was `fulfilled` or because it lapsed; while it has not, `paused` is since when it stands still. Where `manual`, `due`
    was set by hand. `calendars` are the terms whose calendars its time is counted by, each from an instant on.
    """

    metric: Metric
    serial: int
    team_id: UUID | None
    terms: SlaTerms | None
    target: Target | None
    started: int
    due: int
    manual: bool
    paused: int | None
    pauses: tuple[Span, ...]
    ended: int | None
    fulfilled: bool
    calendars: Calendars

    @property
    def started_at(self) -> datetime:
        """When it began to run, or would have but for a pause."""
        return instant(self.started)

    @property
    def due_at(self) -> datetime:
        """The deadline, if it stands still no longer than it has so far."""
        return instant(self.due)

    @property
    def paused_at(self) -> datetime | None:
        """Since when it stands still."""
        return None if self.paused is None else instant(self.paused)

    @property
    def ended_at(self) -> datetime | None:
        """When it was fulfilled, or lapsed."""
        return None if self.ended is None else instant(self.ended)

    @property
    def runs(self) -> bool:
        """Whether its time goes by."""
        return self.ended is None and self.paused is None


class _Run:
    """A clock on its way."""

    __slots__ = ("ended", "fulfilled", "judged", "manual", "metric", "paused", "pauses", "serial", "started", "team")

    def __init__(self, metric: Metric, serial: int, team: str | None, started: int, manual: int | None) -> None:
        self.metric = metric
        self.serial = serial
        self.team = team
        self.started = started
        self.manual = manual
        self.pauses: list[Span] = []
        self.paused: int | None = None
        self.ended: int | None = None
        self.fulfilled = False
        self.judged: _Circumstances | None = None

    def pause(self, at: int) -> None:
        """Stand still, which goes on where it had done so until just now."""
        if self.paused is None:
            self.paused = self.pauses.pop()[0] if self.pauses and self.pauses[-1][1] == at else at

    def resume(self, at: int) -> None:
        if self.paused is not None:
            self._pass_over(self.paused, at)
            self.paused = None

    def end(self, at: int, judged: _Circumstances, *, fulfilled: bool) -> None:
        self.resume(at)
        self.ended, self.fulfilled, self.judged = at, fulfilled, judged

    def reopen(self, at: int) -> None:
        if self.ended is not None:
            self._pass_over(self.ended, at)
            self.ended, self.fulfilled, self.judged = None, False, None

    def _pass_over(self, start: int, end: int) -> None:
        if self.pauses and self.pauses[-1][1] == start:
            start = self.pauses.pop()[0]
        if start < end:
            self.pauses.append((start, end))


_MATCHES: Final = tuple(Match.model_fields)
"""What a match may ask for, in the order of a ticket's attributes."""
_REMEMBERED: Final = 10_000


class _Circumstances(NamedTuple):
    """What a clock is judged by: as it is now, or as it was when the clock ended."""

    terms: ticket_timeline.Terms | None
    promises: _Promises
    attributes: ticket_timeline.Attributes
    calendars: Calendars


class _Promises:
    """A version of a policy made ready: which metrics it promises, and the targets for attributes met before."""

    def __init__(self, policy: PolicyTerms) -> None:
        self.policy = policy
        self.metrics = frozenset(target.metric for target in policy.targets)
        self.still_in = {metric: frozenset(map(str, policy.paused_in(metric))) for metric in Metric}
        self.settled_in = {metric: CLOSED if metric in policy.until_closed else FINISHED for metric in Metric}
        self.statuses = (self.still_in, self.settled_in)
        """In which statuses what stands still or is settled."""
        looked_at = {
            place
            for target in policy.targets
            for place, name in enumerate(_MATCHES)
            if getattr(target.match, name) is not None
        }
        self._places = tuple(sorted(looked_at))
        self._known: dict[tuple[object, ...], dict[Metric, Target]] = {}

    def targets(self, attributes: ticket_timeline.Attributes) -> dict[Metric, Target]:
        key = tuple([attributes[place] for place in self._places])
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._find(attributes)
        return found

    def _find(self, attributes: ticket_timeline.Attributes) -> dict[Metric, Target]:
        ticket = Attributes.read(*attributes)
        asked = ((metric, self.policy.target(metric, ticket)) for metric in self.metrics)
        return {metric: target for metric, target in asked if target is not None}


_ready: Final[dict[int, _Promises]] = {}


def _promises(policy: PolicyTerms) -> _Promises:
    # By identity: a version of a policy never changes, and what is kept here holds it, so that no other has its id.
    found = _ready.get(id(policy))
    if found is None:
        if len(_ready) >= _REMEMBERED:
            _ready.clear()
        found = _ready[id(policy)] = _Promises(policy)
    return found


class _Course:
    """What becomes of a ticket's clocks, fact by fact."""

    def __init__(
        self, timeline: Timeline, levels: Levels, promises: _Promises, promised: frozenset[Metric] = frozenset()
    ) -> None:
        self.levels = levels
        self.opened = timeline.opened
        self.status = timeline.status
        self.attributes = timeline.attributes
        self.terms = timeline.terms
        self.promises = promises
        terms = sla_terms(timeline.terms)
        self.calendars: Calendars = ((timeline.opened, terms),)
        promised |= self.promises.metrics
        for _, kind, value in timeline.facts:
            if kind == TERMS:
                promised |= _promises(levels.policy(sla_terms(value))).metrics
            elif kind == DUE_DATE:
                promised |= {Metric(value[0])}
        self.metrics = [metric for metric in METRICS if metric in promised]
        self.live: dict[Metric, _Run] = {}
        self.done: list[_Run] = []
        self.serials: dict[Metric, int] = {}
        self.set_by_hand: dict[Metric, int | None] = {}
        self.replies = 0

    def run(self, timeline: Timeline) -> None:
        """Let all that happened happen."""
        opened = timeline.opened
        self.start(Trigger.OPENED, opened)
        if not timeline.by_agent:
            self.start(Trigger.ASKED, opened)
        for at, kind, value in timeline.facts:
            if kind == STATUS:
                self.take_status(value, at)
            elif kind == CUSTOMER_MESSAGE:
                self.start(Trigger.ASKED_AGAIN if self.replies else Trigger.ASKED, at)
            elif kind == PUBLIC_REPLY:
                self.end(Trigger.ANSWERED, at)
                self.start(Trigger.ANSWERED, at)
                self.replies += 1
            elif kind == TERMS:
                self.take_terms(value, at)
            elif kind == DUE_DATE:
                metric, due = value
                self.set_due_date(Metric(metric), due, at)
            elif kind == TEAM:
                self.hand_over(value, at)
            else:
                self.say(kind, value)

    def end(self, trigger: Trigger, at: int) -> None:
        """End the clocks that something ends; one that ended when the ticket was solved stays as it was then."""
        for metric in self.metrics:
            if trigger in RULES[metric].ends and metric in self.live:
                run = self.live.pop(metric)
                if run.ended is None:
                    run.end(at, self.circumstances(), fulfilled=True)
                self.done.append(run)

    def start(self, trigger: Trigger, at: int) -> None:
        """Start the clocks that something starts."""
        for metric in self.metrics:
            if trigger in RULES[metric].starts and metric not in self.live:
                self._start(metric, RULES[metric], at)

    def hand_over(self, team: str | None, at: int) -> None:
        """Let another team, or none, have the ticket; what the former one was promised is judged by what it had."""
        self.end(Trigger.HANDED_OVER, at)
        self.say(TEAM, team)
        if team is not None:
            self.start(Trigger.HANDED_OVER, at)

    def say(self, kind: str, value: object) -> None:
        """Take another attribute."""
        place = PLACES[kind]
        self.attributes = (*self.attributes[:place], value, *self.attributes[place + 1 :])  # type: ignore[assignment]

    def _start(self, metric: Metric, rule: Rule, at: int) -> None:
        serial = self.serials[metric] = self.serials.get(metric, 0) + 1
        team = self.attributes[4] if metric is Metric.OWNERSHIP else None
        run = self.live[metric] = _Run(metric, serial, team, at, self.set_by_hand.pop(metric, None))
        if self.status in self.promises.settled_in[metric]:
            self._stop(run, rule, at)
        elif run.manual is None and self.status in self.promises.still_in[metric]:
            run.pause(at)

    def _stop(self, run: _Run, rule: Rule, at: int) -> None:
        """Do what becomes of a clock when its ticket is solved; one that has ended stays as it was then."""
        if rule.when_solved is WhenSolved.STANDS_STILL:
            run.pause(at)
        elif run.ended is None:
            run.end(at, self.circumstances(), fulfilled=rule.when_solved is WhenSolved.FULFILLED)

    def take_status(self, status: str, at: int) -> None:
        was_finished = self.status in FINISHED
        self.status = status
        if was_finished:
            for metric, run in self.live.items():
                if status not in self.promises.settled_in[metric]:
                    run.reopen(at)
                    if metric in self.set_by_hand:
                        run.manual = self.set_by_hand.pop(metric)
        self._settle(at)
        self.stand_still_where_due(at)

    def _settle(self, at: int) -> None:
        """Stop the clocks of what is settled in the status."""
        if self.status in FINISHED:
            for metric, run in self.live.items():
                if self.status in self.promises.settled_in[metric]:
                    self._stop(run, RULES[metric], at)

    def stand_still_where_due(self, at: int) -> None:
        """Let clocks stand still, and run on, as the status and the policy have it."""
        for metric, run in self.live.items():
            if self.status in self.promises.settled_in[metric]:
                continue
            # A date set by hand is a date: no wait moves it.
            if run.manual is None and self.status in self.promises.still_in[metric]:
                run.pause(at)
            elif run.paused is not None:
                run.resume(at)

    def take_terms(self, terms: ticket_timeline.Terms, at: int) -> None:
        self.terms = terms
        named = sla_terms(terms)
        self.promises = _promises(self.levels.policy(named))
        before = self.calendars[-1][1]
        if (None if before is None else before.calendar) == terms[2]:
            # A later version of the same calendar says itself from which date on it counts.
            self.calendars = (*self.calendars[:-1], (self.calendars[-1][0], named))
        else:
            self.calendars = (*self.calendars, (at, named))
        self._settle(at)
        self.stand_still_where_due(at)

    def set_due_date(self, metric: Metric, due: int | None, at: int) -> None:
        run = self.live.get(metric)
        if run is None or run.ended is not None:
            self.set_by_hand[metric] = due
            return
        run.manual = due
        self.stand_still_where_due(at)

    def circumstances(self) -> _Circumstances:
        return _Circumstances(self.terms, self.promises, self.attributes, self.calendars)

    def clocks(self) -> tuple[Clock, ...]:
        runs = sorted([*self.done, *self.live.values()], key=_in_order)
        now = self.circumstances()
        return tuple([clock for run in runs if (clock := self._clock(run, run.judged or now)) is not None])

    def clocks_under(
        self, terms: ticket_timeline.Terms | None, promises: _Promises, levels: Levels
    ) -> tuple[Clock, ...]:
        """Give the clocks as if other terms, whose promises take the same course, had applied from the opening on."""
        self.levels, self.terms, self.promises = levels, terms, promises
        self.calendars = calendars = ((self.opened, sla_terms(terms)),)
        for run in (*self.done, *self.live.values()):
            if run.judged is not None:
                run.judged = _Circumstances(terms, promises, run.judged.attributes, calendars)
        return self.clocks()

    def _clock(self, run: _Run, by: _Circumstances) -> Clock | None:
        target = by.promises.targets(by.attributes).get(run.metric)
        if run.manual is not None:
            due = run.manual
        elif target is not None:
            due = deadline(self.levels, target, run.started, run.pauses, by.calendars)
        else:
            return None
        return Clock(
            run.metric,
            run.serial,
            None if run.team is None else _team(run.team),
            sla_terms(by.terms),
            target,
            run.started,
            due,
            run.manual is not None,
            run.paused,
            tuple(run.pauses),
            run.ended,
            run.fulfilled,
            by.calendars,
        )


_PLACE_OF: Final = {metric: place for place, metric in enumerate(METRICS)}
_team: Final = lru_cache(maxsize=4096)(UUID)


def _in_order(run: _Run) -> tuple[int, int]:
    return _PLACE_OF[run.metric], run.serial


def clocks(timeline: Timeline, levels: Levels) -> tuple[Clock, ...]:
    """Give the clocks of a ticket as of its last fact: what is promised about it, and how each promise has run.

    Ordered by metric, then as they began; a metric of which nothing is promised has none. Raises LookupError where
    `levels` lack terms that the ticket names.
    """
    course = _Course(timeline, levels, _promises(levels.policy(sla_terms(timeline.terms))))
    course.run(timeline)
    return course.clocks()


def clocks_of_both(
    one: Timeline, levels: Levels, other: Timeline, other_levels: Levels
) -> tuple[tuple[Clock, ...], tuple[Clock, ...]]:
    """Give the clocks of a ticket by two timelines, which are its own but for the terms in them.

    As `clocks` gives them, in less time: where the policies differ in their targets and hours alone, what happened to
    the ticket is gone through once.
    """
    if one.facts is other.facts and one.attributes == other.attributes and not _changes_terms(one):
        promises = _promises(levels.policy(sla_terms(one.terms)))
        others = _promises(other_levels.policy(sla_terms(other.terms)))
        if promises.statuses == others.statuses:
            course = _Course(one, levels, promises, others.metrics)
            course.run(one)
            return course.clocks(), course.clocks_under(other.terms, others, other_levels)
    return clocks(one, levels), clocks(other, other_levels)


def _changes_terms(timeline: Timeline) -> bool:
    return any([fact[1] == TERMS for fact in timeline.facts])  # noqa: C419 - a generator takes thrice as long


def falls_due(running: Iterable[Clock]) -> int | None:
    """Give when the first of the clocks that run falls due, or did, in microseconds since 1970; None where none runs."""
    return min([clock.due for clock in running if clock.ended is None and clock.paused is None], default=None)


def state(clock: Clock | None, now: datetime) -> ClockState:
    """Say how a promise stands at `now`. Fulfilled at the due instant itself is met; breached is only after it."""
    if clock is None:
        return ClockState.NOT_APPLICABLE
    if ran_until(clock, microseconds(now)) > clock.due:
        return ClockState.BREACHED
    if clock.ended is not None:
        return ClockState.MET if clock.fulfilled else ClockState.NOT_APPLICABLE
    return ClockState.PAUSED if clock.paused is not None else ClockState.ACTIVE


def used(clock: Clock, levels: Levels, now: datetime) -> timedelta:
    """Give the time that has been counted by `now`, as the target counts it; nothing counted is 0, not missing."""
    return timedelta(microseconds=_counted(clock, levels, clock.started, ran_until(clock, microseconds(now))))


def remaining(clock: Clock, levels: Levels, now: datetime) -> timedelta:
    """Give the time that is left at `now`, as the target counts it; negative by how much it is overdue."""
    return timedelta(microseconds=_left(clock, levels, ran_until(clock, microseconds(now))))


def percent(clock: Clock, levels: Levels, now: datetime) -> float:
    """Give how much of the time allowed is used at `now`, in hundredths; over 100 where it is overdue."""
    until = ran_until(clock, microseconds(now))
    ran = _counted(clock, levels, clock.started, until)
    allowed = ran + _left(clock, levels, until)
    return 100 * ran / allowed if allowed > 0 else 100.0


def ran_until(clock: Clock, moment: int) -> int:
    """Give until when a clock has run at a moment, both in microseconds since 1970: one that stands still, no longer."""
    if clock.ended is not None:
        return clock.ended
    return max(moment, clock.started) if clock.paused is None else clock.paused


def _left(clock: Clock, levels: Levels, until: int) -> int:
    if until <= clock.due:
        return _counted(clock, levels, until, clock.due)
    return -_counted(clock, levels, clock.due, until)


def _counted(clock: Clock, levels: Levels, start: int, end: int) -> int:
    unit = Unit.CALENDAR if clock.target is None else clock.target.unit
    return sum(ran for _, _, ran in counted(levels, unit, start, end, clock.pauses, clock.calendars))
