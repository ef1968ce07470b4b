"""Factors predicted from content agree with the closed form and recover planted ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.behaviour.content_factors import (
    REGULARISATIONS,
    choose_regularisation,
    explained_shares,
    predict_factors,
)

Matrix = NDArray[np.float32]


def planted(
    rng: np.random.Generator, items: int, noise: float, dim: int = 12, size: int = 5
) -> tuple[Matrix, Matrix]:
    """Returns content, and factors that are an affine map of it with noise."""
    content = rng.normal(size=(items, dim)).astype(np.float32)
    truth = 3 + content @ rng.normal(size=(dim, size)) + noise * rng.normal(size=(items, size))
    return content, truth.astype(np.float32)


def every_fourth(items: int) -> NDArray[np.int64]:
    """Returns counts that are 0 for every fourth item."""
    return (np.arange(items) % 4).astype(np.int64)


@pytest.mark.parametrize("regularisation", [0.5, 40.0])
def test_predictions_are_the_closed_form_on_centred_content(
    rng: np.random.Generator, regularisation: float
) -> None:
    content, factors = planted(rng, 60, noise=1.0)
    counts = every_fourth(60)
    x, y = content[counts > 0].astype(float), factors[counts > 0].astype(float)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    # Ridge regression as least squares with an extra row per regularised coefficient.
    rows = np.vstack([x - x_mean, np.sqrt(regularisation) * np.eye(12)])
    weights = np.linalg.lstsq(rows, np.vstack([y - y_mean, np.zeros((12, 5))]))[0]
    expected = y_mean + (content[counts == 0] - x_mean) @ weights
    made = predict_factors(content, factors, counts, regularisation)
    assert made.dtype == np.float32
    assert made[counts == 0] == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(made[counts > 0], factors[counts > 0])


def test_planted_factors_are_recovered_and_the_input_is_unchanged(rng: np.random.Generator) -> None:
    content, truth = planted(rng, 2_000, noise=0.0)
    counts = every_fourth(2_000)
    given = np.where(counts[:, None] > 0, truth, np.float32(np.nan))
    before = given.copy()
    made = predict_factors(content, given, counts)
    assert made == pytest.approx(truth, abs=0.02)
    assert np.array_equal(given, before, equal_nan=True)


def test_regularisation_follows_the_noise(rng: np.random.Generator) -> None:
    clean, noise = planted(rng, 400, noise=0.0), planted(rng, 400, noise=0.0)[0]
    counts = every_fourth(400)
    assert choose_regularisation(*clean, counts) == min(REGULARISATIONS)
    # Factors unrelated to content: the mean is best, and the largest regularisation comes nearest.
    drawn = rng.normal(size=(400, 5)).astype(np.float32)
    assert choose_regularisation(noise, drawn, counts) == max(REGULARISATIONS)
    chosen = predict_factors(noise, drawn, counts, max(REGULARISATIONS))
    assert np.array_equal(predict_factors(noise, drawn, counts), chosen)


def test_explained_shares_agree_with_brute_force(rng: np.random.Generator) -> None:
    content, factors = planted(rng, 40, noise=6.0, dim=30)
    counts = every_fourth(40)
    learned = np.flatnonzero(counts > 0)
    errors, spread = dict.fromkeys(REGULARISATIONS, 0.0), 0.0
    for fold in range(5):
        rows = learned[fold::5]
        held = counts.copy()
        held[rows] = 0
        mean = factors[held > 0].mean(axis=0)
        spread += float(np.square((factors[rows] - mean) @ factors[learned].T).sum())
        for regularisation in REGULARISATIONS:
            off = predict_factors(content, factors, held, regularisation) - factors
            errors[regularisation] += float(np.square(off[rows] @ factors[learned].T).sum())
    expected = {key: 1 - error / spread for key, error in errors.items()}
    assert explained_shares(content, factors, counts) == pytest.approx(expected, rel=1e-4)
    best = max(expected, key=expected.__getitem__)
    assert choose_regularisation(content, factors, counts) == best
    assert REGULARISATIONS[0] < best < REGULARISATIONS[-1]


def test_user_and_item_factors_have_equal_grams_at_convergence(rng: np.random.Generator) -> None:
    # An assumption of `explained_shares`, here for the weighted loss of implicit ALS.
    rated = (rng.random((24, 16)) < 0.3).astype(float)
    weights = 1 + rated
    users, items = rng.normal(size=(24, 3)), rng.normal(size=(16, 3))
    for _ in range(150):
        for ours, theirs, cells, weight in (
            (users, items, rated, weights),
            (items, users, rated.T, weights.T),
        ):
            for row in range(len(ours)):
                left = (theirs.T * weight[row]) @ theirs + np.eye(3)
                ours[row] = np.linalg.solve(left, theirs.T @ (weight[row] * cells[row]))
    assert users.T @ users == pytest.approx(items.T @ items, rel=1e-3, abs=1e-3)


def test_few_items_predict_near_their_mean_and_none_predict_zero(rng: np.random.Generator) -> None:
    content, factors = planted(rng, 8, noise=0.0)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    counts = np.array([1, 0, 2, 0, 1, 0, 0, 0])
    mean = factors[counts > 0].mean(axis=0)
    made = predict_factors(content, factors, counts)[counts == 0]
    assert np.abs(made - mean).max() < 0.05 * np.abs(factors).max()
    one = np.array([0, 1, 0, 0, 0, 0, 0, 0])
    assert predict_factors(content, factors, one) == pytest.approx(np.tile(factors[1], (8, 1)))
    assert not predict_factors(content, factors, np.zeros(8, np.int64)).any()


def test_items_without_content_are_neither_learned_from_nor_predicted(
    rng: np.random.Generator,
) -> None:
    content, factors = planted(rng, 50, noise=1.0)
    counts = every_fourth(50)
    without = predict_factors(content[2:], factors[2:], counts[2:])
    content[:2] = 0
    made = predict_factors(content, factors, counts)
    assert not made[0].any()
    assert np.array_equal(made[1], factors[1])
    assert np.array_equal(made[2:], without)


def test_mismatched_arguments_are_refused(rng: np.random.Generator) -> None:
    content, factors = planted(rng, 8, noise=0.0)
    counts = every_fourth(8)
    with pytest.raises(ValueError, match="one of each"):
        predict_factors(content[1:], factors, counts)
    with pytest.raises(ValueError, match="above 0"):
        predict_factors(content, factors, counts, 0.0)
