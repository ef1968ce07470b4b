"""Change log, users and caches on different servers, each with what belongs there."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import NotReady
from nearline_cli.local.processes import retrieval_process
from retrieval.redis_client.connection import connect
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis]


async def prefixes(url: str) -> set[str]:
    """Returns the first parts of the keys of a Redis."""
    async with connect(url, timeout_s=10.0) as client:
        keys = [key.decode() async for key in client.scan_iter()]
    return {key.split("}")[0].rstrip("0123456789") if "{" in key else key[:12] for key in keys}


async def test_each_server_has_what_belongs_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = [
        c.Item(id=f"i{number}", title="title", vector=rng.standard_normal(8).astype(np.float32))
        for number in range(20)
    ]
    await build_snapshot(items, BuildOptions(store=str(tmp_path), lexical=False))
    async with contextlib.AsyncExitStack() as stack:
        log, users, cache = [await stack.enter_async_context(valkey()) for _ in range(3)]
        words = ["--redis", log, "--redis-users", users, "--redis-cache", cache]
        router = await stack.enter_async_context(retrieval_process(tmp_path, words))
        client = await stack.enter_async_context(RetrievalClient(router.address))
        await client.upsert_items([items[0]])
        await client.record_interactions([c.Interaction(item_id="i1", user_id="u")])
        await client.recommend(c.Audience(item_ids=("i1",), surface="item_page"))
        assert await prefixes(log) == {"nl:{default/"}
        assert await prefixes(users) == {"nl:{default/u", "nl:{default/items"}
        assert await prefixes(cache) <= {"nearline:hot"}
        # Only a cache may evict.
        async with connect(users, timeout_s=10.0) as admin:
            await admin.config_set("maxmemory-policy", "allkeys-lru")
            with pytest.raises(NotReady, match=r"evict .* set maxmemory-policy noeviction"):
                while True:  # The setting is read once a second.
                    await client.record_interactions(
                        [c.Interaction(item_id="i1", user_id="u")], timeout_s=5.0
                    )
        async with connect(cache, timeout_s=10.0) as admin:
            await admin.config_set("maxmemory-policy", "allkeys-lru")
        await client.upsert_items([items[0]])
