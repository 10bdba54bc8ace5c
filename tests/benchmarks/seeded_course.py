"""When what happens on a made-up desk: thousands of tickets alive at once, each at its own pace, in weeks of work."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

STARTED_AT: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""A Monday, so long ago that what a year holds is over: whoever goes on with the log records later than its end."""
LONGEST: Final = timedelta(days=364)
SLOWEST: Final = timedelta(seconds=7)
"""Between two events on average; where so many events would take more than the longest, as much less as is needed."""

TICKETS_AT_ONCE: Final = 4_000
ROUNDS_AT_LEAST: Final = 30
FILLING_UP: Final = 8  # rounds until as many tickets are alive as there are to be
PACES: Final = ((20, 6), (4, 2), (1, 1))
"""Of the desk's places one in 20 has six events a round, of the others one in 4 has two, and each of the rest one."""

SECOND: Final = 1_000_000  # microseconds
WEEK: Final = 7 * 24 * 3600 * SECOND
CELLS: Final = 1_344
CELL: Final = WEEK // CELLS
TURN_BITS: Final = 20
TURN: Final = 1 << TURN_BITS
"""A round in the parts in which its order is told."""
PLACE_BITS: Final = 16
PLACES: Final = (1 << PLACE_BITS) - 1
_MASK: Final = 0xFFFFFFFF


def _hour_share(hour: int) -> float:
    """Say how much happens in an hour of the week, which begins on Monday: most of it on working days."""
    day, of_day = divmod(hour, 24)
    if 8 <= of_day < 18:
        share = 10.0
    elif 6 <= of_day < 22:
        share = 3.0
    else:
        share = 0.6
    return share if day < 5 else share * 0.25


def _week() -> tuple[list[int], list[int]]:
    """Give where in the week each cell of equally much work begins, and how long it takes, in microseconds."""
    ends = list(accumulate(_hour_share(hour) for hour in range(168)))
    begins = [0.0, *ends[:-1]]
    starts = []
    for cell in range(CELLS):
        work = ends[-1] * cell / CELLS
        hour = bisect_right(ends, work)
        starts.append(int((hour + (work - begins[hour]) / (ends[hour] - begins[hour])) * 3600 * SECOND))
    return starts, [later - start for start, later in zip(starts, [*starts[1:], WEEK], strict=True)]


CELL_STARTS, CELL_LENGTHS = _week()


class Course:
    """The course of so many events of tickets. The desk has places, in each of which one ticket follows another.

    A round takes every place on by as many events as its pace; within it, all are ordered by chance. So which event of
    which place is where follows from its number alone, and any process can begin with any round.
    """

    def __init__(self, events: int, seed: int) -> None:
        self.events = events
        self._noise = (seed * 0x9E3779B97F4A7C15 + 0x7F4A7C15) & _MASK
        each = sum(pace for _, pace in PACES) / len(PACES)
        places = max(1, min(TICKETS_AT_ONCE, int(events / ROUNDS_AT_LEAST / each)))
        self.paces = [next(pace for one_in, pace in PACES if place % one_in == 0) for place in range(places)]
        self.begins = [place * FILLING_UP // places for place in range(places)]
        self._sizes = [
            sum(pace for pace, begins in zip(self.paces, self.begins, strict=True) if begins <= number)
            for number in range(FILLING_UP)
        ]
        self._before = [0, *accumulate(self._sizes)]
        size = self._sizes[-1]
        beyond = events - self._before[-1]
        if beyond > 0:
            self.rounds = FILLING_UP + -(-beyond // size)
        else:
            self.rounds = next(number for number, before in enumerate(self._before) if before >= events)
        between = min(SLOWEST / timedelta(microseconds=1), LONGEST / timedelta(microseconds=1) / max(1, events))
        self._round = int(between * size)
        self._start = int(STARTED_AT.timestamp()) * SECOND

    def before(self, number: int) -> int:
        """Count the events before a round."""
        if number < FILLING_UP:
            return self._before[number]
        return self._before[-1] + (number - FILLING_UP) * self._sizes[-1]

    def turn(self, place: int, event: int) -> int:
        """Say when in the course an event of a place is its turn: its round, and how far into it."""
        pace = self.paces[place]
        number, part = divmod(event, pace)
        noise = (place * 0x9E3779B1 + event * 0x85EBCA77 + self._noise) & _MASK
        noise = ((noise ^ noise >> 15) * 0x2C1B3C6D) & _MASK
        within = ((part << TURN_BITS) + (noise >> (32 - TURN_BITS))) // pace
        return (self.begins[place] + number << TURN_BITS) + within

    def order(self, number: int) -> list[int]:
        """Give a round's events in order: each as its turn, with its place in the lowest bits (PLACES).

        Those of one place follow one another.
        """
        turns: list[int] = []
        turn = self.turn
        for place, (pace, begins) in enumerate(zip(self.paces, self.begins, strict=True)):
            first = (number - begins) * pace
            if first >= 0:
                turns += [turn(place, event) << PLACE_BITS | place for event in range(first, first + pace)]
        turns.sort()
        del turns[max(0, self.events - self.before(number)) :]
        return turns

    def instant(self, turn: int) -> int:
        """Give the time of a turn, in microseconds since 1970; never a whole second."""
        week, rest = divmod(turn * self._round >> TURN_BITS, WEEK)
        cell, within = divmod(rest, CELL)
        return (self._start + week * WEEK + CELL_STARTS[cell] + within * CELL_LENGTHS[cell] // CELL) | 1
