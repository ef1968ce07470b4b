"""Every public method has a path, and what is sent there arrives as its request."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass

from gateway.compatible.paths import PATHS
from gateway.routes import ROUTES
from gateway.upstream import SERVICES
from nearline.access.rights import METHODS, Right
from nearline.v1.retrieval_pb2 import (
    DeleteItemsResponse,
    DeleteItemsStreamResponse,
    UpsertItemsResponse,
    UpsertItemsStreamResponse,
    WriteResult,
)
from tests.gateway.gateways import Behind, gateway

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
CASES = [(service, name) for service, methods in ROUTES.items() for name in methods]
Served = tuple[httpx2.AsyncClient, Behind]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="served")
async def give_served() -> AsyncIterator[Served]:
    async with gateway() as served:
        yield served


async def test_every_method_that_callers_may_call_has_a_path() -> None:
    public = {
        (service.removeprefix("nearline.v1."), name)
        for service, methods in METHODS.items()
        for name, row in methods.items()
        if row.right is not Right.SERVICE and not service.endswith("ShardService")
    }
    assert set(CASES) == public
    paths = [(route.verb, route.path) for methods in ROUTES.values() for route in methods.values()]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(("service", "name"), CASES)
async def test_a_request_reaches_its_method_with_the_fields_of_its_path(
    served: Served, service: str, name: str
) -> None:
    client, behind = served
    method, route = SERVICES[service].methods_by_name[name], ROUTES[service][name]
    reply = GetMessageClass(method.output_type)()
    behind.answers[name] = lambda request: [reply] if method.server_streaming else reply
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    path = route.path.format(**{one: f"x-{one}" for one in names})
    line = b"" if route.rows else b"{}\n"
    body: dict[str, Any] = {"content": line} if route.has_body else {}
    found = await client.request(route.verb, path, **body)
    assert found.status_code == 200, found.text
    seen, request = behind.seen[-1]
    assert seen == name
    inner = request.request if method.client_streaming else request
    assert {one: getattr(inner, one) for one in names} == {one: f"x-{one}" for one in names}


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        *(
            (route.verb, route.path)
            for methods in ROUTES.values()
            for route in methods.values()
            if route.verb == "PUT"
        ),
        ("POST", "/v1/collections/{collection}/items/delete/stream"),
        ("POST", "/v1/embedding/embed/stream"),
    ],
)
@pytest.mark.parametrize("body", [b"", b" \n"])
async def test_a_write_without_a_body_changes_nothing(
    served: Served, verb: str, path: str, body: bytes
) -> None:
    client, behind = served
    behind.seen.clear()
    found = await client.request(verb, path.replace("{", "").replace("}", ""), content=body)
    assert found.status_code == 400 and "has no body; send" in found.json()["detail"], found.text
    assert not behind.seen


@pytest.mark.parametrize(
    ("verb", "path", "name", "body"),
    [
        ("PUT", "/items", "UpsertItems", b'{"collection": "other", "items": [{"id": "a"}]}'),
        ("PUT", "/items/stream", "UpsertItemsStream", b'{"collection": "other"}\n' * 2),
        ("POST", "/items/delete/stream", "DeleteItemsStream", b'{"collection": "other"}\n' * 2),
        ("POST", "/interactions/import?collection=other", "ImportInteractions", b""),
        ("DELETE", "?collection=other", "DropCollection", b""),
    ],
)
async def test_the_collection_of_the_path_is_written_whatever_else_is_named(
    served: Served, verb: str, path: str, name: str, body: bytes
) -> None:
    client, behind = served
    behind.seen.clear()
    service = "AdminService" if name == "DropCollection" else "RetrievalService"
    method = SERVICES[service].methods_by_name[name]
    reply = GetMessageClass(method.output_type)()
    behind.answers[name] = lambda request: [reply] if method.server_streaming else reply
    found = await client.request(verb, f"/v1/collections/shop{path}", content=body)
    assert found.status_code == 200, found.text
    requests = [one.request if method.client_streaming else one for _, one in behind.seen]
    assert requests and {one.collection for one in requests} == {"shop"}


async def test_options_and_allow_name_every_method_of_a_path(served: Served) -> None:
    client, _ = served
    taken: dict[str, set[str]] = {"/": {"GET"}, "/mcp": {"POST"}, "/healthz": {"GET"}}
    places = [(one.verb, one.path) for methods in ROUTES.values() for one in methods.values()]
    for verb, path in (*places, *((one.verb, one.path) for one in PATHS)):
        taken.setdefault(re.sub(r"{.*?}", "x", path), set()).add(verb)
    for path, verbs in taken.items():
        wanted = verbs | {"OPTIONS"} | ({"HEAD"} if "GET" in verbs else set())
        found = await client.options(path)
        assert (found.status_code, set(found.headers["allow"].split(", "))) == (204, wanted), path
        found = await client.request("PATCH", path)
        assert (found.status_code, set(found.headers["allow"].split(", "))) == (405, wanted), path
    assert (await client.options("/nowhere")).status_code == 404


async def test_the_root_says_what_is_here_to_browsers_and_to_programs(served: Served) -> None:
    client, _ = served
    facts = (await client.get("/")).json()
    page = await client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html") and facts["version"] in page.text
    for path, use in facts["paths"].items():
        assert f'<a href="{path}">{path}</a>: {use}' in page.text
        assert (await client.options(path)).status_code == 204


APPLIED = WriteResult(outcome=WriteResult.OUTCOME_APPLIED)
REJECTED = WriteResult(outcome=WriteResult.OUTCOME_REJECTED)


@pytest.mark.parametrize(
    ("name", "reply", "status", "rejected"),
    [
        ("UpsertItems", UpsertItemsResponse(results=[APPLIED]), 200, 0),
        ("UpsertItems", UpsertItemsResponse(results=[APPLIED, REJECTED]), 207, 1),
        ("UpsertItems", UpsertItemsResponse(results=[REJECTED] * 3), 422, 3),
        ("DeleteItems", DeleteItemsResponse(results=[REJECTED]), 422, 1),
        ("UpsertItemsStream", UpsertItemsStreamResponse(applied=2), 200, 0),
        ("UpsertItemsStream", UpsertItemsStreamResponse(unchanged=2, rejected=1), 207, 1),
        ("UpsertItemsStream", UpsertItemsStreamResponse(rejected=2_000), 422, 2_000),
        ("DeleteItemsStream", DeleteItemsStreamResponse(absent=1, rejected=1), 207, 1),
    ],
)
async def test_a_write_whose_items_are_rejected_does_not_look_like_a_success(
    served: Served, name: str, reply: Any, status: int, rejected: int
) -> None:
    client, behind = served
    behind.answers[name] = lambda request: reply
    route = ROUTES["RetrievalService"][name]
    found = await client.request(route.verb, route.path.format(collection="shop"), content=b"{}")
    assert found.status_code == status
    assert next(iter(found.json().items())) == ("rejected", rejected)
