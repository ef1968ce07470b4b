"""The stored texts that are embedded again to check the vectors of a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.releases.checks_items import check_vectors
from index_builder.releases.comparison import Comparison
from index_builder.releases.gate_report import Check, CheckOutcome, SkippedCheck
from index_builder.releases.snapshot_loader import load_snapshot
from index_builder.releases.thresholds import GateLimits
from nearline.contract import Lane
from nearline.store.snapshot import Store
from tests.index_builder.embedders import HashEmbedder
from tests.index_builder.releases.gate_snapshots import documents, publish, texts


async def checked(folder: Path, words: list[str], embedder: HashEmbedder) -> Check:
    snapshot = publish(folder, documents(words))
    async with load_snapshot(Store(folder), "default", snapshot, {"here": embedder}) as candidate:
        return await check_vectors(
            Comparison(
                candidate=candidate, live=None, alone="", limits=GateLimits(), embedding=True
            )
        )


@pytest.mark.parametrize(("count", "embedded"), [(10, 10), (400, 64)])
async def test_at_most_64_texts_are_embedded_again(
    tmp_path: Path, count: int, embedded: int
) -> None:
    embedder = HashEmbedder()
    check = await checked(tmp_path, texts(count), embedder)
    assert check.outcome is CheckOutcome.PASSED
    assert check.value == pytest.approx(1.0, abs=1e-5)
    assert f"the mean cosine of {embedded} stored vectors" in check.message
    assert len(embedder.texts) == len(set(embedder.texts)) == embedded
    assert embedder.lanes == {Lane.BULK}


async def test_empty_texts_are_not_embedded(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    check = await checked(tmp_path, [*texts(5), " ", "", "\n"], embedder)
    assert "of 5 stored vectors" in check.message and set(embedder.texts) == set(texts(5))
    with pytest.raises(SkippedCheck, match="it has no text to embed again"):
        await checked(tmp_path, [" ", ""], embedder)


async def test_refused_texts_do_not_count(tmp_path: Path) -> None:
    words = texts(5)
    check = await checked(tmp_path, words, HashEmbedder(poison=words[2]))
    assert "of 4 stored vectors" in check.message and check.outcome is CheckOutcome.PASSED
    with pytest.raises(SkippedCheck, match="refuses all texts of the sample"):
        await checked(tmp_path, words[2:3], HashEmbedder(poison=words[2]))


async def test_an_embedder_of_another_model_gives_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(SkippedCheck, match="its texts could not be embedded again"):
        await checked(tmp_path, texts(5), HashEmbedder(fingerprint="other"))
