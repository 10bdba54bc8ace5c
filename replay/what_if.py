"""Asks what would have become of tickets under other policies or calendars. Nothing is changed by asking."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import UUID

from domain.customer_events import Tier
from domain.service_levels import SERVICE_LEVELS_ID, ServiceLevelsEvent
from domain.spans import microseconds
from domain.what_if import books_of, sides
from projections import directory
from projections.page import uncollected
from projections.view import ViewError
from replay.rebuild_workers import RebuildStopped, processors, side_by_side
from replay.what_if_comparing import Comparison
from replay.what_if_explaining import flip_of
from replay.what_if_report import AXIS_SAYS, Flips, Report
from replay.what_if_scan import Which, snapshot_of, stretches
from replay.what_if_tally import Tally
from storage.codec import decode as event_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from domain.what_if import Adopted
    from replay.what_if_asked import Asked
    from storage.database import Workspace


class WhatIfStopped(ViewError):
    """A process that took part was ended from outside; nothing has come of it, and nothing has changed."""


async def what_if(
    workspace: Workspace,
    asked: Asked,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    now: datetime,
    workers: int | None = None,
) -> Report:
    """Compare how promises ended with how they would have ended; `progress` is told tickets done and in all.

    The tickets are those that the queue has, in one snapshot. Raises NothingToCompare, UnknownCalendar, ViewsNotReady,
    WhatIfStopped.
    """
    began = time.perf_counter()
    as_of = asked.as_of_or(now)
    which = Which(asked.opened_from, asked.opened_to, asked.team_ids)
    tiers = await directory.higher_tiers(workspace)
    number = processors() if workers is None else workers
    said: list[int | Tally] = [0] * number

    async with snapshot_of(workspace, which) as snapshot:
        # Not before: a ticket may name what was adopted last.
        then, given = sides(asked.axis, await known_books(workspace), asked.given)

        def comparison() -> Comparison:
            usual = None if tiers is None else Tier.STANDARD.value
            return Comparison(then, given, microseconds(as_of), tiers or {}, usual, asked.flips)

        def tell(now: list[int | Tally]) -> None:
            said[:] = now
            progress(sum(one.tickets if isinstance(one, Tally) else one for one in now), snapshot.tickets)

        async def lane(place: int, say: Callable[[int | Tally], None]) -> None:
            mine = comparison()
            async for rows in stretches(workspace, which, snapshot, place, number):
                mine.take(rows)
                say(mine.tally.tickets)
            mine.tally.settle()
            say(mine.tally)

        try:
            with uncollected():
                await side_by_side(lane, list(said), tell, doing="compared tickets")
        except RebuildStopped as error:
            message = f"{str(error).partition(';')[0]}; ask again"
            raise WhatIfStopped(message) from error
    tally = Tally(asked.flips)
    for one in said:
        if isinstance(one, Tally):
            tally.merge(one)
    worse, better = tally.flipped()
    shown = tuple(
        flip_of(comparison(), direction, kept) for direction in ("worse", "better") for kept in tally.latest(direction)
    )
    by = tally.by()
    teams = {UUID(line.group) for line in by["team"] if line.group is not None} | set(asked.team_ids or ())
    return Report(
        axis=asked.axis,
        axis_says=AXIS_SAYS[asked.axis],
        given=asked.named(),
        as_of=as_of,
        position=snapshot.position,
        opened_from=asked.opened_from,
        opened_to=asked.opened_to,
        teams=asked.team_ids,
        tickets=tally.tickets,
        tickets_changed=tally.changed,
        promises=tally.promises(),
        by=by,
        flips=Flips(worse=worse, better=better, shown=shown),
        names=await directory.names(workspace, teams),
        seconds=time.perf_counter() - began,
    )


async def known_books(workspace: Workspace) -> list[Adopted]:
    """Give every book that the desk has had, by when it was adopted."""
    rows = await workspace.log.stream(SERVICE_LEVELS_ID)
    events = [event_of(row).event for row in rows]
    return books_of(event for event in events if isinstance(event, ServiceLevelsEvent))
