"""Quantiles against a simple count, and over a stream."""

from __future__ import annotations

from hypothesis import given, strategies as st

from retrieval.protocols.quantiles import RecentQuantiles, quantiles


@given(
    values=st.lists(st.integers(0, 20).map(float), min_size=1, max_size=50), ratio=st.floats(0, 1)
)
def test_quantile_is_the_smallest_value_that_enough_values_do_not_exceed(
    values: list[float], ratio: float
) -> None:
    enough = [one for one in values if sum(other <= one for other in values) >= ratio * len(values)]
    assert quantiles(values, (ratio,)) == (min(enough),)


def test_recent_quantiles_follow_the_window_and_change_every_so_many_values() -> None:
    recent = RecentQuantiles((0.5, 1.0), window=8, every=4)
    seen = []
    for value in range(16):
        recent.observe(float(value))
        seen.append(recent.values)
    assert seen[:4] == [(), (), (), (1.0, 3.0)]
    assert seen[7:11] == [(3.0, 7.0)] * 4
    assert seen[15] == (11.0, 15.0)


def test_the_95th_percentile_is_by_nearest_rank_within_the_window() -> None:
    recent = RecentQuantiles((0.95,), window=100, every=100)
    for value in range(99):
        recent.observe(value)
    assert list(recent.values) == []
    recent.observe(99)
    assert list(recent.values) == [94]
    for _ in range(100):
        recent.observe(7.0)
    assert list(recent.values) == [7.0]
