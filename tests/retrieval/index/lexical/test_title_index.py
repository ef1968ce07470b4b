"""Rows of titles are united and intersected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, strategies as st

from retrieval.index.lexical.title_index import TitleMatches, distinct_rows
from tests.retrieval.index.lexical.small_indexes import Built, Document


@given(st.lists(st.sets(st.integers(0, 99)).map(sorted), min_size=1), st.sampled_from([100, 9_000]))
def test_distinct_rows_are_ascending(columns: list[list[int]], rows: int) -> None:
    found = distinct_rows([np.array(one, np.int32) for one in columns], rows)
    assert found.dtype == np.int32
    assert found.tolist() == sorted({row for one in columns for row in one})


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

    assert completed("spi") == ["Spinning Wheel", "Spider", "Spi", "The Spiders of Mars"]
    assert completed("s", 2) == ["Spinning Wheel", "Spider"]
    # The stem of the word is shorter than its form.
    assert completed("runnin") == completed("wild run") == ["Running Wild"]
    assert completed("spider ") == ["Spider", "The Spiders of Mars"]
    assert completed("spidr") == ["Spider", "The Spiders of Mars"]
    assert completed("x") == completed("") == []
