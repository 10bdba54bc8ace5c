"""An independent model of clocks: somebody who looks at a ticket every ten minutes and makes strokes on a list.

It knows the rules from `docs/sla.md` and nothing of how they are computed: no spans, no adding, only strokes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from domain import ticket_events as happened
from domain.sla_policy import DEFAULT_PAUSES, PolicyTerms, Unit
from domain.sla_terms import Metric, SlaTerms
from domain.ticket_sla_events import SlaTermsChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TICK = 10
"""Minutes between two looks."""
REPLIES = (Metric.FIRST_REPLY, Metric.NEXT_REPLY)
FROM_THE_OPENING = (Metric.REQUESTER_WAIT, Metric.AGENT_WORK, Metric.TOTAL_RESOLUTION)


class Terms(NamedTuple):
    """What the watcher goes by: a policy, and at which ticks it is open."""

    policy: PolicyTerms
    is_open: Callable[[int], bool]


@dataclass
class Listed:
    """One clock as it was watched: for each tick whether it ran, and by whose hours it was counted."""

    metric: Metric
    serial: int
    started: int
    priority: str
    terms: Terms
    strokes: dict[int, tuple[bool, Terms]] = field(default_factory=dict)
    ended: int | None = None
    fulfilled: bool = False
    resumable: bool = False


class Found(NamedTuple):
    """What is to be compared, in ticks."""

    metric: Metric
    serial: int
    started: int
    due: int
    paused: int | None
    ended: int | None
    fulfilled: bool
    used: int


class Watcher:
    """Watches a ticket that goes by these terms."""

    def __init__(self, opened: happened.Opened, terms_of: Callable[[SlaTerms | None], Terms]) -> None:
        self.terms_of = terms_of
        self.terms = terms_of(opened.terms)
        self.status, self.priority = str(opened.status), str(opened.priority)
        self.team: object = None
        self.replied = False
        self.lists: list[Listed] = []

    def watch(self, events: Sequence[tuple[int, happened.TicketEvent]], until: int) -> list[Found]:
        """Watch what happens at these ticks, up to a tick, and say what each clock came to."""
        queue = list(events)
        for tick in range(events[0][0], until + 1):
            while queue and queue[0][0] == tick:
                self.see(queue.pop(0)[1], tick)
            for one in self.lists:
                self.make_a_stroke(one, tick)
        return [found for one in self.lists if (found := judge(one, until)) is not None]

    def see(self, event: happened.TicketEvent, tick: int) -> None:
        """Note what an event does: first that the ticket is settled or taken up, then all else."""
        before, self.status = self.status, str(getattr(event, "status", self.status))
        self.settle(tick, moved=self.status != before)
        match event:
            case happened.Opened():
                asked = () if event.opened_by_agent else (Metric.FIRST_REPLY,)
                for metric in (*FROM_THE_OPENING, *asked):
                    self.begin(metric, tick)
            case happened.CustomerMessageReceived():
                metric = Metric.NEXT_REPLY if self.replied else Metric.FIRST_REPLY
                self.begin(metric, tick)
            case happened.Replied():
                for metric in (*REPLIES, Metric.PERIODIC_UPDATE):
                    self.finish(metric, tick)
                self.replied = True
                self.begin(Metric.PERIODIC_UPDATE, tick)
            case happened.PriorityChanged():
                self.priority = str(event.priority)
            case SlaTermsChanged():
                self.terms = self.terms_of(event.terms)
            case happened.Assigned() | happened.Transferred() if event.team_id != self.team:
                self.finish(Metric.OWNERSHIP, tick)
                self.team = event.team_id
                self.begin(Metric.OWNERSHIP, tick)
            case _:
                pass
        self.settle(tick)

    def going(self, metric: Metric) -> Listed | None:
        """Give the clock that is not over for good."""
        mine = [one for one in self.lists if one.metric is metric]
        return mine[-1] if mine and (mine[-1].ended is None or mine[-1].resumable) else None

    def begin(self, metric: Metric, tick: int) -> None:
        """Take a new list, unless there is one that is not full."""
        if self.going(metric) is not None:
            return
        serial = sum(one.metric is metric for one in self.lists) + 1
        self.lists.append(Listed(metric, serial, tick, self.priority, self.terms))

    def finish(self, metric: Metric, tick: int) -> None:
        """Put a list away, as it is if it was over already."""
        one = self.going(metric)
        if one is not None:
            if one.ended is None:
                self.close(one, tick, fulfilled=True)
            one.resumable = False

    def close(self, one: Listed, tick: int, *, fulfilled: bool) -> None:
        """Write down by what a clock is judged."""
        one.ended, one.fulfilled, one.priority, one.terms = tick, fulfilled, self.priority, self.terms

    def is_settled(self, metric: Metric) -> bool:
        """Tell whether a metric is not owed in this status: while a ticket is solved, or closed only."""
        return self.status == "closed" or (self.status == "solved" and metric not in self.terms.policy.until_closed)

    def settle(self, tick: int, *, moved: bool = False) -> None:
        """End what is not owed while a ticket is solved, and take up again what is when it moves on."""
        for one in self.lists:
            if one.metric not in REPLIES:
                if one.ended is None and self.is_settled(one.metric):
                    self.close(one, tick, fulfilled=one.metric is not Metric.PERIODIC_UPDATE)
                    one.resumable = True
                elif one.resumable and moved and not self.is_settled(one.metric):
                    one.ended, one.fulfilled, one.resumable = None, False, False

    def make_a_stroke(self, one: Listed, tick: int) -> None:
        """Note whether a clock runs."""
        if one.ended is None:
            stands = self.terms.policy.pauses.get(one.metric, DEFAULT_PAUSES.get(one.metric, ()))
            still = self.is_settled(one.metric) or self.status in stands
            one.priority, one.terms = self.priority, self.terms
            one.strokes[tick] = not still, self.terms
        elif one.resumable:
            one.strokes[tick] = False, self.terms


def judge(one: Listed, until: int) -> Found | None:
    """Count the strokes; None where nothing is promised."""
    promised = (
        target
        for target in one.terms.policy.targets
        if target.metric is one.metric and (target.match.priorities is None or one.priority in target.match.priorities)
    )
    target = next(promised, None)
    if target is None:
        return None
    around_the_clock = target.unit is Unit.CALENDAR

    # A wait that is not over is taken to end at once: the deadline is where it would be if it did.
    last_run = max((tick for tick, (ran, _) in one.strokes.items() if ran), default=one.started - 1)
    known_until = last_run if one.ended is None else one.ended - 1

    def counts(tick: int) -> bool:
        terms = one.strokes[tick][1] if tick in one.strokes and (one.ended is None or tick < one.ended) else one.terms
        return around_the_clock or terms.is_open(tick)

    def runs(tick: int) -> bool:
        return tick > known_until or tick not in one.strokes or one.strokes[tick][0]

    allowed = target.amount // (TICK * 60)
    made, tick, used_up_just_now = 0, one.started, False
    while not (runs(tick) and made == allowed and (used_up_just_now or counts(tick))):
        makes_one = runs(tick) and made < allowed and counts(tick)
        made += makes_one
        used_up_just_now = makes_one and made == allowed
        tick += 1
    end = until if one.ended is None else one.ended
    used = sum(ran and counts(at) for at, (ran, _) in one.strokes.items() if at < end)
    still_now = one.ended is None and not one.strokes[until][0]
    return Found(
        one.metric, one.serial, one.started, tick, last_run + 1 if still_now else None, one.ended, one.fulfilled, used
    )
