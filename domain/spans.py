"""Instants as microseconds since 1970, and spans between them: put together, and cut out of one another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

Span = tuple[int, int]
"""From an instant until just before another, in microseconds since 1970."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    """Give an aware instant as microseconds since 1970."""
    gone = at - EPOCH
    return (gone.days * 86_400 + gone.seconds) * 1_000_000 + gone.microseconds


FOREVER_US: Final = 10**24
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
EARLIEST_US, LATEST_US = microseconds(EARLIEST), microseconds(LATEST)


def instant(at_us: int) -> datetime:
    """Give microseconds since 1970 as an instant in UTC; the first or last there is, where it lies outside."""
    if EARLIEST_US <= at_us <= LATEST_US:
        return EPOCH + timedelta(0, 0, at_us)
    return EPOCH + timedelta(microseconds=min(max(at_us, EARLIEST_US), LATEST_US))


def merged(spans: Iterable[Span]) -> list[Span]:
    """Put in order spans that may touch or overlap, as few as can say the same; empty ones are left out."""
    kept: list[Span] = []
    for begin, end in sorted(spans):
        if end <= begin:
            continue
        if kept and begin <= kept[-1][1]:
            if end > kept[-1][1]:
                kept[-1] = (kept[-1][0], end)
        else:
            kept.append((begin, end))
    return kept


def without(spans: list[Span], cut: list[Span]) -> list[Span]:
    """Cut spans out of others; both as `merged` gives them."""
    if not cut:
        return spans
    left: list[Span] = []
    at = 0
    for begin, end in spans:
        while at < len(cut) and cut[at][1] <= begin:
            at += 1
        following = at
        while following < len(cut) and cut[following][0] < end:
            if cut[following][0] > begin:
                left.append((begin, cut[following][0]))
            begin = max(begin, cut[following][1])  # noqa: PLW2901 # what is left of the span begins here
            following += 1
        if begin < end:
            left.append((begin, end))
    return left
