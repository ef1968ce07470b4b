"""Queries of several callers share a call, in order."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.protocols.shard import ShardQueries

NO_VECTORS = np.zeros((0, 2), np.float32)


def rows(*numbers: float) -> ShardQueries:
    return ShardQueries(np.array([[one, one] for one in numbers], np.float32))


@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 2), (2, 1, 1)])
def test_queries_are_concatenated_in_order(sizes: tuple[int, ...]) -> None:
    numbers = iter(range(10))
    parts = [rows(*(float(next(numbers)) for _ in range(size))) for size in sizes]
    joined = ShardQueries.concatenate(parts)
    assert joined.vectors[:, 0].tolist() == list(range(sum(sizes)))
    assert joined.count == sum(sizes) and joined.texts == ()
    words = [ShardQueries(NO_VECTORS, tuple("abcd"[:size])) for size in sizes]
    joined = ShardQueries.concatenate(words)
    assert joined.texts == tuple(text for one in words for text in one.texts)
    assert joined.count == sum(sizes) and joined.vectors.shape == (0, 2)


def test_a_part_of_queries_leaves_empty_legs_empty() -> None:
    part = rows(1.0, 2.0, 3.0).part(1, 3)
    assert part.vectors[:, 0].tolist() == [2.0, 3.0] and part.texts == ()
    part = ShardQueries(NO_VECTORS, ("a", "b", "c")).part(0, 2)
    assert part.texts == ("a", "b") and len(part.vectors) == 0
