"""A call to a shard takes as long as its caller has left; a status tells of the server, too."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearline.channel import ServiceChannel
from nearline.internal.v1 import shard_pb2
from nearline.serving import running
from retrieval.shards.client import ShardClient, time_left_s
from retrieval.shards.servicer import ShardServicer, registrations
from retrieval.snapshots.memory import memory_limits


@pytest.mark.parametrize(
    ("left_s", "at_least", "at_most"),
    # gRPC takes no time of zero or less: what is too late ends at once.
    [(30.0, 29.0, 30.0), (0.5, 0.001, 0.5), (0.0, 0.001, 0.001), (-5.0, 0.001, 0.001)],
)
async def test_a_call_ends_with_its_deadline(
    left_s: float, at_least: float, at_most: float
) -> None:
    now = asyncio.get_running_loop().time()
    # The time of the loop is a float, so a difference of two is not exact.
    assert at_least <= time_left_s(now + left_s) <= at_most + 1e-6


async def test_a_call_without_a_deadline_ends_at_some_time() -> None:
    assert 0 < time_left_s(None) < float("inf")


@pytest.mark.service
async def test_the_status_of_a_server_carries_its_memory() -> None:
    servicer = ShardServicer(cast(Any, []))  # It holds no shard.
    async with running(registrations(servicer)) as address, ShardClient(address) as client:
        assert await client.status(5.0) == {}
        totals = [one.total for one in client.memory]
    assert totals == [one.total for one in memory_limits()]


@pytest.mark.service
async def test_a_router_of_release_0_2_calls_every_method_by_its_old_name() -> None:
    servicer = ShardServicer(cast(Any, []))
    methods = shard_pb2.DESCRIPTOR.services_by_name["ShardService"].methods_by_name
    async with running(registrations(servicer)) as address, ServiceChannel(address) as channel:
        stub: Any = channel.grpc_channel
        # It waits for this health before it calls.
        check = health_pb2.HealthCheckRequest(service="nearline.v1.ShardService")
        reply = await health_pb2_grpc.HealthStub(channel.grpc_channel).Check(check, timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        codes = {}
        for name in methods:
            call = stub.unary_unary(f"/nearline.v1.ShardService/{name}")(b"", timeout=5)
            codes[name] = (await call.code()).name
    # The server holds no shard, so the others fail, but in the servicer.
    assert codes.pop("GetStatus") == "OK"
    assert set(codes.values()) == {"INTERNAL"} and len(codes) == 9
