"""The second stage: the reranker of a snapshot reorders the best hits, or their order stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.admission import note_overload
from nearline.errors import InvalidRequest, Overloaded
from nearline.store.snapshot import RERANKER_FILE, Store
from nearline.v1 import snapshot_pb2
from retrieval.search.second_stage import _in_order
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import MODES, OBJECT, opened

DIM, READ = 16, 4
ITEMS = [
    c.Item(id=f"{n}", title=f"T{n}", text=f"kettle tea {'pot ' * n}{'cup ' * (n % 3)}water")
    for n in range(8)
]
QUERY = c.Query(text="kettle tea water")
PLAIN = c.SearchOptions(k=8, payload=frozenset(), rerank=0)
RERANKED = replace(PLAIN, rerank=None)


class RankingEmbedder(WordEmbedder):
    """Reranks by a number at the end of the title: the larger, the better.

    asked: Snapshot and number of texts of each call. fault: Raised by the calls after the first
    `answered`.
    """

    def __init__(self) -> None:
        super().__init__(DIM)
        self.asked: list[tuple[str, int]] = []
        self.fault: Exception | None = None
        self.answered = 0

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        snapshot: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Sequence[float]:
        assert query == QUERY.text and timeout_s is not None and 0 < timeout_s <= 1
        self.asked.append((snapshot, len(texts)))
        if self.fault is not None and len(self.asked) > self.answered:
            raise self.fault
        return [float(text.split("\n")[0].removeprefix("T")) for text in texts]


@pytest.fixture(scope="module", name="store")
def give_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    async def train(
        folder: Path, manifest: snapshot_pb2.Manifest, advance: Callable[[int], None]
    ) -> snapshot_pb2.RerankerCard:
        (folder / RERANKER_FILE).write_bytes(b"weights")
        return snapshot_pb2.RerankerCard(weight=2.0, candidates=READ)

    root = tmp_path_factory.mktemp("second-stage")
    options = BuildOptions(store=str(root), shards=2, train_reranker=train)
    asyncio.run(build_snapshot(ITEMS, options, WordEmbedder(DIM)))
    return root


@pytest.fixture(name="embedder")
def give_embedder() -> RankingEmbedder:
    return RankingEmbedder()


@pytest_asyncio.fixture(params=MODES, name="service")
async def give_service(
    store: Path, embedder: RankingEmbedder, request: pytest.FixtureRequest
) -> AsyncIterator[c.Retriever]:
    async with opened(request.param, store, embedder) as retriever:
        yield retriever


def _reordered(found: Sequence[c.Hit], most: int) -> list[str]:
    """Returns the ids in the order of the formula, computed by hand."""
    scores = np.array([hit.score for hit in found[:most]])
    read = np.array([float(hit.id) for hit in found[:most]])

    def z(values: np.ndarray) -> np.ndarray:
        return np.asarray((values - values.mean()) / values.std())

    order = np.argsort(-(z(scores) + 2.0 * z(read)), kind="stable")
    return [found[at].id for at in order] + [hit.id for hit in found[most:]]


async def test_the_best_hits_are_ordered_by_both_scores(
    service: c.Retriever, embedder: RankingEmbedder, store: Path
) -> None:
    found = (await service.search(QUERY, PLAIN)).hits
    assert embedder.asked == []
    for options, most in ((RERANKED, READ), (replace(PLAIN, rerank=6), 6)):
        reply = await service.search(QUERY, options)
        assert [hit.id for hit in reply.hits] == _reordered(found, most)
        assert [hit.id for hit in reply.hits] != [hit.id for hit in found]
        # Scores keep their places.
        assert [hit.score for hit in reply.hits] == [hit.score for hit in found]
        assert all(hit.title is None and hit.text is None for hit in reply.hits)
    current = Store(store).alias_in_force(c.DEFAULT_COLLECTION).current
    assert embedder.asked == [(f"default/{current}", READ), (f"default/{current}", 6)]


async def test_fewer_hits_than_are_read_are_the_best_of_these(service: c.Retriever) -> None:
    whole = (await service.search(QUERY, RERANKED)).hits
    two = replace(RERANKED, k=2, payload=frozenset({c.PayloadField.TITLE}))
    hits = (await service.search(QUERY, two)).hits
    assert [(hit.id, hit.title) for hit in hits] == [(hit.id, f"T{hit.id}") for hit in whole[:2]]


async def test_groups_and_batches_are_not_reranked_unless_a_batch_asks_for_it(
    service: c.Retriever, embedder: RankingEmbedder
) -> None:
    found = (await service.search(QUERY, PLAIN)).hits
    batch = await service.search_batch([QUERY, QUERY], RERANKED)
    assert [hit.id for hit in batch.results[1].hits] == [hit.id for hit in found]
    assert embedder.asked == []
    asked = await service.search_batch([QUERY, QUERY], replace(PLAIN, rerank=READ))
    assert [[hit.id for hit in one.hits] for one in asked.results] == 2 * [_reordered(found, READ)]
    with pytest.raises(InvalidRequest, match="rerank is 100 for 41 queries; at most 4,096"):
        await service.search_batch([QUERY] * 41, replace(PLAIN, rerank=100))
    with pytest.raises(InvalidRequest, match=r"rerank is 101; 0\.\.100 is allowed"):
        await service.search(QUERY, replace(PLAIN, rerank=101))


async def test_without_the_reranker_the_order_of_the_search_stays_and_the_reply_says_why(
    store: Path, embedder: RankingEmbedder
) -> None:
    embedder.fault = Overloaded("too much to do", retry_after_s=1.0)
    async with opened(OBJECT, store, embedder) as service:
        found = (await service.search(QUERY, PLAIN)).hits
        reply = await service.search(QUERY, RERANKED)
        assert [hit.id for hit in reply.hits] == [hit.id for hit in found]
        said = "hits are in the order of the search, not reranked: here: too much to do"
        assert reply.info.served_by.reason == said
        embedder.fault = None
        note_overload()
        reply = await service.search(QUERY, RERANKED)
        assert [hit.id for hit in reply.hits] == [hit.id for hit in found]
        assert "not reranked: the server is overloaded" in reply.info.served_by.reason


async def test_if_one_query_of_a_batch_is_not_reranked_all_keep_their_hits_with_their_scores(
    store: Path, embedder: RankingEmbedder
) -> None:
    embedder.fault, embedder.answered = Overloaded("too much to do", retry_after_s=1.0), 1
    async with opened(OBJECT, store, embedder) as service:
        found = [(hit.id, hit.score) for hit in (await service.search(QUERY, PLAIN)).hits]
        reply = await service.search_batch([QUERY] * 2, replace(PLAIN, rerank=READ))
        assert len(embedder.asked) == 2
        assert [[(hit.id, hit.score) for hit in one.hits] for one in reply.results] == [found] * 2
        assert "not reranked" in reply.info.served_by.reason


def test_hits_that_both_stages_score_alike_stay_in_their_order() -> None:
    pool = [(0, c.Hit(id=one, score=1.0)) for one in "abc"]
    served: Any = SimpleNamespace(reranker=SimpleNamespace(weight=2.0))
    for scores, wanted in (([0.5] * 3, "abc"), ([0.5, 0.7, 0.5], "bac")):
        assert "".join(hit.id for _, hit in _in_order(pool, scores, served)) == wanted
