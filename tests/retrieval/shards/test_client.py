"""A call to a shard takes as long as its caller has left; a status tells of the server, too."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from nearline.serving import Registration, running
from nearline.v1 import shard_pb2_grpc
from retrieval.shards.client import ShardClient, time_left_s
from retrieval.shards.servicer import ShardServicer
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
    registration = Registration(
        "nearline.v1.ShardService",
        lambda server: shard_pb2_grpc.add_ShardServiceServicer_to_server(servicer, server),
    )
    async with running([registration]) as address, ShardClient(address) as client:
        assert await client.status(5.0) == {}
        totals = [one.total for one in client.memory]
    assert totals == [one.total for one in memory_limits()]
