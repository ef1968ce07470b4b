"""Rebuild requests through a real Redis."""

from __future__ import annotations

import pytest

from nearline.errors import NotReady
from retrieval.monitoring.rebuild_requests import RebuildRequests
from retrieval.redis_client.connection import connect
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]


async def test_a_rebuild_is_requested_once_an_hour_and_taken_once(shared_redis: str) -> None:
    clients = [connect(shared_redis, timeout_s=10.0) for _ in range(2)]
    router, upkeep = (RebuildRequests(client) for client in clients)
    assert await upkeep.take("shop") == ""
    assert await router.request("shop", "drift of score: 0.4 is above 0.25")
    assert not await router.request("shop", "drift of query: 0.3 is above 0.25")
    assert await router.request("other", "another")
    assert await upkeep.take("shop") == "drift of score: 0.4 is above 0.25"
    assert await upkeep.take("shop") == ""
    # Taken, and still no other one within the hour.
    assert not await router.request("shop", "drift of score: 0.5 is above 0.25")
    pause_s = await clients[0].ttl("nl:{shop}:rebuild:pause")
    assert 3_500 < pause_s <= 3_600
    await clients[0].delete("nl:{shop}:rebuild:pause")
    assert await router.request("shop", "an hour later")
    assert 86_000 < await clients[0].ttl("nl:{shop}:rebuild") <= 86_400
    for client in clients:
        await client.aclose()


async def test_a_reason_that_no_router_wrote_is_cut_and_read(shared_redis: str) -> None:
    client = connect(shared_redis, timeout_s=10.0)
    await client.set("nl:{shop}:rebuild", b"\xff" + b"x" * 5_000_000)
    assert await RebuildRequests(client).take("shop") == "\ufffd" + "x" * 999
    await client.aclose()


async def test_an_unreachable_redis_raises_not_ready() -> None:
    client = connect("redis://127.0.0.1:1/0", timeout_s=0.2, retries=0)
    with pytest.raises(NotReady, match="rebuilds after drift"):
        await RebuildRequests(client).request("shop", "drift")
    await client.aclose()
