"""Precomputed lists of an item give the order of all items' scores."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import given, settings, strategies as st

from retrieval.behaviour.model import BehaviourModel, build_behaviour_model
from retrieval.behaviour.tables import SESSIONS
from retrieval.recommend.ranking import ITEMS, Block, rank_by_items
from tests.retrieval.recommend.small_model import CARD, ranking_query, small_tables

IDS = [f"i{number:02d}" for number in range(12)]
VECTORS = np.random.default_rng(3).standard_normal((12, 2)).astype(np.float32)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(IDS), st.sampled_from([1.0, 2.0, 4.0]), max_size=5),
    st.sets(st.integers(0, 11)),
)
def test_precomputed_lists_give_the_order_of_the_scores(
    goes: dict[str, float], unwanted: set[int]
) -> None:
    goes.pop("i00", None)
    factors = {one: tuple(row) for one, row in zip(IDS, VECTORS.tolist(), strict=True)}
    tables = small_tables(IDS, {"i00": goes}, dict.fromkeys(IDS, 1.0), factors=factors)
    lists = tables.lists[SESSIONS]
    left = [number for number in range(12) if number not in {0, *unwanted}]
    scores = np.zeros(12, np.float32)
    numbers, of_list = lists.of(0)
    scores[numbers] = of_list
    first, once = np.zeros(1, np.int32), np.ones(1, np.float32)
    of_rest = tables.factors.vectors @ tables.factors.fold_in(first, once)
    # A stable sort: equal ones stay in the order of numbers.
    expected = sorted(left, key=lambda n: (-scores[n], -of_rest[n] * (scores[n] == 0)))
    hidden = frozenset(IDS[number] for number in {0, *unwanted})
    blocks = asyncio.run(ranked(build_behaviour_model(CARD, tables), hidden))
    found = [IDS.index(item_id) for block in blocks for item_id in block.ids]
    given_scores = np.concatenate([block.scores for block in blocks])
    assert found == expected
    assert (np.diff(given_scores) <= 1e-6).all()
    assert ((given_scores > 0) == (scores[found] > 0)).all()


async def ranked(model: BehaviourModel, hidden: frozenset[str]) -> list[Block]:
    ranking = await rank_by_items(ranking_query(model, depth=3, hidden=hidden), ["i00"])
    assert ranking is not None and ranking.source == ITEMS
    return [block async for block in ranking.blocks()]
