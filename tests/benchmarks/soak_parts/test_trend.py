"""Slopes with their confidence, against lines that are known and the tables of Student."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.soak_parts.trend import fit_trend, student_quantile


def test_the_slope_of_a_line_is_found_exactly() -> None:
    times = np.arange(0.0, 300.0, 2.0)
    trend = fit_trend(times.tolist(), (100.0 + 50.0 * times / 3600.0).tolist())
    assert trend is not None
    assert trend[:3] == pytest.approx((50.0, 50.0, 50.0))
    assert trend.blocks == 20


def test_the_interval_has_the_slope_of_a_noisy_line_nineteen_times_of_twenty(
    rng: np.random.Generator,
) -> None:
    times = np.arange(0.0, 150.0, 2.0)
    held = 0
    for _ in range(400):
        noise = rng.normal(size=len(times))
        trend = fit_trend(times.tolist(), (10.0 * times / 3600.0 + noise).tolist())
        assert trend is not None
        held += trend.low <= 10.0 <= trend.high
    # 400 draws with 0.95: four standard deviations below the mean.
    assert held >= 380 - 4 * 4.4


def test_less_than_four_blocks_have_no_trend() -> None:
    assert fit_trend([], []) is None
    assert fit_trend([0.0, 20.0, 40.0], [1.0, 2.0, 3.0]) is None


@pytest.mark.parametrize(("free", "known"), [(2, 4.303), (3, 3.182), (5, 2.571), (30, 2.042)])
def test_quantiles_are_those_of_the_tables(free: int, known: float) -> None:
    assert student_quantile(free) == pytest.approx(known, rel=0.06)
