"""A snapshot that is no longer served leaves no file open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c
from nearline.clients import AdminClient, RetrievalClient
from nearline.store.snapshot import Store
from nearline_cli.local.processes import redis_process, retrieval_process
from retrieval.snapshots import aliases
from tests.index_builder.releases.shop import bought, build
from tests.live.rolling import QUICK
from tests.open_files import files_in_use
from tests.retrieval.small_snapshots import FORCED

pytestmark = pytest.mark.service


async def test_a_swap_leaves_no_file_of_the_older_snapshot_open(tmp_path: Path) -> None:
    ids = [await build(tmp_path / "store", bought(days)) for days in (8, 9)]
    store = Store.open(str(tmp_path / "store"))
    aliases.promote(store, c.DEFAULT_COLLECTION, ids[0])
    async with (
        redis_process(tmp_path / "redis") as url,
        retrieval_process(tmp_path / "store", [*QUICK, "--redis", url]) as router,
        RetrievalClient(router.address) as client,
        AdminClient(router.address) as admin,
    ):

        async def use(snapshot_id: str) -> bool:
            """Asks for all that is cached with a snapshot; returns whether it answered."""
            for text in ("thing 1", "thi", "thingg 2"):
                mode = c.SearchOptions(k=5, mode=c.SearchMode.LEXICAL)
                found = await client.search(c.Query(text=text), mode)
                await client.suggest(text)
            await client.recommend(c.Audience(user_id="u001", surface="home"))
            return found.info.snapshot_id == snapshot_id

        changed = c.Item(id="i01", text="thing 1 of gold", vector=np.ones(8, np.float32))
        await client.upsert_items([changed])
        assert await use(ids[0])
        assert files_in_use(router.pid, ids[0])
        await admin.promote(ids[1], gate=FORCED)
        deadline = asyncio.get_running_loop().time() + 30
        while not await use(ids[1]) or files_in_use(router.pid, ids[0]):
            still_open = files_in_use(router.pid, ids[0])
            assert asyncio.get_running_loop().time() < deadline, still_open
            await asyncio.sleep(0.1)
