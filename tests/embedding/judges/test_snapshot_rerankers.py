"""Rerankers of snapshots: loaded from the store when a request names one, a few at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from embedding.judges import snapshot_rerankers
from embedding.judges.answer_judge import ADAPTER_FILE
from embedding.service import EmbeddingService, open_service
from embedding.settings import EmbeddingSettings, cache_folder
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.errors import InvalidRequest, NotFound, SnapshotCorrupt, Unsupported
from nearline.store.durable import sha256_of
from nearline.store.snapshot import RERANKER_FILE
from nearline.v1 import snapshot_pb2
from tests.optional_packages import needs
from tests.retrieval.fakes import WordEmbedder

pytestmark = needs("openvino", "embedding")

QUERY = "Who built the lighthouse?"
TEXTS = ["Lighthouse\nIt was built by Maria Holt.", "Lighthouse\nThe tower is 38 metres high."]


def _build(root: Path, collection: str, content: bytes) -> str:
    """Builds a collection whose reranker has this content, or none; returns the snapshot's name."""

    async def train(
        folder: Path, manifest: snapshot_pb2.Manifest, advance: Callable[[int], None]
    ) -> snapshot_pb2.RerankerCard:
        (folder / RERANKER_FILE).write_bytes(content)
        return snapshot_pb2.RerankerCard(weight=1.0, candidates=10)

    options = BuildOptions(
        store=str(root), collection=collection, train_reranker=train if content else None
    )
    items = [Item(id="1", text="A text.")]
    built = asyncio.run(build_snapshot(items, options, WordEmbedder(8)))
    return f"{collection}/{built.snapshot_id}"


@pytest.fixture(scope="module", name="snapshots")
def give_snapshots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Returns a store and snapshots: with a reranker, twice; without one; with a damaged one."""
    root = tmp_path_factory.mktemp("store")
    weights = ADAPTER_FILE.read_bytes()
    contents = {"one": weights, "two": weights, "none": b"", "damaged": b"no tensors"}
    return root, [_build(root, name, content) for name, content in contents.items()]


@pytest_asyncio.fixture(name="service")
async def give_service(
    snapshots: tuple[Path, list[str]],
) -> AsyncIterator[EmbeddingService]:
    settings = EmbeddingSettings(store=str(snapshots[0]), threads=1)
    # The converted model of other tests is used again: to convert it takes 20 seconds.
    async with open_service(settings, cache_folder(settings, os.environ)) as service:
        yield service


async def test_a_snapshot_is_scored_by_its_own_reranker(
    service: EmbeddingService,
    snapshots: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_rerankers, "MOST_LOADED", 1)
    judged = await service.rerank(QUERY, TEXTS)
    for name in (*snapshots[1][:2], snapshots[1][0]):
        scores = await service.rerank(QUERY, TEXTS, snapshot=name)
        # Here it has the weights of the judge, which reads these short texts in the same form.
        assert scores == pytest.approx(judged, abs=0.05) and scores[0] > scores[1]
        assert scores.fingerprint == sha256_of(ADAPTER_FILE)[:32]
        # The one before was removed.
        assert list(service._snapshot_rerankers._loaded) == [name]


async def test_loading_goes_on_for_the_next_request_when_one_gives_up(
    service: EmbeddingService, snapshots: tuple[Path, list[str]]
) -> None:
    name = snapshots[1][0]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await service.rerank(QUERY, TEXTS, snapshot=name)
    rerankers = service._snapshot_rerankers
    loading = rerankers._loading[name]
    assert len(await service.rerank(QUERY, TEXTS, snapshot=name)) == 2
    assert loading.done() and list(rerankers._loaded) == [name] and rerankers._loading == {}


async def test_a_service_without_a_store_says_so() -> None:
    settings = EmbeddingSettings(threads=1)
    async with open_service(settings, cache_folder(settings, os.environ)) as service:
        with pytest.raises(Unsupported, match="has no store with rerankers; start it with"):
            await service.rerank(QUERY, TEXTS, snapshot="one/20260101T000000Z-000000")


async def test_what_cannot_be_loaded_says_why(
    service: EmbeddingService, snapshots: tuple[Path, list[str]]
) -> None:
    _, (one, _, without, damaged) = snapshots
    for name, error, said in (
        ("one", InvalidRequest, "name one as COLLECTION/SNAPSHOT_ID"),
        ("one/../../etc", InvalidRequest, "snapshot"),
        (f"other/{one.partition('/')[2]}", NotFound, "other"),
        (without, Unsupported, "has no reranker; build it with --train-reranker"),
        (damaged, SnapshotCorrupt, "is damaged .*; build the snapshot again"),
    ):
        with pytest.raises(error, match=said):
            await service.rerank(QUERY, TEXTS, snapshot=name)
