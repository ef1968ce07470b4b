"""Hybrid searches: both legs of each candidate, with the level of its title."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from nearline.contract import Hit, HitLevel, SearchMode
from nearline.store.snapshot import Store
from retrieval.index.thread_pool import ThreadPool
from retrieval.protocols.shard import TITLE_SCORE, ShardOptions, ShardQueries
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.search.fusion import fuse_hits
from retrieval.shards.loader import load_shards
from tests.retrieval.index.lexical.lexical_reference import Reference
from tests.retrieval.index.lexical.lexical_texts import DOCUMENTS, QUERY_TEXTS
from tests.retrieval.index.lexical.small_indexes import Document as WordDocument
from tests.retrieval.small_snapshots import Document, write_snapshot
from tests.scale import scaled

RELEASED = Path(__file__).parents[2] / "fixtures/release_0_2_0/store"
WEIGHT, MANY = 0.65, 1_000


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPool]:
    started = ThreadPool(1)
    yield started
    started.close()


def hybrid(
    store: Path,
    vector: NDArray[np.float32],
    text: str,
    threads: ThreadPool,
    *,
    level: HitLevel = HitLevel.DOCUMENT,
    k: int = MANY,
    candidates: int = MANY,
    collection: str = "default",
) -> list[Hit]:
    """Searches all shards of a store, and fuses their hits."""
    snapshots = read_current_snapshots(Store(store), ())
    (snapshot,) = (one for one in snapshots if one.collection == collection)
    queries = ShardQueries(vector[None], (text,))
    options = ShardOptions(k=candidates, mode=SearchMode.HYBRID, level=level)
    parts = []
    for one in load_shards(Store(store), snapshot, None, threads=threads):
        parts.append((one.number, one.shard.search_now(queries, options)[0]))
        one.shard.close()
    fused = fuse_hits(parts, k, candidates=candidates, dense_weight=WEIGHT, floor=0.0, explain=True)
    return [hit for _, hit in fused]


def fused_by_hand(
    vectors: Mapping[str, NDArray[np.float32]],
    words: Mapping[str, tuple[float, float]],
    vector: NDArray[np.float32],
) -> dict[str, float]:
    """Returns the score of each document; words: BM25 score and level."""
    cosines = {one: float((rows @ vector).max()) for one, rows in vectors.items()}
    dense = {one: cosine - min(0.0, *cosines.values()) for one, cosine in cosines.items()}
    most, top = max(dense.values()), max((score for score, _ in words.values()), default=0.0)
    return {
        one: (WEIGHT * dense[one] / most if most else 0.0)
        + ((1 - WEIGHT) * words[one][0] / top if top else 0.0)
        + TITLE_SCORE * words[one][1]
        for one in vectors
    }


@settings(max_examples=scaled(12, nightly=150), deadline=None)
@given(DOCUMENTS, st.lists(QUERY_TEXTS, min_size=1, max_size=3), st.randoms())
def test_hybrid_hits_equal_brute_force_for_any_number_of_shards(
    threads: ThreadPool, documents: Sequence[WordDocument], queries: Sequence[str], draw: object
) -> None:
    plain = [one._replace(attributes={}, popularity=0.0) for one in documents]
    reference = Reference(plain)
    if not reference.own:
        return
    rng = np.random.default_rng(draw.randrange(1 << 30))  # type: ignore[attr-defined]
    stored = []
    for number, one in enumerate(plain):
        ends = np.cumsum([len(chunk) for chunk in one.chunks]).tolist()
        stored.append(
            Document(
                id=f"d{number:03}",
                vectors=rng.integers(-2, 3, (len(one.chunks), 4)).astype(np.float32),
                title=one.title,
                text="".join(one.chunks),
                bounds=list(zip([0, *ends], ends, strict=False)),
            )
        )
    vector = rng.integers(-2, 3, 4).astype(np.float32)
    with TemporaryDirectory() as single, TemporaryDirectory() as several:
        write_snapshot(Path(single), stored, language="english")
        write_snapshot(Path(several), stored, language="english", shards=4)
        for query in queries:
            scores, levels = reference.scores(query), reference.levels(query)
            words = {
                f"d{number:03}": (
                    max(scores.get((number, chunk), 0.0) for chunk in range(len(one.chunks))),
                    levels.get((number, 0), 0.0),
                )
                for number, one in enumerate(plain)
            }
            found = hybrid(Path(single), vector, query, threads)
            # The shard, too, is in the explanation.
            assert [(hit.id, hit.score, hit.chunk) for hit in found] == [
                (hit.id, hit.score, hit.chunk)
                for hit in hybrid(Path(several), vector, query, threads)
            ]
            wanted = fused_by_hand({one.id: one.vectors for one in stored}, words, vector)
            assert {hit.id: hit.score for hit in found} == pytest.approx(wanted, rel=1e-5, abs=1e-6)
            for hit in found:
                assert hit.explanation is not None
                assert hit.explanation.lexical_score == pytest.approx(words[hit.id][0], rel=1e-5)
                assert hit.explanation.title_level == words[hit.id][1]


@pytest.mark.parametrize("level", [HitLevel.DOCUMENT, HitLevel.CHUNK])
def test_a_title_found_by_a_compound_alone_is_a_candidate(
    tmp_path: Path, threads: ThreadPool, level: HitLevel
) -> None:
    texts = {"a": ("Spiderman", "film"), "b": ("", "spider"), "c": ("", "man"), "d": ("", "x")}
    write_snapshot(
        tmp_path,
        [
            Document(
                id=one,
                vectors=np.eye(4, dtype=np.float32)[[place]],
                title=title,
                text=text,
                bounds=[(0, len(text))],
            )
            for place, (one, (title, text)) in enumerate(texts.items())
        ],
        language="english",
        shards=2,
    )
    vector = np.array([-1, 0, 0, 1], np.float32)
    best, *_ = hybrid(tmp_path, vector, "spider man", threads, level=level, k=1, candidates=1)
    assert best.id == "a" and best.score == pytest.approx(TITLE_SCORE * 3)
    assert best.explanation is not None
    assert (best.explanation.lexical_score, best.explanation.lexical_rank) == (0, 1)


def test_snapshots_of_release_0_2_0_are_searched_as_before(
    tmp_path: Path, threads: ThreadPool
) -> None:
    store = shutil.copytree(RELEASED, tmp_path / "store")
    vector = np.zeros(12, np.float32)
    vector[4] = 1
    found = hybrid(store, vector, "word4 word11 Kettle 4", threads)
    # By the vectors and the words of make.py.txt in the fixtures.
    assert [hit.id for hit in found[:2]] == ["i04", "i11"]
    assert found[0].score == pytest.approx(1)
    assert all(hit.explanation and hit.explanation.title_level == 0 for hit in found)
    assert 0 < found[1].score < 1 - WEIGHT
