"""Precomputed lists of an item give the order of all items' scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings, strategies as st

from index_builder.behaviour.tail_lists import build_tail_lists
from retrieval.behaviour.history import EMPTY_HISTORY, History
from retrieval.recommend.ranking import ITEMS, rank_items
from tests.retrieval.recommend.small_model import learned

IDS = [f"i{number:02d}" for number in range(12)]
VECTORS = np.random.default_rng(3).standard_normal((12, 2)).astype(np.float32)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(IDS), st.sampled_from([1.0, 2.0, 4.0]), max_size=5),
    st.integers(1, 8),
    st.sets(st.integers(0, 11)),
)
def test_precomputed_lists_give_the_order_of_the_scores(
    goes: dict[str, float], length: int, unwanted: set[int]
) -> None:
    goes.pop("i00", None)
    factors = {one: tuple(row) for one, row in zip(IDS, VECTORS.tolist(), strict=True)}
    known = learned(IDS, {"i00": goes}, dict.fromkeys(IDS, 1.0), factors=factors)
    beyond = build_tail_lists(known.similar.lists, known.factors, known.trained, length)
    item = History(np.zeros(1, np.int32), np.zeros(1, np.int64), np.ones(1, np.float32))
    allowed = np.ones(12, np.bool_)
    allowed[[0, *unwanted]] = False
    expected = list(np.flatnonzero(allowed))
    scores = known.similar.scores(item)
    of_rest = known.factors.vectors @ known.factors.fold_in(item.items, item.weight)
    # A stable sort: equal ones stay in the order of numbers.
    expected.sort(key=lambda number: (-scores[number], -of_rest[number] * (scores[number] == 0)))
    for lists in (beyond, None):
        ranking = rank_items(
            replace(known, tail_lists=lists),
            item,
            EMPTY_HISTORY,
            repeats=True,
            allowed=allowed,
            first=3,
        )
        blocks = list(ranking.blocks)
        found = [number for numbers, _ in blocks for number in numbers.tolist()]
        given_scores = np.concatenate([of for _, of in blocks])
        assert ranking.source == ITEMS
        assert found == expected
        assert (np.diff(given_scores) <= 1e-6).all()
        assert ((given_scores > 0) == (scores[found] > 0)).all()
