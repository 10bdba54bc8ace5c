"""Delays as a reader wants them told: the middle, the slow ones and the worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SHARES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def milliseconds(seconds: Iterable[float]) -> dict[str, float]:
    """Give percentiles and the largest of delays, in milliseconds; nothing for none."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    last = len(ordered) - 1
    told = {name: round(ordered[min(last, int(len(ordered) * share))] * 1000, 2) for name, share in SHARES}
    return {**told, "max": round(ordered[last] * 1000, 2)}
