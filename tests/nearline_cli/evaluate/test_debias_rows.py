"""Figures of discounts for popularity, by arithmetic."""

from __future__ import annotations

import numpy as np

from index_builder.behaviour.evaluation_task import EvaluationTask
from index_builder.interactions.records import Interactions
from nearline_cli.evaluate import debias_rows as module
from nearline_cli.evaluate.debias_rows import SIMILAR, USER, DebiasedLists, debias_rows
from retrieval.behaviour.history import History

# Four users had item 0, one of them item 1, nobody item 2.
TRAIN = Interactions(
    ["u", "v", "w", "x"],
    ["a", "b", "c"],
    np.array([0, 1, 2, 3, 3], np.int32),
    np.array([0, 0, 0, 0, 1], np.int32),
    np.arange(5, dtype=np.int64),
    np.ones(5, np.float32),
)
HISTORY = History(np.zeros(1, np.int32), np.zeros(1, np.int64), np.ones(1, np.float32))
TASK = EvaluationTask(
    np.array([0, 1], np.int32),
    [HISTORY] * 2,
    [np.array([0, 1], np.int32), np.array([0], np.int32)],
    np.array([True, True, False]),
    np.arange(3),
    True,
)


def test_figures_of_a_discount_are_those_of_its_lists() -> None:
    lists, spread = np.array([[0], [0]], np.int32), np.array([[0], [1]], np.int32)
    none = np.full((2, 1), -1, np.int32)
    user, similar, empty = debias_rows(
        [
            DebiasedLists(USER, 0.0, True, lists, lists),
            DebiasedLists(SIMILAR, 1.0, False, np.array([[1], [0]], np.int32), spread),
            DebiasedLists(SIMILAR, 0.5, False, none, none[:, :1]),
        ],
        TRAIN,
        TASK,
        1,
    )
    assert user == {
        "lists": "user",
        "popularity_debias": 0.0,
        "default": True,
        "ndcg@1": 1.0,
        "recall@1": 0.75,
        "novelty@1": 0.0,
        "coverage@1": 0.5,
        "top100_share": 1.0,
        "users": 2,
    }
    # An item that the user had is not relevant, so that the second user is not tested. log2(4 / 1)
    # and log2(4 / 4) are novel by 1 in the mean.
    assert (similar["users"], similar["ndcg@1"], similar["novelty@1"]) == (1, 1.0, 1.0)
    assert similar["coverage@1"] == 1.0
    assert (empty["top100_share"], empty["coverage@1"]) == (0.0, 0.0)


def test_lists_in_which_nothing_can_be_found_have_no_figures() -> None:
    lists = np.array([[1], [0]], np.int32)
    again = TASK._replace(relevant=[np.array([0], np.int32)] * 2)
    assert debias_rows([DebiasedLists(SIMILAR, 0.0, True, lists, lists)], TRAIN, again, 1) == []


def test_the_share_of_popular_items_counts_each_place() -> None:
    items = 120
    rows = Interactions(
        ["u"],
        [f"i{number:03}" for number in range(items)],
        np.zeros(items, np.int32),
        np.arange(items, dtype=np.int32),
        np.arange(items, dtype=np.int64),
        np.ones(items, np.float32),
    )
    task = TASK._replace(candidates=np.ones(items, np.bool_))
    # With equal counts, items 0 to 99 are the most popular.
    lists = np.array([[0, 99], [100, 119]], np.int32)
    (row,) = debias_rows([DebiasedLists(USER, 0.0, True, lists, lists)], rows, task, 2)
    assert row["top100_share"] == 0.5


def test_items_are_sampled_from_the_candidates() -> None:
    many = TASK._replace(candidates=np.arange(3 * module.MAX_ITEMS) % 2 == 0)
    drawn = module.sample_items(many, 0)
    assert len(drawn) == module.MAX_ITEMS and (drawn % 2 == 0).all()
    assert (np.diff(drawn) > 0).all()
    assert module.sample_items(TASK, 0).tolist() == [0, 1]
