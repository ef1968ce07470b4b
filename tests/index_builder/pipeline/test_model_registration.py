"""A snapshot names the versions of its models."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from index_builder.pipeline.compaction import compact, compaction_options, reembed
from nearline.contract import Item
from nearline.store.registry import Registry
from nearline.store.snapshot import Store
from tests.index_builder.embedders import DIM, HashEmbedder
from tests.index_builder.live_collection import Living

TEXTS = {f"d{n}": f"Text {n}." for n in range(8)}


async def test_builds_of_one_model_name_one_version(tmp_path: Path) -> None:
    living = Living(tmp_path)
    result = await living.build(living.corpus(TEXTS, 10))
    assert result.record()["models"] == ["embedder hash@1"]
    (ref,) = living.manifest.models
    assert (ref.kind, ref.name, ref.version, ref.fingerprint) == ("embedder", "hash", 1, "hash")
    card = Registry(living.store).show("embedder", "hash", 1)
    assert dict(card.settings) == {
        "model": "hash",
        "dim": str(DIM),
        "max_tokens": "256",
        "backend": "test",
        "precision": "",
    }
    assert card.who and not card.files
    await living.build(living.corpus(TEXTS | {"new": "New."}, 20))
    assert list(living.manifest.models) == [ref]
    assert Registry(living.store).versions("embedder", "hash") == [1]


async def test_another_model_is_another_version_and_compaction_keeps_it(
    tmp_path: Path,
) -> None:
    living = Living(tmp_path)
    await living.build(living.corpus(TEXTS, 10))
    living.make_log()
    living.clock.now = 20
    other = HashEmbedder(fingerprint="other")
    await reembed(compaction_options(living.options), living.log, other)
    (ref,) = living.manifest.models
    assert (ref.name, ref.version, ref.fingerprint) == ("hash", 2, "other")
    await living.upsert("d1", "Changed.")
    await compact(compaction_options(living.options), living.log, other)
    assert list(living.manifest.models) == [ref]
    assert Registry(living.store).versions("embedder", "hash") == [2, 1]


async def test_vectors_of_the_user_name_no_model(tmp_path: Path) -> None:
    one = np.ones(1, np.float32)
    options = BuildOptions(store=str(tmp_path / "store"), golden_queries=0)
    result = await build_snapshot([Item(id="a", vector=one)], options)
    store = Store.open(options.store)
    assert list(store.manifest("default", result.snapshot_id).models) == []
    assert Registry(store).names("embedder") == []
