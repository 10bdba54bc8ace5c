"""What other desks' own tests expect of business time holds here, or a ruling of ours says why not.

The files may be others of the same format: SLA_PEER_CASES and BUSINESS_TIME_VECTORS name them.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from pydantic import ValidationError

from domain.sla_policy import Target
from domain.sla_terms import Metric
from domain.spans import instant
from tests.domain import peer_tally
from tests.domain.peer_answers import NUMERIC, VECTORS, Deadline, Elapsed, read_case, read_vector
from tests.domain.peer_files import MINUTE, SECOND, Case, amount_us, instant_us, path_of, read
from tests.domain.peer_prose import local_time
from tests.domain.peer_rules import ruling_for
from tests.domain.sla_scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Read = TypeVar("Read")

pytestmark = pytest.mark.pure

PEERS, VECTOR_FILE = read("SLA_PEER_CASES"), read("BUSINESS_TIME_VECTORS")
CASES: list[Any] = [*PEERS.get("cases", ())]
VECTOR_CASES: list[Any] = [*VECTOR_FILE.get("vectors", ())]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sla.md"
MET, MISSED = frozenset({"met", "hit", "ok", "fulfilled"}), frozenset({"breached", "missed", "violated", "overdue"})


def ids(cases: Iterable[Any]) -> list[str]:
    return [f"{case.get('kind')}:{case.get('id')}" if isinstance(case, dict) else "malformed" for case in cases]


@pytest.mark.parametrize("variable", ["SLA_PEER_CASES", "BUSINESS_TIME_VECTORS"])
def test_the_files_are_there(variable: str) -> None:
    path = path_of(variable)
    if not path.exists() and variable not in os.environ:
        pytest.skip(f"{path} is not here; {variable} or LEDGERDESK_SHARED_DATA says where it lies")
    assert path.exists()


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_a_peers_case_agrees_or_a_ruling_says_why_not(case: Any) -> None:
    if kind_of(case) in NUMERIC - VECTORS:
        judge("SLA_PEER_CASES", case, readable(case, lambda: read_case(case, PEERS.get("calendars", {}))))
    else:
        act_out(case)


@pytest.mark.parametrize("vector", VECTOR_CASES, ids=ids(VECTOR_CASES))
def test_a_vector_agrees_or_a_ruling_says_why_not(vector: Any) -> None:
    if kind_of(vector) in VECTORS:
        judge("BUSINESS_TIME_VECTORS", vector, readable(vector, lambda: read_vector(vector, VECTOR_FILE)))
    else:
        peer_tally.unmapped("BUSINESS_TIME_VECTORS", vector)


def kind_of(case: Any) -> str:
    """Give the kind of a case; fails where it has none, and so is no case."""
    if not isinstance(case, dict) or not isinstance(case.get("kind"), str):
        pytest.fail(f"no case, since it has no kind: {str(case)[:200]}", pytrace=False)
    kind: str = case["kind"]
    return kind


def readable(case: Case, read_it: Callable[[], Read]) -> Read:
    """Read something of a case; fails in words where it lacks that, or has it in no form that is known."""
    try:
        return read_it()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
        pytest.fail(f"{case.get('id')} cannot be read: {problem!r}", pytrace=False)


def judge(variable: str, case: Case, read_as: Deadline | Elapsed) -> None:
    """Compare our answer with a peer's; where they differ, a ruling has to be about these inputs."""
    ours, theirs = read_as.answer(), readable(case, lambda: expected(case, read_as))
    ruling = None
    if ours != theirs and not (theirs is None and is_refused(read_as)):
        ruling = ruling_for(read_as, theirs)
        assert ruling is not None, f"{told(ours, read_as)} here, {told(theirs, read_as)} there"
    ruling = ruling or readable(case, lambda: judge_outcome(case, read_as))
    assert ruling is None or ruling in rulings(), f"docs/sla.md says nothing of {ruling}"
    peer_tally.judged(variable, case, ruling)


def rulings() -> set[str]:
    """Give the names of the rulings that the documentation lists."""
    return set(re.findall(r"^\| <a id=\"([a-z-]+)\"></a>", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def is_refused(case: Deadline | Elapsed) -> bool:
    """Say whether no policy could promise this: no target is nothing or less."""
    if not isinstance(case, Deadline) or ((case.span or case.days) and not case.backwards):
        return False
    with pytest.raises(ValidationError):
        Target(metric=Metric.FIRST_REPLY, amount=-((case.span or case.days) or 0))
    return True


def judge_outcome(case: Case, read_as: Deadline | Elapsed) -> str | None:
    """Compare whether the target was met, and by what margin, where a case says so."""
    ended = instant_us(case["end"], case.get("timezone")) if case.get("end") else None
    if isinstance(read_as, Deadline):
        due = read_as.answer()
        left = None if due is None or ended is None else due - ended
    else:
        used = read_as.answer()
        left = None if used is None or read_as.target is None else read_as.target - used
    if left is None:
        return None
    margin = case.get("expected_margin_minutes")
    if margin is not None and isinstance(read_as, Elapsed):
        assert is_minutes(left, margin), f"{left / MINUTE} minutes were left, {margin} there"
    word = str(case.get("expected_outcome", "")).lower()
    if word in MET | MISSED and (word in MET) != (left >= 0):
        assert left == 0, f"{left / MINUTE} minutes were left"
        return "breached-only-after"
    return None


def is_minutes(ours: int, told: float | str) -> bool:
    """Say whether microseconds are so many minutes, which may be rounded where decimals below seconds are told."""
    minutes = Decimal(str(told))
    decimals = max(-int(minutes.as_tuple().exponent), 0)
    return Decimal(ours) / MINUTE == minutes or (decimals >= 2 and round(Decimal(ours) / MINUTE, decimals) == minutes)


def expected(case: Case, read_as: Deadline | Elapsed) -> int | None:
    """Read what the peer says, in microseconds."""
    if isinstance(read_as, Deadline):
        said = case["expect"] if case["kind"] in VECTORS else case["expected_due"]
        try:
            return instant_us(said, case.get("timezone"))
        except (TypeError, ValueError):
            # Nothing, or a word for an error.
            return None
    for name in ("expected_seconds_exact", "expect_seconds"):
        if case.get(name) is not None:
            return int(Decimal(str(case[name])) * SECOND)
    ours, minutes = read_as.answer(), case.get("expected_minutes")
    if ours is not None and minutes is not None and is_minutes(ours, minutes):
        return ours
    return amount_us(case, "expected")


def test_what_differs_is_listed_in_the_documentation() -> None:
    if "SLA_PEER_CASES" in os.environ:
        pytest.skip("the documentation is about the cases that are given")
    page = PAGE.read_text(encoding="utf-8")
    differing = {
        case["id"]
        for case in CASES
        if case["kind"] in NUMERIC
        and (read_as := read_case(case, PEERS["calendars"])).answer() != expected(case, read_as)
    }
    assert all(f"`{one}`" in page for one in differing)


def told(answer: int | None, read_as: Deadline | Elapsed) -> str:
    if answer is None:
        return "nothing"
    return instant(answer).isoformat() if isinstance(read_as, Deadline) else f"{answer / SECOND} s"


def act_out(case: Case) -> None:
    """Act out a rule that is told in words: by the scenario of its id, or by the time that it is about."""
    scenario = SCENARIOS.get(str(case.get("id")))
    if scenario is not None:
        ruling = scenario()
        assert ruling is None or ruling in rulings(), f"docs/sla.md says nothing of {ruling}"
        peer_tally.judged("SLA_PEER_CASES", case, ruling)
    elif case["kind"] == "local_time_rule" and (times := local_time(case)) is not None:
        ours, theirs = times
        assert ours == theirs
        peer_tally.judged("SLA_PEER_CASES", case, None)
    else:
        peer_tally.unmapped("SLA_PEER_CASES", case)
