"""Lists are compared with popular items and with those that serve, on held-out interactions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.behaviour.comparison import MIN_USERS, compare
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from index_builder.options.training_options import TrainingOptions
from nearline.times import DAY_US
from retrieval.behaviour.history import History
from retrieval.protocols.scored_rows import ScoredRows
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks
from tests.index_builder.live_collection import Living

SECOND = 1 / math.log2(3)


class _Lists:
    """Lists one item for everyone."""

    def __init__(self, item: int) -> None:
        self._item = item

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        return ScoredRows(np.array([self._item]), np.ones(1, np.float32))


def _rows(*rows: tuple[int, str, float]) -> Interactions:
    """Returns interactions of users with items a, b and c on days."""
    users, items, days = zip(*rows, strict=True)
    return Interactions(
        [f"u{number}" for number in range(60)],
        ["a", "b", "c"],
        np.array(users, np.int32),
        np.array(["abc".index(one) for one in items], np.int32),
        np.array([round(day * DAY_US) for day in days], np.int64),
        np.ones(len(rows), np.float32),
    )


def _window(tested: int = 24) -> Split:
    """Returns users who had a; of the last week, every second one's b or c is held out.

    Others had c nine times long ago, b three times and c once in the last week.
    """
    had = [(user, "a", 1.0) for user in range(tested)]
    others = [(30 + number, "c", 2.0) for number in range(9)]
    others += [(40, "b", 95.0), (41, "b", 96.0), (42, "b", 97.0), (43, "c", 98.0)]
    held_out = [(user, "bc"[user % 2], 99.0) for user in range(tested)]
    # Not of the last week.
    held_out += [(user, "b", 50.0) for user in range(0, tested, 2)]
    return Split(_rows(*had, *others), _rows(*held_out))


def test_popular_items_are_those_of_the_last_week_and_users_too() -> None:
    (card,) = compare(_window(), _Lists(1), 0.0, 10, 0, only_known=False)
    assert (card.against, card.users) == ("popular", 24)
    # Popular: b, then c, so the second half of the users finds its item in second place.
    assert card.against_ndcg == pytest.approx((1 + SECOND) / 2)
    assert card.ndcg == pytest.approx(0.5)
    assert card.gain_low <= card.ndcg - card.against_ndcg <= card.gain_high < 0


def test_a_comparison_with_few_users_is_left_out() -> None:
    assert not compare(_window(MIN_USERS - 1), _Lists(1), 0.0, 10, 0, only_known=False)
    assert compare(_window(MIN_USERS), _Lists(1), 0.0, 10, 0, only_known=False)


async def test_a_training_is_compared_with_what_serves_on_what_that_could_not_know(
    tmp_path: Path,
) -> None:
    living = Living(tmp_path)
    corpus = living.corpus(dict.fromkeys(documents(ITEMS), "An item."), 10)
    await living.build(corpus, training=TrainingOptions(interactions=walks(steps=9)))
    served = living.manifest.behaviour
    # Nobody can say the next item by popularity: all items are equally popular.
    (popular,) = served.comparisons
    assert popular.users == 40 and popular.gain_low > 0
    await living.build(corpus, training=TrainingOptions(interactions=walks(steps=9)))
    # Its models know all interactions.
    assert [one.against for one in living.manifest.behaviour.comparisons] == ["popular"]
    await living.build(corpus, training=TrainingOptions(interactions=walks(steps=11)))
    against = living.manifest.behaviour.comparisons[1]
    assert (against.against, against.users) == (served.factors_id, 40)
    assert 0 < against.against_ndcg <= 1 and 0 < against.ndcg <= 1
