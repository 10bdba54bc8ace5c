"""Who may do what: every route by every role, and nothing of another workspace by any."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from fastapi import APIRouter

from api.access import EVERYONE, READING, GuardedRoute, rules
from api.app import require_rules
from api.command_routes import path_of
from commands.catalogue import COMMANDS
from domain.event import Role
from storage import credentials

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

    from tests.api.conftest import DeskOverHttp

pytestmark = pytest.mark.anyio

REFUSED = {401, 403}


def every_route(app: FastAPI) -> list[tuple[str, str, str]]:
    """List operation, method and path of every route."""
    found = []
    for route in app.routes:
        assert isinstance(route, GuardedRoute), route
        assert route.methods is not None
        (method,) = route.methods
        assert route.operation_id is not None
        found.append((route.operation_id, method, route.path))
    return found


def filled_in(path: str, values: dict[str, str]) -> str:
    """Put values, or ids of nothing, into the places of a path."""
    for name in ("ticket", "customer", "agent", "team", "attachment", "name"):
        path = path.replace(f"{{{name}}}", values.get(name, str(uuid4())))
    return path


async def test_every_route_has_a_rule_and_every_rule_a_route(app: FastAPI) -> None:
    operations = [operation for operation, _, _ in every_route(app)]
    assert len(operations) == len(set(operations))
    assert set(operations) == set(rules())


async def test_a_route_without_a_rule_cannot_be_made(app: FastAPI) -> None:
    async def endpoint() -> None:
        """Do nothing."""

    for operation_id in (None, "ticket.burn"):
        with pytest.raises(LookupError):
            APIRouter(route_class=GuardedRoute).add_api_route("/burn", endpoint, operation_id=operation_id)
    app.add_api_route("/unguarded", endpoint)
    with pytest.raises(LookupError):
        require_rules(app)


async def test_without_a_credential_only_the_public_routes_answer(app: FastAPI, desk: DeskOverHttp) -> None:
    for operation, method, path in every_route(app):
        answer = await desk.request(method, filled_in(path, desk.ids), role=None)
        if rules()[operation] is EVERYONE:
            assert answer.status_code not in REFUSED, operation
        else:
            assert answer.status_code == 401, operation
            assert answer.json()["type"] == "/problems/unauthenticated"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_each_role_may_call_what_the_table_says_and_nothing_else(app: FastAPI, desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    await desk.catch_up()
    values = desk.ids | {"ticket": ticket["id"], "name": "forbidden"}
    table = rules()
    for role in Role:
        for operation, method, path in every_route(app):
            # A body that no command takes: who may do it gets past the guard and no further.
            body = {"json": {"no such field": 1}} if method == "POST" else {}
            answer = await desk.request(method, filled_in(path, values), role=role, **body)
            allowed = table[operation]
            if allowed is EVERYONE or role in allowed:
                assert answer.status_code not in REFUSED, (role, operation, answer.text)
                assert answer.status_code < 500, (role, operation, answer.text)
            else:
                assert answer.status_code == 403, (role, operation, answer.text)
                told = answer.json()
                assert (told["type"], told["role"], told["command"]) == ("/problems/forbidden", role, operation)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.DEVELOPER])
async def test_auditors_and_developers_change_nothing(desk: DeskOverHttp, role: Role) -> None:
    ticket = await desk.open()
    before = await desk.head()
    for spec in COMMANDS.values():
        path = path_of(spec, ticket["id"])
        assert (await desk.post(path, {}, role=role)).status_code == 403, spec.name
    assert (await desk.request("POST", "/attachments?name=a", content=b"x", role=role)).status_code == 403
    assert await desk.head() == before
    assert (await desk.get(f"/tickets/{ticket['id']}/history", role=role)).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Basic dXNlcjpwYXNz",
        "Bearer desk_agent_" + "x" * 43,
        "Bearer desk_agent_" + "x" * 4000,
        "Bearer desk_agent_\x00" + "x" * 43,
        "Bearer desk_agent_é" + "x" * 43,
    ],
)
async def test_a_credential_that_is_none_is_refused(desk: DeskOverHttp, said: str) -> None:
    answer = await desk.get("/log", role=None, headers={"Authorization": said.encode("latin-1")})
    assert answer.status_code == 401


async def test_two_credentials_at_once_are_refused(desk: DeskOverHttp) -> None:
    tokens = [desk.tokens[Role.AGENT], desk.tokens[Role.ADMINISTRATOR]]
    answer = await desk.client.get("/log", headers=[("Authorization", f"Bearer {token}") for token in tokens])
    assert answer.status_code == 401


async def test_a_revoked_credential_stops_working(desk: DeskOverHttp) -> None:
    found = await credentials.find(desk.database, desk.tokens[Role.AGENT])
    assert found is not None
    assert (await desk.get("/log")).status_code == 200
    await credentials.revoke(desk.database, found.id)
    assert (await desk.get("/log")).status_code == 401


async def test_nothing_of_another_workspace_is_seen_on_any_route(
    app: FastAPI, desk: DeskOverHttp, other_desk: DeskOverHttp
) -> None:
    ticket = await desk.open(subject="SECRET OF ALPHA", foreign_id="zendesk:1")
    uploaded = (await desk.request("POST", "/attachments?name=SECRET.txt", content=b"SECRET")).json()["id"]
    await desk.done(f"/tickets/{ticket['id']}/add-note", {"text": "SECRET", "attachments": [uploaded]})
    await desk.catch_up()
    await other_desk.catch_up()
    before, theirs = await desk.head(), await other_desk.head()
    values = desk.ids | {"attachment": uploaded}
    for reference in (ticket["id"], str(ticket["number"]), "zendesk:1"):
        for operation, method, path in every_route(app):
            body = _body(operation, desk) if method == "POST" else {}
            for role in (Role.ADMINISTRATOR, Role.AUDITOR, Role.CUSTOMER):
                address = filled_in(path, values | {"ticket": reference, "name": "not-found"})
                answer = await other_desk.request(method, address, role=role, **body)
                assert "SECRET" not in answer.text, (operation, role)
                assert answer.status_code < 500, (operation, role, answer.text)
                if "{" in path and READING.get(operation, frozenset()) is not EVERYONE:
                    assert answer.status_code in {403, 404, 409, 422}, (operation, role, answer.text)
    assert await desk.head() == before
    # Only what creates something has left a trace, and in its own workspace.
    assert await other_desk.head() >= theirs
    mine = (await desk.get("/queue")).json()["items"]
    assert [item["ticket_id"] for item in mine] == [ticket["id"]]


def _body(operation: str, desk: DeskOverHttp) -> dict[str, Any]:
    match operation:
        case "attachment.upload":
            return {"content": b"x", "params": {"name": "a.txt"}}
        case "ticket.assign":
            return {"json": {"agent_id": desk.ids["agent"]}}
        case "ticket.open":
            return {"json": {"subject": "a", "body": "b", "requester_id": desk.ids["customer"]}}
        case "ticket.add-note" | "ticket.reply" | "ticket.record-customer-message":
            return {"json": {"text": "a"}}
        case _:
            return {"json": {}}


async def test_a_customer_sees_own_tickets_only_and_no_internal_notes(desk: DeskOverHttp) -> None:
    other = await desk.done("/customers", {"name": "Eve"})
    mine, theirs = await desk.open(), await desk.open(requester_id=other["id"])
    note = await desk.request("POST", "/attachments?name=internal.txt", content=b"internal")
    file = await desk.request("POST", "/attachments?name=rechnung.txt", content=b"public")
    internal, public = note.json()["id"], file.json()["id"]
    await desk.done(f"/tickets/{mine['id']}/add-note", {"text": "He is difficult.", "attachments": [internal]})
    await desk.done(f"/tickets/{mine['id']}/reply", {"text": "On our way.", "attachments": [public]})
    customer = Role.CUSTOMER
    told = await desk.get(f"/tickets/{mine['id']}", role=customer)
    assert [message["text"] for message in told.json()["messages"]["items"]] == ["It smokes.", "On our way."]
    assert "difficult" not in told.text
    assert set(told.json()["allowed_commands"]) <= {"open", "record-customer-message"}
    path = f"/tickets/{mine['id']}"
    assert "difficult" not in (await desk.get(f"{path}/messages", role=customer)).text
    assert (await desk.get(f"{path}/attachments/{public}", role=customer)).content == b"public"
    assert (await desk.get(f"{path}/attachments/{internal}", role=customer)).status_code == 404
    assert (await desk.get(f"{path}/attachments/{internal}")).content == b"internal"
    for reference in (theirs["id"], theirs["number"]):
        for more in ("", "/messages", f"/attachments/{public}"):
            answer = await desk.get(f"/tickets/{reference}{more}", role=customer)
            assert answer.status_code == 404, more
        message = await desk.post(f"/tickets/{reference}/record-customer-message", {"text": "a"}, role=customer)
        assert message.status_code == 404
    assert (await desk.get(f"/customers/{desk.ids['customer']}", role=customer)).json()["name"] == "王小明"
    assert (await desk.get(f"/customers/{other['id']}", role=customer)).status_code == 404
    for moment in ("as_of_version=1", "as_of_position=1", "as_of=2030-01-01T00:00:00Z"):
        assert (await desk.get(f"{path}?{moment}", role=customer)).status_code == 403


async def test_a_customer_opens_for_oneself_only(desk: DeskOverHttp) -> None:
    other = await desk.done("/customers", {"name": "Eve"})
    body = {"subject": "Help", "body": "Please"}
    told = await desk.done("/tickets", body, role=Role.CUSTOMER)
    ticket = (await desk.get(f"/tickets/{told['id']}")).json()
    assert ticket["requester"]["id"] == desk.ids["customer"]
    assert (await desk.post("/tickets", {**body, "requester_id": other["id"]}, role=Role.CUSTOMER)).status_code == 404


async def test_an_attachment_of_one_ticket_is_not_given_out_by_another(desk: DeskOverHttp) -> None:
    one, two = await desk.open(), await desk.open()
    file = (await desk.request("POST", "/attachments?name=a.txt", content=b"x")).json()["id"]
    await desk.done(f"/tickets/{one['id']}/add-note", {"text": "see file", "attachments": [file]})
    assert (await desk.get(f"/tickets/{one['id']}/attachments/{file}")).status_code == 200
    assert (await desk.get(f"/tickets/{two['id']}/attachments/{file}")).status_code == 404


async def test_a_file_never_runs_as_a_page(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    page = b"<script>alert(1)</script>"
    uploaded: httpx.Response = await desk.request(
        "POST", "/attachments", params={"name": '发票"\\;.html'}, content=page, headers={"Content-Type": "text/html"}
    )
    file = uploaded.json()["id"]
    await desk.done(f"/tickets/{ticket['id']}/add-note", {"text": "see file", "attachments": [file]})
    answer = await desk.get(f"/tickets/{ticket['id']}/attachments/{file}")
    assert answer.content == page
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="')


async def test_no_route_or_dependency_goes_through_the_thread_pool(app: FastAPI) -> None:
    for route in app.routes:
        assert isinstance(route, GuardedRoute)
        calls = [route.endpoint, *(needed.call for needed in route.dependant.dependencies)]
        assert all(inspect.iscoroutinefunction(call) for call in calls), route.path
