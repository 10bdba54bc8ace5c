"""The interface describes itself, truthfully and without another host."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from api.command_routes import path_of
from api.problems import KINDS, all_kinds
from commands.catalogue import COMMANDS
from commands.service_levels import AdoptCalendar, AdoptPolicy

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI
    from pydantic import BaseModel

pytestmark = pytest.mark.anyio


def references(schema: Any) -> set[str]:
    """List what a schema refers to."""
    if isinstance(schema, dict):
        own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
        return own.union(*(references(value) for value in schema.values()))
    return set().union(*(references(value) for value in schema)) if isinstance(schema, list) else set()


async def test_every_command_is_described_with_its_model_and_its_problems(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    for (kind, name), spec in COMMANDS.items():
        described = schema["paths"][path_of(spec, f"{{{kind}}}")]["post"]
        assert described["operationId"] == f"{kind}.{name}"
        body = described["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": f"#/components/schemas/{spec.model.__name__}"}
        assert {"400", "401", "403", "409", "413", "415", "422", "503"} <= set(described["responses"])
        assert ("412" in described["responses"]) is not spec.creates
        assert described["security"] == [{"credential": []}]


async def test_everything_referred_to_is_there(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    there = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert references(schema) <= there


async def test_every_route_but_the_documentation_is_described(app: FastAPI, client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    described = {(path, method.upper()) for path, methods in schema["paths"].items() for method in methods}
    served = {(route.path, *route.methods) for route in app.routes}  # type: ignore[attr-defined]
    assert served - described == {("/docs", "GET"), ("/docs/{name}", "GET"), ("/openapi.json", "GET")}


@pytest.mark.parametrize(("model", "field"), [(AdoptCalendar, "hours"), (AdoptPolicy, "targets")])
async def test_what_is_adopted_is_described_with_an_example_that_is_taken(
    client: httpx.AsyncClient, model: type[BaseModel], field: str
) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    described = schemas[model.__name__]
    (example,) = described["examples"]
    model.model_validate_json(json.dumps(example))
    assert described["properties"][field]["description"]


async def test_the_documentation_page_needs_no_other_host(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert named
    for address in named:
        assert address.startswith("/docs/")
        assert (await client.get(address)).status_code == 200
    assert "http" not in re.sub(r"https?://www\.w3\.org\S*", "", page)


async def test_every_problem_is_explained(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/problems")).json()["problems"]
    assert {one["type"] for one in listed} == {kind.type for kind in all_kinds().values()}
    for one in listed:
        explained = await client.get(one["type"])
        assert explained.status_code == 200
        assert explained.headers["Content-Type"].startswith("text/plain")
        assert one["title"] in explained.text
        assert str(one["status"]) in explained.text


async def test_refusals_do_not_take_the_names_of_other_problems() -> None:
    refusals = {name for name, kind in all_kinds().items() if kind is not KINDS.get(name)}
    assert refusals
    assert not refusals & set(KINDS)
