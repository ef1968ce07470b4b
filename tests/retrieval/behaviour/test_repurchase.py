"""Items that a user had are due after their repeat days."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.times import DAY_US
from retrieval.behaviour.history import History, Recency
from retrieval.behaviour.popularity import RepurchaseGenerator
from tests.retrieval.behaviour.dense_scores import dense

NOW_US = 1_000 * DAY_US


def history(*had: tuple[int, float]) -> History:
    """Returns what was had, and how many days ago, newest first."""
    times = [NOW_US - int(ago * DAY_US) for _, ago in had]
    return History(
        np.array([item for item, _ in had], np.int32),
        np.array(times, np.int64),
        np.ones(len(had), np.float32),
    )


def test_a_count_is_full_from_half_of_the_days_on() -> None:
    days = np.array([10, 10, 40, 0, 5], np.float32)
    generator = RepurchaseGenerator(days, NOW_US, Recency())
    # 0: twice, due. 1: once, half of its days are over. 2: once, an eighth. 3: once, not known.
    bought = history((2, 5), (1, 5), (3, 7), (0, 10), (0, 30))
    assert dense(generator, bought, 5) == pytest.approx([2, 1, 0.25, 0.5, 0])
    assert [generator.is_due(bought, item) for item in range(4)] == [True, False, False, False]
    # What was had this very moment comes last.
    now = dense(generator, history((0, 0), (3, 7)), 5)
    assert 0 < now[0] < 0.01 and now[3] == 0.5


def test_older_visits_weigh_less() -> None:
    generator = RepurchaseGenerator(np.ones(2, np.float32), NOW_US, Recency(1.0))
    found = dense(generator, history((0, 1), (1, 2), (1, 3)), 2)
    assert found == pytest.approx([1, np.exp(-1) + np.exp(-2)])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=12),
    st.lists(st.integers(0, 30), min_size=4, max_size=4),
)
def test_scores_follow_the_formula(had: list[tuple[int, int]], days: list[int]) -> None:
    bought = history(*sorted(had, key=lambda one: one[1]))
    generator = RepurchaseGenerator(np.array(days, np.float32), NOW_US)
    scores = dense(generator, bought, 4)
    visits = sorted({ago for _, ago in had})
    for item in range(4):
        agos = [ago for one, ago in had if one == item]
        if not agos:
            assert scores[item] == 0
            continue
        count = sum(np.exp(-visits.index(ago) / 8) for ago in agos)
        share = min(1, max(min(agos), 1e-3) * 2 / days[item]) if days[item] else 0.5
        assert scores[item] == pytest.approx(count * share, rel=1e-5)
        assert generator.is_due(bought, item) == (0 < days[item] <= min(agos))
