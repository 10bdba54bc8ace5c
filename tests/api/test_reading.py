"""Reading over HTTP: tickets now and then, lists that stand still while they are read, and one's own writes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from domain.event import Role
from projections.registry import VIEWS
from projections.runner import Runner

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio


async def test_allowed_commands_are_those_that_state_and_role_allow(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    path = f"/tickets/{ticket['id']}"

    async def allowed(role: Role) -> set[str]:
        return set((await desk.get(path, role=role)).json()["allowed_commands"])

    assert {"assign", "reply", "add-note"} <= await allowed(Role.AGENT)
    assert "reopen" not in await allowed(Role.AGENT)
    assert await allowed(Role.AUDITOR) == set()
    assert await allowed(Role.CUSTOMER) == {"record-customer-message"}
    await desk.done(f"{path}/solve", {"resolution_code": "fixed"})
    assert "reopen" in await allowed(Role.AGENT)


async def test_messages_come_in_pages_in_the_order_they_were_written(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    path = f"/tickets/{ticket['id']}"
    texts = ["It smokes."]
    for number in range(7):
        name = ("reply", "add-note", "record-customer-message")[number % 3]
        await desk.done(f"{path}/{name}", {"text": f"message {number}"})
        texts.append(f"message {number}")
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = (await desk.get(f"{path}/messages", params={"messages_after": after, "messages_limit": 3})).json()
        assert len(page["items"]) <= 3
        found += page["items"]
        after = page["next_after"]
    assert [message["text"] for message in found] == texts
    assert found[1]["direction"] == "to_customer"
    assert found[1]["author"] == {"id": desk.ids["agent"], "name": "Ann Lee"}
    assert (await desk.get(path)).json()["messages"]["items"] == found


async def test_a_ticket_is_told_as_of_a_version_a_position_and_an_instant(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    path = f"/tickets/{ticket['id']}"
    first = (await desk.get(path)).json()
    entry = (await desk.get(f"{path}/history")).json()["entries"][0]
    await asyncio.sleep(0.01)
    await desk.done(f"{path}/change-subject", {"subject": "Fire is out"})
    for moment in (
        {"as_of_version": 1},
        {"as_of_position": ticket["position"]},
        {"as_of": entry["recorded_at"]},
    ):
        then = (await desk.get(path, params=moment)).json()
        assert (then["version"], then["subject"]) == (1, "Printer on fire")
        assert then["allowed_commands"] == []
        assert then["messages"] == first["messages"]
    assert (await desk.get(path)).json()["subject"] == "Fire is out"
    before = datetime.fromisoformat(entry["recorded_at"]) - timedelta(days=1)
    for moment in ({"as_of_version": 3}, {"as_of_position": ticket["position"] - 1}, {"as_of": before.isoformat()}):
        answer = await desk.get(path, params=moment)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/no-such-moment")
    both = await desk.get(path, params={"as_of_version": 1, "as_of_position": 1})
    assert both.status_code == 400


async def test_this_very_moment_is_provisional(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    now = datetime.now(UTC).isoformat()
    assert (await desk.get(f"/tickets/{ticket['id']}", params={"as_of": now})).json()["provisional"] is True
    await desk.open()
    assert (await desk.get(f"/tickets/{ticket['id']}", params={"as_of": now})).json()["provisional"] is False


async def test_a_history_tells_who_did_what_when_and_why(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    body = {"level": 2, "team_id": desk.ids["team"], "reason": "flames"}
    await desk.done(f"/tickets/{ticket['id']}/escalate", body, headers={"User-Agent": "screens/1.0"})
    answer = await desk.get(f"/tickets/{ticket['number']}/history")
    assert answer.headers["ETag"] == '"2"'
    told = answer.json()
    entry = told["entries"][1]
    assert (entry["event"], entry["reason"], entry["client"]) == ("escalated", "flames", "screens/1.0")
    assert (entry["actor"]["name"], entry["actor"]["role"], entry["channel"]) == ("Ann Lee", "agent", "api")
    changes = {change["field"]: (change["old"], change["new"]) for change in entry["changes"]}
    assert changes["level"] == (0, 2)
    page = (await desk.get(f"/tickets/{ticket['number']}/history", params={"limit": 1})).json()
    assert (len(page["entries"]), page["next_after"]) == (1, 1)
    rest = (await desk.get(f"/tickets/{ticket['number']}/history", params={"after": 1})).json()
    assert page["entries"] + rest["entries"] == told["entries"]


@pytest.mark.parametrize(
    ("way", "value"),
    [("email", "WANG@EXAMPLE.COM"), ("phone", "0086 138-0013-8000"), ("foreign_id", "crm:4711")],
)
async def test_a_customer_is_looked_up_at_once(desk: DeskOverHttp, way: str, value: str) -> None:
    if way != "email":
        body = {"name": "Bo", "phone": "+86 138 0013 8000", "foreign_id": "crm:4711"}
        desk.ids["customer"] = (await desk.done("/customers", body))["id"]
    found = (await desk.get("/customers", params={way: value})).json()
    assert [customer["id"] for customer in found["items"]] == [desk.ids["customer"]]
    assert (await desk.get("/customers", params={way: "nobody@nowhere.org"})).json()["items"] == []
    if way == "foreign_id":
        assert (await desk.get(f"/customers/{value}")).json()["id"] == desk.ids["customer"]


async def test_lists_of_people_come_in_pages(desk: DeskOverHttp) -> None:
    for number in range(5):
        await desk.done("/customers", {"name": f"Customer {number}", "tier": "gold", "organisation": "ACME"})
    await desk.done(f"/agents/{desk.ids['agent']}/deactivate", role=Role.ADMINISTRATOR)
    await desk.catch_up()
    names = await every_item(desk, "/customers", {"limit": 2, "tier": "gold"}, "name")
    assert names == [f"Customer {number}" for number in range(5)]
    assert len((await desk.get("/customers", params={"organisation": "ACME"})).json()["items"]) == 5
    assert (await desk.get("/teams")).json()["items"][0]["name"] == "First line"
    assert (await desk.get("/agents", params={"active": "true"})).json()["items"] == []
    agents = (await desk.get("/agents", params={"team": desk.ids["team"]})).json()["items"]
    assert [(agent["name"], agent["active"]) for agent in agents] == [("Ann Lee", False)]


async def every_item(desk: DeskOverHttp, path: str, params: dict[str, Any], field: str) -> list[Any]:
    """Follow a list to its end."""
    found = []
    cursor: str | None = None
    while True:
        page = (await desk.get(path, params=params | ({"cursor": cursor} if cursor else {}))).json()
        found += [item[field] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_a_list_stands_still_while_it_is_read(desk: DeskOverHttp) -> None:
    opened = [await desk.open(subject=f"ticket {number}") for number in range(6)]
    await desk.catch_up()
    first = (await desk.get("/queue", params={"limit": 2, "sort": "number"})).json()
    for ticket in opened[3:]:
        await desk.done(f"/tickets/{ticket['id']}/assign", {"agent_id": desk.ids["agent"]})
    await desk.open()
    await desk.catch_up()
    second = await desk.get("/queue", params={"limit": 10, "sort": "number", "cursor": first["next_cursor"]})
    assert [item["number"] for item in second.json()["items"]] == [ticket["number"] for ticket in opened[2:]]
    assert {item["status"] for item in second.json()["items"]} == {"new"}
    assert second.json()["position"] == first["position"]
    assert second.headers["Log-Position"].startswith(f"{first['position']}.")
    now = (await desk.get("/queue", params={"status": ["open"]})).json()
    assert {item["ticket_id"] for item in now["items"]} == {ticket["id"] for ticket in opened[3:]}
    assert now["names"][desk.ids["agent"]] == "Ann Lee"


@pytest.mark.parametrize("by", ["status", "priority", "team", "agent"])
async def test_counts_equal_the_list(desk: DeskOverHttp, by: str) -> None:
    for number in range(6):
        ticket = await desk.open(priority=("low", "high")[number % 2], tags=["a"] if number < 4 else [])
        if number % 3 == 0:
            body = {"agent_id": desk.ids["agent"], "team_id": desk.ids["team"]}
            await desk.done(f"/tickets/{ticket['id']}/assign", body)
    await desk.catch_up()
    column = {"team": "team_id", "agent": "agent_id"}.get(by, by)
    for filters in ({}, {"tag": "a"}, {"agent": "unassigned"}, {"agent": "me"}, {"priority": ["low", "urgent"]}):
        items = (await desk.get("/queue", params=filters)).json()["items"]
        counts = (await desk.get("/queue/counts", params={**filters, "by": by})).json()
        expected: dict[str, int] = {}
        for item in items:
            expected[item[column] or ""] = expected.get(item[column] or "", 0) + 1
        assert counts["counts"] == expected
        assert counts["total"] == len(items)


async def test_the_clocks_of_a_ticket_are_told_and_counted(desk: DeskOverHttp) -> None:
    ticket = await desk.open(priority="urgent", channel="email")
    await desk.catch_up()
    told = (await desk.get(f"/tickets/{ticket['number']}/sla")).json()
    assert {clock["metric"] for clock in told["items"]} == {"first_reply", "total_resolution"}
    for clock in told["items"]:
        if clock["metric"] == "first_reply":  # an agent opened the ticket, and nobody has asked anything yet
            assert (clock["state"], clock["due_at"], clock["lines"]) == ("not_applicable", None, [])
            continue
        assert (clock["serial"], clock["terms"], clock["target"]["unit"]) == (1, None, "calendar")
        assert clock["used_seconds"] + clock["remaining_seconds"] == pytest.approx(clock["target"]["amount"])
        assert clock["percent_used"] == pytest.approx(100 * clock["used_seconds"] / clock["target"]["amount"])
        assert [line["kind"] for line in clock["lines"]][:3] == ["terms", "allowed", "started"]
        assert clock["on_record"] == []
    listed = (await desk.get("/sla-clocks", params={"state": "active"})).json()
    counts = (await desk.get("/sla-clocks/counts", params={"at": listed["position"], "as_of": listed["as_of"]})).json()
    assert counts["counts"].get("active", 0) == len(listed["items"]) > 0
    assert all(clock["due_at"] for clock in listed["items"])


async def test_what_is_due_within_a_span_is_asked_for_in_several_ways(desk: DeskOverHttp) -> None:
    urgent, low = [await desk.open(priority=priority, channel="email") for priority in ("urgent", "low")]
    await desk.catch_up()
    for span in ("481m", "9h", "PT8H1M", "30000s"):
        for path, more in (("/queue", {}), ("/sla-clocks", {"metric": "total_resolution"})):
            found = (await desk.get(path, params={"due_within": span, **more})).json()["items"]
            assert [one["number"] for one in found] == [urgent["number"]], (path, span)
    for path in ("/queue", "/sla-clocks"):
        found = (await desk.get(path, params={"due_within": "60d"})).json()["items"]
        assert {one["number"] for one in found} == {urgent["number"], low["number"]}
    counts = (await desk.get("/queue/counts", params={"due_within": "1d"})).json()
    assert counts["total"] == 1
    due = next(iter((await desk.get("/queue", params={"sort": "due"})).json()["items"]))["due_at"]
    assert (await desk.get("/queue", params={"due_before": due})).json()["items"] == []
    first = (await desk.get("/queue", params={"due_within": "60d", "sort": "due", "limit": 1})).json()
    params = {"due_within": "60d", "sort": "due", "limit": 1, "cursor": first["next_cursor"]}
    second = (await desk.get("/queue", params=params)).json()
    assert [one["number"] for one in (*first["items"], *second["items"])] == [urgent["number"], low["number"]]
    then = (await desk.get("/queue", params={"due_within": "9h", "as_of": str(first["position"])})).json()
    assert [one["number"] for one in then["items"]] == [urgent["number"]]
    refused = await desk.get("/queue", params={"due_within": "1800"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["detail"] == "a span like 30m, 4h, 2d or PT30M is wanted"


async def test_the_audit_trail_says_who_changed_what_and_why(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    await desk.done(f"/tickets/{ticket['id']}/change-priority", {"priority": "urgent", "reason": "the boss called"})
    await desk.done(f"/tickets/{ticket['id']}/change-subject", {"subject": "Really on fire"})
    await desk.catch_up()
    params = {"ticket": str(ticket["number"]), "sort": "oldest", "field": ["priority", "subject"]}
    found = (await desk.get("/audit-trail", params=params, role=Role.AUDITOR)).json()["items"]
    assert [(row["field"], row["old"], row["new"], row["reason"]) for row in found][-2:] == [
        ("priority", "normal", "urgent", "the boss called"),
        ("subject", "Printer on fire", "Really on fire", None),
    ]
    mine = await desk.get("/audit-trail", params={"actor": desk.ids["agent"], "limit": 5}, role=Role.AUDITOR)
    assert {row["actor_id"] for row in mine.json()["items"]} == {desk.ids["agent"]}


async def test_who_wrote_reads_what_was_written(app: FastAPI, desk: DeskOverHttp) -> None:
    app.state.longest_wait = 5.0
    runner, stop = Runner(desk.database, VIEWS), asyncio.Event()
    running = asyncio.create_task(runner.run(stop))
    try:
        for _ in range(5):
            answer = await desk.post("/tickets", {"subject": "a", "body": "b", "requester_id": desk.ids["customer"]})
            page = await desk.get("/queue", params={"after": answer.headers["Log-Position"]})
            assert page.status_code == 200, page.text
            assert answer.json()["id"] in {item["ticket_id"] for item in page.json()["items"]}
    finally:
        stop.set()
        await running


async def test_a_view_that_is_behind_says_how_far_it_is(desk: DeskOverHttp) -> None:
    await desk.catch_up()
    reached = await desk.head()
    ticket = await desk.open()
    for path in ("/queue", "/queue/counts", "/sla-clocks", "/audit-trail", "/customers", "/agents", "/teams"):
        answer = await desk.get(path, params={"after": ticket["position"]}, role=Role.SUPERVISOR)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/view-behind"), path
        assert (answer.json()["reached"], answer.json()["wanted"]) == (reached, ticket["position"])
        assert answer.headers["Retry-After"] == "1"


async def test_views_and_log_tell_how_far_they_are(desk: DeskOverHttp) -> None:
    await desk.catch_up()
    ticket = await desk.open()
    views = (await desk.get("/views")).json()["views"]
    assert [view["name"] for view in views] == [view.name for view in VIEWS]
    assert all(view["head"] - view["position"] == view["lag_events"] == 1 for view in views)
    log = (await desk.get("/log")).json()
    assert log["position"] == ticket["position"]
    assert log["token"] == f"{log['position']}.{log['epoch']}"


async def test_health_is_told_without_a_credential(desk: DeskOverHttp) -> None:
    assert (await desk.get("/health/live", role=None)).json() == {"status": "live"}
    ready = (await desk.get("/health/ready", role=None)).json()
    assert ready == {"status": "ready", "stopped_views": [], "absent_views": []}


async def test_a_message_to_a_closed_ticket_opens_a_follow_up(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    path = f"/tickets/{ticket['id']}"
    await desk.done(f"{path}/solve", {"resolution_code": "fixed"})
    await desk.done(f"{path}/close")
    answer = await desk.post(f"{path}/record-customer-message", {"text": "Burns again"}, role=Role.CUSTOMER)
    told = answer.json()
    assert answer.status_code == 201
    assert told["id"] != ticket["id"]
    assert answer.headers["Location"] == f"/tickets/{told['id']}"
    follow_up = (await desk.get(f"/tickets/{told['number']}")).json()
    assert (follow_up["id"], follow_up["follow_up_of"]) == (told["id"], ticket["id"])
    assert {"ticket_id": told["id"], "kind": "follow_up"} in (await desk.get(path)).json()["links"]


async def test_a_customer_does_not_see_what_the_desk_keeps_to_itself(desk: DeskOverHttp) -> None:
    ticket = await desk.open(tags=["vip-complainer"], custom_fields={"root cause": "user"}, impact="low", urgency="low")
    path = f"/tickets/{ticket['id']}"
    await desk.done(f"{path}/escalate", {"level": 1, "team_id": desk.ids["team"], "reason": "He shouts"})
    await desk.done(f"{path}/put-on-hold", {"third_party": "Competitor Ltd"})
    await desk.done(f"{path}/add-note", {"text": "He shouts again"})
    other = await desk.open()
    await desk.done(f"{path}/link", {"other_ticket_id": other["id"]})
    seen = await desk.get(path, role=Role.CUSTOMER)
    assert seen.status_code == 200
    for part in ("vip-complainer", "root cause", "He shouts", "Competitor", other["id"]):
        assert part not in seen.text
    assert seen.json()["subject"] == "Printer on fire"
    whole = (await desk.get(path)).text
    for part in ("vip-complainer", "root cause", "Competitor", other["id"]):
        assert part in whole
