"""Attributes in a language of their own: searches, filters and highlights, each way."""

from __future__ import annotations

import pytest

from nearline import contract as c
from nearline.filters import Phrase, Words
from tests.retrieval.built_collections import COLLECTIONS
from tests.retrieval.conformance.features import Catalogue

pytestmark = pytest.mark.asyncio(loop_scope="module")
BRANDS = {
    "sound": ("Soul Mining", "The running order of an album.", "The The"),
    "shoe": ("Shoes", "They run, and run.", "Running"),
    "runs": ("Runs", "A film about the marathon.", "Kings"),
    "king": ("The king", "He runs a country.", ["Apples", "King of Shaves"]),
    "plain": ("An apple", "It has no brand.", None),
    "ice": ("Ice", "It is cold.", "Häagen-Dazs"),
    "sofa": ("A sofa", "To sit on.", "XR-200"),
}
ITEMS = [
    c.Item(id=key, title=title, text=text, attributes={} if brand is None else {"brand": brand})
    for key, (title, text, brand) in BRANDS.items()
]
HIGHLIGHT = c.Highlighting(60)


NOTES = {
    "hill": ("Hill", {"note": "der Berg"}),
    "town": ("Town", {"note": "Die alten Häuser der Stadt"}),
    "text": ("Der Berg", {}),
}
ITEMS += [
    c.Item(id=key, title=title, text="A walk.", attributes=attributes)
    for key, (title, attributes) in NOTES.items()
]
# English, with brands as written and German notes.
CATALOGUE = Catalogue(
    ITEMS,
    options={
        "search_weights": {"brand": 2.0, "note": 1.0},
        "search_languages": {"brand": "none", "note": "german"},
    },
)


async def hits(
    service: c.Retriever, text: str, collection: str, **options: object
) -> dict[str, float]:
    """Returns the scores of a lexical search, by id."""
    wanted = c.SearchOptions(k=10, mode=c.SearchMode.LEXICAL, **options)  # type: ignore[arg-type]
    reply = await service.search(c.Query(text=text), wanted, collection=collection)
    return {hit.id: hit.score for hit in reply.hits}


async def test_items_are_found_by_brands_as_written_with_equal_scores_in_any_shards(
    service: c.Retriever,
) -> None:
    for text, expected in {
        "running": {"sound", "shoe", "runs", "king"},
        "apples": {"king", "plain"},
        "apple": {"plain"},
        # By the brand, and by a title.
        "the the": {"sound", "king"},
        "the album": {"sound"},
        "kings": {"runs", "king"},
        "runnin*": {"sound", "shoe", "runs", "king"},
        "shavs": {"king"},
        "haagen dazs": {"ice"},
        "haagendazs": {"ice"},
        "haag*": {"ice"},
        "XR200": {"sofa"},
        "xr 200": {"sofa"},
    }.items():
        one, four = [await hits(service, text, collection) for collection in COLLECTIONS]
        # To the last bit.
        assert one == four, text
        assert set(one) == expected, text


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_filters_by_words_have_brands_and_phrases_do_not(
    service: c.Retriever, collection: str
) -> None:
    async def matching(condition: Words | Phrase) -> set[str]:
        options = c.SearchOptions(k=10, mode=c.SearchMode.DENSE, filter=condition)
        reply = await service.search(c.Query(text="x"), options, collection=collection)
        counted = await service.count_items(condition, collection=collection)
        assert counted.count == len(reply.hits)
        return {hit.id for hit in reply.hits}

    assert await matching(Words("apples")) == {"king", "plain"}
    assert await matching(Words("apple")) == {"plain"}
    # Brand and text together; stop words of the collection do not count, unless they are alone.
    assert await matching(Words("running shoes")) == {"shoe"}
    assert await matching(Words("the kings")) == {"runs", "king"}
    assert await matching(Words("the")) == {"sound", "king"}
    # Phrases are those of titles and texts.
    assert await matching(Phrase("King of Shaves")) == set()
    assert await matching(Phrase("running order")) == {"sound"}
    found = await hits(service, "apples shaves", collection, min_should_match=1.0)
    assert set(found) == {"king"}
    assert set(await hits(service, "runs -apples", collection)) == {"sound", "shoe", "runs"}


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_stop_words_of_an_attributes_language_are_no_condition(
    service: c.Retriever, collection: str
) -> None:
    async def matching(text: str) -> set[str]:
        required = await hits(service, text, collection, min_should_match=1.0)
        counted = await service.count_items(Words(text), collection=collection)
        assert counted.count == len(required)
        return set(required)

    assert await matching("der Berg") == {"hill", "text"}
    assert await matching("die alten Häuser") == {"town"}
    # Of such words alone, those of titles and texts are meant, where they are words.
    assert await matching("der") == {"text"}
    # Titles need them, as their language has them as words.
    assert list(await hits(service, "der berg", collection)) == ["text", "hill"]


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_words_of_titles_and_texts_are_marked_by_the_language_of_the_collection(
    service: c.Retriever, collection: str
) -> None:
    options = c.SearchOptions(k=10, mode=c.SearchMode.LEXICAL, highlight=HIGHLIGHT)
    reply = await service.search(c.Query(text="the running"), options, collection=collection)
    marked = {}
    for hit in reply.hits:
        assert hit.highlights is not None and hit.highlights.passage is not None
        passage = hit.highlights.passage
        marked[hit.id] = [passage.text[start:end] for start, end in passage.spans]
    assert marked == {
        "sound": ["running"],
        "shoe": ["run", "run"],
        "runs": [],
        "king": ["runs"],
    }
