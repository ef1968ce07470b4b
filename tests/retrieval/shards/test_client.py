"""A call to a shard takes as long as its caller has left."""

from __future__ import annotations

import asyncio

import pytest

from retrieval.shards.client import time_left_s


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
