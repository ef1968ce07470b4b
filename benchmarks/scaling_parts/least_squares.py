"""Least squares with coefficients of at least 0, judged by rows that were left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAX_TERMS = 8


class LinearFit(NamedTuple):
    """Coefficients of a sum of terms.

    coefficients: At least 0, one per term. rows: Number of rows that were fitted. residual: Root
        mean square of the relative errors of these rows. left_out: The same of each row predicted
        from the others; None where nothing is left to fit.
    """

    coefficients: tuple[float, ...]
    rows: int
    residual: float
    left_out: float | None

    def predict(self, terms: Sequence[float]) -> float:
        """Returns the sum for these values of the terms."""
        return float(np.dot(self.coefficients, terms))


def fit_least_squares(terms: Sequence[Sequence[float]], values: Sequence[float]) -> LinearFit:
    """Fits values that are above 0; relative errors count, so that small values do, too.

    Coefficients below 0 are not allowed, so that a larger size never costs less.

    Args:
        terms: (rows, terms) values of the terms, at most 8 of them.
        values: One per row.
    Raises:
        ValueError: There are fewer rows than terms, too many terms, or a value of 0 or less.
    """
    matrix, wanted = np.array(terms, np.float64), np.array(values, np.float64)
    rows, columns = matrix.shape
    if rows < columns or columns > _MAX_TERMS or wanted.min() <= 0:
        raise ValueError(
            f"{rows} rows, {columns} terms and a least value of {wanted.min():g} cannot be fitted: "
            f"as many rows as terms, at most {_MAX_TERMS} terms and values above 0 are needed"
        )
    scaled = matrix / wanted[:, None]
    coefficients = _coefficients(scaled)
    errors = scaled @ coefficients - 1
    left_out = None
    if rows > columns:
        kept = (np.delete(scaled, row, axis=0) for row in range(rows))
        predicted = [scaled[row] @ _coefficients(other) for row, other in enumerate(kept)]
        left_out = _root_mean_square(np.array(predicted) - 1)
    return LinearFit(tuple(coefficients.tolist()), rows, _root_mean_square(errors), left_out)


def _coefficients(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the coefficients of at least 0 whose sums are nearest to 1.

    The best of all subsets of the terms is it (Lawson and Hanson, 1974): the coefficients of the
    terms that are not 0 are those of an ordinary fit of these terms.
    """
    rows, columns = matrix.shape
    best, least = np.zeros(columns), float(rows)
    for size in range(1, columns + 1):
        for subset in map(list, itertools.combinations(range(columns), size)):
            found, *_ = np.linalg.lstsq(matrix[:, subset], np.ones(rows), rcond=None)
            error = float(np.square(matrix[:, subset] @ found - 1).sum())
            if found.min() >= 0 and error < least:
                best, least = np.zeros(columns), error
                best[subset] = found
    return best


def _root_mean_square(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))
