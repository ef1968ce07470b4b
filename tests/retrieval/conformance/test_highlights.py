"""Highlights of searches in every mode, each way that serves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.filters import Equals
from retrieval.index.lexical.analysers import analyser_of
from tests.retrieval.built_collections import COLLECTIONS
from tests.retrieval.conformance.features import DIM, Catalogue, both
from tests.retrieval.fakes import word_vector

pytestmark = pytest.mark.asyncio(loop_scope="module")
WORDS = (
    "Red green blue, round square. Small largest glass steels paper? River stone clouds.".split()
)
HIGHLIGHT = c.Highlighting(60)


def make_items() -> list[c.Item]:
    rng = np.random.default_rng(7)
    items = []
    for number in range(60):
        text = " ".join(rng.choice(WORDS, int(rng.integers(20, 60))))
        attributes: dict[str, c.AttributeValue] = {"kind": str(rng.choice(["a", "b", "c"]))}
        title = f"{rng.choice(WORDS)} item {number}"
        items.append(c.Item(id=f"i{number:02d}", title=title, text=text, attributes=attributes))
    return items


ITEMS = {item.id: item for item in make_items()}


CATALOGUE = Catalogue([*ITEMS.values()], plain=True, max_tokens=30)


async def hits_of(
    service: c.Retriever, query: c.Query | str, options: c.SearchOptions
) -> Sequence[c.Hit]:
    return (await both(service, query, options)).hits


def expected(text: str, query: str) -> list[tuple[int, int]]:
    """Returns the places of the words of a query, by splitting at spaces."""
    analyser = analyser_of("english")
    wanted = set(analyser.words(query))
    spans, at = [], 0
    for word in text.split(" "):
        bare = word.rstrip(".,?")
        if wanted & set(analyser.words(bare)):
            spans.append((at, at + len(bare)))
        at += len(word) + 1
    return spans


@pytest.mark.parametrize("level", list(c.HitLevel))
@pytest.mark.parametrize("mode", [None, *c.SearchMode])
async def test_all_words_of_a_hit_are_marked_in_every_mode(
    service: c.Retriever, mode: c.SearchMode | None, level: c.HitLevel
) -> None:
    query = "the steel clouds of glass"
    options = c.SearchOptions(
        k=20, mode=mode, level=level, payload=frozenset(), highlight=HIGHLIGHT
    )
    hits = await hits_of(service, query, options)
    assert len(hits) == 20
    marked = 0
    for hit in hits:
        item = ITEMS[hit.id]
        # The parts were not asked for.
        assert hit.title is None and hit.text is None and hit.attributes is None
        assert hit.highlights is not None
        assert list(hit.highlights.title) == expected(item.title, query)
        passage = hit.highlights.passage
        assert passage is not None
        assert hit.start <= passage.start < passage.end <= hit.end
        assert passage.text == item.text[passage.start : passage.end]
        assert len(passage.text) <= HIGHLIGHT.passage_chars
        assert list(passage.spans) == expected(passage.text, query)
        chunk = item.text[hit.start : hit.end]
        if expected(chunk, query):
            assert passage.spans
            marked += 1
        else:
            assert chunk.startswith(passage.text)
    assert marked >= 10


@pytest.mark.parametrize(
    "query", [c.Query(vector=word_vector("steel", DIM)), c.Query(item_ids=("i01", "i02"))]
)
async def test_a_query_without_words_has_passages_without_spans(
    service: c.Retriever, query: c.Query
) -> None:
    for hit in await hits_of(service, query, c.SearchOptions(k=5, highlight=HIGHLIGHT)):
        assert hit.highlights is not None and hit.highlights.passage is not None
        passage = hit.highlights.passage
        assert (hit.highlights.title, passage.spans) == ((), ())
        assert passage.start == hit.start and passage.text


async def test_without_a_lexical_index_no_words_are_known(service: c.Retriever) -> None:
    reply = await service.search(
        c.Query(text="steel"), c.SearchOptions(highlight=HIGHLIGHT), collection="plain"
    )
    assert all(hit.highlights and hit.highlights.passage for hit in reply.hits)
    assert not any(hit.highlights.title for hit in reply.hits if hit.highlights)


async def test_highlights_are_those_of_the_hits_without(service: c.Retriever) -> None:
    payload = frozenset({c.PayloadField.TITLE, c.PayloadField.ATTRIBUTES})
    query = c.Query(text="steel river")
    for options in (
        c.SearchOptions(k=9, payload=payload),
        c.SearchOptions(k=9, payload=payload, mode=c.SearchMode.LEXICAL, min_score=0.5),
        c.SearchOptions(k=9, payload=payload, mode=c.SearchMode.DENSE, diversity=0.5),
        c.SearchOptions(k=2, payload=payload, grouping=c.Grouping("kind", 3)),
        c.SearchOptions(
            k=2, payload=payload, mode=c.SearchMode.DENSE, grouping=c.Grouping("kind", 3)
        ),
        c.SearchOptions(k=9, payload=payload, filter=Equals("kind", "a")),
    ):
        plain = await hits_of(service, query, options)
        marked = await hits_of(service, query, _with(options))
        assert plain and all(hit.highlights is None for hit in plain)
        assert all(hit.highlights is not None for hit in marked)
        for hit in marked:
            hit.highlights = None
        assert list(marked) == list(plain)


def _with(options: c.SearchOptions) -> c.SearchOptions:
    return replace(options, highlight=HIGHLIGHT)


async def test_each_query_of_a_batch_has_its_own_words(service: c.Retriever) -> None:
    texts = ["steel river", "glass", "river", "steel river"]
    queries = [*(c.Query(text=text) for text in texts), c.Query(item_ids=("i03",))]
    for mode in (None, c.SearchMode.DENSE):
        options = c.SearchOptions(k=60, mode=mode, highlight=HIGHLIGHT)
        for collection in COLLECTIONS:
            reply = await service.search_batch(queries, options, collection=collection)
            for query, found in zip(queries, reply.results, strict=True):
                assert found.hits
                for hit in found.hits:
                    assert hit.highlights is not None and hit.highlights.passage is not None
                    passage = hit.highlights.passage
                    wanted = expected(passage.text, query.text or "")
                    assert list(passage.spans) == wanted
            alone = await service.search(queries[0], options, collection=collection)
            assert list(alone.hits) == list(reply.results[0].hits) == list(reply.results[3].hits)


async def test_a_passage_has_limits(service: c.Retriever) -> None:
    options = c.SearchOptions(highlight=c.Highlighting(2_001))
    with pytest.raises(InvalidRequest, match=r"1\.\.2,000") as refused:
        await service.search(c.Query(text="steel"), options, collection="one")
    assert refused.value.field == "options.highlight.passage_chars"


async def test_hostile_queries_are_highlighted(service: c.Retriever) -> None:
    for text in (" ".join(f"w{n}" for n in range(5_000)) + " steel", "\U0001f600", "\u0301", "a"):
        options = c.SearchOptions(k=60, mode=c.SearchMode.DENSE, highlight=HIGHLIGHT)
        hits = await hits_of(service, text, options)
        assert all(hit.highlights is not None for hit in hits)
        assert any(hit.highlights.title for hit in hits if hit.highlights) == ("steel" in text)
