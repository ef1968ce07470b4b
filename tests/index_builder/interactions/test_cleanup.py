"""Cleaning, compared with slow loops that follow the rules literally."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index_builder.interactions import cleanup
from index_builder.interactions.cleanup import CleaningRules, clean
from index_builder.interactions.reader import ColumnNames, read_interactions
from index_builder.interactions.records import Interactions
from nearline.errors import InvalidRequest

_DAY_S = 86_400
_Row = tuple[int, int, int]  # user, item, time in seconds


def _interactions(rows: list[_Row]) -> Interactions:
    user, item, time = np.array(rows, np.int64).reshape(-1, 3).T
    return Interactions(
        [f"u{n}" for n in range(6)],
        [f"i{n}" for n in range(6)],
        user.astype(np.int32),
        item.astype(np.int32),
        time * 1_000_000,
        # Tells the row.
        np.arange(1, len(rows) + 1, dtype=np.float32),
    )


def _left(rows: list[_Row], rules: CleaningRules) -> list[int]:
    """Returns the numbers of the remaining rows."""
    try:
        cleaned, report = clean(_interactions(rows), rules)
    except InvalidRequest:
        return []
    assert (len(cleaned.users), len(cleaned.items)) == (6, 6)
    assert report.rows == len(rows)
    assert report.kept == len(cleaned.user) == len(rows) - sum(report.left_out.values())
    return [int(weight) - 1 for weight in cleaned.weight]


_SMALL = st.integers(0, 5)
_ROWS = st.lists(st.tuples(_SMALL, _SMALL, st.integers(-30, 30)), max_size=40)
_DENSE = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(-30, 30)))


@settings(deadline=None, max_examples=60)
@given(_DENSE, st.integers(0, 12))
def test_a_row_is_dropped_if_the_last_kept_one_of_its_pair_is_near(
    rows: list[_Row], window: int
) -> None:
    last: dict[tuple[int, int], int] = {}
    keep = []
    for at in sorted(range(len(rows)), key=lambda at: (rows[at][2], at)):
        user, item, time = rows[at]
        if not window or (user, item) not in last or time - last[user, item] > window:
            last[user, item] = time
            keep.append(at)
    assert _left(rows, CleaningRules(duplicate_s=window)) == sorted(keep)


@settings(deadline=None, max_examples=60)
@given(_ROWS, st.integers(1, 5), st.integers(1, 5))
def test_every_user_and_item_left_has_enough(rows: list[_Row], users: int, items: int) -> None:
    rows = list(dict.fromkeys(rows))
    left = list(range(len(rows)))
    while True:
        of_user = Counter(rows[at][0] for at in left)
        of_item = Counter(rows[at][1] for at in left)
        enough = [at for at in left if of_user[rows[at][0]] >= users]
        enough = [at for at in enough if of_item[rows[at][1]] >= items]
        if enough == left:
            break
        left = enough
    assert _left(rows, CleaningRules(min_per_user=users, min_per_item=items)) == left


@settings(deadline=None, max_examples=60)
@given(_ROWS, st.integers(1, 4))
def test_one_day_over_the_limit_makes_a_bot(rows: list[_Row], most: int) -> None:
    # Five a day, across the start of 1970.
    rows = list(dict.fromkeys((user, item, time * _DAY_S // 5) for user, item, time in rows))
    days = Counter((user, time // _DAY_S) for user, _, time in rows)
    bots = {user for (user, _), count in days.items() if count > most}
    expected = [at for at, row in enumerate(rows) if row[0] not in bots]
    assert _left(rows, CleaningRules(max_per_user_day=most)) == expected


def test_each_row_left_out_counts_under_one_reason() -> None:
    rows = [(0, 0, 0), (0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 0, 0), (1, 1, _DAY_S)]
    rows += [(2, 0, 0), (2, 1, 1), (3, 1, 0), (4, 0, 0), (4, 5, 1)]
    rules = CleaningRules(min_per_user=2, min_per_item=2, max_per_user_day=2, duplicate_s=1.0)
    # User 0 is a bot, a row of user 1 is duplicated, and user 3 has one row. Item 5 has one row;
    # without it, user 4 has one, too.
    cleaned, report = clean(_interactions(rows), rules)
    assert cleaned.user.tolist() == [1, 1, 2, 2]
    assert report.left_out == {
        cleanup.BOT: 3,
        cleanup.DUPLICATE: 1,
        cleanup.RARE_USER: 2,
        cleanup.RARE_ITEM: 1,
    }


def test_the_longest_window_over_far_times_does_not_overflow() -> None:
    far = 250_000_000_000
    rows = [(0, 0, -far // 5), (0, 0, far), (1, 1, -far // 5), (1, 1, far), (1, 1, far + 86_400)]
    assert _left(rows, CleaningRules(duplicate_s=cleanup.MAX_DUPLICATE_S)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (CleaningRules(min_per_user=0), "min_per_user is 0; it must be at least 1"),
        (CleaningRules(min_per_item=-1), "min_per_item is -1; it must be at least 1"),
        (CleaningRules(max_per_user_day=-1), "max_per_user_day is -1; it must be at least 0"),
        (
            CleaningRules(duplicate_s=float("nan")),
            "duplicate_s is nan; it must be 0 to 86400 seconds",
        ),
        (CleaningRules(duplicate_s=90_000.0), "it must be 0 to 86400 seconds"),
        (
            CleaningRules(min_per_user=2),
            "none of 1 interactions is left: 1 of a user with too few interactions; loosen",
        ),
    ],
)
def test_rules_out_of_range_are_refused(rules: CleaningRules, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        clean(_interactions([(0, 0, 0)]), rules)


def test_default_rules_keep_all_of_movielens(data_folder: Path) -> None:
    path = data_folder / "ml-latest-small" / "ratings.csv"
    if not path.is_file():
        pytest.skip(f"no ml-latest-small in {data_folder}")
    whole, _ = read_interactions(path, ColumnNames("userId", "movieId", "timestamp"))
    cleaned, report = clean(whole, CleaningRules())
    assert report == (100_004, 100_004, {})
    for name in ("user", "item", "time_us", "weight"):
        assert np.array_equal(getattr(cleaned, name), getattr(whole, name))
