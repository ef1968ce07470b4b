"""The costliest search that is allowed delays the small ones beside it by half a second at most."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline_cli.local.processes import retrieval_process
from tests.scale import nightly

pytestmark = pytest.mark.service
ITEMS, DIM = 13_000, 128
COSTLY = c.SearchOptions(k=10_000, diversity=0.5)
SMALL = c.SearchOptions(k=10)
TIMES = 5
MOST_S = 0.5


@nightly
async def test_small_searches_go_on_beside_the_costliest_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    items = [c.Item(id=f"d{n}", text="x", vector=one) for n, one in enumerate(vectors)]
    await build_snapshot(items, BuildOptions(store=str(tmp_path), lexical=False))
    query = c.Query(vector=vectors[0])
    async with (
        retrieval_process(tmp_path, ("--drain-s", "0")) as router,
        RetrievalClient(router.address) as client,
        RetrievalClient(router.address) as other,
    ):
        for _ in range(20):
            await client.search(query, SMALL)
        costly_s: list[float] = []

        async def ask_costly() -> None:
            for _ in range(TIMES):
                start = time.perf_counter()
                reply = await other.search(query, COSTLY, timeout_s=60.0)
                costly_s.append(time.perf_counter() - start)
                assert len(reply.hits) == COSTLY.k

        small_s: list[float] = []
        costly = asyncio.create_task(ask_costly())
        while not costly.done():
            start = time.perf_counter()
            await client.search(query, SMALL)
            small_s.append(time.perf_counter() - start)
        await costly
    print(
        f"{TIMES} costly searches of {max(costly_s):.2f} s at most; beside them {len(small_s)} "
        f"small ones, the longest {max(small_s):.3f} s"
    )
    assert max(small_s) <= MOST_S
