"""Limits above a share of the memory of Redis are lowered, and an operator is told so once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from index_builder.ingest import capacity
from index_builder.ingest.capacity import Capacity, clamped
from index_builder.ingest.records import QueueLimits
from index_builder.ingest.settings import IngestSettings
from nearline_cli.local.bundled_redis import SETTINGS
from retrieval.redis_client.connection import Redis, connect
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]
MIB = 1 << 20
SET = QueueLimits(bytes=32 * MIB, dead_bytes=8 * MIB, result_bytes=8 * MIB)


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
        (128 * MIB, 32, 8, 0),
        (96 * MIB, 24, 6, 1),
        (96 * MIB, 24, 6, 1),
        (64 * MIB, 16, 4, 2),
        (128 * MIB, 32, 8, 2),
    ):
        await redis.config_set("maxmemory", maxmemory)
        limits = await limited.limits()
        assert (limits.bytes, limits.dead_bytes) == (queued * MIB, dead * MIB)
        assert (limits.units, limits.result_bytes) == (SET.units, dead * MIB)
        assert sum(one.levelno == logging.WARNING for one in caplog.records) == warnings


def test_by_default_the_bundled_server_has_room_for_all_others() -> None:
    maxmemory = int(SETTINGS["maxmemory"].removesuffix("mb")) * MIB
    limits = IngestSettings().queue_limits()
    assert clamped(limits, maxmemory) == limits == QueueLimits()
    # Results may take twice their share for a minute.
    assert limits.bytes + limits.dead_bytes + 2 * limits.result_bytes < maxmemory / 2


async def test_the_memory_of_redis_is_not_read_for_every_call(redis: Redis) -> None:
    limited = Capacity(redis, SET)
    assert await limited.limits() == SET
    await redis.config_set("maxmemory", MIB)
    assert await limited.limits() == SET
