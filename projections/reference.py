"""What views look up in a stream beside their events' own: read once, and again when there is more of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from storage.codec import UnreadableEvent, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg import AsyncConnection

    from projections.page import Page
    from projections.table import Row, Rows
    from projections.view import Reference, View
    from storage.codec import Recorded
    from storage.database import Workspace
    from storage.log_reader import LogReader


class Told(NamedTuple):
    """What a stream tells, all of it that the log has up to a position.

    An event that cannot be read ends it: `unreadable` says why whatever names something told there or later is not known.
    """

    value: Any
    events: tuple[Any, ...]
    upto: int
    unreadable: UnreadableEvent | None = None


class _Known:
    """What is known of a workspace's streams in an epoch of its log."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.told: dict[Reference, Told] = {}


_known: WeakKeyDictionary[Workspace, _Known] = WeakKeyDictionary()


async def read_on(
    log: LogReader, connection: AsyncConnection[Any], reference: Reference, known: Told | None = None
) -> Told:
    """Give what a stream tells by now, going on from what is known of it."""
    if known is not None and known.unreadable is not None:
        known = None  # it may have been mended
    events = [] if known is None else list(known.events)
    rows, upto = await log.stream_by_now(connection, reference.stream, after=len(events))
    if known is not None and not rows:
        return known._replace(upto=max(upto, known.upto))
    unreadable = None
    for row in rows:
        try:
            events.append(decode(row).event)
        except UnreadableEvent as error:
            unreadable = error
            break
    return Told(reference.read(events), tuple(events), upto, unreadable)


async def told(workspace: Workspace, reference: Reference, upto: int) -> Told:
    """Give what a stream tells, up to a position of the log at least."""
    kept = await _kept(workspace)
    known = kept.told.get(reference)
    if known is None or known.upto < upto:
        async with workspace.database.pool.connection() as connection:
            known = kept.told[reference] = await read_on(workspace.log, connection, reference, known)
    return known


async def tell(workspace: Workspace, views: Sequence[View], page: Page) -> None:
    """Let a page know what its views look up; what it brings of that, or what others took in meanwhile, is read."""
    wanted = {view.reference for view in views if view.reference is not None} - page.told.keys()
    if not wanted:
        return
    kept = await _kept(workspace)
    begins, upto = page.rows[0].position, page.ceiling.position
    for reference in wanted:
        known = kept.told.get(reference)
        if known is not None and begins <= known.upto + 1 <= upto and not page.has(reference.stream):
            kept.told[reference] = known._replace(upto=upto)
        page.told[reference] = await told(workspace, reference, upto)


async def _kept(workspace: Workspace) -> _Known:
    epoch = await workspace.log.epoch()
    kept = _known.get(workspace)
    if kept is None or kept.epoch != epoch:
        kept = _known[workspace] = _Known(epoch)
    return kept


def folded(
    view: View, rows: Rows, recorded: Iterable[Recorded], told: Told | None, *, unfinished: bool = False
) -> Rows:
    """Fold events with what the view looks up. Where that fails for want of what cannot be read, says so.

    Rows may be left `unfinished`, to be given to `finish` before they are written.

    Raises UnreadableEvent, and whatever the fold does.
    """
    fold = view.follow if unfinished and view.follow is not None else view.fold
    if view.reference is None:
        return fold(rows, recorded)
    if told is None:
        message = f"{view.label} was given nothing to look up"
        raise LookupError(message)
    try:
        return fold(rows, recorded, told.value)
    except UnreadableEvent:
        raise
    except Exception as error:
        if told.unreadable is not None:
            raise told.unreadable from error
        raise


def finish(view: View, rows: Iterable[Row], told: Told | None) -> None:
    """Work out what was left unfinished in rows, in place."""
    if view.follow is not None and view.finish is not None:
        looked_up = () if told is None else (told.value,)
        for row in rows:
            view.finish(row, *looked_up)
