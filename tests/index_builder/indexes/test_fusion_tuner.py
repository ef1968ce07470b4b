"""Tuning finds the best weight, and a build records it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.documents.records import PreparedDocument, SourceLocation
from index_builder.documents.spool import Spool
from index_builder.evaluation import retrieval_metrics
from index_builder.evaluation.retrieval_metrics import JudgedDataset
from index_builder.indexes import fusion_tuner
from index_builder.indexes.fusion_tuner import check_judged, tune
from index_builder.indexes.lexical_writer import write_lexical
from index_builder.options.build_options import BuildOptions, ChunkOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store, shard_folder
from nearline.vectors import normalise
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.search.fusion import CANDIDATES, DEFAULT_DENSE_WEIGHT, NORMALISATION, fuse
from tests.index_builder.embedders import HashEmbedder

_FLOOR = -0.5


def _judged(queries: Sequence[str], judgements: dict[str, dict[str, int]]) -> JudgedDataset:
    texts = {f"q{number}": text for number, text in enumerate(queries)}
    return JudgedDataset(corpus=Path("none"), queries=texts, judgements=judgements)


def _spooled(folder: Path, chunks: Sequence[Sequence[str]], shards: int) -> Spool:
    """Spools documents d0, d1, … of these chunks and writes their lexical index."""
    spool = Spool(folder, shards)
    spool.begin()
    for number, texts in enumerate(chunks):
        ends = np.cumsum([len(text) for text in texts]).tolist()
        item = Item(id=f"d{number}", text="".join(texts))
        spool.add(
            PreparedDocument(
                SourceLocation("t", number), item, list(zip([0, *ends], ends, strict=False))
            )
        )
    spool.finish()
    for shard in range(shards):
        shard_folder(folder, shard).mkdir(parents=True)
    assert write_lexical(spool, shards, "english", folder) is not None
    return spool


def _brute_force(
    folder: Path,
    spool: Spool,
    judged: JudgedDataset,
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
) -> list[float]:
    """Returns the mean nDCG@10 of every weight, over all documents, one shard."""
    rows = spool.shard_chunk_rows(0)
    index = LexicalIndex.load(shard_folder(folder, 0), Vocabulary.load(folder), len(rows))
    ids = np.array([spool.place_of(row)[0] for row in range(len(rows))])
    names = np.unique(ids)
    means = []
    for step in range(21):
        values = []
        for query, vector in zip(judged.queries, queries, strict=True):
            words = np.empty(len(rows), np.float32)
            words[rows] = index.scores(judged.queries[query], np.arange(len(rows)))
            cosines = vectors @ vector
            dense, lexical = (
                np.array([leg[ids == name].max() for name in names]) for leg in (cosines, words)
            )
            parts = fuse(dense, lexical, dense_weight=step / 20, floor=_FLOOR)
            order = np.argsort(-(parts[0] + parts[1]), kind="stable")
            ranked = [str(names[at]) for at in order]
            values.append(retrieval_metrics.ndcg(ranked, judged.judgements[query], 10))
        means.append(float(np.mean(values)))
    return means


def test_the_weight_equals_brute_force_for_any_shards_and_blocks(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = [f"w{number}" for number in range(12)]
    chunks = [
        [" ".join(rng.choice(vocabulary, 5)) + " " for _ in range(rng.integers(1, 4))]
        for _ in range(60)
    ]
    vectors = normalise(rng.normal(size=(sum(map(len, chunks)), 8)).astype(np.float32))
    queries = normalise(rng.normal(size=(10, 8)).astype(np.float32))
    texts = [" ".join(rng.choice(vocabulary, 2)) for _ in queries]
    relevant = {
        f"q{query}": {f"d{document}": 1 for document in rng.choice(60, 5, replace=False)}
        for query in range(len(queries))
    }
    judged = _judged(texts, relevant)
    assert CANDIDATES > 60  # So that brute force over everything sees the same candidates.
    for shards, block in ((1, 1 << 22), (4, 64)):
        monkeypatch.setattr(fusion_tuner, "_BLOCK_NUMBERS", block)
        folder = tmp_path / str(shards)
        folder.mkdir()
        spool = _spooled(folder, chunks, shards)
        tuned = tune(judged, queries, vectors, spool, shards, folder, _FLOOR)
        if shards == 1:
            means = _brute_force(folder, spool, judged, queries, vectors)
        assert tuned.ndcg_at_10 == pytest.approx(max(means))
        assert means[round(tuned.dense_weight * 20)] == pytest.approx(max(means))
        assert tuned.queries == 10


@pytest.mark.parametrize(("right", "weight"), [("words", 0.25), ("vectors", 0.75)])
def test_the_better_leg_gets_the_weight(tmp_path: Path, right: str, weight: float) -> None:
    # Words say d0, vectors say d1; each scores nothing in the other leg.
    spool = _spooled(tmp_path, [["fig"], ["plum"]], 2)
    vectors = np.array([[0, 1], [1, 0]], np.float32)
    judged = _judged(["fig"], {"q0": {"d0" if right == "words" else "d1": 1}})
    tuned = tune(judged, vectors[1:], vectors, spool, 2, tmp_path, floor=0.0)
    assert tuned.ndcg_at_10 == 1.0
    assert tuned.dense_weight == pytest.approx(weight, abs=0.051)


def test_unusable_judgements_are_refused(tmp_path: Path) -> None:
    spool = _spooled(tmp_path, [["fig"]], 1)
    elsewhere = _judged(["fig"], {"q0": {"unknown": 1, "d0": 0}})
    with pytest.raises(InvalidRequest, match="none of the documents judged relevant is in the"):
        check_judged(elsewhere, spool, embedded=True)
    known = _judged(["fig"], {"q0": {"d0": 1}})
    check_judged(known, spool, embedded=True)
    with pytest.raises(InvalidRequest, match="no model can embed the queries"):
        check_judged(known, spool, embedded=False)
    with pytest.raises(InvalidRequest, match="needs a lexical index; remove --tune-on"):
        BuildOptions(store="s", lexical=False, judged=known).check()
    with pytest.raises(InvalidRequest, match="no stemmer for language 'klingon'"):
        BuildOptions(store="s", language="klingon").check()


def _items(count: int) -> list[Item]:
    return [
        Item(id=f"d{number:02d}", title=f"title {number}", text=f"some words and {number} more")
        for number in range(count)
    ]


async def test_a_build_writes_the_lexical_index_and_fusion_parameters(tmp_path: Path) -> None:
    options = BuildOptions(store=str(tmp_path), shards=3, golden_queries=7)
    built = await build_snapshot(_items(40), options, HashEmbedder())
    manifest = Store(tmp_path).manifest("default", built.snapshot_id)
    assert (manifest.lexical.language, manifest.lexical.chunks) == ("english", 40)
    assert built.words == manifest.lexical.words == 42  # titl, word, and the numbers.
    fusion = manifest.fusion
    assert (fusion.normalisation, fusion.origin) == (NORMALISATION, "default")
    assert (fusion.candidates, fusion.dense_weight) == (CANDIDATES, DEFAULT_DENSE_WEIGHT)
    assert -1 <= fusion.dense_constant < 0
    listed = {entry.path for entry in manifest.files}
    assert {"lexical/vocabulary.arrow", "shards/002/lexical/scores.npy"} <= listed
    assert not [path for path in listed if "postings" in path]


async def test_a_build_tunes_on_judgements(tmp_path: Path) -> None:
    judged = _judged(["words 7", "words 31"], {"q0": {"d07": 1}, "q1": {"d31": 1}})
    options = BuildOptions(store=str(tmp_path), shards=3, judged=judged)
    built = await build_snapshot(_items(40), options, HashEmbedder())
    manifest = Store(tmp_path).manifest("default", built.snapshot_id)
    assert manifest.fusion.origin == "tuned"
    assert built.dense_weight == manifest.fusion.dense_weight
    assert built.tuned_ndcg_at_10 == manifest.quality.tuning_ndcg_at_10 == 1.0
    assert manifest.quality.tuning_queries == 2


async def test_a_build_may_have_no_lexical_index(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rng.normal(size=(9, 4)).astype(np.float32)
    without_text = [Item(id=f"d{number}", vector=row) for number, row in enumerate(rows)]
    off = BuildOptions(store=str(tmp_path), lexical=False, chunks=ChunkOptions(max_tokens=0))
    for built in (
        await build_snapshot(without_text, BuildOptions(store=str(tmp_path))),
        await build_snapshot(_items(5), off, HashEmbedder()),
    ):
        manifest = Store(tmp_path).manifest("default", built.snapshot_id)
        assert not manifest.HasField("lexical") and not manifest.HasField("fusion")
        assert (built.words, built.dense_weight) == (0, None)
        assert not list(built.folder.rglob("lexical"))
