"""Repurchase rates and trending items, compared with counting by hand."""

from __future__ import annotations

import statistics
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from index_builder.behaviour.popularity import popularity, trending
from index_builder.behaviour.repurchase_rates import MIN_GAPS, PRIOR_USERS, measure_repurchases
from index_builder.interactions.records import Interactions
from nearline.times import DAY_US

MINUTE_US = 60 * 1_000_000
ITEMS = 4


def rows_of(*rows: tuple[int, int, int]) -> Interactions:
    """Returns rows of user, item and microseconds, in this order."""
    user, item, time_us = np.array(rows, np.int64).reshape(-1, 3).T
    return Interactions(
        [f"u{number}" for number in range(6)],
        [f"i{number}" for number in range(ITEMS)],
        user.astype(np.int32),
        item.astype(np.int32),
        time_us,
        np.ones(len(user), np.float32),
    )


def days(*ago: tuple[int, int, float]) -> Interactions:
    return rows_of(*((user, item, int(day * DAY_US)) for user, item, day in ago))


def test_a_rate_is_the_share_of_repeat_users_shrunk_to_the_mean() -> None:
    # Item 0: two of three users; item 1: none of one; item 2: its only user; item 3: no users.
    rows = days(
        *((0, 0, 0), (0, 0, 9), (1, 0, 1), (2, 0, 2), (2, 0, 4), (2, 0, 5)),
        *((0, 1, 0), (3, 2, 1), (3, 2, 3)),
    )
    mean = 3 / 5
    assert measure_repurchases(rows).rate == pytest.approx([(2 + 6) / 13, 6 / 11, 7 / 11, 0])
    assert PRIOR_USERS * mean == 6
    # Three gaps of item 0: 9, 2 and 1 days; the single gap of item 2 is too few.
    assert measure_repurchases(rows).days.tolist() == [2, 0, 0, 0]


def test_views_do_not_count_if_purchases_weigh_more() -> None:
    # Item 0 is viewed on four visits and bought once, item 1 bought on three, 2 and 3 days apart.
    events = [(0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 4), (0, 1, 1), (0, 1, 3), (0, 1, 6)]
    rows = days(*events)
    weighed = rows._replace(weight=np.array([1, 1, 1, 5, 5, 5, 5], np.float32))
    bought = measure_repurchases(rows.some(weighed.weight == 5)).rate
    assert measure_repurchases(weighed).rate == pytest.approx(bought)
    assert bought[0] == pytest.approx(5 / 11) and bought[1] == pytest.approx(6 / 11)
    # Many different weights are values, and all of them count.
    twice = days(*events, *events)._replace(weight=np.linspace(0.5, 5, 14, dtype=np.float32))
    assert measure_repurchases(twice).rate == pytest.approx(measure_repurchases(rows).rate)


def test_interactions_within_half_an_hour_are_one_visit() -> None:
    # An item is viewed three times on one visit of 50 minutes, between other items.
    one = [(0, 0, 0), (0, 1, 25), (0, 0, 50), (0, 0, 50)]
    minutes = rows_of(*((user, item, at * MINUTE_US) for user, item, at in one))
    assert (
        not measure_repurchases(minutes).rate.any() and not measure_repurchases(minutes).days.any()
    )
    # Just over half an hour after the last view, another visit begins.
    later = rows_of(
        *((user, item, at * MINUTE_US) for user, item, at in one), (0, 1, 80 * MINUTE_US + 1)
    )
    assert measure_repurchases(later).rate == pytest.approx([5 / 11, 6 / 11, 0, 0])


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, ITEMS - 1), st.integers(0, 400)), max_size=60
    )
)
def test_rates_agree_with_a_loop(raw: list[tuple[int, int, int]]) -> None:
    found = measure_repurchases(
        rows_of(*((user, item, at * 10 * MINUTE_US) for user, item, at in raw))
    )
    firsts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for user in range(6):
        last, visited = None, set[int]()
        for at, item in sorted((at, item) for one, item, at in raw if one == user):
            if last is None or at - last > 3:
                visited = set()
            if item not in visited:
                firsts[user, item].append(at * 10 * MINUTE_US)
            visited.add(item)
            last = at
    again = sum(len(times) > 1 for times in firsts.values())
    mean = again / max(len(firsts), 1)
    for item in range(ITEMS):
        of = [times for (_, one), times in firsts.items() if one == item]
        share = (sum(len(times) > 1 for times in of) + PRIOR_USERS * mean) / (len(of) + PRIOR_USERS)
        assert found.rate[item] == pytest.approx(share if of else 0)
        gaps = [(b - a) / DAY_US for times in of for a, b in pairwise(times)]
        expected = statistics.median(gaps) if len(gaps) >= MIN_GAPS else 0
        assert found.days[item] == pytest.approx(expected)
    assert found.rate.dtype == found.days.dtype == np.float32


def test_trending_decays_within_a_week_or_a_quarter_of_a_shorter_span() -> None:
    long = days((0, 0, 0), (1, 1, 56), (2, 2, 63), (3, 2, 70))
    expected = [np.exp(-10), np.exp(-2), np.exp(-1) + 1, 0]
    assert trending(long) == pytest.approx(expected)
    short = days((0, 0, 0), (1, 1, 4), (2, 2, 8))
    assert trending(short) == pytest.approx([np.exp(-4), np.exp(-2), 1, 0])
    # Interactions at one moment count equally, and no interactions give nothing.
    moment = days((0, 0, 5), (1, 0, 5), (2, 2, 5))
    assert np.array_equal(trending(moment), popularity(moment))
    assert trending(days()).tolist() == measure_repurchases(days()).rate.tolist() == [0] * ITEMS
