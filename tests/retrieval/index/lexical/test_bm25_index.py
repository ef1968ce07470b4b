"""Lexical searches find what the contract says, for any number of shards."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from retrieval.index.lexical.synonym_rules import SynonymRule
from tests.retrieval.index.lexical.lexical_reference import Reference
from tests.retrieval.index.lexical.lexical_texts import (
    DOCUMENTS,
    LANGUAGES,
    QUERY_TEXTS,
    SYNONYMS,
    WEIGHTS,
)
from tests.retrieval.index.lexical.small_indexes import Built, Document
from tests.scale import scaled


@settings(max_examples=scaled(25, nightly=300), deadline=None)
@given(
    DOCUMENTS,
    WEIGHTS,
    st.booleans(),
    st.lists(QUERY_TEXTS, min_size=1, max_size=6),
    SYNONYMS,
    LANGUAGES,
)
@example(
    [Document("spiderman", ["a king"]), Document("", ["spider"]), Document("", ["man"])],
    {},
    False,
    ["spider man", "king"],
    [],
    {},
)
@example([Document("東京都", ["x"])], {}, False, ["京都 京 東京都", "東京都"], [], {})
@example(
    [Document("XR-200", ["x"]), Document("xr200 apple", [""]), Document("xr200", ["x"])],
    {},
    False,
    ["XR-200", "xr200", "xr 200"],
    [],
    {},
)
@example(
    [Document("metallica king", ["x"]), Document("king plum", ["apple"]), Document("pear", ["x"])],
    {},
    False,
    ["spiderman", "spider man x", "apple", "king plum", "king king plum plum"],
    [
        SynonymRule(1, ["apple", "pear", "king plum"]),
        SynonymRule(2, ["spider-man"], ["metallica king"]),
    ],
    {},
)
@example(
    # Stop words, stems, misspelt words, compounds and synonyms of an attribute alone.
    [
        Document("kings", ["the apple"], {"label": "the Who kings"}),
        Document("king", ["plum"], {"label": "XR-200 man", "labels": ["metallica", "Björk king"]}),
        Document("", ["x"], {"label": "a king"}),
    ],
    {"label": 2.0, "labels": 0.5},
    True,
    ["the Who", "the king", "kings", "metalica", "xr200", "man", "pear", "Björk a king"],
    [SynonymRule(1, ["pear", "a king"]), SynonymRule(2, ["the Who"], ["spider-man", "metallica"])],
    {"label": "none", "labels": "german"},
)
def test_searches_equal_the_contract_and_do_not_depend_on_shards(
    documents: list[Document],
    weights: Mapping[str, float],
    popular: bool,
    queries: list[str],
    synonyms: list[SynonymRule],
    languages: Mapping[str, str],
) -> None:
    languages = {name: languages[name] for name in languages if name in weights}
    options: dict[str, Any] = {"weights": weights, "synonyms": synonyms, "languages": languages}
    if not popular:
        documents = [one._replace(popularity=0.0) for one in documents]
    reference = Reference(documents, **options)
    with TemporaryDirectory() as one, TemporaryDirectory() as four:
        whole, cut = (
            Built(Path(folder), documents, n, popular=popular, **options)
            for folder, n in ((one, 1), (four, 4))
        )
        assert whole.card == cut.card
        if whole.card is None:  # No text has a word.
            assert all(not reference.search(query) for query in queries)
            return
        for query in queries:
            levels, scores, found = (
                getattr(whole, name)(query) for name in ("levels", "scores", "search")
            )
            assert levels == cut.levels(query) == reference.levels(query)
            assert scores == cut.scores(query) == pytest.approx(reference.scores(query), rel=1e-5)
            assert found == cut.search(query) == pytest.approx(reference.search(query), rel=1e-5)
            # The index is left as it was.
            assert whole.search(query) == found
            best = sorted(found, key=lambda name: -found[name])
            assert all(
                levels.get(one, 0.0) >= levels.get(other, 0.0) - 0.45
                for one, other in pairwise(best)
            )
