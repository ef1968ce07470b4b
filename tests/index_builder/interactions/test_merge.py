"""Merging interactions of two sources, compared with a loop over tuples."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, strategies as st

from index_builder.behaviour.tables import build_histories
from index_builder.interactions.merge import (
    NO_INTERACTIONS,
    drop_older,
    interactions_from_histories,
    merge_interactions,
)
from index_builder.interactions.records import Interactions
from nearline.times import DAY_US
from tests.index_builder.behaviour.circular_walks import walks

SECOND = 1_000_000
# The years 1 to 9999: keys of seconds, users and items must not overflow.
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
Row = tuple[str, str, int, float]

# Few users and items, so that rows coincide, and times within a second of each other.
TIMES = st.sampled_from([FIRST_US, -1, 0, 999_999, SECOND, SECOND + 5, 9 * SECOND, LAST_US])
ROWS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("xyz"), TIMES, st.sampled_from([1.0, 2.0])),
    max_size=12,
)


def of(rows: Sequence[Row]) -> Interactions:
    """Users and items are numbered in the order of their first row."""
    users = list(dict.fromkeys(user for user, *_ in rows))
    items = list(dict.fromkeys(item for _, item, *_ in rows))
    return Interactions(
        users,
        items,
        np.array([users.index(user) for user, *_ in rows], np.int32),
        np.array([items.index(item) for _, item, *_ in rows], np.int32),
        np.array([time_us for *_, time_us, _ in rows], np.int64),
        np.array([weight for *_, weight in rows], np.float32),
    )


def tuples(rows: Interactions) -> list[Row]:
    columns = (rows.user.tolist(), rows.item.tolist(), rows.time_us.tolist(), rows.weight.tolist())
    return [(rows.users[u], rows.items[i], t, w) for u, i, t, w in zip(*columns, strict=True)]


def test_the_first_source_wins_and_keeps_what_it_has_twice() -> None:
    mine: list[Row] = [("u", "x", 1, 1.0), ("u", "x", 2, 1.0), ("v", "x", 3 * SECOND, 1.0)]
    more: list[Row] = [
        ("u", "x", 999_999, 5.0),  # The same second.
        ("u", "x", SECOND, 5.0),  # The next one.
        ("w", "y", 7, 2.0),
        ("w", "y", 7, 2.0),
        ("v", "y", 3 * SECOND, 1.0),
    ]
    found = merge_interactions(of(mine), of(more))
    assert found.added == 4
    assert tuples(found.interactions) == [*mine, *more[1:]]
    assert found.interactions.user.dtype == found.interactions.item.dtype == np.int32
    again = merge_interactions(found.interactions, of(more))
    assert again.added == 0 and again.interactions is found.interactions


def test_merging_with_no_interactions() -> None:
    mine = of([("u", "x", 1, 1.0)])
    assert merge_interactions(mine, NO_INTERACTIONS) == (mine, 0)
    assert tuples(merge_interactions(NO_INTERACTIONS, mine).interactions) == tuples(mine)
    assert merge_interactions(NO_INTERACTIONS, NO_INTERACTIONS).added == 0


@given(ROWS, ROWS)
def test_merge_agrees_with_a_loop_over_tuples(mine: list[Row], more: list[Row]) -> None:
    known = {(user, item, time_us // SECOND) for user, item, time_us, _ in mine}
    left = [row for row in more if (row[0], row[1], row[2] // SECOND) not in known]
    found = merge_interactions(of(mine), of(more))
    assert found.added == len(left)
    assert tuples(found.interactions) == [*mine, *left]


def test_keys_of_many_users_items_and_years_do_not_collide() -> None:
    # As a plain product, these need more than 63 bits.
    users, items = [f"u{n}" for n in range(6_000)], [f"i{n}" for n in range(6_000)]
    corners = [(u, i, t) for u in (0, 5_999) for i in (0, 5_999) for t in (FIRST_US, LAST_US)]
    user, item, times = (np.array(column) for column in zip(*corners, strict=True))
    whole = Interactions(
        users, items, user.astype(np.int32), item.astype(np.int32), times, np.ones(8, np.float32)
    )
    for lacking in range(8):
        some = whole.some(np.arange(8) != lacking)
        found = merge_interactions(some, whole)
        assert tuples(found.interactions)[7:] == [tuples(whole)[lacking]]


def test_histories_convert_back_to_interactions() -> None:
    rows = walks(7, 5)
    # Two rows of a user at one time: the later in the file is the newer.
    rows = rows._replace(time_us=rows.time_us // (2 * DAY_US))
    order = sorted(range(7), key=rows.users.__getitem__)
    places = np.argsort(order).astype(np.int32)
    rows = rows._replace(users=sorted(rows.users), user=places[rows.user])
    histories = build_histories(rows)
    back = interactions_from_histories(histories, rows.items)
    assert tuples(back) == tuples(rows.by_time())
    again = build_histories(back)
    for name in ("starts", "items", "time_us", "weight"):
        assert np.array_equal(getattr(histories, name), getattr(again, name)), name


def test_no_histories_give_no_interactions() -> None:
    assert tuples(interactions_from_histories(build_histories(NO_INTERACTIONS), [])) == []


@pytest.mark.parametrize(("days", "left"), [(0, 4), (1, 2), (2, 3), (3, 3), (4, 4)])
def test_older_interactions_are_dropped(days: int, left: int) -> None:
    ages = (3 * DAY_US + 1, 2 * DAY_US, DAY_US, 0)
    rows = of([("u", "x", 50 * DAY_US - age, 1.0) for age in ages])
    assert tuples(drop_older(rows, days)) == tuples(rows)[4 - left :]


def test_a_future_time_does_not_drop_the_rest() -> None:
    now_us = time.time_ns() // 1_000
    rows = of([("u", "x", now_us - 2 * DAY_US, 1.0), ("u", "y", LAST_US, 1.0)])
    assert drop_older(rows, 3).item.tolist() == [0, 1]
    assert drop_older(rows, 1).item.tolist() == [1]
    assert drop_older(NO_INTERACTIONS, 1) is NO_INTERACTIONS
