"""What becomes of a ticket's promises, fact by fact: which begin, stand still, run on and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from domain.sla_policy import Attributes, Match
from domain.sla_rules import CLOSED, FINISHED, METRICS, RULES, Rule, Trigger, WhenSolved
from domain.sla_terms import Metric
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
    from domain import ticket_timeline
    from domain.sla_counting import Calendars, Levels
    from domain.sla_policy import PolicyTerms, Target
    from domain.spans import Span
    from domain.ticket_timeline import Timeline


class Run:
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
        self.judged: Circumstances | None = None

    def pause(self, at: int) -> None:
        """Stand still, which goes on where it had done so until just now."""
        if self.paused is None:
            self.paused = self.pauses.pop()[0] if self.pauses and self.pauses[-1][1] == at else at

    def resume(self, at: int) -> None:
        """Run on, if it stands still."""
        if self.paused is not None:
            self._pass_over(self.paused, at)
            self.paused = None

    def end(self, at: int, judged: Circumstances, *, fulfilled: bool) -> None:
        """Be owed no more, and be judged by what holds now."""
        self.resume(at)
        self.ended, self.fulfilled, self.judged = at, fulfilled, judged

    def reopen(self, at: int) -> None:
        """Be owed again, if it had ended; the time between does not count."""
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


class Circumstances(NamedTuple):
    """What a clock is judged by: as it is now, or as it was when the clock ended."""

    terms: ticket_timeline.Terms | None
    promises: Promises
    attributes: ticket_timeline.Attributes
    calendars: Calendars


class Promises:
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
        """Give what is promised of a ticket with these attributes."""
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


_ready: Final[dict[int, Promises]] = {}


def promises_of(policy: PolicyTerms) -> Promises:
    """Give a policy made ready."""
    # By identity: a version of a policy never changes, and what is kept here holds it, so that no other has its id.
    found = _ready.get(id(policy))
    if found is None:
        if len(_ready) >= _REMEMBERED:
            _ready.clear()
        found = _ready[id(policy)] = Promises(policy)
    return found


class Course:
    """What becomes of a ticket's clocks, fact by fact."""

    def __init__(
        self, timeline: Timeline, levels: Levels, promises: Promises, promised: frozenset[Metric] = frozenset()
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
                promised |= promises_of(levels.policy(sla_terms(value))).metrics
            elif kind == DUE_DATE:
                promised |= {Metric(value[0])}
        self.metrics = [metric for metric in METRICS if metric in promised]
        self.live: dict[Metric, Run] = {}
        self.done: list[Run] = []
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
        run = self.live[metric] = Run(metric, serial, team, at, self.set_by_hand.pop(metric, None))
        if self.status in self.promises.settled_in[metric]:
            self._stop(run, rule, at)
        elif run.manual is None and self.status in self.promises.still_in[metric]:
            run.pause(at)

    def _stop(self, run: Run, rule: Rule, at: int) -> None:
        """Do what becomes of a clock when its ticket is solved; one that has ended stays as it was then."""
        if rule.when_solved is WhenSolved.STANDS_STILL:
            run.pause(at)
        elif run.ended is None:
            run.end(at, self.circumstances(), fulfilled=rule.when_solved is WhenSolved.FULFILLED)

    def take_status(self, status: str, at: int) -> None:
        """Let the ticket be in another status."""
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

    def take_terms(self, terms: ticket_timeline.Terms | None, at: int) -> None:
        """Let the ticket go by other terms from now on, without starting anything anew."""
        self.terms = terms
        named = sla_terms(terms)
        self.promises = promises_of(self.levels.policy(named))
        before = self.calendars[-1][1]
        if (before and before.calendar) == (named and named.calendar):
            # A later version of the same calendar says itself from which date on it counts.
            self.calendars = (*self.calendars[:-1], (self.calendars[-1][0], named))
        else:
            self.calendars = (*self.calendars, (at, named))
        self._settle(at)
        self.stand_still_where_due(at)

    def set_due_date(self, metric: Metric, due: int | None, at: int) -> None:
        """Set the deadline of the clock that runs, or of the next one to; None leaves it to the policy again."""
        run = self.live.get(metric)
        if run is None or run.ended is not None:
            self.set_by_hand[metric] = due
            return
        run.manual = due
        self.stand_still_where_due(at)

    def circumstances(self) -> Circumstances:
        """Give what a clock that runs is judged by."""
        return Circumstances(self.terms, self.promises, self.attributes, self.calendars)

    def runs(self) -> list[Run]:
        """Give the clocks by metric, then as they began."""
        return sorted([*self.done, *self.live.values()], key=_in_order)

    def judge_by(self, terms: ticket_timeline.Terms | None, promises: Promises, levels: Levels) -> None:
        """Judge all clocks as if other terms, whose promises take the same course, had applied from the opening on."""
        self.levels, self.terms, self.promises = levels, terms, promises
        self.calendars = calendars = ((self.opened, sla_terms(terms)),)
        for run in (*self.done, *self.live.values()):
            if run.judged is not None:
                run.judged = Circumstances(terms, promises, run.judged.attributes, calendars)


_PLACE_OF: Final = {metric: place for place, metric in enumerate(METRICS)}


def _in_order(run: Run) -> tuple[int, int]:
    return _PLACE_OF[run.metric], run.serial
