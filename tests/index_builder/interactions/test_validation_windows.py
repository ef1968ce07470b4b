"""Validation windows are alike, and none uses later interactions."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import validation_windows
from nearline.errors import InvalidRequest


def rows(times: list[int], users: list[int] | None = None) -> Interactions:
    user = np.array(users or [0] * len(times), np.int32)
    return Interactions(
        [str(one) for one in range(int(user.max()) + 1)],
        [str(one) for one in range(len(times))],
        user,
        np.arange(len(times), dtype=np.int32),
        np.array(times, np.int64),
        np.ones(len(times), np.float32),
    )


def test_windows_of_a_time_split_have_equal_length() -> None:
    found = validation_windows(rows([*range(100), 1000]), "time:0.9", 9)
    # 0.9 of 101 rows end at time 90, and the last is at 1000; no window of 910 precedes it.
    assert [one.test.time_us[[0, -1]].tolist() for one in found] == [[91, 1000]]
    found = validation_windows(rows([*range(100)]), "time:0.8", 9)
    tests = [(int(one.test.time_us[0]), int(one.test.time_us[-1])) for one in found]
    # The third would train on 40 rows of 80, the fourth on 20: too few.
    assert tests == [(80, 99), (60, 79), (40, 59)]
    assert [int(one.train.time_us.max()) for one in found] == [79, 59, 39]


def test_windows_of_last_n_step_back_by_n() -> None:
    found = validation_windows(rows([*range(12)], [0] * 8 + [1] * 4), "last-n:2", 3)
    tests = [one.test.item.tolist() for one in found]
    assert tests == [[6, 7, 10, 11], [4, 5], [2, 3]]
    assert [len(one.train.user) for one in found] == [8, 6, 4]


def test_the_number_of_windows_is_between_one_and_count() -> None:
    assert len(validation_windows(rows([*range(12)]), "loo", 2)) == 2
    with pytest.raises(InvalidRequest, match="leaves no"):
        validation_windows(rows([1]), "loo", 3)
