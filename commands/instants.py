"""Instants that callers may name: with their zone, and in years that calendars are worked out for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime

FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
END: Final = datetime(2200, 1, 1, tzinfo=UTC)


def _within(at: datetime) -> datetime:
    if not FIRST <= at < END:
        message = "lies outside the years 1900 to 2199"
        raise ValueError(message)
    return at


Instant = Annotated[AwareDatetime, AfterValidator(_within)]
