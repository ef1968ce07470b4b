"""A web page in the browser of somebody who runs a gateway without keys cannot use it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from nearline.v1 import admin_pb2, retrieval_pb2
from tests.gateway.gateways import Behind, gateway

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
DELETE = "/v1/collections/shop/items/delete"
JSON = "application/json"
Served = tuple[httpx2.AsyncClient, Behind]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="local")
async def give_local() -> AsyncIterator[Served]:
    async with gateway() as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="contained")
async def give_contained() -> AsyncIterator[Served]:
    """A gateway that listens as in a container."""
    named = "https://shop.example:7706"
    async with gateway(host="0.0.0.0", insecure=True, allow_origins=named) as served:
        yield served


async def _sent(
    served: Served,
    verb: str,
    path: str,
    headers: dict[str, str],
    body: bytes | AsyncIterator[bytes],
) -> int:
    """Returns the status of a request, which reaches a service or is refused with a remedy."""
    client, behind = served
    behind.seen.clear()
    behind.answers["DeleteItems"] = lambda request: retrieval_pb2.DeleteItemsResponse()
    behind.answers["DropCollection"] = lambda request: admin_pb2.DropCollectionResponse()
    behind.answers["RollbackSnapshot"] = lambda request: admin_pb2.RollbackSnapshotResponse()
    async with httpx2.AsyncClient(base_url=client.base_url, trust_env=False) as page:
        found = await page.request(verb, path, headers=headers, content=body)
    assert len(behind.seen) == (found.status_code == 200), found.text
    if found.status_code != 200:
        assert any(one in found.json()["detail"] for one in ("--allow-origins", JSON))
    return found.status_code


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_what_a_form_can_send_is_refused_without_a_key(local: Served, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    assert await _sent(local, "POST", DELETE, headers, b'{"ids": ["a"]}') == 400
    headers["authorization"] = "Bearer key"
    assert await _sent(local, "POST", DELETE, headers, b'{"ids": ["a"]}') == 200


async def test_json_with_a_charset_and_a_request_without_a_body_are_taken(local: Served) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert await _sent(local, "POST", DELETE, headers, b'{"ids": ["a"]}') == 200
    assert await _sent(local, "POST", "/v1/collections/shop/rollback", {}, b"") == 200


@pytest.mark.parametrize(
    ("verb", "path"), [("POST", "/v1/collections/shop/rollback"), ("DELETE", "/v1/collections/a")]
)
async def test_pages_of_other_origins_and_rebound_names_are_refused(
    local: Served, verb: str, path: str
) -> None:
    assert await _sent(local, verb, path, {"origin": "https://evil.example"}, b"") == 403
    assert await _sent(local, verb, path, {"origin": "null"}, b"") == 403
    assert await _sent(local, verb, path, {"origin": "http://[evil"}, b"") == 403
    rebound = {"host": "evil.example:7706", "origin": "http://evil.example:7706"}
    assert await _sent(local, verb, path, rebound, b"") == 403
    # Services without keys look at no credential, so one changes nothing.
    assert await _sent(local, verb, path, {**rebound, "authorization": "Bearer x"}, b"") == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7706", 200),
        ("127.0.0.2", 200),
        ("[::1]:7706", 200),
        ("LocalHost:7706", 200),
        ("unix:7706", 403),
        ("unix:/run/nearline.sock", 403),
        ("evil.example/localhost", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
async def test_only_names_of_this_machine_are_its_own(
    local: Served, host: str, status: int
) -> None:
    path = "/v1/collections/shop"
    assert await _sent(local, "DELETE", path, {"host": host}, b"") == status


async def test_another_port_of_the_same_host_is_another_origin(local: Served) -> None:
    host = str(local[0].base_url).removeprefix("http://").rstrip("/")
    path = "/v1/collections/shop/rollback"
    assert await _sent(local, "POST", path, {"origin": f"http://{host}"}, b"") == 200
    other = f"http://{host.rpartition(':')[0]}:1"
    assert await _sent(local, "POST", path, {"origin": other}, b"") == 403


async def test_a_body_in_chunks_needs_a_content_type_as_well(local: Served) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"ids": '
        yield b'["a"]}'

    headers = {"content-type": "text/plain"}
    assert await _sent(local, "POST", DELETE, headers, chunks()) == 400
    headers["content-type"] = JSON
    assert await _sent(local, "POST", DELETE, headers, chunks()) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7706", 200),
        ("10.1.2.3:7706", 200),
        ("[fd00::1]:7706", 200),
        ("localhost:7706", 200),
        ("gateway:7706", 200),
        ("gateway.nearline.svc.cluster.local:7706", 200),
        ("shop.example:7706", 200),
        ("evil.example:7706", 403),
        ("127.0.0.1.evil.example", 403),
        ("[evil", 403),
    ],
)
async def test_in_a_container_addresses_private_names_and_listed_ones_are_its_own(
    contained: Served, host: str, status: int
) -> None:
    path = "/v1/collections/shop"
    assert await _sent(contained, "DELETE", path, {"host": host}, b"") == status
