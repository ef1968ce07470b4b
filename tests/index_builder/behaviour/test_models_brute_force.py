"""Trained models, compared with brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index_builder.behaviour.als import AlsOptions, train_factors
from index_builder.behaviour.ease import ease_lists
from index_builder.behaviour.item_to_item import item_to_item_lists
from index_builder.behaviour.popularity import popularity
from index_builder.behaviour.session_cooccurrence import SessionOptions, session_lists
from index_builder.behaviour.top_n_matrix import top_n_lists, top_n_lists_sparse
from index_builder.behaviour.user_item_matrix import users_by_items
from index_builder.interactions.records import Interactions
from nearline.times import DAY_US
from retrieval.behaviour.item_lists import ItemLists


def drawn(users: int, items: int, rows: int) -> Interactions:
    rng = np.random.default_rng(7)
    return Interactions(
        [f"u{number}" for number in range(users)],
        [f"i{number}" for number in range(items)],
        rng.integers(0, users, rows).astype(np.int32),
        rng.integers(0, items, rows).astype(np.int32),
        rng.permutation(rows).astype(np.int64) * DAY_US,
        np.ones(rows, np.float32),
    )


def dense(lists: ItemLists) -> NDArray[np.float32]:
    matrix = np.zeros((lists.items, lists.items), np.float32)
    for item in range(lists.items):
        others, scores = lists.of(item)
        matrix[item, others] = scores
        assert (np.diff(scores) <= 0).all()
    return matrix


def test_cells_are_one_or_add_up_with_age() -> None:
    rows = drawn(3, 4, 40)
    plain, aged = np.zeros((3, 4)), np.zeros((3, 4))
    for user, item, time_us in zip(rows.user, rows.item, rows.time_us, strict=True):
        plain[user, item] = 1
        aged[user, item] += np.exp(-(39 * DAY_US - time_us) / (5 * DAY_US))
    assert np.array_equal(users_by_items(rows).toarray(), plain)
    counted = users_by_items(rows, counts=True, decay_days=5.0).toarray()
    assert counted == pytest.approx(aged, rel=1e-5)
    assert popularity(rows, 5.0) == pytest.approx(aged.sum(axis=0), rel=1e-5)
    assert popularity(rows) == pytest.approx(np.bincount(rows.item, minlength=4))


@pytest.mark.parametrize("shape", [(40, 9), (6, 25)])
@pytest.mark.parametrize("keep_diagonal", [False, True])
def test_ease_is_the_closed_form(shape: tuple[int, int], keep_diagonal: bool) -> None:
    users, items = shape
    matrix: Any = users_by_items(drawn(users, items, 150))
    x = matrix.toarray().astype(np.float64)
    p = np.linalg.inv(x.T @ x + 3.0 * np.eye(items))
    if keep_diagonal:
        b = np.eye(items) - 3.0 * p
    else:
        b = -p / np.diag(p)
        np.fill_diagonal(b, 0)
    made = dense(ease_lists(matrix, 3.0, keep_diagonal=keep_diagonal))
    assert made == pytest.approx(np.maximum(b, 0), abs=2e-5)


@pytest.mark.parametrize("directed", [False, True])
def test_session_lists_count_pairs_by_distance(directed: bool) -> None:
    rows = drawn(4, 6, 50)
    options = SessionOptions(window=3, decay=2.0, beta=0.3, shrink=1.5, directed=directed)
    sums = np.zeros((6, 6))
    for user in range(4):
        mine = np.flatnonzero(rows.user == user)
        items = rows.item[mine[np.argsort(rows.time_us[mine])]]
        for at, before in enumerate(items):
            for apart in range(1, 4):
                if at + apart < len(items):
                    sums[before, items[at + apart]] += np.exp(-(apart - 1) / 2.0)
    if not directed:
        sums = sums + sums.T
    np.fill_diagonal(sums, 0)
    n = np.bincount(rows.item, minlength=6)
    expected = sums / (np.outer(n**0.7, n**0.3) + 1.5)
    assert dense(session_lists(rows, options)) == pytest.approx(expected, rel=1e-4)


def test_lists_keep_the_best_and_break_ties_by_number() -> None:
    row = np.array([1, 3, 3, -1, 0, 2, 3], np.float32)
    for lists in (top_n_lists([row[None]], 4), top_n_lists([row[None]], 2)):
        others, scores = lists.of(0)
        assert others.tolist() == [1, 2, 6, 5][: len(others)]
        assert scores.tolist() == [3, 3, 3, 2][: len(others)]
    assert len(top_n_lists([row[None]], 2).others) == 2


def test_lists_of_a_sparse_matrix_are_those_of_a_dense_one(rng: np.random.Generator) -> None:
    matrix = users_by_items(drawn(12, 12, 60), counts=True)
    square = (matrix.T @ matrix).tocsr()
    square.sort_indices()
    sparse, full = (
        top_n_lists_sparse([square[:5], square[5:]], 5),
        top_n_lists([square.toarray()], 5),
    )
    assert np.array_equal(dense(sparse), dense(full))
    assert np.array_equal(sparse.others, full.others)


def test_folding_in_a_trained_user_reproduces_their_scores() -> None:
    matrix = users_by_items(drawn(60, 40, 900))
    options = AlsOptions(factors=8, regularisation=2.0, alpha=3.0)
    factors = train_factors(matrix, options, threads=1)
    again = train_factors(matrix, options, threads=1)
    assert np.array_equal(factors.vectors, again.vectors)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(8, regularization=2.0, alpha=3.0, num_threads=1)
    model.item_factors, model.user_factors = factors.vectors, factors.vectors[:1]
    for user in range(5):
        expected = model.recalculate_user(user, matrix[user])
        items = matrix[user].indices.astype(np.int32)
        made = factors.fold_in(items, np.ones(len(items), np.float32))
        assert made == pytest.approx(expected.ravel(), abs=1e-4)


def test_factors_are_those_that_the_library_trains_with_the_same_options() -> None:
    matrix = users_by_items(drawn(60, 40, 900), counts=True)
    options = AlsOptions(factors=8, regularisation=2.0, alpha=3.0, iterations=4)
    plain = {"factors": 8, "regularization": 2.0, "alpha": 3.0, "iterations": 4, "random_state": 5}
    variants: list[dict[str, Any]] = [
        {},
        {"factors": 9},
        {"regularization": 4.0},
        {"alpha": 1.0},
        {"iterations": 3},
        {"random_state": 6},
    ]
    made = train_factors(matrix, options, seed=5, threads=1)
    assert (made.regularisation, made.alpha) == (2.0, 3.0)
    for changed in variants:
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(num_threads=1, **{**plain, **changed})
            model.fit(matrix, show_progress=False)
        # Every option matters on this data, so each one that got lost would be noticed.
        assert np.array_equal(made.vectors, model.item_factors) is (not changed)


def test_training_converges_to_the_closed_form_of_the_same_alpha() -> None:
    """Each half step is (X'X + X'(C - I)X + reg I)^-1 X'C 1, and C - I is 0 without interaction."""
    matrix: Any = users_by_items(drawn(60, 40, 900), counts=True)
    options = AlsOptions(factors=8, regularisation=2.0, alpha=3.0, iterations=60)
    made = train_factors(matrix, options, threads=1).vectors.astype(np.float64)
    cells = matrix.toarray().astype(np.float64)

    def solved(fixed: NDArray[np.float64], rows: NDArray[np.float64], alpha: float) -> Any:
        found = []
        for row in rows:
            weights = np.where(row > 0, alpha * row, 1.0)
            left = (fixed * weights[:, None]).T @ fixed + 2.0 * np.eye(fixed.shape[1])
            found.append(np.linalg.solve(left, fixed.T @ (alpha * row)))
        return np.array(found)

    def change(alpha: float) -> float:
        """How much another iteration changes the scores of items for users."""
        users = solved(made, cells, alpha)
        return float(np.abs(users @ (solved(users, cells.T, alpha) - made).T).max())

    assert 5 * change(3.0) < min(change(alpha) for alpha in (1.0, 2.0, 4.0))


def test_items_of_the_same_users_go_together() -> None:
    # Users 0 to 4 have items 0 and 1, users 5 to 9 items 2 and 3; all have item 4.
    cells = [(user, item) for user in range(10) for item in ((0, 1) if user < 5 else (2, 3))]
    cells += [(user, 4) for user in range(10)]
    users, items = np.array(cells, np.int32).T
    rows = drawn(10, 5, len(cells))._replace(user=users, item=items)
    lists = item_to_item_lists(users_by_items(rows))
    assert [int(lists.of(item)[0][0]) for item in range(4)] == [1, 0, 3, 2]
    assert all(item not in lists.of(item)[0] for item in range(5))
