"""Splits interactions into training and test sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.errors import InvalidRequest

# Maximum number of test rows of a cold user.
COLD_USER_TESTED = 10
# Earlier windows with a training part below this share of the first window's are not used: they
# teach patterns that no longer hold.
_LEAST_SHARE = 0.3

_Bools = NDArray[np.bool_]
_Numbers = NDArray[np.int64]


class Split(NamedTuple):
    """Parts of a data set, each in the order of the file and with the numbers of the whole.

    fold_in: Interactions revealed at test time for users not in train; None if there are none.
    held_out_items: (m,) ascending numbers of the items without rows in train; None if the split
        does not hold out items.
    """

    train: Interactions
    test: Interactions
    fold_in: Interactions | None = None
    held_out_items: NDArray[np.int32] | None = None


def split(interactions: Interactions, split_name: str, seed: int = 0) -> Split:
    """Splits interactions.

    A row is later than another if its time is later or, with equal times, if it is further down the
    file.

    Args:
        split_name: One of
            last-n:N: the last N rows of each user are the test; users with N rows or fewer are not
                tested, and all their rows are in train. loo is last-n:1.
            first-n:N: the same with each user's first N rows in the file.
            time:F: the earliest rows, at least a share F of them, are train, and all later ones the
                test, whether or not train knows their users and items; equal times stay together.
            cold-users:F: a share F of the users with two rows or more, drawn at random, have no row
                in train. Their last rows are the test, 10 but at most half of them; the earlier
                ones are fold_in.
            cold-items:F: all rows of a share F of the items, drawn at random, are the test, even
                those of users without other rows; none is in train.
        seed: Of random draws.
    Raises: InvalidRequest: there is no such split, or it leaves train or test empty.
    """
    parts = _splitter(split_name)(interactions, np.random.default_rng(seed))
    for part, rows in (("train", parts.train), ("test", parts.test)):
        if not len(rows.user):
            raise InvalidRequest(
                f"split {split_name} of {len(interactions.user)} interactions leaves no {part}; "
                "choose another number, or another split",
                field="split",
            )
    return parts


def validation_windows(
    rows: Interactions, split_name: str, count: int, seed: int = 0
) -> list[Split]:
    """Returns splits of one kind, latest first, each within the training part of the one before.

    With a time split, every test covers a period of the same length. Any other split is applied to
    the training part of the split before: with last-n:5, the second test consists of the five
    interactions before the last five.

    Args:
        split_name: See `split`.
        count: Maximum number of windows, at least 1. There are fewer if nothing is left to train or
            test on, or much less than in the first.
        seed: Of random draws.
    Raises: InvalidRequest: the first split leaves nothing to train or test on.
    """
    first = split(rows, split_name, seed)
    found = [first]
    while len(found) < count:
        try:
            before = _before(first, found[-1]) if split_name.startswith("time:") else None
            part = before or split(found[-1].train, split_name, seed)
        except InvalidRequest:
            break
        if len(part.train.user) < _LEAST_SHARE * len(first.train.user) or not len(part.test.user):
            break
        found.append(part)
    return found


def check_split_name(split_name: str) -> None:
    """Raises InvalidRequest unless this is the name of a split; see `split`."""
    _splitter(split_name)


def _before(first: Split, last: Split) -> Split:
    """Splits by time: the test is as long as that of `first` and ends where `last` begins."""
    length = first.test.time_us.max() - first.train.time_us.max()
    rows = last.train
    early = rows.time_us <= rows.time_us.max(initial=0) - length
    return Split(rows.some(early), rows.some(np.logical_not(early)))


def _splitter(split_name: str) -> Callable[[Interactions, np.random.Generator], Split]:
    name, _, argument = ("last-n:1" if split_name == "loo" else split_name).partition(":")
    if name in _BY_COUNT and argument.isdecimal() and int(argument) > 0:
        return lambda rows, rng: _BY_COUNT[name](rows, int(argument))
    if name in _BY_SHARE and (share := _share(argument)):
        return lambda rows, rng: _BY_SHARE[name](rows, share, rng)
    raise InvalidRequest(
        f"there is no split {split_name!r}; use last-n:N, loo, first-n:N, time:F, cold-users:F or "
        "cold-items:F, where N is a whole number from 1 and F a share between 0 and 1, such as 0.8",
        field="split",
    )


def _share(text: str) -> Fraction | None:
    """Parses a share exactly, so that 0.29 of 100 is 29; None unless it is between 0 and 1."""
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    return share if 0 < share < 1 else None


def _last_rows(interactions: Interactions, count: int) -> Split:
    place, rows = _positions(
        interactions.user, np.lexsort((interactions.time_us, interactions.user))
    )
    return _split_by(interactions, (rows > count) & (place >= rows - count))


def _first_rows(interactions: Interactions, count: int) -> Split:
    place, rows = _positions(interactions.user, np.argsort(interactions.user, kind="stable"))
    return _split_by(interactions, (rows > count) & (place < count))


def _by_time(interactions: Interactions, share: Fraction, _: np.random.Generator) -> Split:
    time_us = interactions.time_us
    if not len(time_us):
        return _split_by(interactions, np.zeros(0, np.bool_))
    at = math.ceil(share * len(time_us)) - 1
    return _split_by(interactions, time_us > np.partition(time_us, at)[at])


def _cold_users(interactions: Interactions, share: Fraction, rng: np.random.Generator) -> Split:
    user = interactions.user
    place, rows = _positions(user, np.lexsort((interactions.time_us, user)))
    drawn = _draw(np.unique(user[rows > 1]), share, rng)
    cold = np.isin(user, drawn)
    tested = cold & (place >= rows - np.minimum(COLD_USER_TESTED, rows // 2))
    return Split(
        interactions.some(~cold), interactions.some(tested), interactions.some(cold & ~tested)
    )


def _cold_items(interactions: Interactions, share: Fraction, rng: np.random.Generator) -> Split:
    drawn = _draw(np.unique(interactions.item), share, rng)
    parts = _split_by(interactions, np.isin(interactions.item, drawn))
    return parts._replace(held_out_items=drawn)


_BY_COUNT: Mapping[str, Callable[[Interactions, int], Split]] = {
    "last-n": _last_rows,
    "first-n": _first_rows,
}
_BY_SHARE: Mapping[str, Callable[[Interactions, Fraction, np.random.Generator], Split]] = {
    "time": _by_time,
    "cold-users": _cold_users,
    "cold-items": _cold_items,
}


def _split_by(interactions: Interactions, test: _Bools) -> Split:
    return Split(interactions.some(~test), interactions.some(test))


def _positions(user: NDArray[np.int32], order: NDArray[np.int64]) -> tuple[_Numbers, _Numbers]:
    """Returns the position of each row among its user's rows, from 0, and their number.

    Args:
        order: Rows by user, each user's in the order to count.
    """
    counts = np.bincount(user)
    starts = np.cumsum(counts) - counts
    place = np.empty(len(user), np.int64)
    place[order] = np.arange(len(user)) - starts[user[order]]
    return place, counts[user]


def _draw(
    numbers: NDArray[np.int32], share: Fraction, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Draws a share of the numbers, rounded to the nearest; ascending."""
    drawn = rng.choice(numbers, round(share * len(numbers)), replace=False, shuffle=False)
    return np.sort(drawn)
