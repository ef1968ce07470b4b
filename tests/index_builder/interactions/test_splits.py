"""Splits, compared with slow loops and with known sizes of two data sets."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from index_builder.interactions.reader import ColumnNames, read_interactions
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split, split
from nearline.errors import InvalidRequest

_Row = tuple[int, int, int]  # user, item, time
# Enough rows to train and test on: user 0 has more than any count below, users 1 to 3 have two or
# more, and one row is later than all others.
_ALWAYS = [(0, n % 10, n * 7 % 19 - 9) for n in range(25)]
_ALWAYS += [(n % 3 + 1, n, n - 5) for n in range(6)]
_ALWAYS += [(0, 0, 10)]
_ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(-9, 9)), max_size=30
).map(lambda rows: rows + _ALWAYS)


def _interactions(rows: list[_Row]) -> Interactions:
    user, item, time = np.array(rows, np.int64).T
    return Interactions(
        [f"u{n}" for n in range(5)],
        [f"i{n}" for n in range(10)],
        user.astype(np.int32),
        item.astype(np.int32),
        time,
        # Tells the row.
        np.arange(1, len(rows) + 1, dtype=np.float32),
    )


def _split(rows: list[_Row], how: str, seed: int = 0) -> Split:
    parts = split(_interactions(rows), how, seed)
    assert len(parts.train.users) == len(parts.test.users) == 5
    return parts


def _rows(part: Interactions | None) -> list[int]:
    return [] if part is None else [int(weight) - 1 for weight in part.weight]


def _by_user(rows: list[_Row], key: Callable[[int], object]) -> list[list[int]]:
    order = sorted(range(len(rows)), key=key)  # type: ignore[arg-type]
    return [[at for at in order if rows[at][0] == user] for user in range(5)]


@settings(deadline=None, max_examples=40)
@given(_ROWS, st.integers(1, 12), st.booleans())
def test_the_last_or_first_of_each_user_with_more_are_tested(
    rows: list[_Row], count: int, last: bool
) -> None:
    if last:
        mine = [m[-count:] for m in _by_user(rows, lambda at: (rows[at][2], at)) if len(m) > count]
    else:
        mine = [m[:count] for m in _by_user(rows, lambda at: at) if len(m) > count]
    tested = sorted(at for some in mine for at in some)
    parts = _split(rows, f"last-n:{count}" if last else f"first-n:{count}")
    assert _rows(parts.test) == tested
    assert _rows(parts.train) == [at for at in range(len(rows)) if at not in tested]
    assert (parts.fold_in, parts.held_out_items) == (None, None)
    if last and count == 1:
        assert _rows(_split(rows, "loo").test) == tested


@settings(deadline=None, max_examples=40)
@given(_ROWS, st.integers(1, 95))
def test_a_time_split_takes_the_fewest_whole_times_that_suffice(
    rows: list[_Row], percent: int
) -> None:
    times = sorted(row[2] for row in rows)
    cut = next(time for time in times if 100 * sum(t <= time for t in times) >= percent * len(rows))
    parts = _split(rows, f"time:0.{percent:02}")
    assert _rows(parts.train) == [at for at, row in enumerate(rows) if row[2] <= cut]
    assert _rows(parts.test) == [at for at, row in enumerate(rows) if row[2] > cut]


def test_a_share_is_exact() -> None:
    # In binary, 0.29 * 100 is a little less than 29, and 0.07 * 100 a little more than 7.
    rows = [(0, 0, time) for time in range(100)]
    for percent in range(1, 100):
        assert len(_split(rows, f"time:0.{percent:02}").train.user) == percent


@settings(deadline=None, max_examples=40)
@given(_ROWS, st.sampled_from(["0.2", "0.5", "2/3"]), st.integers(0, 9))
def test_cold_users_are_revealed_at_test_time_only(rows: list[_Row], share: str, seed: int) -> None:
    parts = _split(rows, f"cold-users:{share}", seed)
    by_user = _by_user(rows, lambda at: (rows[at][2], at))
    cold = set(parts.test.user.tolist())
    able = sum(len(mine) > 1 for mine in by_user)
    assert len(cold) == round(Fraction(share) * able)
    tested = [at for user in cold for at in by_user[user][-min(10, len(by_user[user]) // 2) :]]
    assert _rows(parts.test) == sorted(tested)
    assert _rows(parts.train) == [at for at, row in enumerate(rows) if row[0] not in cold]
    together = _rows(parts.train) + _rows(parts.test) + _rows(parts.fold_in)
    assert sorted(together) == list(range(len(rows)))
    assert _rows(_split(rows, f"cold-users:{share}", seed).test) == sorted(tested)


@settings(deadline=None, max_examples=40)
@given(_ROWS, st.integers(0, 9))
def test_cold_items_are_in_test_only(rows: list[_Row], seed: int) -> None:
    parts = _split(rows, "cold-items:0.5", seed)
    assert parts.held_out_items is not None
    held_out = parts.held_out_items.tolist()
    assert parts.held_out_items.dtype == np.int32
    assert held_out == sorted(set(held_out))
    assert len(held_out) == round(len({row[1] for row in rows}) / 2)
    assert _rows(parts.test) == [at for at, row in enumerate(rows) if row[1] in held_out]
    assert _rows(parts.train) == [at for at, row in enumerate(rows) if row[1] not in held_out]
    assert parts.fold_in is None


def test_the_seed_chooses() -> None:
    rows = [(at % 5, at % 10, at) for at in range(50)]
    chosen = {tuple(_rows(_split(rows, "cold-items:0.3", seed).test)) for seed in range(20)}
    assert len(chosen) > 5


_COUNTS = ("last-n", "last-n:0", "last-n:-1", "last-n:x", "first-n:1.5", "loo:2")
_SHARES = ("time:0", "time:1", "time:nan", "time:1/0", "cold-users:", "cold-items:1.5")


@pytest.mark.parametrize("how", ["", "last", "random:0.2", *_COUNTS, *_SHARES])
def test_an_unknown_split_lists_the_known_ones(how: str) -> None:
    says = "use last-n:N, loo, first-n:N, time:F, cold-users:F or cold-items:F"
    with pytest.raises(InvalidRequest, match=says):
        split(_interactions([(0, 0, 0), (0, 1, 1)]), how)


@pytest.mark.parametrize(
    ("how", "part"),
    [("last-n:2", "test"), ("time:0.9", "test"), ("cold-users:0.9", "train"), ("loo", "")],
)
def test_a_split_leaves_something_to_train_and_test_on(how: str, part: str) -> None:
    two = _interactions([(0, 0, 0), (0, 1, 1)])
    if not part:
        assert _rows(split(two, how).test) == [1]
        return
    with pytest.raises(InvalidRequest, match=f"of 2 interactions leaves no {part}; choose"):
        split(two, how)


def test_no_interactions_cannot_be_split() -> None:
    nothing = _interactions([(0, 0, 0)]).some(np.zeros(1, np.bool_))
    for how in ("loo", "first-n:3", "time:0.5", "cold-users:0.5", "cold-items:0.5"):
        with pytest.raises(InvalidRequest, match="of 0 interactions leaves no train"):
            split(nothing, how)


def test_movielens_splits_have_the_published_sizes(data_folder: Path) -> None:
    path = data_folder / "ml-latest-small" / "ratings.csv"
    if not path.is_file():
        pytest.skip(f"no ml-latest-small in {data_folder}")
    whole, _ = read_interactions(path, ColumnNames("userId", "movieId", "timestamp"))
    parts = split(whole, "last-n:10")
    assert (len(whole.users), len(whole.items)) == (671, 9_066)
    assert (len(parts.train.user), len(parts.test.user)) == (93_294, 6_710)


def test_shop_splits_have_the_known_sizes(data_folder: Path) -> None:
    path = data_folder / "online-retail" / "events.csv.gz"
    if not path.is_file():
        pytest.skip(f"no online-retail in {data_folder}")
    whole, _ = read_interactions(path, ColumnNames("customer_id", "stock_code", "timestamp"))
    train, test, _, _ = split(whole, "time:0.8")
    assert np.datetime64(int(test.time_us.min()), "us").astype("M8[D]") == np.datetime64(
        "2011-11-02"
    )
    known = np.isin(test.user, train.user) & np.isin(test.item, train.item)
    pairs = np.unique(_pairs(test.some(known)))
    assert len(np.unique(pairs // len(whole.items))) == 1_520
    assert len(pairs) == 54_014
    assert np.isin(pairs, _pairs(train)).mean() == pytest.approx(0.407, abs=0.0005)


def _pairs(part: Interactions) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    pairs: np.ndarray[tuple[int], np.dtype[np.int64]] = (
        part.user.astype(np.int64) * len(part.items) + part.item
    )
    return pairs
