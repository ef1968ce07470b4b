"""Titles that Milvus has found have the levels that they have in a snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nearline.store.snapshot import shard_folder
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.milvus.searcher import TitleLevels
from tests.retrieval.small_snapshots import Document, write_words

TITLES = (
    *("The Big Sleep", "Sleep, big", "The Big Sleep Again", "Sleeping", "", "XR-200", "xr 200"),
    *("Björk", "Bjork", "The Who", "Metallica", "Metallica Live", "東京物語", "It"),
)
QUERIES = (
    *("The Big Sleep", "big sleep", "sleep", "metalica", "metalica live", "xr200", "xr-200"),
    *("björk", "bjork", "the who", "who", "東京物語", "東京", "it", "", "nothing of this"),
)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vocabulary, LexicalIndex]:
    """Returns the words of documents with these titles."""
    folder = tmp_path_factory.mktemp("snapshot")
    vector = np.ones((1, 2), np.float32)
    documents = [
        Document(id=f"d{number:02}", vectors=vector, title=title, text="text", bounds=[(0, 4)])
        for number, title in enumerate(TITLES)
    ]
    shard_folder(folder, 0).mkdir(parents=True)
    write_words(folder, documents, 1, "english")
    vocabulary = Vocabulary.load(folder)
    return vocabulary, LexicalIndex.load(shard_folder(folder, 0), vocabulary, len(TITLES))


@pytest.mark.parametrize("query", QUERIES)
def test_levels_are_those_of_the_snapshot(
    words: tuple[Vocabulary, LexicalIndex], query: str
) -> None:
    vocabulary, index = words
    levels = TitleLevels(vocabulary)
    wanted = index.title_levels(query, np.arange(len(TITLES)))
    np.testing.assert_array_equal(levels.levels(query, TITLES), wanted)
    # Others do not matter, nor their order.
    some = [7, 2, 2, 0]
    found = levels.levels(query, [TITLES[number] for number in some])
    np.testing.assert_array_equal(found, wanted[some])
    assert levels.levels(query, ()).shape == (0,)


def test_the_titles_that_are_named_come_first(words: tuple[Vocabulary, LexicalIndex]) -> None:
    def best(query: str) -> Sequence[str]:
        levels = TitleLevels(words[0]).levels(query, TITLES)
        return [TITLES[at] for at in np.argsort(-levels, kind="stable") if levels[at] > 0]

    assert best("the big sleep") == ["The Big Sleep", "Sleep, big", "The Big Sleep Again"]
    assert best("metalica") == ["Metallica", "Metallica Live"]
    assert best("björk") == ["Björk", "Bjork"]
