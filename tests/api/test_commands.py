"""Commands over HTTP: what is answered, and what makes repeating and racing safe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from domain.event import Role

if TYPE_CHECKING:
    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio


async def test_an_opened_ticket_is_told_with_its_version_position_and_address(desk: DeskOverHttp) -> None:
    answer = await desk.post("/tickets", {"subject": "打印机", "body": "没有墨", "requester_id": desk.ids["customer"]})
    told = answer.json()
    assert answer.status_code == 201
    assert told == {
        "id": told["id"],
        "number": told["position"],
        "version": 1,
        "position": await desk.head(),
        "changed": True,
        "replayed": False,
    }
    epoch = (await desk.get("/log")).json()["epoch"]
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["Log-Position"] == f"{told['position']}.{epoch}"
    assert answer.headers["Location"] == f"/tickets/{told['id']}"


@pytest.mark.parametrize("way", ["id", "number", "foreign_id"])
async def test_a_ticket_is_addressed_by_id_number_and_foreign_id(desk: DeskOverHttp, way: str) -> None:
    opened = await desk.open(foreign_id="zendesk:35436")
    reference = {"id": opened["id"], "number": opened["number"], "foreign_id": "zendesk:35436"}[way]
    told = await desk.done(f"/tickets/{reference}/assign", {"agent_id": desk.ids["agent"]})
    assert (told["id"], told["version"]) == (opened["id"], 2)
    assert (await desk.get(f"/tickets/{reference}")).json()["agent"]["name"] == "Ann Lee"


async def test_a_version_that_is_not_the_current_one_is_told_the_current_one(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    path = f"/tickets/{ticket['id']}/add-note"
    assert (await desk.post(path, {"text": "one"}, headers={"If-Match": '"1"'})).status_code == 200
    before = await desk.head()
    answer = await desk.post(path, {"text": "two"}, headers={"If-Match": '"1"'})
    assert answer.status_code == 412
    assert answer.json()["type"] == "/problems/stale-version"
    assert answer.json()["current_version"] == 2
    assert answer.headers["ETag"] == '"2"'
    assert await desk.head() == before
    assert (await desk.post(path, {"text": "three"}, headers={"If-Match": "*"})).status_code == 200


async def test_a_command_sent_again_with_its_key_gives_the_first_outcome(desk: DeskOverHttp) -> None:
    body = {"subject": "Printer", "body": "Smoke", "requester_id": desk.ids["customer"]}
    headers = {"Idempotency-Key": "order-66"}
    first = await desk.post("/tickets", body, headers=headers)
    before = await desk.head()
    again = await desk.post("/tickets", body, headers=headers)
    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert again.json() == {**first.json(), "replayed": True}
    assert (again.headers["ETag"], again.headers["Location"]) == (first.headers["ETag"], first.headers["Location"])
    assert await desk.head() == before
    other = await desk.post("/tickets", {**body, "subject": "Another"}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")


async def test_of_many_at_once_with_one_key_one_is_carried_out(desk: DeskOverHttp) -> None:
    body = {"subject": "Printer", "body": "Smoke", "requester_id": desk.ids["customer"]}
    before = await desk.head()
    sent = [desk.post("/tickets", body, headers={"Idempotency-Key": "k"}) for _ in range(10)]
    told = [answer.json() for answer in await asyncio.gather(*sent)]
    assert len({one["id"] for one in told}) == 1
    assert [one["replayed"] for one in told].count(False) == 1
    assert await desk.head() == before + 1


async def test_a_repeat_that_changes_nothing_says_so(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    path, body = f"/tickets/{ticket['id']}/assign", {"agent_id": desk.ids["agent"]}
    assert (await desk.done(path, body))["changed"] is True
    before = await desk.head()
    again = await desk.done(path, body)
    assert (again["changed"], again["version"]) == (False, 2)
    assert await desk.head() == before


async def test_a_refusal_names_its_rule_and_the_moves_that_are_allowed(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    before = await desk.head()
    answer = await desk.post(f"/tickets/{ticket['id']}/reopen")
    problem = answer.json()
    assert answer.status_code == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["type"] == "/problems/move-not-allowed"
    assert problem["details"]["from"] == "new"
    assert problem["details"]["allowed"]
    assert await desk.head() == before
    explained = await desk.get(problem["type"], role=None)
    assert explained.status_code == 200
    assert "move" in explained.text


async def test_a_known_address_is_refused_naming_who_has_it(desk: DeskOverHttp) -> None:
    answer = await desk.post("/customers", {"name": "Other", "email": "WANG@example.com"})
    assert answer.status_code == 409
    assert answer.json()["details"] == {"kind": "email", "customer_id": desk.ids["customer"]}


@pytest.mark.parametrize("field", ["agent_id", "team_id"])
async def test_something_unknown_is_refused_naming_the_field(desk: DeskOverHttp, field: str) -> None:
    ticket = await desk.open()
    for unknown in (str(uuid4()), ticket["id"], desk.ids["customer"]):
        answer = await desk.post(f"/tickets/{ticket['id']}/assign", {field: unknown})
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/unknown-reference")
        assert answer.json()["details"]["field"] == field


async def test_an_empty_body_is_an_empty_object(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    await desk.done(f"/tickets/{ticket['id']}/assign", {"agent_id": desk.ids["agent"]})
    answer = await desk.request("POST", f"/tickets/{ticket['id']}/unassign")
    assert answer.status_code == 200, answer.text


async def test_the_request_id_is_taken_returned_and_kept_with_the_event(desk: DeskOverHttp) -> None:
    mine = uuid4()
    body = {"subject": "a", "body": "b", "requester_id": desk.ids["customer"]}
    answer = await desk.post("/tickets", body, headers={"X-Request-ID": str(mine)})
    assert answer.headers["X-Request-ID"] == str(mine)
    life = (await desk.get(f"/tickets/{answer.json()['id']}/history")).json()
    assert life["entries"][0]["correlation_id"] == str(mine)
    made = (await desk.get("/log", headers={"X-Request-ID": "not an id"})).headers["X-Request-ID"]
    assert UUID(made) != mine


async def test_every_command_of_a_ticket_can_be_sent(desk: DeskOverHttp) -> None:
    ids, administrator = desk.ids, Role.ADMINISTRATOR
    other_team = await desk.done("/teams", {"name": "Second line"}, role=administrator)
    other_customer = await desk.done("/customers", {"name": "Bo", "phone": "+86 138 0013 8000"})
    other = await desk.open()
    ticket = await desk.open(impact="high", urgency="high", tags=["vip"], custom_fields={"room": "3.14"})
    uploaded = await desk.request(
        "POST", "/attachments?name=smoke.png", content=b"png", headers={"Content-Type": "image/png"}
    )
    assert uploaded.status_code == 201, uploaded.text
    steps: list[tuple[str, dict[str, object]]] = [
        ("assign", {"agent_id": ids["agent"], "team_id": ids["team"]}),
        ("reply", {"text": "Looking into it.", "attachments": [uploaded.json()["id"]]}),
        ("unassign", {}),
        ("transfer", {"team_id": other_team["id"]}),
        ("escalate", {"level": 2, "team_id": ids["team"], "reason": "smoke"}),
        ("de-escalate", {"level": 1}),
        ("add-note", {"text": "Called facilities."}),
        ("record-customer-message", {"text": "还在冒烟", "channel": "email"}),
        ("change-priority", {"priority": "low"}),
        ("categorise", {"category": "hardware"}),
        ("set-pending", {"wake_at": "2099-01-01T00:00:00+08:00"}),
        ("resume", {}),
        ("put-on-hold", {"third_party": "Vendor"}),
        ("resume", {}),
        ("tag", {"tags": ["fire"]}),
        ("untag", {"tags": ["vip"]}),
        ("set-custom-field", {"name": "room", "value": "2.71"}),
        ("change-subject", {"subject": "Printer smokes"}),
        ("change-type", {"type": "incident"}),
        ("add-cc", {"customer_id": other_customer["id"]}),
        ("add-cc", {"address": "boss@example.com"}),
        ("remove-cc", {"address": "boss@example.com"}),
        ("link", {"other_ticket_id": other["id"], "kind": "related"}),
        ("correct", {"corrected_version": 1, "note": "It was room 2.71 all along."}),
        ("change-requester", {"requester_id": other_customer["id"]}),
        ("solve", {"resolution_code": "fixed"}),
        ("reopen", {}),
        ("solve", {"resolution_code": "fixed"}),
        ("close", {}),
    ]
    for version, (name, body) in enumerate(steps, start=2):
        told = await desk.done(f"/tickets/{ticket['id']}/{name}", body)
        assert (told["version"], told["changed"]) == (version, True), name
    told = (await desk.get(f"/tickets/{ticket['id']}")).json()
    assert told["status"] == "closed"
    assert told["tags"] == ["fire"]
    assert told["requester"]["name"] == "Bo"
    life = (await desk.get(f"/tickets/{ticket['id']}/history")).json()
    assert [entry["event"].replace("_", "-") for entry in life["entries"]][:5] == [
        "opened", "assigned", "replied", "unassigned", "transferred",
    ]  # fmt: skip


async def test_the_commands_of_people_can_be_sent(desk: DeskOverHttp) -> None:
    administrator = Role.ADMINISTRATOR
    customer, agent, team = desk.ids["customer"], desk.ids["agent"], desk.ids["team"]
    other = (await desk.done("/teams", {"name": "Second line"}, role=administrator))["id"]
    steps = [
        (f"/customers/{customer}/change-contact", {"phone": "+44 20 7946 0958"}),
        (f"/customers/{customer}/change-tier", {"tier": "gold"}),
        (f"/customers/{customer}/join-organisation", {"organisation": "ACME"}),
        (f"/agents/{agent}/rename", {"name": "Ann Lee-Wong"}),
        (f"/agents/{agent}/join-team", {"team_id": other}),
        (f"/agents/{agent}/leave-team", {"team_id": team}),
        (f"/agents/{agent}/deactivate", {}),
        (f"/agents/{agent}/reactivate", {}),
        (f"/teams/{team}/rename", {"name": "Front desk"}),
        (f"/teams/{team}/deactivate", {}),
        (f"/teams/{team}/reactivate", {}),
    ]
    for path, body in steps:
        assert (await desk.done(path, body, role=administrator))["changed"] is True, path
    assert (await desk.get(f"/customers/{customer}")).json()["tier"] == "gold"
    assert (await desk.get(f"/agents/{agent}")).json()["team_ids"] == [other]
    assert (await desk.get(f"/teams/{team}")).json()["name"] == "Front desk"
