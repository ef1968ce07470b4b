"""What upkeep tells of trainings, through a real Redis."""

from __future__ import annotations

import pytest

from nearline.errors import NotReady
from nearline.v1 import admin_pb2
from retrieval.redis_client.connection import connect
from retrieval.snapshots.training_statuses import TrainingStatuses
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]


async def test_routers_read_what_upkeep_told_for_a_while(shared_redis: str) -> None:
    client = connect(shared_redis, timeout_s=10.0)
    statuses = TrainingStatuses(client)
    told = admin_pb2.TrainingStatus(recorded=680, needed=1_000)
    await statuses.put("shop", told)
    await client.set("nl:{odd}:training", b"\xff not a message")
    assert await statuses.get(["shop", "odd", "other"]) == {"shop": told}
    assert 86_000 < await client.ttl("nl:{shop}:training") <= 86_400
    # An upkeep that was killed says nothing more.
    await statuses.put("shop", admin_pb2.TrainingStatus(progress="training"))
    assert 50 < await client.ttl("nl:{shop}:training") <= 60
    await client.aclose()


async def test_an_unreachable_redis_raises_not_ready() -> None:
    client = connect("redis://127.0.0.1:1/0", timeout_s=0.2, retries=0)
    with pytest.raises(NotReady, match="the status of trainings"):
        await TrainingStatuses(client).get(["shop"])
    await client.aclose()
