"""Recent quantiles against a plain count, and in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrieval.rollout.quantiles import RecentQuantiles, quantiles


@given(
    values=st.lists(st.integers(0, 20).map(float), min_size=1, max_size=50), ratio=st.floats(0, 1)
)
def test_a_quantile_is_the_least_value_that_enough_are_not_greater_than(
    values: list[float], ratio: float
) -> None:
    enough = [one for one in values if sum(other <= one for other in values) >= ratio * len(values)]
    assert quantiles(values, (ratio,)) == (min(enough),)


def test_they_follow_from_the_latest_values_and_change_only_now_and_then() -> None:
    recent = RecentQuantiles((0.5, 1.0), window=8, every=4)
    seen = []
    for value in range(16):
        recent.observe(float(value))
        seen.append(recent.values)
    assert seen[:4] == [(), (), (), (1.0, 3.0)]
    assert seen[7:11] == [(3.0, 7.0)] * 4
    assert seen[15] == (11.0, 15.0)
