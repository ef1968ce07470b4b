"""Pairs of items, counted block by block: the same results, in bounded memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from index_builder.behaviour import candidate_generators, session_cooccurrence, user_item_matrix
from index_builder.behaviour.candidate_generators import train_candidates
from index_builder.behaviour.ease import ease_lists
from index_builder.behaviour.item_to_item import item_to_item_lists
from index_builder.behaviour.session_cooccurrence import SessionOptions, session_lists
from index_builder.behaviour.user_item_matrix import (
    blocks_within,
    cooccurrence_blocks,
    newest_counted,
    newest_rows,
    users_by_items,
)
from nearline.times import DAY_US
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from tests.index_builder.behaviour.test_models_brute_force import dense, drawn


def assert_same(made: ItemLists, expected: ItemLists) -> None:
    assert np.array_equal(made.starts, expected.starts)
    assert np.array_equal(made.others, expected.others)
    assert made.scores == pytest.approx(expected.scores, rel=1e-6)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("events", [1, 7, 100])
def test_blocks_do_not_change_session_lists(
    events: int, directed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = drawn(9, 25, 400)
    # One item has more interactions than a block.
    rows = rows._replace(item=np.where(rows.item < 8, 0, rows.item).astype(np.int32))
    options = SessionOptions(directed=directed)
    whole = session_lists(rows, options, 10)
    monkeypatch.setattr(session_cooccurrence, "_BLOCK_EVENTS", events)
    assert_same(session_lists(rows, options, 10), whole)


@pytest.mark.parametrize("products", [1, 50, 1_000])
def test_blocks_do_not_change_item_to_item_lists(
    products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = users_by_items(drawn(30, 25, 300))
    whole = item_to_item_lists(matrix, 10)
    monkeypatch.setattr(user_item_matrix, "_BLOCK_PRODUCTS", products)
    assert_same(item_to_item_lists(matrix, 10), whole)


@pytest.mark.parametrize("products", [1, 60, 100_000])
def test_blocks_of_cooccurrence_are_the_whole_product(
    products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = drawn(20, 30, 150)
    matrix: Any = users_by_items(rows._replace(item=rows.item // 2 * 2), counts=True)
    monkeypatch.setattr(user_item_matrix, "_BLOCK_PRODUCTS", products)
    blocks = list(cooccurrence_blocks(matrix))
    ends = np.cumsum([block.shape[0] for _, block in blocks])
    assert [first for first, _ in blocks] == [0, *ends[:-1].tolist()]
    found = np.concatenate([block.toarray() for _, block in blocks])
    assert np.array_equal(found, (matrix.T @ matrix).toarray())


def test_blocks_have_items_up_to_a_cost() -> None:
    costs = np.array([2, 3, 0, 9, 1, 4], np.int64)
    assert list(blocks_within(costs, 5)) == [(0, 3), (3, 4), (4, 6)]
    assert list(blocks_within(np.zeros(0, np.int64), 5)) == []


def test_long_users_count_with_their_newest_interactions() -> None:
    rows = drawn(3, 50, 60)
    rows = rows._replace(user=np.repeat([0, 1, 2], [50, 6, 4]).astype(np.int32))
    assert newest_counted(rows, 50**2 + 6**2 + 4**2) is None
    assert newest_rows(rows, None) is rows
    # 8 x 8 + 6 x 6 + 4 x 4 = 116, with 9 it would be 133.
    assert newest_counted(rows, 132) == 8
    kept = newest_rows(rows, 8)
    assert np.bincount(kept.user).tolist() == [8, 6, 4]
    newest = np.sort(rows.time_us[:50])[-8:]
    assert kept.time_us[kept.user == 0].tolist() == newest.tolist()


def test_memory_does_not_grow_with_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    # 200,000 interactions: 11 million pairs at distances up to 30, 130 MB at 12 bytes each.
    rows = drawn(2_000, 3_000, 200_000)
    monkeypatch.setattr(session_cooccurrence, "_BLOCK_EVENTS", 1 << 12)
    tracemalloc.start()
    try:
        lists = session_lists(rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(lists.others) == 3_000 * 200
    assert peak < 50_000_000


def test_ease_takes_the_items_with_the_most_users(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(30, 12, 250)
    matrix = users_by_items(rows)
    users = matrix.getnnz(axis=0)
    items = sorted(range(12), key=lambda item: (-users[item], item))[:7]
    expected = np.zeros((12, 12), np.float32)
    expected[np.ix_(sorted(items), sorted(items))] = dense(ease_lists(matrix[:, sorted(items)]))
    monkeypatch.setattr(candidate_generators, "MOST_ITEMS", 7)
    candidates = {one.name: one.generator for one in train_candidates(rows, repeats=False)}
    found = candidates["ease plain"]
    assert isinstance(found, ListGenerator)
    assert np.array_equal(dense(found.lists), expected)


def test_rows_in_order_of_time_are_not_copied() -> None:
    rows = drawn(5, 9, 40)
    ordered = rows.by_time()
    assert ordered is not rows and ordered.by_time() is ordered
    assert (np.diff(ordered.user) >= 0).all()
    late = ordered._replace(time_us=ordered.time_us[::-1] + DAY_US)
    assert late.by_time() is not late
