"""Re-embedding embeds every document once with the new model, even after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from index_builder.pipeline.compaction import compaction_options, reembed
from nearline import Item
from nearline.errors import InvalidRequest, Unsupported
from nearline.store.json_records import message_to_json
from tests.index_builder.embedders import DIM, HashEmbedder
from tests.index_builder.live_collection import Living

ROOT = Path(__file__).parents[3]
TEXTS = {f"d{n}": f"Text {n}." for n in range(1000)}


@pytest.fixture
async def living(tmp_path: Path) -> Living:
    found = Living(tmp_path, shards=2)
    await found.build(found.corpus(TEXTS, 10))
    return found


async def test_every_document_is_embedded_once_by_the_new_model(living: Living) -> None:
    before = living.manifest
    living.make_log()
    living.clock.now = 20
    await living.upsert("d1", "Changed.", {"price": 5})
    await living.upsert("new", "New.")
    await living.delete("d2")
    other = HashEmbedder(fingerprint="other")
    result = await reembed(compaction_options(living.options), living.log, other)
    wanted = {**TEXTS, "d1": "Changed.", "new": "New."}
    del wanted["d2"]
    assert Counter(other.texts) == Counter(wanted.values())
    assert (result.embedded, result.resumed) == (1000, 0)
    assert living.texts() == wanted
    after = living.manifest
    assert after.embedder.fingerprint == "other"
    assert (after.parent_snapshot_id, len(after.shards)) == (before.snapshot_id, 2)
    assert living.rows()["d1"]["attributes"] == {"price": 5}
    assert after.change_log_id == living.log.log_id
    assert [one.sha256 for one in after.sources] == [one.sha256 for one in before.sources]


async def test_values_tuned_with_the_old_model_are_not_inherited(living: Living) -> None:
    before = living.manifest
    shipped = before.fusion.dense_weight
    before.fusion.dense_weight, before.fusion.origin = 0.31, "tuned"
    before.answers.questions = 40
    place = living.store.snapshot_folder("default", before.snapshot_id) / "manifest.json"
    place.write_text(message_to_json(before))
    options = compaction_options(living.options)
    await reembed(options, None, HashEmbedder(fingerprint="other"))
    fusion = living.manifest.fusion
    assert (fusion.dense_weight, fusion.origin) == (shipped, "default")
    assert not living.manifest.HasField("answers")


async def test_another_model_may_have_another_dimension(living: Living) -> None:
    class Wider(HashEmbedder):
        async def info(self):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            return replace(await super().info(), dim=2 * DIM)

        async def embed(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            reply = await super().embed(*args, **kwargs)
            return replace(reply, vectors=np.hstack([reply.vectors, reply.vectors]) / 2**0.5)

    await reembed(compaction_options(living.options), None, Wider(fingerprint="wide"))
    assert living.manifest.dim == 2 * DIM
    assert {found.shape for found in living.vectors().values()} == {(1, 2 * DIM)}


@pytest.mark.service
async def test_a_killed_reembedding_is_resumed(living: Living, tmp_path: Path) -> None:
    log = tmp_path / "embedded.txt"
    words = [living.options.store, str(log), "300"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.index_builder.pipeline.killed_reembedding", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        # Several batches are in flight: once all of them stall, nothing more comes.
        assert [process.stdout.readline() for _ in range(4)] == ["stalled\n"] * 4
        process.send_signal(signal.SIGKILL)
    assert living.manifest.embedder.fingerprint == "hash"
    before = log.read_text().splitlines()
    again = HashEmbedder(fingerprint="other")
    result = await reembed(compaction_options(living.options), None, again)
    assert (result.embedded, result.resumed) == (len(TEXTS) - len(before), len(before))
    assert Counter(before + again.texts) == Counter(TEXTS.values())
    assert living.manifest.embedder.fingerprint == "other"


async def test_reembedding_with_the_same_model_is_refused(living: Living) -> None:
    options = compaction_options(living.options)
    with pytest.raises(
        InvalidRequest, match=r"fingerprint hash .* there is nothing to embed again"
    ):
        await reembed(options, None, HashEmbedder())


async def test_reembedding_vectors_of_the_user_is_refused(tmp_path: Path) -> None:
    options = BuildOptions(store=str(tmp_path / "store"), golden_queries=0)
    item = Item(id="a", text="A.", vector=np.eye(1, 4, dtype=np.float32)[0])
    await build_snapshot([item], options)
    with pytest.raises(Unsupported, match="--vector-column"):
        await reembed(compaction_options(options), None, HashEmbedder())
