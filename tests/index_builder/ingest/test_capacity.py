"""Limits above a share of the memory of Redis are lowered, and an operator is told so once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from index_builder.ingest import capacity
from index_builder.ingest.capacity import Capacity
from index_builder.ingest.records import QueueLimits
from retrieval.redis_client.connection import Redis, connect
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]
MIB = 1 << 20
SET = QueueLimits(bytes=32 * MIB, dead_bytes=8 * MIB)


@pytest_asyncio.fixture(name="redis")
async def give_redis(shared_redis: str) -> AsyncIterator[Redis]:
    client = connect(shared_redis, timeout_s=10.0)
    yield client
    await client.config_set("maxmemory", 0)
    await client.aclose()


async def test_lowered_limits_are_logged_when_they_change(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capacity, "_READ_EVERY_S", 0.0)
    limited = Capacity(redis, SET)
    for maxmemory, queued, dead, warnings in (
        (0, 32, 8, 0),
        (64 * MIB, 32, 8, 0),
        (48 * MIB, 24, 6, 1),
        (48 * MIB, 24, 6, 1),
        (32 * MIB, 16, 4, 2),
        (64 * MIB, 32, 8, 2),
    ):
        await redis.config_set("maxmemory", maxmemory)
        limits = await limited.limits()
        assert (limits.bytes, limits.dead_bytes) == (queued * MIB, dead * MIB)
        assert limits.units == SET.units
        assert sum(one.levelno == logging.WARNING for one in caplog.records) == warnings


async def test_the_memory_of_redis_is_not_read_for_every_call(redis: Redis) -> None:
    limited = Capacity(redis, SET)
    assert await limited.limits() == SET
    await redis.config_set("maxmemory", MIB)
    assert await limited.limits() == SET
