"""Goes through the promises of tickets twice: by what applied, and by what is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from domain.sla_clocks import clocks, clocks_of_both
from domain.sla_counting import counted
from domain.sla_policy import Unit
from domain.spans import instant
from domain.ticket_timeline import PLACES, TIER, decode
from replay.what_if_report import month_of
from replay.what_if_tally import BREACHED, MET, NOT_PROMISED, RUNNING, Kept, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from domain.sla_clocks import Clock
    from domain.sla_counting import Hours, Levels
    from domain.ticket_timeline import Timeline
    from domain.what_if import Side

DAY: Final = 86_400_000_000

Row = tuple[int, str, str, "str | None", str, str]
"""A ticket's number, id, priority, team and requester, and its timeline as the queue keeps it."""


class Pair(NamedTuple):
    """One promise as it was and as it would be; None where it is not made."""

    then: Clock | None
    given: Clock | None

    @property
    def either(self) -> Clock:
        """Give one of the two, to ask what they have in common."""
        found = self.given if self.then is None else self.then
        if found is None:
            message = "a promise is made on one side at least"
            raise ValueError(message)
        return found


class Comparison:
    """Compares tickets as of an instant, in microseconds since 1970.

    `tiers` are those that customers have today, by id, and `usual` that of the others, for tickets that record none.
    `shown` flips are kept in each direction.
    """

    def __init__(
        self, then: Side, given: Side, now: int, tiers: Mapping[str, str], usual: str | None, shown: int
    ) -> None:
        self.then: Final = then
        self.given: Final = given
        self.tally = Tally(shown)
        self.now: Final = now
        self._tiers = tiers
        self._usual = usual
        self._months: dict[int, str] = {}

    def take(self, rows: Iterable[Row]) -> None:
        """Compare these tickets."""
        tally, now = self.tally, self.now
        then_levels, given_levels = self.then.levels, self.given.levels
        for row in rows:
            number, _, priority, team, requester, text = row
            timeline = decode(text)
            tier = self.tier_of(timeline, requester)
            was, would_be = self.clocks_of(timeline, tier)
            same = was is would_be
            place = (priority, tier, team, self._months.get(timeline.opened // DAY) or self._month(timeline.opened))
            changed = False
            both = zip(was, would_be, strict=True) if same or _alike(was, would_be) else pairs(was, would_be)
            for then, given in both:
                one: Clock = given if then is None else then  # type: ignore[assignment] # one of the two is there
                metric = one.metric
                before = NOT_PROMISED if then is None else outcome(then, now)
                after = before if same else NOT_PROMISED if given is None else outcome(given, now)
                team_id = one.team_id
                tally.add(place if team_id is None else (priority, tier, str(team_id), place[3]), metric, before, after)
                if before != after:
                    changed = True
                    if BREACHED in {before, after}:
                        kept = Kept(timeline.opened, number, metric, one.serial, row)
                        tally.keep("worse" if after == BREACHED else "better", kept)
                spent = None if then is None or not then.fulfilled else used(then, then_levels)
                would = spent
                if not same:
                    would = None
                    if given is not None and given.fulfilled:
                        alike = (
                            spent is not None
                            and then is not None
                            and _counted_alike(then, then_levels, given, given_levels)
                        )
                        would = spent if alike else used(given, given_levels)
                if spent is not None or would is not None:
                    tally.spend(priority, metric, spent, would)
            tally.changed += changed
            tally.tickets += 1

    def clocks_of(self, timeline: Timeline, tier: str | None) -> tuple[tuple[Clock, ...], tuple[Clock, ...]]:
        """Give a ticket's clocks on both sides; the same ones where nothing that is given applies to it."""
        known = timeline
        if tier is not None and timeline.attributes[_TIER] is None:
            known = replace(timeline, attributes=(timeline.attributes[0], tier, *timeline.attributes[2:]))
        before = self.then.of(timeline if self.then.own else known)
        after = self.given.of(known)
        if before is after or before == after:
            was = clocks(before, self.then.levels)
            return was, was
        return clocks_of_both(before, self.then.levels, after, self.given.levels)

    def tier_of(self, timeline: Timeline, requester: str) -> str | None:
        """Give the tier that a ticket records last, or else its customer's today."""
        tier: str | None = timeline.latest(TIER)
        return self._tiers.get(requester, self._usual) if tier is None else tier

    def _month(self, opened: int) -> str:
        found = self._months[opened // DAY] = month_of(instant(opened))
        return found


_TIER: Final = PLACES[TIER]


def _alike(was: tuple[Clock, ...], would_be: tuple[Clock, ...]) -> bool:
    """Tell whether the same promises are made on both sides."""
    return len(was) == len(would_be) and all(
        one.metric is other.metric and one.serial == other.serial for one, other in zip(was, would_be, strict=True)
    )


def pairs(was: Iterable[Clock], would_be: Iterable[Clock]) -> list[Pair]:
    """Bring together the promises of both sides by metric and serial number."""
    found: dict[Any, Pair] = {(one.metric, one.serial): Pair(one, None) for one in was}
    for one in would_be:
        key = (one.metric, one.serial)
        found[key] = Pair(found[key].then if key in found else None, one)
    return list(found.values())


def outcome(clock: Clock, now: int) -> int:
    """Say how a promise stands, as `domain.sla_clocks.state` does; one that is owed no more counts as not made."""
    ended, paused = clock.ended, clock.paused
    if (ended if ended is not None else paused if paused is not None else now) > clock.due:
        return BREACHED
    if ended is None:
        return RUNNING
    return MET if clock.fulfilled else NOT_PROMISED


def _counted_alike(one: Clock, levels: Levels, other: Clock, other_levels: Levels) -> bool:
    """Tell whether two promises that were fulfilled have surely used the same time, as where only targets differ."""
    return (
        one.started == other.started
        and one.ended == other.ended
        and one.pauses == other.pauses
        and len(one.calendars) == len(other.calendars) == 1
        and _hours(one, levels) is _hours(other, other_levels)
    )


def _hours(clock: Clock, levels: Levels) -> Hours | None:
    """Give the hours that a promise by one calendar is counted by; None where it is counted around the clock."""
    around_the_clock = clock.target is None or clock.target.unit is Unit.CALENDAR
    return None if around_the_clock else levels.hours(clock.calendars[0][1])


def used(clock: Clock, levels: Levels) -> int:
    """Count the microseconds that a promise which was fulfilled had used, as `domain.sla_clocks.used` does."""
    started, ended = clock.started, clock.ended
    if ended is None:
        message = "a promise that runs is not fulfilled"
        raise ValueError(message)
    if len(clock.calendars) > 1:
        unit = Unit.CALENDAR if clock.target is None else clock.target.unit
        return sum(ran for _, _, ran in counted(levels, unit, started, ended, clock.pauses, clock.calendars))
    # As `counted` does, without its steps: nearly all promises come here.
    hours = _hours(clock, levels)
    if hours is None:
        return ended - started - sum([end - start for start, end in clock.pauses])
    ran = hours.between_us(started, ended)
    for start, end in clock.pauses:
        ran -= hours.between_us(start, end)
    return ran
