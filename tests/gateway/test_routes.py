"""Every public method has a path, and what is sent there arrives as its request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass

from gateway.routes import ROUTES
from gateway.upstream import SERVICES
from nearline.access.rights import METHODS, Right
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
