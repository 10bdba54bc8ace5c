"""Calendars and policies over HTTP: adopted, refused in clear words, read back, and asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from domain.event import Role
from storage import credentials

if TYPE_CHECKING:
    from tests.api.conftest import DeskOverHttp

ADMINISTRATOR = Role.ADMINISTRATOR
OFFICE: dict[str, Any] = {
    "name": "office",
    "time_zone": "Europe/Berlin",
    "hours": {day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")},
    "closed_days": {"2026-12-25": "Christmas"},
}
TARGET: dict[str, Any] = {"metric": "first_reply", "amount": 3600}
POLICY: dict[str, Any] = {"name": "all", "calendar": "office", "targets": [TARGET]}


async def adopted(desk: DeskOverHttp, what: str, body: dict[str, Any]) -> dict[str, Any]:
    return await desk.done(f"/service-levels/adopt-{what}", body, role=ADMINISTRATOR)


async def test_a_calendar_and_a_policy_are_adopted_and_read_back(desk: DeskOverHttp) -> None:
    nothing = (await desk.get("/service-levels")).json()
    assert (nothing["version"], nothing["calendars"], nothing["policies"]) == (0, [], [])
    assert nothing["standard"]["targets"], "what holds where nothing was adopted"
    first = await adopted(desk, "calendar", OFFICE)
    assert (first["version"], first["changed"]) == (1, True)
    assert not (await adopted(desk, "calendar", OFFICE))["changed"]
    await adopted(desk, "calendar", OFFICE | {"valid_from": "2026-07-01", "open_tickets": "keep", "reason": "summer"})
    await adopted(desk, "policy", POLICY | {"order": 20})
    await adopted(desk, "policy", POLICY | {"name": "vip", "order": 10, "match": {"tiers": ["vip"]}})
    answer = await desk.get("/service-levels")
    told = answer.json()
    assert answer.headers["etag"] == '"4"'
    assert told["standard"] is None
    assert [(one["name"], one["version"]) for one in told["calendars"]] == [("office", 2)]
    assert [one["name"] for one in told["policies"]] == ["vip", "all"]
    calendar = (await desk.get("/service-levels/calendars/office?version=1")).json()
    assert (calendar["version"], calendar["latest"], calendar["terms"]["valid_from"]) == (1, 2, None)
    assert [one["open_tickets"] for one in calendar["versions"]] == ["move", "keep"]
    assert calendar["versions"][0]["actor_id"] == str(desk.actors[ADMINISTRATOR])
    policy = (await desk.get("/service-levels/policies/vip")).json()
    assert (policy["retired"], policy["terms"]["match"]["tiers"]) == (False, ["vip"])
    await desk.done("/service-levels/retire-policy", {"name": "vip"}, role=ADMINISTRATOR)
    assert (await desk.get("/service-levels/policies/vip")).json()["retired"]
    assert [one["retired"] for one in (await desk.get("/service-levels")).json()["policies"]] == [False, True]


async def test_holidays_of_a_country_are_looked_up_when_a_calendar_is_adopted(desk: DeskOverHttp) -> None:
    china = OFFICE | {"time_zone": "Asia/Shanghai", "holidays": {"country": "CN", "years": [2024]}}
    await adopted(desk, "calendar", china)
    terms = (await desk.get("/service-levels/calendars/office")).json()["terms"]
    assert "2024-10-01" in terms["holidays"]["closed"]
    assert "2024-09-29" in terms["holidays"]["working"], "a Sunday worked for the National Day"
    assert terms["holidays"]["source"].startswith("holidays ")
    sunday = (await desk.get("/service-levels/calendars/office/hours?at=2024-09-29T10:00:00%2B08:00")).json()
    assert sunday["open"] is True


async def test_what_is_opened_goes_by_what_was_adopted(desk: DeskOverHttp) -> None:
    await adopted(desk, "calendar", OFFICE)
    await adopted(desk, "policy", POLICY)
    ticket = await desk.open()
    history = (await desk.get(f"/tickets/{ticket['id']}/history")).json()
    (opened,) = [change for change in history["entries"][0]["changes"] if change["field"] == "terms"]
    assert opened["new"] == {"policy": "all", "policy_version": 1, "calendar": "office", "calendar_version": 1}


async def test_a_command_on_service_levels_depends_on_their_version(desk: DeskOverHttp) -> None:
    stale = await desk.post("/service-levels/adopt-calendar", OFFICE, role=ADMINISTRATOR, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["current_version"]) == (412, 0)
    await desk.done("/service-levels/adopt-calendar", OFFICE, role=ADMINISTRATOR, headers={"If-Match": '"0"'})
    key = {"Idempotency-Key": "policy"}
    first = await desk.done("/service-levels/adopt-policy", POLICY, role=ADMINISTRATOR, headers=key)
    again = await desk.done("/service-levels/adopt-policy", POLICY, role=ADMINISTRATOR, headers=key)
    assert (first["version"], again["version"], again["replayed"]) == (2, 2, True)


@pytest.mark.parametrize(
    ("what", "body", "pointer", "words"),
    [
        ("policy", POLICY, None, "No calendar 'office' has been adopted"),
        ("policy", POLICY | {"targets": [TARGET | {"amount": 0}]}, "#/targets/0/amount", "greater than 0"),
        ("policy", POLICY | {"targets": [TARGET | {"amount": -5}]}, "#/targets/0/amount", "greater than 0"),
        ("policy", POLICY | {"targets": [TARGET | {"amount": 1.5}]}, "#/targets/0/amount", "integer"),
        ("policy", POLICY | {"targets": [TARGET | {"metric": "joy"}]}, "#/targets/0/metric", "first_reply"),
        ("policy", POLICY | {"match": {"tiers": []}}, None, "match.tiers: an empty list holds for no ticket"),
        ("policy", POLICY | {"match": {"tags": ["a\x00"]}}, "#/match/tags/0", "not text"),
        ("policy", {"targets": [TARGET]}, "#/name", "required"),
        ("calendar", OFFICE | {"hours": {"mon": [["25:00", "26:00"]]}}, "#/hours/mon/0/0", "no time of a day"),
        (
            "calendar",
            OFFICE | {"time_zone": "Europe/Berln"},
            None,
            "time_zone: 'Europe/Berln' is not a known time zone; did you",
        ),
        ("calendar", OFFICE | {"hours": {}}, None, "hours: there are none in any week"),
        ("calendar", OFFICE | {"hours": {"mon": [["09:00", "12:00"], ["11:00", "13:00"]]}}, None, "hours.mon: 09:00"),
        ("calendar", OFFICE | {"holidays": {"country": "XX", "years": [2026]}}, "#/holidays", "no holidays are known"),
        ("calendar", OFFICE | {"hours": {"monday": []}}, "#/hours/monday/[key]", "mon"),
        ("calendar", OFFICE | {"closed_days": {"2026-02-30": "x"}}, "#/closed_days/2026-02-30/[key]", "date"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_clear_words(
    desk: DeskOverHttp, what: str, body: dict[str, Any], pointer: str | None, words: str
) -> None:
    answer = await desk.post(f"/service-levels/adopt-{what}", body, role=ADMINISTRATOR)
    problem = answer.json()
    assert answer.status_code == 422, problem
    errors = problem.get("errors", ())
    if pointer is None:
        assert words in problem["detail"]
        assert problem["type"] in {
            f"/problems/{what}" for what in ("unknown-calendar", "unusable-calendar", "unusable-policy")
        }
    else:
        assert pointer in {error["pointer"] for error in errors}, errors
        assert any(words in error["detail"] for error in errors)
    assert await desk.head() == 3, "nothing was recorded"


async def test_a_calendar_is_asked_what_it_says_of_an_instant(desk: DeskOverHttp) -> None:
    await adopted(desk, "calendar", OFFICE)
    friday = "2026-05-08T15:30:00%2B02:00"
    asked = f"/service-levels/calendars/office/hours?at={friday}&add_seconds=7200&until=2026-05-11T10:00:00%2B02:00"
    told = (await desk.get(asked)).json()
    assert told["open"] is True
    assert told["next_opening"] == told["at"] == "2026-05-08T13:30:00Z"
    assert told["added"] == "2026-05-11T07:30:00Z"
    assert told["between_seconds"] == 1.5 * 3600 + 3600
    christmas = (await desk.get("/service-levels/calendars/office/hours?at=2026-12-25T10:00:00Z&add_days=1")).json()
    assert (christmas["open"], christmas["next_opening"]) == (False, "2026-12-28T08:00:00Z")
    for wrong in ("at=2026-05-08T15:30:00", "add_seconds=1&add_days=1", "add_days=0", "version=0"):
        assert (await desk.get(f"/service-levels/calendars/office/hours?{wrong}")).status_code == 422
    for at in (
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00%2B05:00",
        "2199-12-31T00:00:00Z&add_days=3660",
    ):
        assert (await desk.get(f"/service-levels/calendars/office/hours?at={at}")).status_code in {200, 422}


@pytest.mark.parametrize(
    "path", ["calendars/none", "calendars/none/hours", "policies/none", "calendars/office?version=2"]
)
async def test_what_was_never_adopted_is_not_found(desk: DeskOverHttp, path: str) -> None:
    await adopted(desk, "calendar", OFFICE)
    assert (await desk.get(f"/service-levels/{path}")).status_code == 404


async def test_the_audit_trail_tells_who_adopted_what(desk: DeskOverHttp) -> None:
    await adopted(desk, "calendar", OFFICE)
    await desk.catch_up()
    page = (await desk.get("/audit-trail?kind=service_levels", role=Role.AUDITOR)).json()
    told = {item["field"]: item["new"] for item in page["items"]}
    assert (told["name"], told["version"], told["terms"]["time_zone"]) == ("office", 1, "Europe/Berlin")


async def test_only_a_credential_with_the_scope_says_when_something_occurred(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    path = f"/tickets/{ticket['id']}/reply"
    occurred_at = datetime.now(UTC).isoformat()
    body = {"text": "I rang back.", "occurred_at": occurred_at}
    refused = await desk.post(path, body)
    assert (refused.status_code, refused.json()["type"], refused.json()["scope"]) == (
        403,
        "/problems/scope-missing",
        "backdate",
    )
    token = await credentials.issue(
        desk.database, desk.workspace, Role.AGENT, uuid4(), label="phone log", scopes=["backdate"]
    )
    clerk = {"Authorization": f"Bearer {token}"}
    await desk.done(path, body, headers=clerk)
    future = {"text": "Tomorrow.", "occurred_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    answer = await desk.post(path, future, headers=clerk)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/occurred-later")
    before = {"text": "Earlier.", "occurred_at": "2020-01-01T00:00:00Z"}
    answer = await desk.post(path, before, headers=clerk)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/occurred-before-opening")
    for beyond in ("0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"):
        answer = await desk.post(path, {"text": "Some time.", "occurred_at": beyond}, headers=clerk)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/occurred_at")
        assert "1900 to 2199" in answer.json()["errors"][0]["detail"]
    await desk.catch_up()
    listed = (await desk.get(f"/audit-trail?ticket={ticket['id']}", role=Role.AUDITOR)).json()["items"]
    (reply,) = {(item["occurred_at"], item["recorded_at"]) for item in listed if item["topic"] == "ticket.replied"}
    assert datetime.fromisoformat(reply[0]) == datetime.fromisoformat(occurred_at) < datetime.fromisoformat(reply[1])
    entry = (await desk.get(f"/tickets/{ticket['id']}/history")).json()["entries"][1]
    assert datetime.fromisoformat(entry["occurred_at"]) < datetime.fromisoformat(entry["recorded_at"])
