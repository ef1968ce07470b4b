"""The sparse form of EASE, compared with the closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.behaviour import user_item_matrix
from index_builder.behaviour.sparse_ease import sparse_ease_lists
from index_builder.behaviour.user_item_matrix import users_by_items
from tests.index_builder.behaviour.test_models_brute_force import dense, drawn

LAMBDA = 3.0


def closed_form(matrix: Any, *, keep_diagonal: bool) -> NDArray[np.float64]:
    x: NDArray[np.float64] = matrix.toarray().astype(np.float64)
    p: Any = np.linalg.inv(x.T @ x + LAMBDA * np.eye(x.shape[1]))
    if keep_diagonal:
        ridge: NDArray[np.float64] = np.maximum(np.eye(len(p)) - LAMBDA * p, 0)
        return ridge
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    positive: NDArray[np.float64] = np.maximum(b, 0)
    return positive


@pytest.mark.parametrize("keep_diagonal", [False, True])
def test_with_all_predictors_the_inverse_is_exact(keep_diagonal: bool) -> None:
    # Every two items share a user, so that each predicts all others.
    matrix = users_by_items(drawn(30, 12, 250), counts=True)
    assert (matrix.T @ matrix).nnz == 12 * 12
    made = sparse_ease_lists(matrix, LAMBDA, keep_diagonal=keep_diagonal)
    assert dense(made) == pytest.approx(closed_form(matrix, keep_diagonal=keep_diagonal), abs=2e-5)


def test_predictors_are_those_that_explain_an_item_best_alone() -> None:
    matrix: Any = users_by_items(drawn(40, 15, 200))
    x = matrix.toarray().astype(np.float64)
    a = x.T @ x + LAMBDA * np.eye(15)
    own, rows = np.zeros(15), np.zeros((15, 15))
    for item in range(15):
        gains = a[item] ** 2 / np.diag(a)
        gains[item] = -1
        best = np.lexsort((np.arange(15), -gains.astype(np.float32)))[:4]
        b = np.linalg.solve(a[np.ix_(best, best)], a[item, best])
        own[item] = 1 / (a[item, item] - a[item, best] @ b)
        rows[item, best] = own[item] * b
    made = sparse_ease_lists(matrix, LAMBDA, predictors=4)
    assert dense(made) == pytest.approx(np.maximum(rows / own, 0), abs=1e-5)


def test_rare_items_count_as_independent_of_each_other() -> None:
    # Without popular items, the coefficients are those of one predictor alone.
    matrix: Any = users_by_items(drawn(40, 8, 120))
    gram = (matrix.T @ matrix).toarray().astype(np.float64)
    b = gram / (np.diag(gram) + LAMBDA)
    np.fill_diagonal(b, 0)
    own = 1 / np.maximum(np.diag(gram) + LAMBDA - (b * gram).sum(axis=1), LAMBDA)
    made = sparse_ease_lists(matrix, LAMBDA, popular=0)
    assert dense(made) == pytest.approx(b * own[:, None] / own, rel=1e-4)


@pytest.mark.parametrize("products", [1, 100, 10_000])
def test_blocks_do_not_change_the_result(products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = users_by_items(drawn(60, 40, 500), counts=True)
    whole = sparse_ease_lists(matrix, LAMBDA, predictors=6, popular=10)
    monkeypatch.setattr(user_item_matrix, "_BLOCK_PRODUCTS", products)
    blocked = sparse_ease_lists(matrix, LAMBDA, predictors=6, popular=10)
    assert np.array_equal(blocked.starts, whole.starts)
    assert dense(blocked) == pytest.approx(dense(whole), rel=1e-5)


def test_items_without_users_have_no_list() -> None:
    rows = drawn(5, 9, 20)
    lists = sparse_ease_lists(users_by_items(rows._replace(item=rows.item % 4)), LAMBDA)
    assert (np.diff(lists.starts)[4:] == 0).all()
