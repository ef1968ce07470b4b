"""Lists of items with other numbers, and arrays that are written to files."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.behaviour import item_lists, spilled_array
from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.spilled_array import SpilledArray


def drawn(items: int) -> ItemLists:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 6, items)
    starts = np.concatenate(([0], np.cumsum(counts)))
    others = rng.integers(0, items, starts[-1]).astype(np.int32)
    return ItemLists(starts, others, rng.random(starts[-1]).astype(np.float32))


@pytest.mark.parametrize("entries", [1, 3, 1_000])
@pytest.mark.parametrize("some", [False, True])
def test_lists_are_renumbered_block_by_block(
    entries: int, some: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, rng = drawn(40), np.random.default_rng(4)
    numbers = np.where(rng.random(40) < 0.7, np.cumsum(rng.integers(1, 3, 40)), -1)
    kept = rng.random(40) < 0.6 if some else None
    monkeypatch.setattr(item_lists, "_BLOCK_ENTRIES", entries)
    made = lists.renumbered(numbers, kept)
    for item in range(40):
        others, scores = lists.of(item)
        left = (numbers[others] >= 0) & (kept is None or bool(kept[item]))
        found, found_scores = made.of(item)
        assert found.tolist() == numbers[others[left]].tolist()
        assert found_scores.tolist() == scores[left].tolist()


@pytest.mark.parametrize("limit", [0, 100, 10_000])
def test_an_array_is_the_same_in_memory_and_in_a_file(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spilled_array, "SPILL_BYTES", limit)
    parts = [np.arange(n, dtype=np.int64) for n in (0, 7, 50, 1)]
    growing = SpilledArray(np.int32)
    for part in parts:
        growing.add(part)
    made = growing.array()
    assert made.dtype == np.int32
    assert made.tolist() == np.concatenate(parts).tolist()
    assert len(SpilledArray(np.float32).array()) == 0
