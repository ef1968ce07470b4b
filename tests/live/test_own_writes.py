"""A caller who passes the watermark of a write reads it, whichever replica answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from tests.live.world import world
from tests.redis_server import needs_redis
from tests.scale import scaled

pytestmark = [pytest.mark.service, needs_redis]
_DIM = 16
_TIMES = scaled(45, nightly=1_000)
_SHARDS = scaled(1, nightly=4)


@pytest.mark.timeout(180)
async def test_each_write_is_read_at_once(tmp_path: Path, rng: np.random.Generator) -> None:
    base = rng.normal(size=(400, _DIM)).astype(np.float32)
    items = [
        c.Item(id=f"b{row:04d}", text=f"base {row}", vector=vector)
        for row, vector in enumerate(base)
    ]
    await build_snapshot(items, BuildOptions(store=str(tmp_path / "store"), shards=_SHARDS))
    options = c.SearchOptions(
        k=1, mode=c.SearchMode.DENSE, payload=frozenset({c.PayloadField.TEXT})
    )
    hits = 0
    async with world(tmp_path, shards=_SHARDS, replicas=2) as running:
        client = running.client
        for number in range(_TIMES):
            vector = rng.normal(size=_DIM).astype(np.float32)
            # Every third one replaces an item of the snapshot, the others are new or change again.
            name = f"b{number % 400:04d}" if number % 3 == 0 else f"n{number % 300:04d}"
            text = f"write {number}"
            reply = await client.upsert_items([c.Item(id=name, text=text, vector=vector)])
            found = await client.search(
                c.Query(vector=vector),
                c.SearchOptions(
                    k=1, mode=options.mode, payload=options.payload, min_watermark=reply.watermark
                ),
            )
            hits += [(hit.id, hit.text) for hit in found.hits] == [(name, text)]
    assert hits == _TIMES
