"""The retrieval service in this process: answers, invalid requests, coverage."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import (
    InvalidRequest,
    NearlineError,
    NotFound,
    NotReady,
    Overloaded,
    ShardsUnavailable,
    SnapshotGone,
    SnapshotMismatch,
    Unsupported,
)
from nearline.store.snapshot import shard_of
from retrieval.protocols.shard import Shard
from retrieval.router.service import RetrievalService
from tests.retrieval.conftest import OpenService
from tests.retrieval.fakes import FailingShard, FakeEmbedder, SilentShard
from tests.retrieval.small_snapshots import Document, documents_of, write_snapshot

ONE = np.ones(4, np.float32)


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Path:
    documents = documents_of(rng.integers(-3, 4, (120, 4)).astype(np.float32), 2)
    write_snapshot(tmp_path, documents, shards=4)
    return tmp_path


def break_shard(service: RetrievalService, number: int, shard: Shard) -> None:
    (served,) = service.collections
    shards = list(served.shards)
    shards[number] = shard
    served.shards = tuple(shards)


async def test_a_reply_names_its_snapshot_coverage_and_source(
    store: Path, open_service: OpenService
) -> None:
    async with open_service(store) as service:
        start = time.perf_counter()
        first = await service.search(c.Query(vector=ONE), timeout_s=5.0)
        spent_s = time.perf_counter() - start
        second = await service.search(c.Query(vector=ONE), timeout_s=5.0)
        (served,) = service.collections
        info = first.info
        assert (info.epoch, info.snapshot_id) == (1, served.snapshot_id)
        assert info.fingerprint == served.fingerprint
        assert info.coverage == c.Coverage(shards_answered=4, shards_total=4)
        assert info.served_by == c.ServedBy()
        assert info.list_id and info.list_id != second.info.list_id
        assert info.embed_s is None
        assert info.search_s is not None and info.total_s is not None
        assert 0 < info.search_s <= info.total_s <= spent_s


@pytest.mark.parametrize(
    ("query", "options", "kind", "field", "text"),
    [
        (c.Query(vector=ONE), {"k": 0}, InvalidRequest, "options.k", "k is 0; 1..10,000"),
        (c.Query(vector=ONE), {"unit": "é" * 257}, InvalidRequest, "options.unit", "512 bytes"),
        (c.Query(vector=ONE), {"k": 10_001}, InvalidRequest, "options.k", "k is 10001"),
        (c.Query(vector=ONE), {"ef_search": 0}, InvalidRequest, "options.ef_search", "1..4,096"),
        (c.Query(vector=ONE), {"nprobe": 70_000}, InvalidRequest, "options.nprobe", "1..65,536"),
        (c.Query(vector=ONE), {"ef_search": 9}, Unsupported, "options.ef_search", "no ef_search"),
        (c.Query(vector=ONE), {"mode": c.SearchMode.HYBRID}, Unsupported, "options.mode",
         "no lexical index"),
        (c.Query(vector=ONE), {"mode": c.SearchMode.LEXICAL}, Unsupported, "options.mode",
         "use mode dense"),
        (c.Query(vector=ONE), {"snapshot_id": "20260101T000000Z-000000"}, SnapshotGone,
         "options.snapshot_id", "is not loaded"),
        (c.Query(vector=np.ones(5, np.float32)), {}, InvalidRequest, "query.vector",
         "dim 5, collection 'default' has dim 4"),
        (c.Query(vector=np.array([1, np.nan, 0, 0], np.float32)), {}, InvalidRequest,
         "query.vector", "NaN"),
        (c.Query(vector=np.array([1, np.inf, 0, 0], np.float32)), {}, InvalidRequest,
         "query.vector", "NaN or infinite"),
        (c.Query(vector=np.ones((2, 4), np.float32)), {}, InvalidRequest, "query.vector", "2 rows"),
        (c.Query(text=""), {}, InvalidRequest, "query.text", "is empty"),
        (c.Query(text="x" * 32_769), {}, InvalidRequest, "query.text", "32,769 characters"),
        (c.Query(text=" \n\t"), {}, InvalidRequest, "query.text", "is empty"),
        (c.Query(text="a\ud800"), {}, InvalidRequest, "query.text", "not valid Unicode"),
        (c.Query(text="hello"), {}, Unsupported, "query.text", "--embedding"),
        (c.Query(), {}, InvalidRequest, "query", "0 of text, vector and item ids"),
        (c.Query(text="a", vector=ONE), {}, InvalidRequest, "query", "2 of text"),
        (c.Query(item_ids=("",)), {}, InvalidRequest, "query.items", "an empty id"),
        (c.Query(item_ids=("x",) * 257), {}, InvalidRequest, "query.items", "257 entries; 1..256"),
        (c.Query(item_ids=("x", "y")), {}, NotFound, "query.items", "none of the 2 items ('x', "),
        (c.Query(item_ids=("x",)), {}, NotFound, "query.items", "has no such item ('x')"),
    ],
)  # fmt: skip
async def test_bad_input_gets_a_clear_error(
    store: Path,
    open_service: OpenService,
    query: c.Query,
    options: dict[str, object],
    kind: type[NearlineError],
    field: str,
    text: str,
) -> None:
    async with open_service(store) as service:
        with pytest.raises(kind) as caught:
            await service.search(query, c.SearchOptions(**options))  # type: ignore[arg-type]
        assert type(caught.value) is kind
        assert caught.value.field == field
        assert text in caught.value.message


@pytest.mark.parametrize("size", [0, 1_025])
async def test_a_batch_of_a_wrong_size_is_refused(
    store: Path, open_service: OpenService, size: int
) -> None:
    async with open_service(store) as service:
        with pytest.raises(InvalidRequest, match=f"queries has {size:,} entries; 1..1,024"):
            await service.search_batch([c.Query(vector=ONE)] * size)
        with pytest.raises(InvalidRequest, match=f"ids has {size:,} entries; 1..1,024"):
            await service.get_items(["a"] * size)


async def test_an_example_query_is_the_mean_vector_and_excludes_its_examples(
    tmp_path: Path, open_service: OpenService
) -> None:
    east, north = np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)
    documents = [
        Document(id="east", vectors=east),
        # Two chunks whose mean points north.
        Document(id="north", vectors=np.array([[0.6, 0.8], [-0.6, 0.8]], np.float32)),
        Document(id="between", vectors=(east + north) / np.sqrt(np.float32(2))),
        Document(id="west", vectors=-east),
    ]
    write_snapshot(tmp_path, documents, metric="cosine", shards=2)
    async with open_service(tmp_path) as service:
        query = c.Query(item_ids=("east", "lost", "north", "east", "lost"))
        reply = await service.search(query, c.SearchOptions(k=2, explain=True))
        assert [hit.id for hit in reply.hits] == ["between", "west"]
        assert reply.hits[0].score == pytest.approx(1.0)
        assert reply.hits[1].score == pytest.approx(-np.sqrt(0.5))
        assert reply.results[0].ignored_ids == [c.IgnoredId("lost", c.IgnoredReason.NOT_FOUND)]
        explained = reply.hits[0].explanation
        assert explained is not None
        assert explained.shard == shard_of("between", 2)
        assert explained.dense_score == reply.hits[0].score
        opposite = c.Query(item_ids=("east", "west"))
        with pytest.raises(InvalidRequest, match="all zeros"):
            await service.search(opposite)


async def test_chunks_of_the_examples_are_left_out_and_the_list_is_still_full(
    tmp_path: Path, open_service: OpenService
) -> None:
    hog = Document(id="hog", vectors=np.full((200, 2), 3, np.float32))
    others = documents_of(np.ones((9, 2), np.float32))
    write_snapshot(tmp_path, [hog, *others])
    async with open_service(tmp_path) as service:
        options = c.SearchOptions(k=8, level=c.HitLevel.CHUNK)
        reply = await service.search(c.Query(item_ids=("hog",)), options)
        assert [hit.id for hit in reply.hits] == [f"d{n:05d}" for n in range(8)]


@pytest.mark.parametrize(
    "shard", [SilentShard(), FailingShard(NotReady("gone")), FailingShard(Overloaded("full"))]
)
async def test_a_late_or_dead_shard_lowers_coverage(
    store: Path, open_service: OpenService, shard: Shard
) -> None:
    async with open_service(store) as service:
        whole = await service.search(c.Query(vector=ONE), c.SearchOptions(k=60))
        break_shard(service, 2, shard)
        part = await service.search(c.Query(vector=ONE), c.SearchOptions(k=60), timeout_s=0.2)
        assert part.info.coverage == c.Coverage(
            shards_answered=3, shards_total=4, missing_shards=(2,)
        )
        assert part.hits == [hit for hit in whole.hits if shard_of(hit.id, 4) != 2]
        with pytest.raises(ShardsUnavailable, match=r"1 of 4 shards of 'default'.*shard 2"):
            await service.search(
                c.Query(vector=ONE), c.SearchOptions(require_full_coverage=True), timeout_s=0.2
            )


async def test_ids_of_a_dead_shard_are_reported_as_unavailable(
    store: Path, open_service: OpenService
) -> None:
    async with open_service(store) as service:
        dead, alive = (
            next(i for n in range(60) if shard_of(i := f"d{n:05d}", 4) == shard) for shard in (2, 1)
        )
        break_shard(service, 2, FailingShard(NotReady("gone")))
        missing = c.IgnoredId(dead, c.IgnoredReason.SHARD_UNAVAILABLE)
        items = await service.get_items([alive, dead], timeout_s=1.0)
        assert items.ignored_ids == [missing]
        assert items.info.coverage.missing_shards == (2,)
        similar = await service.search(c.Query(item_ids=(alive, dead)), timeout_s=1.0)
        assert similar.results[0].ignored_ids == [missing]
        with pytest.raises(ShardsUnavailable):
            await service.search(c.Query(item_ids=(dead,)), timeout_s=1.0)


async def test_the_model_of_the_collection_embeds_its_queries(
    store: Path, open_service: OpenService
) -> None:
    other, right = FakeEmbedder(4, "f32~0.999:other"), FakeEmbedder(4)
    async with open_service(store, a=other, b=right) as service:
        reply = await service.search(c.Query(text="1"), timeout_s=3.0)
        assert reply.info.embed_s is not None
        left = right.calls[0][2]
        assert left is not None
        assert 0 < left < 3.0
        assert not other.calls
        right.fingerprint = "f32~0.999:changed"
        with pytest.raises(SnapshotMismatch) as caught:
            await service.search(c.Query(text="1"))
        for fingerprint in (other.fingerprint, right.fingerprint, reply.info.fingerprint):
            assert fingerprint in caught.value.message


async def test_an_unavailable_embedder_is_tried_again(
    store: Path, open_service: OpenService
) -> None:
    embedder = FakeEmbedder(4)
    embedder.error = NotReady("loading")
    async with open_service(store, here=embedder) as service:
        with pytest.raises(NotReady, match="no embedding service with model fingerprint"):
            await service.search(c.Query(text="1"))
        embedder.error = None
        assert (await service.search(c.Query(text="1"))).hits
        embedder.error = Overloaded("full", retry_after_s=0.5)
        with pytest.raises(Overloaded) as caught:
            await service.search(c.Query(text="1"))
        assert caught.value.retry_after_s == 0.5


async def test_a_large_batch_of_texts_respects_the_limit_of_the_embedder(
    store: Path, open_service: OpenService
) -> None:
    embedder = FakeEmbedder(4)
    async with open_service(store, here=embedder) as service:
        texts = [str(number % 4) for number in range(10)]
        batch = await service.search_batch([c.Query(text=text) for text in texts])
        assert [len(call[0]) for call in embedder.calls] == [4, 4, 2]
        assert batch.results[0] == batch.results[4] == batch.results[8]


async def test_a_text_query_for_supplied_vectors_is_refused(
    tmp_path: Path, open_service: OpenService
) -> None:
    write_snapshot(tmp_path, documents_of(np.ones((3, 4), np.float32)), fingerprint="")
    async with open_service(tmp_path, here=FakeEmbedder(4)) as service:
        with pytest.raises(InvalidRequest, match="supplied by its owner"):
            await service.search(c.Query(text="1"))
        assert (await service.search(c.Query(vector=ONE))).info.fingerprint == ""
