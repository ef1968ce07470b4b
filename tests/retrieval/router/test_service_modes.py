"""The service as an object, behind gRPC, and with shards behind gRPC gives the same answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from nearline import contract as c
from nearline.errors import NearlineError
from tests.retrieval.fakes import FakeEmbedder
from tests.retrieval.service_modes import BEHIND_GRPC, MODES, opened
from tests.retrieval.small_snapshots import Document, write_snapshot

DIM = 4
ALL = frozenset(c.PayloadField)
VECTOR = np.array([1, -2, 3, 0], np.float32)
IDS = ("d003", "d017", "lost")

# Integer-valued vectors, means of 2 and 4 of them: every score is exact in float32, so answers must
# be equal and not merely close.
CASES: dict[str, tuple[c.Query, c.SearchOptions]] = {
    "vector": (c.Query(vector=VECTOR), c.SearchOptions()),
    "everything": (c.Query(vector=VECTOR), c.SearchOptions(k=10_000, payload=ALL, explain=True)),
    "chunks": (
        c.Query(vector=VECTOR),
        c.SearchOptions(k=50, level=c.HitLevel.CHUNK, payload=frozenset({c.PayloadField.TEXT})),
    ),
    "exact": (c.Query(vector=-VECTOR), c.SearchOptions(k=20, exact=True)),
    "text": (c.Query(text="2"), c.SearchOptions(k=5, payload=frozenset({c.PayloadField.TITLE}))),
    "items": (c.Query(item_ids=IDS), c.SearchOptions(k=7)),
    "items, chunks": (c.Query(item_ids=IDS), c.SearchOptions(k=40, level=c.HitLevel.CHUNK)),
    "full coverage": (c.Query(vector=VECTOR), c.SearchOptions(require_full_coverage=True)),
}
BAD: dict[str, tuple[c.Query, c.SearchOptions]] = {
    "k": (c.Query(vector=VECTOR), c.SearchOptions(k=0)),
    "large k": (c.Query(vector=VECTOR), c.SearchOptions(k=10_001)),
    "dim": (c.Query(vector=np.ones(7, np.float32)), c.SearchOptions()),
    "nan": (c.Query(vector=np.full(DIM, np.nan, np.float32)), c.SearchOptions()),
    "empty text": (c.Query(text=""), c.SearchOptions()),
    "no query": (c.Query(), c.SearchOptions()),
    "lost items": (c.Query(item_ids=("lost",)), c.SearchOptions()),
    "knob": (c.Query(vector=VECTOR), c.SearchOptions(ef_search=20)),
    "lexical": (c.Query(text="1"), c.SearchOptions(mode=c.SearchMode.LEXICAL)),
    "snapshot": (c.Query(vector=VECTOR), c.SearchOptions(snapshot_id="20260101T000000Z-000000")),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(5)
    documents = [
        Document(
            id=f"d{number:03d}",
            vectors=rng.integers(-3, 4, (int(rng.choice([1, 2, 4])), DIM)).astype(np.float32),
            title=f"Document {number}",
            text="0123456789" * 5,
            attributes={"number": number, "tags": ["a", "b"], "half": number / 2},
        )
        for number in range(150)
    ]
    for shards in (1, 4):
        write_snapshot(root, documents, shards=shards, collection=f"shards{shards}")
    return root


@pytest_asyncio.fixture
async def retrievers(store: Path) -> AsyncIterator[list[tuple[c.Retriever, str]]]:
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for mode in MODES:
            one = await stack.enter_async_context(opened(mode, store, FakeEmbedder(DIM)))
            found.append((one, "shards1" if mode == BEHIND_GRPC else "shards4"))
        yield found


def comparable(hits: c.HitList) -> object:
    """Returns a hit list without shards, and with vectors that can be compared."""
    rows = []
    for hit in hits.hits:
        vector = None if hit.vector is None else tuple(hit.vector.tolist())
        explained = hit.explanation and replace(hit.explanation, shard=0)
        attributes = hit.attributes or None
        rows.append(replace(hit, vector=vector, explanation=explained, attributes=attributes))  # type: ignore[arg-type]
    return rows, list(hits.ignored_ids)


async def test_every_mode_gives_the_same_hits(retrievers: list[tuple[c.Retriever, str]]) -> None:
    for name, (query, given) in CASES.items():
        # Clients ask for titles and texts where the payload is left open.
        options = replace(given, payload=frozenset(given.payload))
        answers = [
            (await retriever.search(query, options, collection=collection, timeout_s=10.0))
            for retriever, collection in retrievers
        ]
        first, *others = [comparable(answer.results[0]) for answer in answers]
        assert first[0], name  # type: ignore[index]
        assert all(other == first for other in others), name
        assert all(not answer.info.coverage.missing_shards for answer in answers)


async def test_every_mode_gives_the_same_batch(retrievers: list[tuple[c.Retriever, str]]) -> None:
    queries = [query for query, _ in CASES.values()] * 10
    answers = []
    for retriever, collection in retrievers:
        reply = await retriever.search_batch(
            queries, c.SearchOptions(payload=frozenset()), collection=collection, timeout_s=10.0
        )
        answers.append([comparable(result) for result in reply.results])
        assert len(reply.results) == len(queries)
    assert answers[0] == answers[1] == answers[2]


async def test_every_mode_reads_the_same_items(retrievers: list[tuple[c.Retriever, str]]) -> None:
    for payload in (frozenset[c.PayloadField](), frozenset({c.PayloadField.TITLE}), ALL):
        answers = []
        for retriever, collection in retrievers:
            reply = await retriever.get_items(IDS, payload, collection=collection, timeout_s=10.0)
            items = [
                replace(item, vector=None if item.vector is None else tuple(item.vector.tolist()))
                for item in reply.items
            ]
            answers.append((items, list(reply.ignored_ids)))
        assert answers[0] == answers[1] == answers[2]
        assert [item.id for item in answers[0][0]] == ["d003", "d017"]
        assert answers[0][1] == [c.IgnoredId("lost", c.IgnoredReason.NOT_FOUND)]


async def test_every_mode_raises_the_same_errors(retrievers: list[tuple[c.Retriever, str]]) -> None:
    for name, (query, options) in BAD.items():
        kinds = []
        for retriever, collection in retrievers:
            with pytest.raises(NearlineError) as caught:
                await retriever.search(query, options, collection=collection, timeout_s=10.0)
            kinds.append(type(caught.value))
        assert len(set(kinds)) == 1, (name, kinds)
