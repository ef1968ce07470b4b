"""Completions of titles, each way that serves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.options.build_options import BuildOptions, ChunkOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.errors import InvalidRequest, Unsupported
from nearline.filters import Equals
from tests.retrieval.built_collections import COLLECTIONS
from tests.retrieval.conformance.features import DIM, Catalogue
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import LIVE, OBJECT, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")
# Title, kind, popularity.
TITLES = [
    ("The Matrix", "film", 0.9),
    ("Matrix", "album", 0.0),
    ("The Matrix Reloaded", "film", 0.5),
    ("The Mask", "film", 0.8),
    ("Mask", "film", 0.1),
    ("O Brother, Where Art Thou?", "film", 0.2),
    ("Björk", "artist", 0.6),
    ("Running Man", "film", 0.3),
    ("The Who", "artist", 0.4),
    ("Metallica", "artist", 0.7),
    ("metallica", "artist", 0.2),
]
ITEMS = [
    c.Item(id=f"i{number:02d}", title=title, text="stone", attributes={"kind": kind})
    for number, (title, kind, _) in enumerate(TITLES)
]


POPULARITY = {item.id: share for item, (_, _, share) in zip(ITEMS, TITLES, strict=True)}
CATALOGUE = Catalogue(ITEMS, plain=True, options={"popularity": POPULARITY})


async def suggested(
    service: c.Retriever, text: str, limit: int = 10, filter: c.Filter | None = None
) -> c.SuggestReply:
    """Completes a text in both collections, whose answers are the same."""
    first, second = [
        await service.suggest(
            text, limit=limit, filter=filter, collection=collection, timeout_s=10.0
        )
        for collection in COLLECTIONS
    ]
    assert (first.suggestions, first.correction) == (second.suggestions, second.correction)
    return first


async def titles(service: c.Retriever, text: str) -> list[str]:
    return [one.title for one in (await suggested(service, text)).suggestions]


async def test_titles_that_begin_with_the_text_come_first_then_popular_ones(
    service: c.Retriever, way: str
) -> None:
    begun = ["The Matrix", "The Mask", "The Matrix Reloaded"]
    for text, wanted in (
        ("ma", ["Mask", "Matrix", *begun, "Running Man"]),
        # A stop word is not required: it may as well be left out.
        ("the ma", [*begun, "Running Man", "Mask", "Matrix"]),
    ):
        found = await titles(service, text)
        # Live documents have no popularity.
        assert (found == wanted) if way != LIVE else (set(found) == set(wanted))
    (first, *_) = (await suggested(service, "the matrix r")).suggestions
    assert (first.id, first.score) == ("i02", 1.5) or way == LIVE


async def test_the_title_that_is_the_text_comes_first_however_unpopular(tmp_path: Path) -> None:
    # More titles that have the words, and begin with the text, than are read.
    popular = [c.Item(id=f"p{n}", title=f"The Who of {n}", text="stone") for n in range(600)]
    own = c.Item(id="own", title="The Who", text="stone")
    options = BuildOptions(
        store=str(tmp_path),
        chunks=ChunkOptions(max_tokens=0),
        popularity={item.id: 0.5 for item in popular},
    )
    await build_snapshot([*popular, own], options, WordEmbedder(DIM))
    async with opened(OBJECT, tmp_path, WordEmbedder(DIM)) as service:
        for text in ("the who", "The Who ", "Thé WHO"):
            reply = await service.suggest(text, limit=3, timeout_s=10.0)
            assert reply.suggestions[0].id == "own", text
            assert [one.score for one in reply.suggestions] == [2.0, 1.5, 1.5]


async def test_a_space_completes_the_last_word(service: c.Retriever) -> None:
    assert await titles(service, "mat") == ["Matrix", "The Matrix", "The Matrix Reloaded"]
    assert await titles(service, "mat ") == []


async def test_words_within_titles_are_found_with_what_was_typed_of_them(
    service: c.Retriever, way: str
) -> None:
    (found,) = (await suggested(service, "brother wh")).suggestions
    assert found.title == "O Brother, Where Art Thou?"
    assert [found.title[start:end] for start, end in found.spans] == ["Brother", "Wh"]
    # A form of a word is longer than its stem; live documents are found by stems alone.
    assert await titles(service, "runni") == ([] if way == LIVE else ["Running Man"])
    assert await titles(service, "who") == ["The Who"]
    assert await titles(service, "the who ") == ["The Who"]


async def test_accents_and_case_do_not_matter_and_a_title_is_suggested_once(
    service: c.Retriever,
) -> None:
    assert await titles(service, "bjo") == await titles(service, "BJÖ") == ["Björk"]
    (found,) = (await suggested(service, "metal")).suggestions
    assert (found.title, found.id) == ("Metallica", "i09")


async def test_unknown_words_are_corrected(service: c.Retriever) -> None:
    reply = await suggested(service, "metalica")
    assert [one.title for one in reply.suggestions] == ["Metallica"]
    assert reply.correction == "metallica"
    assert (await suggested(service, "the matrxi reloaded")).correction == "the matrix reloaded"
    # What begins a known word may go on.
    assert (await suggested(service, "metalli")).correction == ""
    nothing = await suggested(service, "zzzz")
    assert (list(nothing.suggestions), nothing.correction) == ([], "")


async def test_a_filter_and_a_limit_hold(service: c.Retriever) -> None:
    albums = await suggested(service, "ma", filter=Equals("kind", "album"))
    assert [one.title for one in albums.suggestions] == ["Matrix"]
    one = await suggested(service, "ma", limit=1)
    assert [found.title for found in one.suggestions] == ["Mask"]


@pytest.mark.parametrize(
    ("text", "limit", "field"),
    [(" ", 10, "text"), ("x" * 257, 10, "text"), ("x", 101, "limit")],
)
async def test_what_is_out_of_range_is_refused_by_name(
    service: c.Retriever, text: str, limit: int, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await suggested(service, text, limit)
    assert caught.value.field == field


async def test_hostile_texts_find_nothing(service: c.Retriever) -> None:
    for text in ("🎉", "---", '"', "\x00", "東京", "a" * 256, "the " * 60):
        await suggested(service, text)


async def test_a_collection_without_words_is_refused_with_the_remedy(service: c.Retriever) -> None:
    with pytest.raises(Unsupported, match="--no-lexical"):
        await service.suggest("ma", collection="plain", timeout_s=10.0)
