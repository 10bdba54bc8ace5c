"""The log as a recorder, held against the `eventsourcing` package's own suites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.tests.persistence import (
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)

from storage.append import EventTooLarge
from storage.database import ROLE_NAMES
from storage.recorder import LogRecorder, datastore
from storage.settings import external_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from storage.settings import Settings


@pytest.fixture(autouse=True)
def _log_of_its_own(request: pytest.FixtureRequest, settings: Settings) -> Iterator[None]:
    """Give each test case an empty log, in the application's role."""
    assert settings.database_url is not None
    store = datastore(external_conninfo(settings.database_url, ROLE_NAMES["application"]), "ws_alpha", max_overflow=12)
    recorder = LogRecorder(store)
    recorder.create_table()
    if request.instance is not None:
        request.instance.recorder = recorder
    yield
    store.close()


class _OnTheLog:
    recorder: LogRecorder

    def create_recorder(self) -> LogRecorder:
        return self.recorder


class TestApplicationRecorder(_OnTheLog, ApplicationRecorderTestCase[Any]):
    def test_insert_subscribe(self) -> None:
        super().optional_test_insert_subscribe()


class TestProcessRecorder(_OnTheLog, ProcessRecorderTestCase):
    pass


class TestTrackingRecorder(_OnTheLog, TrackingRecorderTestCase):
    pass


class TestPositionsDoNotInterleave(_OnTheLog, NonInterleavingNotificationIDsBaseCase):
    insert_num = 1000


class TestContiguity(_OnTheLog):
    """The function checks what the package leaves to a uniqueness constraint: that no version is left out."""

    def test_a_gap_in_a_stream_is_refused_and_nothing_is_written(self) -> None:
        stream = uuid4()
        self.recorder.insert_events([_event(stream, 1)])
        for versions in ([3], [2, 4], [2, 3, 5]):
            with pytest.raises(IntegrityError):
                self.recorder.insert_events([_event(stream, version) for version in versions])
        assert self.recorder.max_notification_id() == 1
        assert self.recorder.insert_events([_event(stream, 2), _event(stream, 3)]) == [2, 3]


def _event(stream: UUID | str, version: int) -> StoredEvent:
    return StoredEvent(stream, version, "topic", b"{}")


del ApplicationRecorderTestCase, NonInterleavingNotificationIDsBaseCase, ProcessRecorderTestCase
del TrackingRecorderTestCase


def test_an_event_larger_than_the_recorder_takes_is_refused_with_all_that_came_with_it(settings: Settings) -> None:
    store = datastore(external_conninfo(settings.database_url or "", ROLE_NAMES["application"]), "ws_alpha")
    recorder = LogRecorder(store, largest_event=10)
    small = StoredEvent(uuid4(), 0, "t", b"x" * 10)
    with pytest.raises(EventTooLarge, match="has 11 bytes; the log takes 10"):
        recorder.insert_events([small, StoredEvent(uuid4(), 0, "t", b"x" * 11)])
    assert recorder.max_notification_id() is None
    assert recorder.insert_events([small]) == [1]
    store.close()


def test_the_recorder_tells_the_log_its_release_once(settings: Settings) -> None:
    store = datastore(external_conninfo(settings.database_url or "", ROLE_NAMES["application"]), "ws_alpha")
    recorder = LogRecorder(store, release="7.0")
    for _ in range(3):
        recorder.insert_events([StoredEvent(uuid4(), 0, "t", b"x")])
    with store.transaction(commit=False) as cursor:
        cursor.execute("SELECT release, first_position FROM ws_alpha.releases")
        assert [tuple(row.values()) for row in cursor.fetchall()] == [("7.0", 1)]
    store.close()
