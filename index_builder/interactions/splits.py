"""Splits of interactions into what a model learns from and what it is tested on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.errors import InvalidRequest

# Most rows of a cold user that are tested.
COLD_USER_TESTED = 10
# A window whose training part is below this share of the first one's teaches what no longer holds.
_LEAST_SHARE = 0.3

_Bools = NDArray[np.bool_]
_Numbers = NDArray[np.int64]


class Split(NamedTuple):
    """Parts of a data set, each in the order of the file and under the numbers of the whole.

    fold_in: What is told at test time of users who are not in train; None: nothing.
    held_out_items: (m,) ascending numbers of the items none of whose rows are in train; None: no
        item was held out on purpose.
    """

    train: Interactions
    test: Interactions
    fold_in: Interactions | None = None
    held_out_items: NDArray[np.int32] | None = None


def split(interactions: Interactions, how: str, seed: int = 0) -> Split:
    """Splits interactions.

    A row is later than another if its time is or, at the same time, if it is further down the file.

    Args:
        how: One of
            last-n:N: the last N rows of each user are the test; users with N rows or fewer are not
                tested, and all their rows are in train. loo is last-n:1.
            first-n:N: the same with each user's first N rows in the file.
            time:F: the earliest rows, at least a share F of them, are train, all later ones the
                test, whether train knows their users and items or not; no time is parted.
            cold-users:F: no row of a share F of the users, at random among those with two rows or
                more, is in train. The last of each are the test, 10 but at most half; what is
                before that is fold_in.
            cold-items:F: all rows of a share F of the items, at random, are the test, those of
                users without another row too; none is in train.
        seed: Of what is at random.
    Raises: InvalidRequest: there is no such split, or it leaves train or test empty.
    """
    parts = _parts_of(how)(interactions, np.random.default_rng(seed))
    for part, rows in (("train", parts.train), ("test", parts.test)):
        if not len(rows.user):
            raise InvalidRequest(
                f"split {how} of {len(interactions.user)} interactions leaves no {part}; "
                "choose another number, or another split",
                field="split",
            )
    return parts


def validation_windows(rows: Interactions, how: str, count: int, seed: int = 0) -> list[Split]:
    """Returns splits of one kind, the latest first, each inside the training part of that before.

    After a moment in time, each tests on as long a time as the first; other splits are made of the
    training part before, so that last-n:5 tests on the five interactions before the last five.

    Args:
        how: See `splits.split`.
        count: Of windows at most, >= 1. There are fewer where nothing is left to learn from or to
            test on, or much less than before.
        seed: Of what is at random.
    Raises: InvalidRequest: the first one leaves nothing to learn from or to test on.
    """
    first = split(rows, how, seed)
    found = [first]
    while len(found) < count:
        try:
            before = _before(first, found[-1]) if how.startswith("time:") else None
            part = before or split(found[-1].train, how, seed)
        except InvalidRequest:
            break
        if len(part.train.user) < _LEAST_SHARE * len(first.train.user) or not len(part.test.user):
            break
        found.append(part)
    return found


def check_split_name(how: str) -> None:
    """Raises InvalidRequest where there is no split of that name, see `split`."""
    _parts_of(how)


def _before(first: Split, last: Split) -> Split:
    """Splits in time: the test is as long as the first one, and ends where the last one begins."""
    length = first.test.time_us.max() - first.train.time_us.max()
    rows = last.train
    early = rows.time_us <= rows.time_us.max(initial=0) - length
    return Split(rows.some(early), rows.some(np.logical_not(early)))


def _parts_of(how: str) -> Callable[[Interactions, np.random.Generator], Split]:
    name, _, argument = ("last-n:1" if how == "loo" else how).partition(":")
    if name in _BY_COUNT and argument.isdecimal() and int(argument) > 0:
        return lambda rows, rng: _BY_COUNT[name](rows, int(argument))
    if name in _BY_SHARE and (share := _share(argument)):
        return lambda rows, rng: _BY_SHARE[name](rows, share, rng)
    raise InvalidRequest(
        f"there is no split {how!r}; choose last-n:N, loo, first-n:N, time:F, cold-users:F or "
        "cold-items:F, N being a whole number from 1 and F a share between 0 and 1, like 0.8",
        field="split",
    )


def _share(text: str) -> Fraction | None:
    """Reads a share, exactly: 0.29 of 100 is 29. None: it is none between 0 and 1."""
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    return share if 0 < share < 1 else None


def _last(interactions: Interactions, count: int) -> Split:
    place, rows = _places(interactions.user, np.lexsort((interactions.time_us, interactions.user)))
    return _tested(interactions, (rows > count) & (place >= rows - count))


def _first(interactions: Interactions, count: int) -> Split:
    place, rows = _places(interactions.user, np.argsort(interactions.user, kind="stable"))
    return _tested(interactions, (rows > count) & (place < count))


def _by_time(interactions: Interactions, share: Fraction, _: np.random.Generator) -> Split:
    time_us = interactions.time_us
    if not len(time_us):
        return _tested(interactions, np.zeros(0, np.bool_))
    at = math.ceil(share * len(time_us)) - 1
    return _tested(interactions, time_us > np.partition(time_us, at)[at])


def _cold_users(interactions: Interactions, share: Fraction, rng: np.random.Generator) -> Split:
    user = interactions.user
    place, rows = _places(user, np.lexsort((interactions.time_us, user)))
    drawn = _drawn(np.unique(user[rows > 1]), share, rng)
    cold = np.isin(user, drawn)
    tested = cold & (place >= rows - np.minimum(COLD_USER_TESTED, rows // 2))
    return Split(
        interactions.some(~cold), interactions.some(tested), interactions.some(cold & ~tested)
    )


def _cold_items(interactions: Interactions, share: Fraction, rng: np.random.Generator) -> Split:
    drawn = _drawn(np.unique(interactions.item), share, rng)
    parts = _tested(interactions, np.isin(interactions.item, drawn))
    return parts._replace(held_out_items=drawn)


_BY_COUNT: Mapping[str, Callable[[Interactions, int], Split]] = {
    "last-n": _last,
    "first-n": _first,
}
_BY_SHARE: Mapping[str, Callable[[Interactions, Fraction, np.random.Generator], Split]] = {
    "time": _by_time,
    "cold-users": _cold_users,
    "cold-items": _cold_items,
}


def _tested(interactions: Interactions, test: _Bools) -> Split:
    return Split(interactions.some(~test), interactions.some(test))


def _places(user: NDArray[np.int32], order: NDArray[np.int64]) -> tuple[_Numbers, _Numbers]:
    """Returns the place of each row among its user's, from 0, and how many these are.

    Args:
        order: Rows by user, those of a user as they are to be counted.
    """
    counts = np.bincount(user)
    starts = np.cumsum(counts) - counts
    place = np.empty(len(user), np.int64)
    place[order] = np.arange(len(user)) - starts[user[order]]
    return place, counts[user]


def _drawn(
    numbers: NDArray[np.int32], share: Fraction, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Draws a share of numbers, rounded to the nearest; ascending."""
    drawn = rng.choice(numbers, round(share * len(numbers)), replace=False, shuffle=False)
    return np.sort(drawn)
