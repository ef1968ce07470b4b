"""Headings above a hit: returned if requested, and searched with the chunk."""

from __future__ import annotations

import pytest

from nearline import contract as c
from nearline.items.structure import section_at
from tests.retrieval.built_collections import COLLECTIONS
from tests.retrieval.conformance.features import Catalogue

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = """Before any heading there is a sentence.

## Memory

These settings matter:

- work_mem:

  Memory for each sort. It may be changed at any time and needs no restart of the server.

  A second paragraph of that entry says more about sorts and hashes than anybody wants to know.

## Paper

It is white."""
ITEMS = [c.Item(id="manual", title="Manual", text=TEXT), c.Item(id="other", text="Other words.")]
ALL = frozenset({c.PayloadField.TEXT, c.PayloadField.SECTION})


CATALOGUE = Catalogue(ITEMS, max_tokens=24)


@pytest.mark.parametrize("mode", [c.SearchMode.LEXICAL, c.SearchMode.HYBRID])
async def test_hits_have_the_headings_above_them(service: c.Retriever, mode: c.SearchMode) -> None:
    options = c.SearchOptions(k=20, mode=mode, level=c.HitLevel.CHUNK, payload=ALL)
    for collection in COLLECTIONS:
        reply = await service.search(
            c.Query(text="second paragraph sorts hashes"), options, collection=collection
        )
        hits = [hit for hit in reply.hits if hit.id == "manual"]
        assert len(hits) > 2
        for hit in hits:
            assert tuple(hit.section) == section_at(TEXT, hit.start)
        best = next(hit for hit in hits if "second paragraph" in (hit.text or ""))
        assert tuple(best.section) == ("## Memory", "- work_mem:")


async def test_a_chunk_is_found_by_the_words_above_it(service: c.Retriever) -> None:
    options = c.SearchOptions(k=3, mode=c.SearchMode.LEXICAL, level=c.HitLevel.CHUNK, payload=ALL)
    reply = await service.search(
        c.Query(text="work_mem hashes"), options, collection=COLLECTIONS[0]
    )
    assert "second paragraph" in (reply.hits[0].text or "")


async def test_nothing_is_returned_unless_requested(service: c.Retriever) -> None:
    options = c.SearchOptions(k=3, payload=frozenset({c.PayloadField.TEXT}))
    reply = await service.search(c.Query(text="white"), options, collection=COLLECTIONS[0])
    assert not any(hit.section for hit in reply.hits)
