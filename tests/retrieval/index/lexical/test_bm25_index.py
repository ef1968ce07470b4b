"""Lexical searches find what the contract says, for any number of shards."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings, strategies as st

from retrieval.index.lexical.synonym_rules import SynonymRule
from tests.retrieval.index.lexical.lexical_reference import (
    DOCUMENTS,
    QUERY_TEXTS,
    SYNONYMS,
    WEIGHTS,
    Reference,
)
from tests.retrieval.index.lexical.small_indexes import Built, Document
from tests.scale import scaled


@settings(max_examples=scaled(25, nightly=300), deadline=None)
@given(DOCUMENTS, WEIGHTS, st.booleans(), st.lists(QUERY_TEXTS, min_size=1, max_size=6), SYNONYMS)
@example(
    [Document("spiderman", ["a king"]), Document("", ["spider"]), Document("", ["man"])],
    {},
    False,
    ["spider man", "king"],
    [],
)
@example([Document("東京都", ["x"])], {}, False, ["京都 京 東京都", "東京都"], [])
@example(
    [Document("XR-200", ["x"]), Document("xr200 apple", [""]), Document("xr200", ["x"])],
    {},
    False,
    ["XR-200", "xr200", "xr 200"],
    [],
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
)
def test_searches_equal_the_contract_and_do_not_depend_on_shards(
    documents: list[Document],
    weights: Mapping[str, float],
    popular: bool,
    queries: list[str],
    synonyms: list[SynonymRule],
) -> None:
    if not popular:
        documents = [one._replace(popularity=0.0) for one in documents]
    reference = Reference(documents, weights, synonyms=synonyms)
    with TemporaryDirectory() as one, TemporaryDirectory() as four:
        whole, cut = (
            Built(Path(folder), documents, n, weights=weights, popular=popular, synonyms=synonyms)
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
