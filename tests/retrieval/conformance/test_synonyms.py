"""Synonyms of words of queries: searches, conditions and highlights, each way that serves them."""

from __future__ import annotations

import pytest

from nearline import contract as c
from nearline.filters import Words
from retrieval.index.lexical.synonym_rules import parse_synonyms
from tests.retrieval.built_collections import COLLECTIONS
from tests.retrieval.conformance.features import Catalogue, both

pytestmark = pytest.mark.asyncio(loop_scope="module")
RULES = ("tv, television, telly", "nyc, big apple => new york city", "who => world health")
TITLES = {
    "tv": "TV",
    "television": "Television",
    "stand": "Television Stand",
    "city": "New York City",
    "hall": "New York City Hall",
    "york": "York",
    "nyc": "NYC",
    "who": "The Who",
    "health": "World Health",
}
CATALOGUE = Catalogue(
    [
        c.Item(id=name, title=title, text=f"cables for {title.lower()}")
        for name, title in TITLES.items()
    ],
    options={"synonyms": parse_synonyms(RULES)},
)
LEXICAL = c.SearchOptions(mode=c.SearchMode.LEXICAL)


@pytest.mark.parametrize(
    ("query", "best", "others"),
    [
        ("tv", "tv", {"television", "stand"}),
        ("televisions stand", "stand", {"television", "tv"}),
        # A word with synonyms is not misspelt, though nothing has it.
        ("telly", "tv", {"television", "stand"}),
        # All words of a synonym, for one word or for several; rules of one way have one way.
        ("nyc", "nyc", {"city", "hall"}),
        ("big apple", "city", {"hall"}),
        ("new york city", "city", {"hall", "york"}),
        ("who", "who", {"health"}),
        ("tella", None, set()),
    ],
)
async def test_items_are_found_by_synonyms_after_those_with_the_words(
    service: c.Retriever, query: str, best: str | None, others: set[str]
) -> None:
    found = [hit.id for hit in (await both(service, query, LEXICAL)).hits]
    assert set(found) == others | ({best} - {None})
    if query != "telly":
        assert found[:1] == [best][: len(found)]


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_a_share_of_words_counts_synonyms_and_a_filter_does_not(
    service: c.Retriever, collection: str
) -> None:
    options = c.SearchOptions(mode=c.SearchMode.DENSE, min_should_match=1.0)
    reply = await service.search(c.Query(text="nyc"), options, collection=collection)
    assert {hit.id for hit in reply.hits} == {"nyc", "city", "hall"}
    assert (await service.count_items(Words("nyc"), collection=collection)).count == 1


async def test_synonyms_are_marked_as_they_are_found(service: c.Retriever) -> None:
    options = c.SearchOptions(mode=c.SearchMode.LEXICAL, highlight=c.Highlighting(60))
    marked = {}
    for hit in (await both(service, "big apple tv", options)).hits:
        assert hit.highlights is not None
        title = TITLES[hit.id]
        marked[hit.id] = [title[start:end] for start, end in hit.highlights.title]
    assert marked == {
        "tv": ["TV"],
        "television": ["Television"],
        "stand": ["Television"],
        "city": ["New", "York", "City"],
        "hall": ["New", "York", "City"],
    }
