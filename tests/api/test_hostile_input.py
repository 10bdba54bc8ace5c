"""Bad input is answered with a problem document, never with a failure of the desk, and nothing of it is recorded."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from api.app import create_app
from api.command_routes import path_of
from api.problems import all_kinds
from commands.catalogue import COMMANDS
from domain.event import Role
from storage.database import Database
from tests.api.conftest import DeskOverHttp, over_http

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.settings import Settings
    from tests.conftest import Server

MEBIBYTE = 1024 * 1024
OPENING = {"subject": "Printer", "body": "Smoke"}


def is_a_problem(answer: httpx.Response) -> None:
    """Assert that an answer is a problem document of a known kind."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    problem = answer.json()
    kind = all_kinds()[problem["type"].removeprefix("/problems/")]
    assert problem["status"] == answer.status_code == kind.status
    assert problem["instance"] == f"urn:uuid:{answer.headers['X-Request-ID']}"
    assert problem["title"]
    assert problem["detail"]


BODIES: dict[str, tuple[bytes, int]] = {
    "not JSON": (b"{", 422),
    "no object": (b"[]", 422),
    "a string": (b'"open"', 422),
    "null": (b"null", 422),
    "not UTF-8": (b'{"subject": "\xff\xfe"}', 422),
    "an overlong UTF-8 form": (b'{"subject": "\xc0\xaf"}', 422),
    "UTF-16": ('{"subject": "a"}'.encode("utf-16"), 422),
    "a byte order mark": (b'\xef\xbb\xbf{"subject": "a"}', 422),
    "NaN": (b'{"subject": NaN, "body": "b"}', 422),
    "infinite": (b'{"subject": Infinity, "body": "b"}', 422),
    "a lone surrogate": (b'{"subject": "\\ud800", "body": "b"}', 422),
    "a lone surrogate in a name": (b'{"\\ud800": "a"}', 422),
    "a NUL": (b'{"subject": "a\\u0000b", "body": "b"}', 422),
    "an overlong subject": (json.dumps({"subject": "a" * 301, "body": "b"}).encode(), 422),
    "an overlong body": (json.dumps({"subject": "a", "body": "b" * 65_537}).encode(), 422),
    "a blank body": (b'{"subject": "a", "body": " \\n "}', 422),
    "unknown fields": (b'{"subject": "a", "body": "b", "colour": "red"}', 422),
    "a name that is endless": (json.dumps({"x" * 500_000: 1}).encode(), 422),
    "a hundred thousand names": (json.dumps({f"x{i}": 1 for i in range(80_000)}).encode(), 422),
    "deep nesting": (b'{"subject":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 422),
    "a huge integer": (b'{"subject": ' + b"9" * 100_000 + b"}", 422),
    "a wrong type": (b'{"subject": 5, "body": {"a": []}, "tags": "x", "custom_fields": [1]}', 422),
    "an unknown priority": (b'{"subject": "a", "body": "b", "priority": "asap"}', 422),
    "an id that is none": (b'{"subject": "a", "body": "b", "requester_id": "me"}', 422),
    "half an impact": (b'{"subject": "a", "body": "b", "impact": "high", "requester_id": "%s"}', 409),
    "a file that is none": (b'{"subject": "a", "body": "b", "attachments": ["x"]}', 422),
    "a malformed foreign id": (b'{"subject": "a", "body": "b", "foreign_id": "no colon"}', 422),
    "a foreign id with NUL": (b'{"subject": "a", "body": "b", "foreign_id": "a:\\u0000"}', 422),
    "too many tags": (json.dumps({**OPENING, "tags": [str(i) for i in range(101)]}).encode(), 422),
    "more than a mebibyte": (b" " * (MEBIBYTE + 1), 413),
    "ten megabytes": (b"x" * 10_000_000, 413),
}


@pytest.mark.anyio
async def test_a_bad_body_is_refused_and_leaves_no_trace(desk: DeskOverHttp, subtests: pytest.Subtests) -> None:
    before = await desk.head()
    for name, (written, status) in BODIES.items():
        body = written.replace(b"%s", desk.ids["customer"].encode())
        with subtests.test(name):
            answer = await desk.request("POST", "/tickets", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == status, answer.text[:500]
            is_a_problem(answer)
            assert len(answer.content) < 20_000
            if status == 422:
                assert all(error["pointer"].startswith("#") for error in answer.json()["errors"])
            assert await desk.head() == before


@pytest.mark.anyio
async def test_each_wrong_value_is_named_by_a_pointer(desk: DeskOverHttp) -> None:
    body = {"subject": "a", "body": "b", "tags": ["ok", 5], "custom_fields": {"a/b~c": 5}, "colour": "red"}
    answer = await desk.post("/tickets", body)
    assert {error["pointer"] for error in answer.json()["errors"]} == {
        "#/tags/1",
        "#/custom_fields/a~1b~0c",
        "#/colour",
    }


@pytest.mark.anyio
@pytest.mark.parametrize("instant", ["2030-01-01T00:00:00", "2030-01-01", "soon", "", "99999-01-01T00:00:00Z"])
async def test_a_time_without_a_zone_is_refused(desk: DeskOverHttp, instant: str) -> None:
    ticket = await desk.open()
    before = await desk.head()
    answer = await desk.post(f"/tickets/{ticket['id']}/set-pending", {"wake_at": instant})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/wake_at")
    assert (await desk.get(f"/tickets/{ticket['id']}", params={"as_of": instant})).status_code == 422
    assert await desk.head() == before


CONTENT_TYPES = {
    "application/json": 201,
    "application/json; charset=utf-8": 201,
    "application/merge-patch+json": 201,
    "application/json; charset=utf-16": 415,
    "application/x-www-form-urlencoded": 415,
    "text/plain": 415,
    "nonsense": 415,
    'application/json; charset="': 415,
    None: 415,
}


@pytest.mark.anyio
async def test_only_json_in_utf_8_is_read(desk: DeskOverHttp, subtests: pytest.Subtests) -> None:
    body = json.dumps({**OPENING, "requester_id": desk.ids["customer"]}).encode()
    for content_type, status in CONTENT_TYPES.items():
        with subtests.test(content_type):
            headers = {} if content_type is None else {"Content-Type": content_type}
            answer = await desk.request("POST", "/tickets", content=body, headers=headers)
            assert answer.status_code == status, answer.text


HEADERS: list[tuple[str, str | list[str], int]] = [
    ("If-Match", "3", 400),
    ("If-Match", '"three"', 400),
    ("If-Match", 'W/"1"', 400),
    ("If-Match", '"1", "2"', 400),
    ("If-Match", '"' + "9" * 30 + '"', 400),
    ("If-Match", '"٣"', 400),
    ("If-Match", ['"1"', '"1"'], 400),
    ("Idempotency-Key", "", 400),
    ("Idempotency-Key", "a b", 400),
    ("Idempotency-Key", "é", 400),
    ("Idempotency-Key", "k" * 256, 400),
    ("Idempotency-Key", ["k", "k"], 400),
    ("Idempotency-Key", "k" * 255, 200),
    ("X-Request-ID", "\x00", 200),
    ("User-Agent", "\x01\x02é" * 500, 200),
    ("Host", "evil.example\r", 200),
    ("Content-Length", "-5", 200),
]


@pytest.mark.anyio
async def test_a_malformed_header_is_refused(desk: DeskOverHttp, subtests: pytest.Subtests) -> None:
    path = f"/tickets/{(await desk.open())['id']}/add-note"
    for name, value, status in HEADERS:
        with subtests.test(name, value=value):
            before = await desk.head()
            values = [value] if isinstance(value, str) else value
            headers = [(name.encode(), one.encode("utf-8")) for one in values]
            answer = await desk.post(path, {"text": "a"}, headers=headers)
            assert answer.status_code == status, answer.text
            if status == 400:
                is_a_problem(answer)
                assert await desk.head() == before


@pytest.mark.anyio
async def test_a_precondition_on_something_that_does_not_exist_yet_is_refused(desk: DeskOverHttp) -> None:
    body = {**OPENING, "requester_id": desk.ids["customer"]}
    assert (await desk.post("/tickets", body, headers={"If-Match": '"1"'})).status_code == 400


REFERENCES = [
    "%00",
    "0",
    "-1",
    "1.5",
    "99999999999999999999999999",
    "٣",
    "²",
    "nil",
    "00000000-0000-0000-0000-000000000000",
    "a:b",
    "zendesk:%00",
    "%F0%28%8C%28",
    "%ED%A0%80",
    "x" * 3000,
    "..%2f..%2fetc",
    "'; DROP TABLE events; --",
    "%25",
]


@pytest.mark.anyio
async def test_a_reference_to_nothing_is_not_found(desk: DeskOverHttp, subtests: pytest.Subtests) -> None:
    before = await desk.head()
    for reference in REFERENCES:
        with subtests.test(reference):
            for path in (f"/tickets/{reference}", f"/tickets/{reference}/history", f"/tickets/{reference}/sla"):
                answer = await desk.get(path)
                assert answer.status_code == 404, path
                is_a_problem(answer)
            for kind in ("customers", "agents", "teams"):
                assert (await desk.get(f"/{kind}/{reference}")).status_code == 404
            answer = await desk.post(f"/tickets/{reference}/add-note", {"text": "a"})
            assert answer.status_code == 404
            assert (await desk.get("/problems/" + reference, role=None)).status_code in {404, 422}
    assert await desk.head() == before


@pytest.mark.anyio
async def test_ids_of_other_kinds_are_not_found(desk: DeskOverHttp) -> None:
    ticket = await desk.open()
    before = await desk.head()
    assert (await desk.get(f"/tickets/{desk.ids['customer']}")).status_code == 404
    assert (await desk.get("/tickets/1")).status_code == 404
    assert (await desk.get(f"/customers/{ticket['id']}")).status_code == 404
    assert (await desk.get(f"/agents/{desk.ids['team']}")).status_code == 404
    assert (await desk.post(f"/tickets/{desk.ids['agent']}/close")).status_code == 404
    assert await desk.head() == before


QUERIES = [
    ("/queue", {"limit": "0"}, 422),
    ("/queue", {"limit": "1000000"}, 422),
    ("/queue", {"limit": "\x00"}, 422),
    ("/queue", {"status": "burning"}, 422),
    ("/queue", {"team": "first line"}, 422),
    ("/queue", {"tag": "a\x00b"}, 422),
    ("/queue", {"category": "\x00"}, 422),
    ("/queue", {"sort": "random"}, 422),
    ("/queue", {"cursor": "nonsense"}, 422),
    ("/queue", {"cursor": "é\x00"}, 422),
    ("/queue", {"cursor": "W10"}, 422),
    ("/queue", {"cursor": "x" * 3000}, 422),
    ("/queue", {"after": "soon"}, 400),
    ("/queue", {"after": "-1"}, 400),
    ("/queue", {"after": "1.other"}, 409),
    ("/queue", {"after": "999999999999999999"}, 409),
    ("/queue/counts", {"at": "x"}, 400),
    ("/queue/counts", {"by": "colour"}, 422),
    ("/audit-trail", {"actor": "me"}, 422),
    ("/audit-trail", {"occurred_from": "2030-01-01"}, 422),
    ("/audit-trail", {"ticket": "\x00"}, 404),
    ("/audit-trail", {"field": "a\x00"}, 422),
    ("/sla-clocks", {"state": "burning"}, 422),
    ("/sla-clocks", {"due_before": "now"}, 422),
    ("/sla-clocks", {"due_within": "soon"}, 422),
    ("/queue", {"due_within": "-5m"}, 422),
    ("/queue", {"due_within": "9999999d"}, 422),
    ("/queue", {"due_within": "999999d"}, 422),
    ("/queue", {"due_before": "2026-01-01T00:00:00"}, 422),
    ("/customers", {"email": "a@example.com", "phone": "1"}, 400),
    ("/customers", {"organisation": "\x00"}, 422),
    ("/customers", {"tier": "platinum"}, 422),
    ("/agents", {"team": "\x00"}, 422),
    ("/teams", {"active": "perhaps"}, 422),
]


@pytest.mark.anyio
async def test_a_bad_query_is_refused(desk: DeskOverHttp, subtests: pytest.Subtests) -> None:
    await desk.catch_up()
    for path, query, status in QUERIES:
        with subtests.test(path, query=query):
            answer = await desk.get(path, params=query, role=Role.SUPERVISOR)
            assert answer.status_code == status, answer.text
            is_a_problem(answer)


@pytest.mark.anyio
async def test_unknown_addresses_and_methods_are_problems_too(desk: DeskOverHttp) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/tickets/", 404),
        ("DELETE", "/queue", 405),
        ("GET", "/tickets/1/assign", 405),
        ("PUT", "/tickets", 405),
        ("TRACE", "/log", 405),
        ("BREW", "/log", 405),
        ("POST", "/tickets/1/burn", 404),
    ):
        answer = await desk.request(method, path)
        assert answer.status_code == status, (method, path)
        is_a_problem(answer)
        if status == 405:
            assert answer.headers["Allow"]


@pytest.mark.anyio
async def test_a_fault_of_the_desk_is_told_without_its_particulars(
    desk: DeskOverHttp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        message = "the secret particulars"
        raise RuntimeError(message)

    monkeypatch.setattr("api.view_routes.view_status", fail)
    answer = await desk.get("/views")
    assert answer.status_code == 500
    is_a_problem(answer)
    assert "secret" not in answer.text
    assert answer.headers["X-Request-ID"] in caplog.text
    assert "secret particulars" in caplog.text


@pytest.mark.anyio
async def test_a_database_that_does_not_answer_is_told_as_such(desk: DeskOverHttp, server: Server) -> None:
    database = str(conninfo_to_dict(desk.database.conninfo)["dbname"])
    desk.database.pool.timeout = 0.2
    server.execute("ALTER DATABASE {} ALLOW_CONNECTIONS false", database)
    server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
    answers = [await desk.get("/log") for _ in range(3)]
    server.execute("ALTER DATABASE {} ALLOW_CONNECTIONS true", database)
    for answer in answers:
        assert answer.status_code == 503
        is_a_problem(answer)
        assert answer.json()["type"] == "/problems/database-unavailable"
        assert answer.headers["Retry-After"]
    desk.database.pool.timeout = 10.0
    assert (await desk.get("/log")).status_code == 200


@pytest.mark.anyio
async def test_connections_that_were_ended_are_not_felt_by_those_who_read(desk: DeskOverHttp, server: Server) -> None:
    database = str(conninfo_to_dict(desk.database.conninfo)["dbname"])
    for _ in range(5):
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        for path in ("/log", "/teams", "/queue/counts"):
            answer = await desk.get(path)
            assert answer.status_code == 200 or answer.json()["type"] == "/problems/view-behind", answer.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def loop_and_desk(settings: Settings) -> Iterator[tuple[asyncio.Runner, DeskOverHttp, dict[str, str]]]:
    """Give a desk to a test that is no coroutine, as one that is run on many examples cannot be."""
    with asyncio.Runner() as runner:
        database = runner.run(Database.open(settings))

        async def prepare() -> tuple[DeskOverHttp, dict[str, str]]:
            client = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(database)), base_url="http://desk.test")
            desk = await over_http(client, database, "alpha")
            return desk, {**desk.ids, "ticket": (await desk.open())["id"]}

        desk, ids = runner.run(prepare())
        try:
            yield runner, desk, ids
        finally:
            runner.run(desk.client.aclose())
            runner.run(database.close())


def values_of(ids: dict[str, str]) -> st.SearchStrategy[Any]:
    """Give values that are sometimes right."""
    known = st.sampled_from([*ids.values(), "high", "email", "incident", "2030-01-01T00:00:00Z", 1, 3, "a", "a@b.org"])
    return known | json_values | st.lists(known, max_size=3)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_sent_is_carried_out_or_refused_but_never_breaks_the_desk(
    loop_and_desk: tuple[asyncio.Runner, DeskOverHttp, dict[str, str]], data: st.DataObject
) -> None:
    runner, desk, ids = loop_and_desk
    spec = data.draw(st.sampled_from(list(COMMANDS.values())), label="command")
    names = st.sampled_from([*spec.model.model_fields, "colour"])
    body = data.draw(st.dictionaries(names, values_of(ids), max_size=6), label="body")
    text = json.dumps(body, ensure_ascii=data.draw(st.booleans(), label="escaped")).encode(errors="surrogatepass")
    path = path_of(spec, ids.get(spec.kind, ""))

    async def send() -> tuple[int, httpx.Response, int]:
        before = await desk.head()
        token = desk.tokens[Role.ADMINISTRATOR]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        answer = await desk.client.post(path, content=text, headers=headers)
        return before, answer, await desk.head()

    before, answer, after = runner.run(send())
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        is_a_problem(answer)
        assert after == before
    else:
        assert answer.headers["ETag"] == f'"{answer.json()["version"]}"'
        assert (after > before) is answer.json()["changed"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200)
    | st.text(st.characters(), max_size=100).map(lambda t: t.encode(errors="surrogatepass"))
)
def test_any_bytes_at_all_are_answered(
    loop_and_desk: tuple[asyncio.Runner, DeskOverHttp, dict[str, str]], body: bytes
) -> None:
    runner, desk, ids = loop_and_desk
    answer = runner.run(
        desk.request(
            "POST", f"/tickets/{ids['ticket']}/add-note", content=body, headers={"Content-Type": "application/json"}
        )
    )
    assert 400 <= answer.status_code < 500
    is_a_problem(answer)
