"""Tails of short lists, compared with scores computed per request."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index_builder.behaviour import tail_lists
from index_builder.behaviour.tail_lists import build_tail_lists, single_item_users
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.item_lists import ItemLists


def factors_of(vectors: np.ndarray) -> ItemFactors:
    trained = vectors[: len(vectors) * 2 // 3].astype(np.float64)
    return ItemFactors(vectors, trained.T @ trained, 3.0, 2.0)


def drawn(items: int, seed: int) -> tuple[ItemLists, ItemFactors, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Few distinct values, so that many scores are equal.
    vectors = rng.integers(-1, 3, (items, 3)).astype(np.float32)
    rows = [
        np.setdiff1d(rng.integers(0, items, rng.integers(0, 6)), [item]) for item in range(items)
    ]
    starts = np.cumsum([0, *map(len, rows)])
    lists = ItemLists(
        starts, np.concatenate(rows).astype(np.int32), np.ones(starts[-1], np.float32)
    )
    return lists, factors_of(vectors), rng.random(items) < 0.7


def test_users_of_one_item_are_folded_in() -> None:
    factors = factors_of(np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32))
    many = single_item_users(factors, np.arange(9))
    for item in range(9):
        alone = factors.fold_in(np.array([item], np.int32), np.ones(1, np.float32))
        assert many[item] == pytest.approx(alone, rel=1e-4, abs=1e-6)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000), st.integers(1, 9))
def test_tails_continue_lists_with_the_best_other_items(items: int, seed: int, length: int) -> None:
    lists, factors, trained = drawn(items, seed)
    found = build_tail_lists(lists, factors, trained, length)
    for item in range(items):
        others, scores = found.of(item)
        listed, _ = lists.of(item)
        if not trained[item]:
            assert len(others) == 0
            continue
        of_all = factors.vectors @ single_item_users(factors, np.array([item]))[0]
        free = np.setdiff1d(np.arange(items), [*listed, item])
        wanted = min(max(length - len(listed), 0), len(free))
        assert len(others) == wanted
        best = np.sort(of_all[free])[::-1][:wanted]
        assert scores == pytest.approx(best, rel=1e-4, abs=1e-5)
        assert of_all[others] == pytest.approx(best, rel=1e-4, abs=1e-5)
        assert set(others.tolist()) <= set(free.tolist())
        assert len(set(others.tolist())) == wanted


def test_a_large_catalogue_is_searched_by_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    lists, factors, _ = drawn(3_000, 5)
    trained = np.zeros(3_000, np.bool_)
    trained[:50] = True
    exact = build_tail_lists(lists, factors, trained)
    monkeypatch.setattr(tail_lists, "_EXACT_ITEMS", 1_000)
    found = build_tail_lists(lists, factors, trained)
    assert np.diff(found.starts)[:50] == pytest.approx(np.diff(exact.starts)[:50])
    # The scores are nearly as good; with many ties, items cannot be compared.
    assert found.scores.sum() >= 0.9 * exact.scores.sum() > 0
