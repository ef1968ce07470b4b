"""Items without interactions are ranked by their content."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.behaviour.als import AlsOptions, train_factors
from index_builder.behaviour.cold_item_evaluation import (
    ContentAverage,
    RandomOrder,
    evaluate_cold_items,
    holds_out_items,
)
from index_builder.behaviour.content_factors import predict_factors
from index_builder.behaviour.model_evaluation import Evaluation, result_rows
from index_builder.behaviour.user_item_matrix import item_counts, users_by_items
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import split
from nearline.errors import InvalidRequest
from nearline.times import DAY_US
from nearline.vectors import normalise
from retrieval.behaviour.history import History
from tests.retrieval.behaviour.dense_scores import dense

USERS, ITEMS, KINDS, PLACES = 240, 80, 4, 4


@pytest.fixture
def content(rng: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors near the axis of the kind of the item."""
    vectors = np.eye(KINDS, 6)[np.arange(ITEMS) % KINDS] + 0.1 * rng.normal(size=(ITEMS, 6))
    return normalise(vectors.astype(np.float32))


@pytest.fixture
def liked(rng: np.random.Generator) -> Interactions:
    """Users have 12 of the 20 items of the one kind they like."""
    pairs = [
        (user, KINDS * int(place) + user % KINDS)
        for user in range(USERS)
        for place in rng.choice(ITEMS // KINDS, 12, replace=False)
    ]
    user, item = np.array(pairs, np.int32).T
    return Interactions(
        [f"u{number}" for number in range(USERS)],
        [f"i{number:02}" for number in range(ITEMS)],
        user,
        item,
        np.arange(len(pairs)) * DAY_US,
        np.ones(len(pairs), np.float32),
    )


def by_model(evaluation: Evaluation) -> dict[str, float]:
    return {
        str(row["model"]): float(str(row["recall@4"])) for row in result_rows(evaluation, PLACES)
    }


def test_users_get_new_items_of_the_kind_they_like(
    liked: Interactions, content: NDArray[np.float32]
) -> None:
    evaluation = evaluate_cold_items(liked, "cold-items:0.2", PLACES, content)
    recall = by_model(evaluation)
    assert list(recall) == ["random", "content_average", "content"]
    assert recall["random"] < 0.4
    kinds = np.flatnonzero(evaluation.task.candidates) % KINDS
    for one in evaluation.results[1:]:
        for user, given in zip(evaluation.task.users.tolist(), one.lists, strict=True):
            right = int(np.count_nonzero(kinds == user % KINDS))
            assert (given[: min(right, PLACES)] % KINDS == user % KINDS).all()
    assert evaluation.choice is None
    best = max(evaluation.content_fit, key=evaluation.content_fit.__getitem__)
    assert evaluation.results[-1].settings == f"regularisation={best:g}"
    assert evaluation.content_fit[best] > 0.5
    assert result_rows(evaluation, PLACES)[0]["content_ahead_low"] > 0  # type: ignore[operator]


def test_lists_hold_items_held_out_in_the_order_of_brute_force(
    liked: Interactions, content: NDArray[np.float32]
) -> None:
    evaluation = evaluate_cold_items(liked, "cold-items:0.2", PLACES, content, seed=3)
    parts = split(liked, "cold-items:0.2", 3)
    cold = parts.held_out_items
    assert cold is not None
    matrix = users_by_items(parts.train)
    factors = train_factors(matrix, AlsOptions(), 3, threads=1)
    placed = predict_factors(content, factors.vectors, item_counts(parts.train))
    _, average, ours = evaluation.results
    for number, user in enumerate(evaluation.task.users.tolist()):
        had = matrix[user].indices
        vector = factors.fold_in(had, np.ones(len(had), np.float32))
        assert ours.lists[number].tolist() == best(placed[cold] @ vector, cold)
        mean = content[had].mean(axis=0)
        assert average.lists[number].tolist() == best(content[cold] @ mean, cold)


def best(scores: NDArray[np.float32], items: NDArray[np.int32]) -> list[int]:
    chosen: list[int] = items[np.argsort(-scores, kind="stable")[:PLACES]].tolist()
    return chosen


def test_content_average_is_a_cosine_up_to_one_factor(content: NDArray[np.float32]) -> None:
    items = np.array([3, 7, 7, 40], np.int32)
    history = History(items, np.zeros(4, np.int64), np.ones(4, np.float32))
    mean = content[items].mean(axis=0)
    scores = dense(ContentAverage(content), history, ITEMS)
    cosines = content @ mean / np.linalg.norm(mean)
    assert scores == pytest.approx(cosines * scores[0] / cosines[0], rel=1e-4)


def test_a_random_order_is_another_for_each_user_and_repeats_with_its_seed() -> None:
    nobody = History(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    one, same = RandomOrder(50, 1), RandomOrder(50, 1)
    first, second = dense(one, nobody, 50), dense(one, nobody, 50)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, dense(same, nobody, 50))
    assert np.count_nonzero(first) == 50


def test_too_little_to_learn_from_is_refused(
    liked: Interactions, content: NDArray[np.float32]
) -> None:
    content[9:] = 0
    with pytest.raises(InvalidRequest, match="training items with content"):
        evaluate_cold_items(liked, "cold-items:0.2", PLACES, content)


def test_splits_that_hold_out_items_are_recognised() -> None:
    assert holds_out_items("cold-items:0.1")
    assert not holds_out_items("cold-users:0.1")
