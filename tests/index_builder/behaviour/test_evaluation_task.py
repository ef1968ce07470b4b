"""Evaluation tasks, and the choice of a blend."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.behaviour.candidate_generators import CandidateGenerator, train_candidates
from index_builder.behaviour.evaluation_task import EvaluationTask, make_task, top_lists
from index_builder.behaviour.model_evaluation import BLENDED, evaluate, result_rows
from index_builder.behaviour.model_selection import choose_blend
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from nearline.times import DAY_US
from retrieval.behaviour.history import History
from retrieval.behaviour.popularity import ItemScores, PopularityGenerator


def interactions(*rows: tuple[int, int], users: int = 4, items: int = 6) -> Interactions:
    """Returns rows of (user, item), a day apart; the order of item ids differs from their
    numbers.
    """
    user, item = np.array(rows, np.int32).reshape(-1, 2).T
    return Interactions(
        [f"u{number}" for number in range(users)],
        [f"i{99 - number}" for number in range(items)],
        user,
        item,
        np.arange(len(rows)) * DAY_US,
        np.ones(len(rows), np.float32),
    )


TRAIN = interactions((0, 0), (0, 1), (1, 1), (2, 2), (0, 2))
TEST = interactions((0, 1), (0, 3), (1, 0), (1, 5), (2, 2), (3, 0))


def test_relevant_items_are_new_to_the_user() -> None:
    task = make_task(Split(TRAIN, TEST))
    # User 2 only repeats known items, and user 3 has no known items.
    assert task.users.tolist() == [0, 1]
    assert [one.tolist() for one in task.relevant] == [[3], [0, 5]]
    assert task.histories[0].items.tolist() == [2, 1, 0]
    assert task.histories[0].time_us.tolist() == [4 * DAY_US, DAY_US, 0]
    assert task.candidates.tolist() == [True, True, True, False, False, False]
    assert task.order.tolist() == [5, 4, 3, 2, 1, 0]


def test_relevant_items_may_include_repeats_or_only_known_items() -> None:
    task = make_task(Split(TRAIN, TEST), repeats=True, only_known=True)
    assert task.users.tolist() == [0, 1, 2]
    assert [one.tolist() for one in task.relevant] == [[1], [0], [2]]


def test_a_task_of_cold_users_and_items_takes_their_history_and_those_items() -> None:
    folded = interactions((3, 1))
    task = make_task(Split(TRAIN, TEST, fold_in=folded))
    assert task.users.tolist() == [3]
    assert task.histories[0].items.tolist() == [1]
    cold = make_task(Split(TRAIN, TEST, held_out_items=np.array([3, 5], np.int32)))
    assert np.flatnonzero(cold.candidates).tolist() == [3, 5]


def test_lists_rank_all_scored_candidates_and_break_ties_by_id() -> None:
    scores = np.array([1, 1, 5, 9, 1, 1], np.float32)
    history = History(np.array([2], np.int32), np.zeros(1, np.int64), np.ones(1, np.float32))
    candidates = np.array([True, True, True, False, True, False])
    order = np.array([5, 4, 3, 2, 1, 0])
    task = EvaluationTask(
        np.zeros(1, np.int32), [history], [np.zeros(1, np.int32)], candidates, order, False
    )
    generator = PopularityGenerator(ItemScores(scores))
    assert top_lists(generator, task, 4).tolist() == [[4, 1, 0, -1]]
    again = task._replace(repeats=True)
    assert top_lists(generator, again, 4).tolist() == [[2, 4, 1, 0]]
    # Of more equal ones than fit, those with the first ids are listed.
    assert top_lists(generator, again, 2).tolist() == [[2, 4]]
    # No place is filled with an item that the generator does not score.
    scores = np.array([1, 0, 5, 9, 1, 1], np.float32)
    generator = PopularityGenerator(ItemScores(scores))
    assert top_lists(generator, again, 4).tolist() == [[2, 4, 0, -1]]


def test_only_candidates_that_help_are_blended() -> None:
    rng = np.random.default_rng(3)
    users, items = 60, 30
    nobody = History(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    # Two items each: one known to the first generator, one to the second.
    task = EvaluationTask(
        np.arange(users, dtype=np.int32),
        [nobody] * users,
        [np.array([7, 11], np.int32)] * users,
        np.ones(items, np.bool_),
        np.arange(items),
        False,
    )

    def knows(item: int) -> PopularityGenerator:
        scores = rng.random(items, np.float32) / np.float32(10)
        scores[[7, 11]] = 0
        scores[item] = 5
        return PopularityGenerator(ItemScores(scores))

    first, second = (
        CandidateGenerator("a", "plain", knows(7)),
        CandidateGenerator("b", "x=1", knows(11)),
    )
    nothing = PopularityGenerator(ItemScores(np.zeros(items, np.float32)))
    useless = CandidateGenerator("c", "plain", nothing)
    choice = choose_blend([useless, first, second], task, 2)
    assert set(choice.weights) == {"a plain", "b x=1"}
    assert choice.validation == pytest.approx(1.0)
    assert choice.alone["c plain"] < choice.alone["a plain"] < 1
    assert choice.best("b") == "b x=1"
    blend = choice.blend([first, second], repeats=False)
    assert np.sort(top_lists(blend, task, 2), axis=1).tolist() == [[7, 11]] * users


@pytest.mark.parametrize("repeats", [False, True])
def test_an_evaluation_finds_what_comes_next(repeats: bool) -> None:
    # Every user walks around a circle of 12 items, so the last item determines the next.
    rows = [(user, (user * 5 + step) % 12) for step in range(9) for user in range(40)]
    circle = interactions(*rows, users=40, items=12)
    evaluation = evaluate(circle, "last-n:1", 3, repeats=repeats)
    shown = result_rows(evaluation, 3)
    by_model = {row["model"]: row for row in shown}
    assert shown[-1]["model"] == BLENDED
    assert ("buy_again" in by_model) == repeats
    assert by_model[BLENDED]["hit_rate@3"] == 1.0
    assert by_model[BLENDED]["ndcg@3"] > by_model["popular"]["ndcg@3"]  # type: ignore[operator]
    assert all(row["users"] == 40 for row in shown)
    names = {one.name for one in train_candidates(circle, repeats=repeats)}
    assert evaluation.choice is not None
    assert set(evaluation.choice.weights) <= names
