"""A Redis that fills up refuses upserts while it still has room for deletes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import pytest_asyncio

from nearline import contract as c
from nearline.errors import FeedBlocked
from retrieval.recommend.policies import default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.redis_client.connection import Redis, connect
from retrieval.redis_client.durability import Durability
from retrieval.rollout.collections import ServedCollections
from retrieval.users.states import UserStates
from retrieval.writes.feed_block import REDIS, FeedBlock, ResourceState, redis_resource
from retrieval.writes.memory_quota import MemoryQuota
from tests.redis_server import give_shared_redis, needs_redis
from tests.retrieval.changelog.log_writes import change_logs
from tests.retrieval.writable_collection import written

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]
MIB = 1 << 20


@pytest_asyncio.fixture(name="redis")
async def give_redis(shared_redis: str) -> AsyncIterator[Redis]:
    async with connect(shared_redis, timeout_s=10.0, retries=0) as client:
        await client.flushall()
        await client.config_set("maxmemory", 0)
        yield client
        await client.config_set("maxmemory", 0)


async def used_bytes(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


async def test_deletes_pass_once_upserts_and_interactions_are_refused(
    redis: Redis, shared_redis: str, tmp_path: Path
) -> None:
    block = FeedBlock([redis_resource(redis, 0.85)])
    async with change_logs(tmp_path, shared_redis) as logs:
        here = written(feed_block=block, log_of=logs.log)
        collections = ServedCollections()
        collections.serve(here.served)
        recommender = RecommendationService(
            collections,
            default_policies(),
            UserStates(redis, Durability(redis)),
            feed_block=block,
        )
        seen = c.Interaction(item_id="first", kind="view", user_id="u")
        ids = ["first"]

        async def upsert(size: int = 40_000) -> None:
            document_id = f"i{len(ids)}"
            attributes: dict[str, c.AttributeValue] = {"kind": secrets.token_hex(size // 2)}
            item = c.Item(id=document_id, text="red", attributes=attributes)
            await here.writer.upsert_items([item])
            ids.append(document_id)
            await block.measure()

        await here.writer.upsert_items([c.Item(id="first", text="red")])
        await recommender.record_interactions([seen])
        limit = await used_bytes(redis) + 4 * MIB
        await redis.config_set("maxmemory", limit)
        with pytest.raises(FeedBlocked, match=r"Redis has .*--feed-block-redis 0\.85\): compact"):
            while True:
                await upsert()
        # It would have passed the limit; smaller ones fit until that is reached.
        with pytest.raises(FeedBlocked, match=r"\(--feed-block-redis 0\.85\): compact"):
            while True:
                await upsert(1_000)
        assert 0.85 * limit - 5_000 <= await used_bytes(redis) < 0.95 * limit
        await redis.config_set("maxmemory", int(await used_bytes(redis) / 0.86))
        await block.measure()
        with pytest.raises(FeedBlocked, match="interactions are refused"):
            await recommender.record_interactions([seen])
        # What is left is for deletes, of which each needs some memory.
        gone = await here.writer.delete_items(ids)
        assert {one.outcome for one in gone.results} == {c.WriteOutcome.DELETED}
        assert (await recommender.delete_user("u")).interactions == 1
        # The bytes are free once the log is trimmed; then upserts pass again by themselves.
        await logs.log("default").trim((await logs.log("default").state()).head)
        await block.measure()
        await upsert()
        await recommender.record_interactions([seen])
        # Likewise once Redis may have more.
        await redis.config_set("maxmemory", await used_bytes(redis))
        await block.measure()
        with pytest.raises(FeedBlocked, match=r"Redis has 0\.\d MiB of"):
            await upsert()
        await redis.config_set("maxmemory", 64 * MIB)
        await block.measure()
        await upsert()


async def test_all_roles_of_a_tenant_share_its_quota(redis: Redis) -> None:
    states = [ResourceState(REDIS, 80, 80, 0, "")]
    quota = MemoryQuota(redis, cast(FeedBlock, SimpleNamespace(states=states)), 1 << 32)
    for owner in ("shop", "shop+a"):
        await quota.reserve(owner, 5)
    with pytest.raises(FeedBlocked, match="the tenant has stored 10 bytes"):
        await quota.reserve("shop+b", 1)
    await quota.reserve("shops+a", 10)


async def test_without_a_limit_of_its_own_the_memory_of_its_machine_counts(redis: Redis) -> None:
    (usage,) = await redis_resource(redis, 0.85).read()
    assert usage.total == (await redis.info("memory"))["total_system_memory"]
    await redis.config_set("maxmemory", 64 * MIB)
    (usage,) = await redis_resource(redis, 0.85).read()
    assert usage.total == 64 * MIB
    assert abs(usage.free - (64 * MIB - await used_bytes(redis))) < MIB
