"""The discount for popularity that validation chooses, on rankings that a test can follow."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.behaviour.debias_selection import (
    MIN_USERS,
    Popularity,
    choose_debias,
    measure_popularity,
    similar_rankings,
    unmeasured,
    user_rankings,
)
from index_builder.behaviour.evaluation_task import EvaluationTask
from index_builder.behaviour.manifest_entries import describe_debias
from index_builder.interactions.records import Interactions
from retrieval.behaviour.history import History
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.popularity_discount import discount_popularity

USERS = 8
# Item 0 is had by everybody, items 1 to 3 by one user each.
KNOWN = Popularity(np.array([1.5, -0.5, -0.5, -0.5], np.float32), np.array([8, 1, 1, 1]), USERS)
# Two kinds of users, to each of whom item 0 is listed first by a little.
SCORES = np.array([2.0, 1.9, 1.0], np.float32)
RANKINGS = [
    (np.array([0, 1, 3], np.int32), SCORES),
    (np.array([0, 2, 3], np.int32), SCORES),
] * (MIN_USERS // 2)
RARE = [np.array([1], np.int32), np.array([2], np.int32)] * (MIN_USERS // 2)
POPULAR = [np.array([0], np.int32)] * MIN_USERS


def test_the_largest_discount_is_chosen_that_costs_no_accuracy() -> None:
    card = choose_debias(RANKINGS, RARE, KNOWN, 1, tolerance=0.01)
    assert (card.value, card.users, card.fixed) == (1.0, MIN_USERS, False)
    assert (card.undiscounted_ndcg, card.ndcg) == (0.0, 1.0)
    # log2(8 / 8) and log2(8 / 1).
    assert (card.undiscounted_novelty, card.novelty) == (0.0, 3.0)
    # Of four items, one or two are listed.
    assert (card.undiscounted_coverage, card.coverage) == (0.25, 0.5)
    assert describe_debias(card) == (
        "popularity discounted by 1: NDCG 0.0000 -> 1.0000, novelty 0.00 -> 3.00 bits, "
        "coverage 0.250 -> 0.500"
    )


def test_no_discount_is_chosen_if_each_would_cost_too_much_or_change_nothing() -> None:
    # The deviation of the scores is 0.45, so at 0.15, item 0 loses 2 x 0.068 more than item 1.
    numbers, scores = RANKINGS[0]
    levels = KNOWN.levels[numbers]
    assert discount_popularity(numbers, scores, levels, 0.1)[0][0] == 0
    assert discount_popularity(numbers, scores, levels, 0.15)[0][0] == 1
    card = choose_debias(RANKINGS, POPULAR, KNOWN, 1, tolerance=0.01)
    assert (card.value, card.ndcg, describe_debias(card)) == (0.0, 1.0, "")


def test_a_tolerance_admits_a_larger_discount() -> None:
    # The rarer item is relevant for 45 of 100 users: the discount costs 10 of 55 hits.
    relevant = [*RARE[:45], *POPULAR[45:]]
    assert choose_debias(RANKINGS, relevant, KNOWN, 1, tolerance=0.15).value == 0.0
    card = choose_debias(RANKINGS, relevant, KNOWN, 1, tolerance=0.2)
    assert card.value == 1.0
    assert [card.undiscounted_ndcg, card.ndcg] == pytest.approx([0.55, 0.45])


def test_nothing_is_chosen_from_too_few_users_or_without_gain_of_novelty() -> None:
    few = choose_debias(RANKINGS[1:], RARE[1:], KNOWN, 1, tolerance=0.01)
    assert (few.value, few.users, few.undiscounted_ndcg) == (0.0, MIN_USERS - 1, 0.0)
    equal = KNOWN._replace(levels=np.zeros(4, np.float32))
    assert choose_debias(RANKINGS, RARE, equal, 1, tolerance=0.01).value == 0.0


@pytest.mark.parametrize("fixed", [0.0, 0.75, 1.0])
def test_a_fixed_discount_is_measured_and_not_chosen(fixed: float) -> None:
    card = choose_debias(RANKINGS, POPULAR, KNOWN, 1, tolerance=0.01, fixed=fixed)
    assert (card.value, card.fixed) == (fixed, True)
    assert (card.undiscounted_ndcg, card.ndcg) == (1.0, 0.0 if fixed else 1.0)


def test_without_validation_the_discount_is_the_given_one_or_none() -> None:
    assert (unmeasured(None).value, unmeasured(None).fixed) == (0.0, False)
    assert (unmeasured(0.5).value, unmeasured(0.5).fixed, unmeasured(0.5).users) == (0.5, True, 0)
    assert describe_debias(unmeasured(0.5)) == "popularity discounted by 0.5"


LISTS = ItemLists(
    np.array([0, 3, 4, 4, 4]), np.array([1, 2, 3, 0], np.int32), np.array([3, 2, 1, 4], np.float32)
)


def task_of(history: list[int], *, repeats: bool) -> EvaluationTask:
    times = -np.arange(len(history), dtype=np.int64)
    events = History(np.array(history, np.int32), times, np.ones(len(history), np.float32))
    candidates = np.array([True, True, True, False])
    return EvaluationTask(
        np.zeros(1, np.int32), [events], RARE[:1], candidates, np.arange(4), repeats
    )


def test_rankings_hold_only_candidates_that_a_list_may_show() -> None:
    generator = ListGenerator(LISTS)
    ((numbers, scores),) = user_rankings(generator, task_of([0, 1], repeats=True))
    assert (numbers.tolist(), scores.tolist()) == ([0, 1, 2], [4, 3, 2])
    ((numbers, _),) = user_rankings(generator, task_of([0, 1], repeats=False))
    assert numbers.tolist() == [2]
    # Those that go with the newest item, 1 or 0.
    ((numbers, _),) = similar_rankings(LISTS, task_of([1, 2], repeats=False))
    assert numbers.tolist() == [0]
    ((numbers, scores),) = similar_rankings(LISTS, task_of([0, 2], repeats=False))
    assert (numbers.tolist(), scores.tolist()) == ([1], [3])


def test_items_without_interactions_and_equal_counts_are_measured() -> None:
    rows = Interactions(
        ["u", "v"],
        ["a", "b", "c"],
        np.array([0, 1, 1], np.int32),
        np.array([0, 0, 1], np.int32),
        np.arange(3, dtype=np.int64),
        np.ones(3, np.float32),
    )
    known = measure_popularity(rows)
    assert known.users_of.tolist() == [2, 1, 0] and known.users == 2
    # Mean and deviation of the first two logarithms; nothing below the mean is preferred.
    assert known.levels.tolist() == [pytest.approx(1), 0, 0]
