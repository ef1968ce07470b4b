"""Titles that match or complete a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from retrieval.index.lexical.language_words import Alternative
from retrieval.index.lexical.lexical_query import Clause, PrefixQuery
from retrieval.index.lexical.title_index import TitleMatches, Titles, complete_titles
from tests.retrieval.index.lexical.small_indexes import Built, Document


# Words of the titles of rows: the first few are in most of them.
@given(
    st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=300),
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=3, unique=True),
    st.sampled_from([1, 2, 50]),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_the_preferred_rows_that_have_all_words_are_found(
    titles: list[set[str]], asked: list[str], most: int, ordered: bool, key: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    popularity = (draw.integers(0, 3, len(titles)) / 2).astype(np.float32)
    allow = draw.random(len(titles)) < 0.7
    # 0 is no title.
    keys = draw.integers(0, 4, len(titles)).astype(np.uint64)
    words = np.array(list(map(len, titles)), np.uint16)
    preferred = sorted(range(len(titles)), key=lambda row: (-popularity[row], words[row], row))

    def rows_of(word: Alternative) -> NDArray[np.int32]:
        return np.array([row for row, own in enumerate(titles) if word.word in own], np.int32)

    def rows_starting(prefix: str) -> list[NDArray[np.int32]]:
        # In two columns, with repetitions, as of two words of one title.
        rows = rows_of(Alternative(prefix, 0, np.float32(1)))
        return [rows, rows[::2]]

    columns = Titles(
        rows_of,
        rows_starting,
        words,
        keys,
        popularity,
        np.array(preferred, np.int32) if ordered else None,
    )
    *complete, prefix = asked
    clauses = [Clause((Alternative(word, 0, np.float32(1)),)) for word in complete]
    for allowed in (None, allow):
        query = PrefixQuery(clauses, prefix, key=key)
        found = complete_titles(query, columns, most, allowed)
        having_all = [
            row
            for row in preferred
            if titles[row].issuperset(asked) and (allowed is None or allowed[row])
        ]
        exact = [row for row in having_all if key and keys[row] == key]
        assert found.tolist() == list(dict.fromkeys(exact + having_all))[:most]


@given(st.dictionaries(st.integers(0, 30), st.sampled_from([0.5, 1, 3])), st.data())
def test_levels_of_rows_in_any_order(levels: dict[int, float], data: st.DataObject) -> None:
    ordered = sorted(levels)
    matches = TitleMatches(
        np.array(ordered, np.int32), np.array([levels[row] for row in ordered], np.float32)
    )
    rows = data.draw(st.lists(st.integers(0, 35)))
    assert matches.at(np.array(rows, np.int64)).tolist() == [levels.get(row, 0) for row in rows]


def test_titles_that_go_on_are_completed_by_popularity_and_length(tmp_path: Path) -> None:
    titles = ("The Spiders of Mars", "Spider", "Spinning Wheel", "Wheel", "Running Wild", "Spi")
    popularity = (0.0, 0.0, 0.9, 0.0, 0.0, 0.0)
    documents = [
        Document(title, ["text"], popularity=used)
        for title, used in zip(titles, popularity, strict=True)
    ]
    (index,) = Built(tmp_path, documents, popular=True).indexes()

    def completed(text: str, most: int = 9) -> list[str]:
        return [titles[row] for row in index.complete(text, most).tolist()]

    assert completed("spi") == ["Spi", "Spinning Wheel", "Spider", "The Spiders of Mars"]
    assert completed("s", 2) == ["Spinning Wheel", "Spider"]
    # The stem of the word is shorter than its form.
    assert completed("runnin") == completed("wild run") == ["Running Wild"]
    assert completed("spider ") == ["Spider", "The Spiders of Mars"]
    assert completed("spidr") == ["Spider", "The Spiders of Mars"]
    assert completed("x") == completed("") == []
