"""Lists of real processes follow what is recorded, also after upkeep was killed."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.contract import Audience, RecommendOptions
from nearline_cli.local.processes import service_process
from retrieval.trends.trend_lists import TrendLists, trend_keys
from tests import waits
from tests.live.world import World, world
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, pytest.mark.long, needs_redis]
until = partial(waits.until, every_s=0.1)
IDS = [f"i{number:02d}" for number in range(12)]
KEYS = trend_keys("default")


async def first_of(running: World, audience: Audience) -> str:
    reply = await running.client.recommend(audience, RecommendOptions(n=3))
    return reply.recommendations[0].hit.id


async def visit(running: World, item_id: str, *users: str) -> None:
    done = [c.Interaction(item_id=item_id, user_id=one) for one in users]
    await running.client.record_interactions(done)


async def stored(client: Any) -> tuple[bytes | None, Mapping[bytes, bytes]]:
    return await client.hget(KEYS.lists, "lists"), await client.hgetall(KEYS.related)


async def test_lists_follow_what_is_recorded(tmp_path: Path) -> None:
    items = [
        c.Item(id=one, title=one, vector=np.eye(len(IDS), dtype=np.float32)[number])
        for number, one in enumerate(IDS)
    ]
    store = str(tmp_path / "store")
    await build_snapshot(items, BuildOptions(store=store, shards=2, lexical=False, title_only=True))
    async with world(tmp_path, shards=2, replicas=1) as running:
        upkeep = ("--store", store, "--redis", running.redis_url, "--first-training", "0")
        client = redis.asyncio.Redis.from_url(running.redis_url)
        async with service_process("index_builder.maintenance", upkeep) as process:

            async def burst_leads() -> bool:
                return await first_of(running, Audience(surface="trending")) == "i07"

            await visit(running, "i07", *(f"burst {one}" for one in range(20)))
            await until(burst_leads, 10)
            # Twenty visitors of an item had another one, too.
            visitors = [f"user {one}" for one in range(20)]
            await visit(running, "i03", *visitors)
            await visit(running, "i11", *visitors)
            page = Audience(item_ids=("i11",), surface="item_page")

            async def neighbour_leads() -> bool:
                return await first_of(running, page) == "i03"

            await until(neighbour_leads, 10)
            # A session that has one of them gets the other one in its next list.
            await running.client.record_interactions([c.Interaction(item_id="i03", session_id="s")])
            assert await first_of(running, Audience(session_id="s")) == "i11"

            async def all_count(expected: float = 61.0) -> bool:
                lists, related = await stored(client)
                counts = sum(TrendLists.decode(lists).popular.scores)
                return counts == expected and b"i11" in related

            await until(all_count, 10)
            before = await stored(client)
            process.process.send_signal(signal.SIGKILL)
        await client.delete(KEYS.lists, KEYS.related)
        async with service_process("index_builder.maintenance", upkeep):

            async def as_before() -> bool:
                lists, related = await stored(client)
                return lists == before[0] and related.keys() == before[1].keys()

            # The lease of the killed one has to end.
            await until(as_before, 30)
            await running.client.delete_user("user 0")
            await until(lambda: all_count(59.0), 10)
        await client.aclose()
