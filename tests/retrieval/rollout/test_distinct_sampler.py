"""Counting each number once, in bounded memory."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, strategies as st

from retrieval.rollout.distinct_sampler import DistinctSampler


# Nine numbers, none of which has the bit that halves the memory first.
@example([(number, 1) for number in (0, 1, 2, 3, 4, 5, 6, 16, 17)])
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sampled_from([1, 2, 4])), max_size=200))
def test_nothing_counts_twice_and_the_memory_is_bounded(asked: list[tuple[int, int]]) -> None:
    once = DistinctSampler(most=8)
    counted: set[tuple[int, int]] = set()
    for number, purpose in asked + asked:
        if once.first(number, purpose):
            assert (number, purpose) not in counted
            counted.add((number, purpose))
        assert len(once) <= 8


def test_new_numbers_count_for_every_purpose_until_the_memory_is_full() -> None:
    once = DistinctSampler(most=100)
    for number in range(100):
        assert [once.first(number << 3, purpose) for purpose in (1, 2, 1)] == [True, True, False]
    assert once.weight == 1


def test_weights_estimate_the_number_of_distinct_numbers(rng: np.random.Generator) -> None:
    once = DistinctSampler(most=1_000)
    estimate = 0
    for number in rng.integers(2**63, size=50_000).tolist():
        if once.first(number, 1):
            estimate += once.weight
    assert once.weight >= 64
    assert abs(estimate / 50_000 - 1) < 0.15
