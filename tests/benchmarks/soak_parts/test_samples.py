"""Judgement of the soak: the part of a life after kills and warm-up, and two peaks."""

from __future__ import annotations

import pytest

from benchmarks.soak import _is_bounded
from benchmarks.soak_parts.samples import Life


def _life(began_s: float, warm_s: float) -> Life:
    """Returns a process that fills its caches at 60 bytes a second until it is warm."""
    life = Life("router-1", began_s)
    for at in range(0, 600, 2):
        life.times_s.append(began_s + at)
        life.rss_bytes.append(round(1_000 + 60 * min(at, warm_s)))
        life.files.append(7)
    return life


@pytest.mark.parametrize(("since_s", "warm_up_s"), [(0.0, 120.0), (1_120.0, 0.0)])
def test_memory_is_judged_after_warm_up_and_since_the_kills(
    since_s: float, warm_up_s: float
) -> None:
    life = _life(1_000.0, 120.0)
    trend = life.rss_trend(since_s, warm_up_s)
    assert trend is not None and trend[:3] == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
    early = life.rss_trend(0.0, 60.0)
    assert early is not None and early.per_hour > 1_000


def test_a_life_that_ended_with_the_kills_is_not_judged() -> None:
    assert _life(0.0, 120.0).rss_trend(590.0, 120.0) is None


@pytest.mark.parametrize(
    ("peaks", "bounded"),
    [((960, 980), True), ((960, 1_200), True), ((1_600, 2_400), False), ((9, 0), False)],
)
def test_what_grows_as_long_as_it_is_written_is_not_bounded(
    peaks: tuple[int, int], bounded: bool
) -> None:
    assert _is_bounded(peaks) == bounded
