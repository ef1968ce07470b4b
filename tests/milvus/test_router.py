"""Routers over FAISS and over Milvus give equal answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pytest
import pytest_asyncio

from embedding.service import EmbeddingService
from embedding.servicer import registration
from nearline import contract as c, filters as f
from nearline.clients import AdminClient, RetrievalClient
from nearline.errors import Unsupported
from nearline.serving import running
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from nearline_cli.local.processes import RETRIEVAL_SERVICES, service_process
from tests.retrieval.fakes import WordEmbedder, word_vector
from tests.retrieval.small_snapshots import Document, write_snapshot

pytestmark = [pytest.mark.milvus, pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
DIM = 16
WORDS = ("fig", "plum", "apple", "pear", "kiwi", "lemon", "grape", "mango", "melon", "peach")
_Field = snapshot_pb2.AttributeField
FIELDS = (
    _Field(name="kind", kind=_Field.KIND_STRING),
    _Field(name="tags", kind=_Field.KIND_STRING, is_list=True),
    _Field(name="year", kind=_Field.KIND_INT),
    _Field(name="price", kind=_Field.KIND_DOUBLE),
    _Field(name="fresh", kind=_Field.KIND_BOOL),
    _Field(name="made", kind=_Field.KIND_TIME),
)
FILTERS: Sequence[f.Filter | None] = (
    None,
    f.Equals("kind", "b"),
    f.All(f.Range("price", gte=2.5), f.Not(f.Equals("tags", "x"))),
    f.Any(f.Equals("fresh", True), f.In("year", (2001, 2003))),
    f.Equals("kind", "nowhere"),
)
ALL = frozenset(c.PayloadField)


class Routers(NamedTuple):
    """The two routers. words: The Milvus can search by words."""

    faiss: RetrievalClient
    milvus: RetrievalClient
    admin: AdminClient
    words: bool


def random_documents(rng: np.random.Generator, count: int) -> list[Document]:
    """Makes documents of one to three chunks, with gaps and overlaps between them."""
    documents = []
    for number in range(count):
        passages = [" ".join(rng.choice(WORDS, 6)) for _ in range(rng.integers(1, 4))]
        text, bounds = "", []
        for passage in passages:
            # Some begin in the chunk before, some after a gap.
            start = max(0, len(text) - 3) if rng.random() < 0.3 else len(text) + 2
            text = text.ljust(start)[:start] + f"é{passage} "
            bounds.append((start, len(text)))
        attributes: dict[str, object] = {
            "year": int(rng.integers(2000, 2004)),
            "price": float(rng.integers(1, 9)) / 2,
            "fresh": bool(rng.random() < 0.5),
            "made": {"$time": f"2026-01-{1 + number % 28:02d}T00:00:00+00:00"},
        }
        if rng.random() < 0.8:
            attributes["kind"] = str(rng.choice(["a", "b"]))
        if rng.random() < 0.5:
            attributes["tags"] = [str(tag) for tag in rng.choice(["x", "y", "z"], 2)]
        documents.append(
            Document(
                id=f"d{number:03d}" if number % 7 else f'd{number:03d} "é漢\\',
                vectors=np.stack([word_vector(f"{one} {number}", DIM) for one in passages]),
                title=f"Title {number}",
                text=text + "end",
                bounds=bounds,
                attributes=attributes,
            )
        )
    return documents


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a store with a snapshot of three shards."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(5)
    write_snapshot(
        folder,
        random_documents(rng, 150),
        shards=3,
        metric="cosine",
        fields=FIELDS,
        language="english",
    )
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def routers(store: Path, milvus_uri: str) -> AsyncIterator[Routers]:
    """Yields the routers, and drops the snapshot from Milvus afterwards."""
    from index_builder.indexes.milvus_writer import export
    from retrieval.milvus.client import MilvusClient
    from retrieval.milvus.collection_state import CollectionStates
    from retrieval.milvus.layout import collection_name

    opened = Store(store)
    (snapshot_id,) = opened.snapshot_ids("default")
    embedder = cast(EmbeddingService, WordEmbedder(DIM))
    async with contextlib.AsyncExitStack() as stack:
        client = MilvusClient(milvus_uri, timeout_s=30.0)
        stack.push_async_callback(client.close)
        name = collection_name("default", snapshot_id)
        stack.push_async_callback(client.drop, name)
        stack.push_async_callback(CollectionStates(client).remove, name)
        await export(opened, "default", snapshot_id, client, index="FLAT")
        address = await stack.enter_async_context(running([registration(lambda: embedder)]))
        common = ["--store", str(store), "--drain-s", "0", "--embedding", address]
        asked = []
        for words in ([], ["--backend", "milvus", "--milvus-uri", milvus_uri]):
            process = await stack.enter_async_context(
                service_process("retrieval", [*common, *words], ready_services=RETRIEVAL_SERVICES)
            )
            asked.append(process.address)
        faiss, milvus = [
            await stack.enter_async_context(RetrievalClient(address)) for address in asked
        ]
        admin = await stack.enter_async_context(AdminClient(asked[1]))
        yield Routers(faiss, milvus, admin, (await client.capabilities()).words)


def alike(one: Sequence[c.Hit], other: Sequence[c.Hit], *, score: float = 1e-5) -> None:
    """Asserts equal hits in equal order, with equal payloads."""
    assert [(hit.id, hit.chunk, hit.start, hit.end, hit.group) for hit in one] == [
        (hit.id, hit.chunk, hit.start, hit.end, hit.group) for hit in other
    ]
    for mine, yours in zip(one, other, strict=True):
        assert mine.score == pytest.approx(yours.score, abs=score)
        assert (mine.title, mine.text, mine.attributes) == (
            yours.title,
            yours.text,
            yours.attributes,
        )
        assert (mine.vector is None) == (yours.vector is None)
        if mine.vector is not None and yours.vector is not None:
            np.testing.assert_allclose(mine.vector, yours.vector, atol=1e-6)


@pytest.mark.parametrize("filter", FILTERS, ids=str)
async def test_dense_hits_are_equal(routers: Routers, filter: f.Filter | None) -> None:
    query = c.Query(text="fig plum lemon")
    for options in (
        c.SearchOptions(k=10),
        c.SearchOptions(k=40, level=c.HitLevel.CHUNK, payload=ALL),
        c.SearchOptions(k=200, payload=ALL),
        c.SearchOptions(k=10, diversity=0.5, payload=ALL),
    ):
        asked = c.SearchOptions(
            **{name: getattr(options, name) for name in options.__slots__}
            | {"mode": c.SearchMode.DENSE, "filter": filter}
        )
        one = await routers.faiss.search(query, asked)
        other = await routers.milvus.search(query, asked)
        alike(other.hits, one.hits)
        assert other.info.coverage == c.Coverage(shards_answered=1, shards_total=1)


async def test_lexical_and_hybrid_searches_agree(routers: Routers) -> None:
    query = c.Query(text="figs of plum")
    lexical = c.SearchOptions(k=10, mode=c.SearchMode.LEXICAL, payload=ALL)
    if not routers.words:
        for mode in (c.SearchMode.LEXICAL, c.SearchMode.HYBRID):
            with pytest.raises(Unsupported, match=r"2\.5 or newer.*2\.3\.5") as refused:
                await routers.milvus.search(query, c.SearchOptions(mode=mode))
            assert refused.value.field == "options.mode"
        # Without a mode texts are looked for as well as can be, as where there are no words.
        found = await routers.milvus.search(query)
        dense = await routers.faiss.search(query, c.SearchOptions(mode=c.SearchMode.DENSE))
        alike(found.hits, dense.hits)
        return
    for filter in FILTERS:
        options = c.SearchOptions(k=200, mode=c.SearchMode.LEXICAL, filter=filter)
        one = await routers.faiss.search(query, options)
        other = await routers.milvus.search(query, options)
        assert {hit.id for hit in one.hits} == {hit.id for hit in other.hits}
    other = await routers.milvus.search(query, lexical)
    assert len(other.hits) == 10 and all(hit.title and hit.text for hit in other.hits)
    for options in (
        c.SearchOptions(k=10, payload=ALL, explain=True),
        c.SearchOptions(k=10, level=c.HitLevel.CHUNK, payload=ALL, explain=True),
        c.SearchOptions(k=10, filter=f.Equals("kind", "a"), dense_weight=0.3, explain=True),
    ):
        one = await routers.faiss.search(query, options)
        other = await routers.milvus.search(query, options)
        # Milvus has statistics of its own, so that scores by words are near ours, and not equal.
        alike(other.hits[:1], one.hits[:1], score=0.02)
        yours = {(hit.id, hit.chunk): hit for hit in one.hits}
        common = [
            (hit, yours[hit.id, hit.chunk]) for hit in other.hits if (hit.id, hit.chunk) in yours
        ]
        assert len(common) >= len(one.hits) - 3
        for mine, your in common:
            assert mine.explanation is not None and your.explanation is not None
            assert mine.explanation.dense_score == pytest.approx(your.explanation.dense_score, 1e-5)
            assert mine.score == pytest.approx(your.score, abs=0.05)
    by_vector = c.SearchOptions(k=10, dense_weight=1.0, payload=ALL)
    one = await routers.faiss.search(query, by_vector)
    other = await routers.milvus.search(query, by_vector)
    alike(other.hits, one.hits)


async def test_the_plan_names_milvus(routers: Routers) -> None:
    options = c.SearchOptions(filter=f.Equals("kind", "a"), explain=True, mode=c.SearchMode.DENSE)
    (plan,) = (await routers.milvus.search(c.Query(text="fig"), options)).results[0].plans
    assert (plan.strategy, plan.matches, plan.shard) == (c.PlanStrategy.BACKEND, 0, 0)
    assert "Milvus" in plan.reason


async def test_searches_by_item_ids_agree(routers: Routers) -> None:
    query = c.Query(item_ids=("d001", "absent", "d033"))
    one = await routers.faiss.search(query, c.SearchOptions(k=20))
    other = await routers.milvus.search(query, c.SearchOptions(k=20))
    alike(other.hits, one.hits)
    assert other.results[0].ignored_ids == one.results[0].ignored_ids


async def test_lists_are_equal(routers: Routers) -> None:
    audience = c.Audience(item_ids=("d001", "d044"), surface="item_page")
    for filter in FILTERS:
        options = c.RecommendOptions(n=12, filter=filter, payload=ALL)
        one = await routers.faiss.recommend(audience, options)
        other = await routers.milvus.recommend(audience, options)
        alike(
            [each.hit for each in other.recommendations], [each.hit for each in one.recommendations]
        )


async def test_items_are_equal(routers: Routers) -> None:
    ids = [f"d{number:03d}" for number in range(0, 150, 3)]
    ids += ["absent", 'd007 "é漢\\', "d003", "a\1b"]
    one = await routers.faiss.get_items(ids, ALL)
    other = await routers.milvus.get_items(ids, ALL)
    same_items(other.items, one.items)
    assert other.ignored_ids == one.ignored_ids
    for filter in FILTERS:
        found = [item async for item in routers.milvus.items(filter, ALL)]
        same_items(found, [item async for item in routers.faiss.items(filter, ALL)])
        pages = []
        token = ""
        while True:
            page = await routers.milvus.list_items(page_size=7, page_token=token, filter=filter)
            pages += [item.id for item in page.items]
            token = page.next_page_token
            if not token:
                break
        assert pages == [item.id for item in found]
        counted = await routers.milvus.count_items(filter)
        assert counted.count == (await routers.faiss.count_items(filter)).count


def same_items(items: Sequence[c.Item], wanted: Sequence[c.Item]) -> None:
    """Asserts equal items."""
    assert len(items) == len(wanted)
    for one, other in zip(items, wanted, strict=True):
        assert (one.id, one.title, one.text, one.attributes, one.version, one.expires) == (
            other.id,
            other.title,
            other.text,
            other.attributes,
            other.version,
            other.expires,
        )
        assert one.vector is not None and other.vector is not None
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-6)


async def test_unsupported_options_are_rejected(routers: Routers) -> None:
    query = c.Query(text="fig")
    for options, field in (
        (c.SearchOptions(nprobe=4, mode=c.SearchMode.DENSE), "options.nprobe"),
        (c.SearchOptions(ef_search=64, mode=c.SearchMode.DENSE), "options.ef_search"),
        (c.SearchOptions(grouping=c.Grouping("kind")), "options.grouping"),
        (c.SearchOptions(boosts=[c.Boost(field="kind", any_of=("a",))]), "options.boosts"),
    ):
        with pytest.raises(Unsupported) as refused:
            await routers.milvus.search(query, options)
        assert refused.value.field == field
    with pytest.raises(Unsupported, match="serve the collection from FAISS shards"):
        await routers.milvus.count_items(None, [c.Facet(field="kind", limit=3)])


async def test_status_counts_one_shard(routers: Routers) -> None:
    (status,) = (await routers.admin.serving_status()).collections
    assert (status.shards_ready, status.shards_total) == (1, 1)
