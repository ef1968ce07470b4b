"""Stored items of every shard implementation: by id, in order, and counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nearline import filters as f
from nearline.contract import Item, PayloadField
from nearline.errors import InvalidRequest, SnapshotGone, Unsupported
from retrieval.protocols.shard import CountRequest, HighlightRequest, ItemsRequest, ScanRequest
from tests.retrieval.conformance.conftest import Material
from tests.retrieval.conformance.implementations import Held
from tests.retrieval.conformance.test_search import FILTERS, GONE
from tests.retrieval.small_snapshots import Document

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALL = frozenset(PayloadField)
NONE = frozenset[PayloadField]()
PAYLOADS = (NONE, ALL, *(frozenset({one}) for one in PayloadField))


def holds(
    items: Sequence[Item],
    documents: Sequence[Document],
    payload: frozenset[PayloadField],
    chunks: Sequence[int] = (),
) -> None:
    """Asserts that items match documents, or one chunk of each."""
    assert [item.id for item in items] == [document.id for document in documents]
    for at, (item, document) in enumerate(zip(items, documents, strict=True)):
        text, vector = document.text, document.vectors.mean(axis=0)
        if chunks:
            start, end = document.spans()[chunks[at]]
            text, vector = text[start:end], document.vectors[chunks[at]]
        assert item.title == (document.title if PayloadField.TITLE in payload else "")
        assert item.text == (text if PayloadField.TEXT in payload else "")
        attributes = document.attributes if PayloadField.ATTRIBUTES in payload else {}
        assert item.attributes == attributes
        assert item.version == document.version
        if PayloadField.VECTOR in payload:
            assert item.vector is not None
            np.testing.assert_allclose(item.vector, vector, atol=1e-6)
        else:
            assert item.vector is None


@pytest.mark.parametrize(
    "payload", PAYLOADS, ids=lambda some: "+".join(sorted(one.value for one in some))
)
async def test_items_come_in_the_order_asked(
    small: Held, material: Material, payload: frozenset[PayloadField]
) -> None:
    documents = material.small.documents
    ids = ["d050", "absent", "d003", "d049", 'd0" or 1==1', "d003"]
    fetched = await small.shard.fetch(small.snapshot_id, ItemsRequest(ids, payload))
    holds(fetched.items, [documents[one] for one in ids if one in documents], payload)
    assert fetched.applied is None


async def test_chunks_are_read_by_their_number(small: Held, material: Material) -> None:
    every = list(material.small.documents.values())
    chunks = [len(one.vectors) - 1 for one in every]
    ids = [one.id for one in every]
    fetched = await small.shard.fetch(small.snapshot_id, ItemsRequest(ids, ALL, chunks))
    holds(fetched.items, every, ALL, chunks)
    fetched = await small.shard.fetch(small.snapshot_id, ItemsRequest(ids[:2], ALL, [0, 0]))
    holds(fetched.items, every[:2], ALL, [0, 0])


async def test_words_of_queries_are_highlighted(small: Held, material: Material) -> None:
    every = list(material.small.documents.values())
    ids = [*(one.id for one in every), "absent"]
    chunks = [*(len(one.vectors) - 1 for one in every), 0]
    queries: list[list[int]] = [[at % 2, 2] for at in range(len(ids))]
    texts = ["figs or a pear", "plum title", ""]
    for payload in (NONE, ALL):
        fetched = await small.shard.fetch(
            small.snapshot_id,
            ItemsRequest(
                ids, payload, chunks, highlight=HighlightRequest(texts, queries, 2_000, len(every))
            ),
        )
        holds(fetched.items, every, payload, chunks)
        assert len(fetched.highlights) == len(every)
        for at, (document, (by_text, by_nothing)) in enumerate(
            zip(every, fetched.highlights, strict=True)
        ):
            start, end = document.spans()[chunks[at]]
            text = document.text[start:end]
            wanted: tuple[str, ...] = (
                ("fig", "figs", "pear", "or", "a") if at % 2 == 0 else ("plum", "title")
            )
            if "lexical" in small.lacks:
                wanted = ()
            passage = by_text.passage
            assert (passage is None) == (not text.strip())
            if passage is not None:
                assert (passage.start, passage.text) == (0, text.strip())
                assert _words(passage.text, passage.spans) == [
                    one for one in text.split() if one in wanted
                ]
                assert by_nothing.passage is not None and not by_nothing.passage.spans
            title = document.title
            assert _words(title, by_text.title) == [
                one for one in title.split() if one.lower() in wanted
            ]


def _words(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize("name", FILTERS)
async def test_items_that_do_not_match_are_left_out(
    small: Held, material: Material, name: str
) -> None:
    ids = sorted(material.small.documents, reverse=True)
    wanted = sorted(material.small.matching(FILTERS[name]), key=lambda one: one.id, reverse=True)
    fetched = await small.shard.fetch(
        small.snapshot_id, ItemsRequest(ids, ALL, filter=FILTERS[name])
    )
    holds(fetched.items, wanted, ALL)


@pytest.mark.parametrize("name", [None, *FILTERS])
async def test_pages_put_together_are_everything_in_order(
    small: Held, material: Material, name: str | None
) -> None:
    filter = None if name is None else FILTERS[name]
    wanted = material.small.matching(filter)
    for limit in (1, 9, 1_000) if name is None else (9,):
        items: list[Item] = []
        while True:
            after = items[-1].id if items else ""
            page = await small.shard.scan(small.snapshot_id, ScanRequest(after, limit, filter, ALL))
            assert len(page.items) <= limit
            items += page.items
            if len(page.items) < limit:
                break
        holds(items, wanted, ALL)


async def test_a_page_may_begin_after_an_id_that_does_not_exist(
    small: Held, material: Material
) -> None:
    every = list(material.small.documents.values())
    for after, first in (("d010!", 11), ("d010", 11), ("c", 0), ("z", len(every)), ('"', 0)):
        page = await small.shard.scan(small.snapshot_id, ScanRequest(after, 4, None, NONE))
        holds(page.items, every[first : first + 4], NONE)


@pytest.mark.parametrize("name", [None, *FILTERS])
async def test_matches_and_the_values_among_them_are_counted(
    small: Held, material: Material, name: str | None
) -> None:
    filter = None if name is None else FILTERS[name]
    fields = ["kind", "tags", "year"]
    alone = await small.shard.count(small.snapshot_id, CountRequest(filter, []))
    assert (alone.count, list(alone.fields)) == (len(material.small.matching(filter)), [])
    if "facets" in small.lacks:
        with pytest.raises(Unsupported, match="FAISS"):
            await small.shard.count(small.snapshot_id, CountRequest(filter, fields))
        return
    counted = await small.shard.count(small.snapshot_id, CountRequest(filter, fields))
    assert counted.count == alone.count
    for field, counts in zip(fields, counted.fields, strict=True):
        wanted = material.small.counts(field, filter)
        assert dict(counts.counts) == dict(wanted.counts)
        assert counts.missing == wanted.missing


async def test_another_snapshot_is_gone_here(small: Held) -> None:
    shard = small.shard
    assert await shard.ready(small.snapshot_id)
    assert not await shard.ready(GONE)
    with pytest.raises(SnapshotGone):
        await shard.fetch(GONE, ItemsRequest(["d001"], NONE))
    with pytest.raises(SnapshotGone):
        await shard.scan(GONE, ScanRequest("", 1, None, NONE))
    with pytest.raises(SnapshotGone):
        await shard.count(GONE, CountRequest(None, []))


async def test_an_attribute_that_does_not_exist_is_refused(small: Held) -> None:
    shard, snapshot = small.shard, small.snapshot_id
    with pytest.raises(InvalidRequest, match="nowhere"):
        await shard.fetch(snapshot, ItemsRequest(["d001"], NONE, filter=f.Exists("nowhere")))
    with pytest.raises(InvalidRequest, match="nowhere"):
        await shard.scan(snapshot, ScanRequest("", 1, f.Exists("nowhere"), NONE))
    with pytest.raises(InvalidRequest, match="nowhere"):
        await shard.count(snapshot, CountRequest(f.Exists("nowhere"), []))
    with pytest.raises(Unsupported if "facets" in small.lacks else InvalidRequest):
        await shard.count(snapshot, CountRequest(None, ["nowhere"]))
