"""Snapshots that were loaded to be judged are released without a garbage collection."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from index_builder.releases.snapshot_loader import load_snapshot
from nearline.contract import Item
from nearline.store.snapshot import Store
from tests.open_files import files_in_use


async def test_a_released_snapshot_leaves_no_file_open(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    items = [
        Item(id=f"d{row}", text=f"river {row} flows", title=f"River {row}", vector=vector)
        for row, vector in enumerate(vectors)
    ]
    built = await build_snapshot(items, BuildOptions(store=str(tmp_path), shards=2))
    gc.collect()
    gc.disable()
    try:
        async with load_snapshot(Store.open(str(tmp_path)), "default", built.snapshot_id, {}):
            assert files_in_use(os.getpid(), built.snapshot_id)
        assert files_in_use(os.getpid(), built.snapshot_id) == set()
    finally:
        gc.enable()
