"""Files of peers' cases are read with whatever fields they have, and a wrong answer is not excused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from domain.spans import instant
from tests.domain.peer_answers import read_case, read_vector
from tests.domain.peer_files import instant_us
from tests.domain.peer_prose import local_time
from tests.domain.peer_rules import ruling_for

if TYPE_CHECKING:
    from pathlib import Path

WEEK = {day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")}
CALENDARS = {
    "office": {"hours": WEEK, "holidays": []},
    "nights": {"hours": {day: [["22:00", "06:00"]] for day in WEEK}, "holidays": ["2026-01-06"]},
    "closed": {"hours": {}, "holidays": []},
}
# 5 January 2026 is a Monday.
MONDAY = {"kind": "deadline", "calendar": "office", "timezone": "UTC", "start": "2026-01-05T10:00:00Z", "pauses": []}


def deadline(**said: Any) -> str | None:
    answer = read_case({**MONDAY, **said}, CALENDARS).answer()
    return None if answer is None else f"{instant(answer):%dT%H:%M:%S}"


@pytest.mark.parametrize(
    ("said", "due"),
    [
        ({"target_minutes": 60}, "05T11:00:00"),
        ({"target_minutes": 0.25, "target_hours": 1, "target_seconds": 5}, "05T11:00:20"),
        ({"target_minutes": 60, "calendar": None}, "05T11:00:00"),
        ({"target_minutes": 600, "calendar": None, "unknown": "field"}, "05T20:00:00"),
        ({"target_minutes": 60, "calendar": {"hours": {"Monday": {"13:00": "15:00"}}}}, "05T14:00:00"),
        ({"target_minutes": 60, "calendar": {"hours": {"mon": ["13:00", "15:00"]}}}, "05T14:00:00"),
        ({"target_minutes": 60, "calendar": {"hours": {"mon": [{"from": "13:00", "to": "15:00"}]}}}, "05T14:00:00"),
        ({"target_minutes": 60, "start": "2026-01-05T10:00:00", "timezone": "Europe/Berlin"}, "05T10:00:00"),
        ({"target_minutes": 60, "holidays": ["2026-01-05"]}, "06T10:00:00"),
        ({"target_minutes": 60, "holidays": {"2026-01-05": "Plough Monday"}}, "06T10:00:00"),
        ({"target_minutes": 60, "holidays": [{"date": "2026-01-05"}]}, "06T10:00:00"),
        ({"target_minutes": 60, "holidays": [{"date": "2026-01-05", "active": False}]}, "05T11:00:00"),
        ({"target_minutes": 60, "shifts": {"2026-01-05": {"15:00": "15:30", "19:00": "20:00"}}}, "05T19:30:00"),
        (
            {"target_minutes": 60, "shifts": {"2026-01-05": [["15:00", "20:00"]]}, "holidays": ["2026-01-05"]},
            "06T10:00:00",
        ),
        ({"target_minutes": 60, "breaks": {"2026-01-05": {"10:30": "11:30"}}}, "05T12:00:00"),
        ({"target_minutes": 60, "breaks": [{"date": "2026-01-05", "from": "10:30", "to": "11:30"}]}, "05T12:00:00"),
        ({"target_minutes": 60, "pauses": [["2026-01-05T10:30:00Z", "2026-01-05T11:00:00Z"]]}, "05T11:30:00"),
        ({"target_minutes": 60, "pauses": [{"from": "2026-01-05T10:30:00Z", "to": None}]}, None),
        ({"target_minutes": 60, "pauses": [{"from": "2026-01-05T12:30:00Z", "to": None}]}, "05T11:00:00"),
        (
            {
                "target_minutes": 60,
                "pauses": [
                    {"from": "2026-01-05T10:40:00Z", "to": "2026-01-05T11:00:00Z"},
                    {"from": "2026-01-05T10:30:00Z", "to": "2026-01-05T10:50:00Z"},
                    {"from": "2026-01-05T08:00:00Z", "to": "2026-01-05T10:05:00Z"},
                    {"from": "2026-01-05T10:20:00Z", "to": "2026-01-05T10:10:00Z"},
                ],
            },
            "05T11:35:00",
        ),
        ({"target_minutes": 60, "end_of_working_day": True}, "05T17:00:00"),
        ({"target_minutes": 60, "direction": "before"}, "05T09:00:00"),
        ({"target_minutes": -60}, "05T09:00:00"),
        ({"target_minutes": 90, "direction": "before"}, "02T16:30:00"),
        (
            {
                "target_minutes": 90,
                "direction": "before",
                "pauses": [
                    ["2026-01-05T09:15:00Z", "2026-01-05T09:30:00Z"],
                    ["2026-01-02T16:45:00Z", "2026-01-05T00:00:00Z"],
                ],
            },
            "02T16:00:00",
        ),
        ({"kind": "deadline_business_days", "target_business_days": 2}, "07T10:00:00"),
        ({"kind": "deadline_business_days", "target_business_days": -2}, "01T10:00:00"),
        ({"kind": "deadline_business_days", "target_business_days": 2, "end_of_working_day": True}, "07T17:00:00"),
        ({"kind": "deadline_business_days", "target_business_days": 1, "target_minutes": 480}, "07T10:00:00"),
        (
            {
                "kind": "deadline_business_days",
                "target_business_days": 2,
                "end_of_working_day": True,
                "pauses": [["2026-01-05T18:00:00Z", "2026-01-06T08:00:00Z"]],
            },
            "07T17:00:00",
        ),
        ({"target_minutes": 60, "calendar": "closed"}, None),
    ],
)
def test_a_deadline_is_read_with_whatever_is_said_of_it(said: dict[str, Any], due: str | None) -> None:
    assert deadline(**said) == due


def test_time_passed_is_read_by_one_schedule_or_by_several() -> None:
    case = {"start": "2026-01-05T10:00:00Z", "end": "2026-01-06T10:00:00Z", "timezone": "UTC"}
    one = {**case, "kind": "elapsed_business_time", "calendar": "office", "pauses": [["2026-01-05T16:00:00Z", None]]}
    assert read_case(one, CALENDARS).answer() == 6 * 3600 * 10**6
    several = {
        **case,
        "kind": "elapsed_business_time_schedule_change",
        "pauses": [["2026-01-05T10:00:00Z", "2026-01-05T11:00:00Z"]],
        "schedules": [
            {"in_force": [None, "2026-01-05T12:00:00Z"], "calendar": "office"},
            {
                "in_force": ["2026-01-05T12:00:00Z", "2026-01-05T14:00:00Z"],
                "open": [["2026-01-04T23:30:00Z", "2026-01-05T13:00:00Z"]],
            },
            {"in_force": ["2026-01-05T15:00:00Z", None], "calendar": "office", "timezone": "Europe/Berlin"},
        ],
    }
    assert read_case(several, CALENDARS).answer() == (1 + 1 + 1 + 2) * 3600 * 10**6


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"amount": 2, "unit": "hour"}, "2026-01-05T12:00:00Z"),
        ({"amount": 2, "unit": "days", "direction": "before"}, "2026-01-01T10:00:00Z"),
        ({"amount": 0, "unit": "days", "at": "2026-01-05T17:00:00Z"}, "2026-01-06T09:00:00Z"),
        ({"amount": 0, "unit": "days", "direction": "before", "at": "2026-01-05T09:00:00Z"}, "2026-01-02T17:00:00Z"),
        (
            {"amount": 60, "unit": "minutes", "schedule": {"breaks": {"2026-01-05": {"10:30": "11:00"}}}},
            "2026-01-05T11:30:00Z",
        ),
        ({"amount": 60, "unit": "minutes", "schedule": "late"}, "2026-01-05T13:00:00Z"),
        ({"amount": 60, "unit": "minutes", "time_zone": "America/New_York"}, "2026-01-05T15:00:00Z"),
        ({"amount": 60, "unit": "minutes", "shifts": {"2026-01-05": {"15:00": "18:00"}}}, "2026-01-05T16:00:00Z"),
    ],
)
def test_a_vector_is_read_with_whatever_its_schedule_has(said: dict[str, Any], expected: str) -> None:
    document = {
        "default_schedule": {"hours": WEEK, "time_zone": "Etc/UTC"},
        "schedules": {"late": {"hours": {"mon": {"12:00": "24:00"}}}},
    }
    vector = {"kind": "add_business_time", "schedule": "default", "at": "2026-01-05T10:00:00Z", **said}
    assert read_vector(vector, document).answer() == instant_us(expected)


@pytest.mark.parametrize(
    ("said", "theirs", "ruling"),
    [
        ({"target_minutes": 420}, "2026-01-06T09:00:00Z", "closing-instant"),
        ({"target_minutes": 420}, "2026-01-06T09:00:01Z", None),
        ({"target_minutes": 60}, "2026-01-06T09:00:00Z", None),
        ({"target_seconds": 61}, "2026-01-05T10:02:00Z", "exact-seconds"),
        ({"target_minutes": 60}, "2026-01-05T11:01:00Z", None),
        ({"target_minutes": 60, "calendar": "closed"}, "2026-01-05T11:00:00Z", "never-open"),
        (
            {"target_minutes": 60, "pauses": [["2026-01-05T10:30:00Z", "2026-01-05T18:00:00Z"]]},
            "2026-01-05T18:30:00Z",
            "pauses-shift",
        ),
        (
            {"target_minutes": 60, "pauses": [["2026-01-05T11:00:00Z", "2026-01-05T12:00:00Z"]]},
            "2026-01-05T11:00:00Z",
            "pauses-shift",
        ),
        (
            {"target_minutes": 60, "pauses": [["2026-01-05T10:30:00Z", "2026-01-05T12:00:00Z"]]},
            "2026-01-05T11:00:00Z",
            None,
        ),
        (
            {
                "target_minutes": 60,
                "metric": "first_response",
                "pauses": [["2026-01-05T10:30:00Z", "2026-01-05T12:00:00Z"]],
            },
            "2026-01-05T11:00:00Z",
            "first-reply-pauses",
        ),
        (
            {"kind": "deadline_business_days", "target_business_days": 1, "start": "2026-01-03T12:00:00Z"},
            "2026-01-06T09:00:00Z",
            "days-keep-the-clock",
        ),
        ({"kind": "deadline_business_days", "target_business_days": 1}, "2026-01-06T09:00:00Z", None),
        (
            {"target_minutes": 300, "calendar": "nights", "start": "2026-01-05T20:00:00Z"},
            "2026-01-08T01:00:00Z",
            "nights",
        ),
        ({"target_minutes": 300, "calendar": "nights", "start": "2026-01-05T20:00:00Z"}, "2026-01-08T02:00:00Z", None),
    ],
)
def test_another_answer_is_excused_only_by_a_ruling_about_these_inputs(
    said: dict[str, Any], theirs: str, ruling: str | None
) -> None:
    case = read_case({**MONDAY, **said}, CALENDARS)
    assert case.answer() != instant_us(theirs)
    assert ruling_for(case, instant_us(theirs)) == ruling


def test_a_local_time_told_in_words_is_compared_where_all_of_it_is_named() -> None:
    told = {"given": "opening 02:30 on 2026-03-29 Europe/Berlin", "expected": "03:30 local = 2026-03-29T01:30:00Z"}
    ours, theirs = local_time(told) or (None, 0)
    assert ours == theirs
    ours, theirs = local_time({**told, "expected": "02:30 local"}) or (None, None)
    assert ours != theirs
    assert local_time({"given": "sometime in spring", "expected": "an hour later"}) is None


RIGHT = {**MONDAY, "id": "right", "target_minutes": 60, "expected_due": "2026-01-05T11:00:00Z"}
TOOK = {**MONDAY, "kind": "elapsed_business_time", "end": "2026-01-05T10:01:10.5Z"}


def run(tmp_path: Path, cases: list[Any], vectors: list[Any]) -> str:
    """Run the cases of other files in a process of its own, and give what it prints; some of them fail."""
    peers = tmp_path / "cases.json"
    peers.write_text(json.dumps({"calendars": CALENDARS, "cases": cases}), encoding="utf-8")
    others = tmp_path / "vectors.json"
    others.write_text(json.dumps({"default_schedule": {"hours": WEEK}, "vectors": vectors}), encoding="utf-8")
    environment = os.environ | {"SLA_PEER_CASES": str(peers), "BUSINESS_TIME_VECTORS": str(others)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/domain/test_sla_peers.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    return done.stdout


def test_other_files_are_run_and_tallied(tmp_path: Path) -> None:
    cases = [
        RIGHT,
        {**RIGHT, "id": "rolled", "target_minutes": 420, "expected_due": "2026-01-06T09:00:00Z"},
        {**RIGHT, "id": "wrong", "expected_due": "2026-01-05T11:00:01Z"},
        {"id": "told", "kind": "state_rule", "given": "a full moon", "expected": "a howl"},
    ]
    printed = run(tmp_path, cases, [])
    assert f"SLA_PEER_CASES ({tmp_path / 'cases.json'}): 1 agreed, 1 excepted, 1 unmapped" in printed
    assert "excepted by closing-instant: rolled" in printed
    assert "unmapped: told" in printed
    assert printed.count("FAILED") == 1
    assert "deadline:wrong" in printed


def test_a_case_that_cannot_be_read_is_reported_and_the_others_are_run(tmp_path: Path) -> None:
    broken = [
        "no case",
        None,
        {"id": "no kind"},
        {**RIGHT, "id": "a", "calendar": "unknown"},
        {**RIGHT, "id": "b", "timezone": "Mars/Base"},
        {**RIGHT, "id": "c", "start": None},
        {**RIGHT, "id": "d", "target_minutes": None},
        {**RIGHT, "id": "e", "calendar": {"hours": {"mon": [["25:00", "26:00"]]}}},
        {**RIGHT, "id": "f", "target_minutes": None, "target_business_days": 1.5},
    ]
    vectors = [
        {"id": "weeks", "kind": "add_business_time", "at": "2026-01-05T10:00:00Z", "amount": 1, "unit": "weeks"},
        {"id": "none", "kind": "next_opening", "at": "2026-01-05T10:00:00Z"},
        5,
    ]
    rounded = [
        {**TOOK, "id": "rounded", "expected_minutes": 1.18},
        {**TOOK, "id": "not rounded", "expected_minutes": 1.17},
    ]
    printed = run(tmp_path, [*broken, RIGHT, *rounded], vectors)
    assert f"SLA_PEER_CASES ({tmp_path / 'cases.json'}): 2 agreed, 0 excepted, 0 unmapped" in printed
    assert "unmapped: none" in printed
    assert printed.count("FAILED") == len(broken) + 3
    assert "no case, since it has no kind: None" in printed
    for reason in (
        "KeyError('unknown')",
        "Mars/Base",
        "'25:00' is no time of a day",
        "'weeks' is no unit",
        "1.5 is no",
    ):
        assert reason in printed
