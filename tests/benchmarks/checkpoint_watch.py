"""Somebody who keeps looking how far a view has come, and so knows when each acknowledged change became visible."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Self

import psycopg

from tests.benchmarks.ground import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from projections.view import View
    from tests.benchmarks.sides import Acknowledged

LOOK_SECONDS = 0.002  # between two looks: what it adds to a delay at most, at a few per cent of one core


class CheckpointWatch:
    """Looks from a thread over a connection of its own; not through the service, whose answers it would delay."""

    def __init__(self, address: str, schema: str, view: View) -> None:
        self._address = address
        self._statement = f'SELECT position FROM "{schema}".views WHERE name = %s AND version = %s'.encode()
        self._view = view
        self._seen_at: list[float] = []
        self._seen: list[int] = []
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._look, name="checkpoint watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def behind(self, acknowledged: Iterable[Acknowledged]) -> list[float]:
        """Give for each event the seconds from its acknowledgement until it was seen in the view; 0 where before.

        To be asked after the view has caught up and the watch has ended. Raises MeasurementError.
        """
        found = []
        for one in acknowledged:
            place = bisect_left(self._seen, one.position)
            if place == len(self._seen):
                message = f"position {one.position} was never seen in {self._view.name}: {self._failure}"
                raise MeasurementError(message)
            found.append(max(0.0, self._seen_at[place] - one.at))
        return found

    def _look(self) -> None:
        try:
            with psycopg.connect(self._address, autocommit=True) as connection:
                last = -1
                while last < 0 or not self._stop.is_set():
                    values = (self._view.name, self._view.version)
                    row = connection.execute(self._statement, values, prepare=True).fetchone()
                    now = time.monotonic()
                    if row is not None and row[0] > last:
                        last = row[0]
                        self._seen.append(last)
                        self._seen_at.append(now)
                    self._stop.wait(LOOK_SECONDS)
        except psycopg.Error as error:
            self._failure = error
