"""Factors of users and items by alternating least squares; `implicit` does the work."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from retrieval.behaviour.factors import ItemFactors


class AlsOptions(NamedTuple):
    """Options of ALS. A large regularisation is what pays (0.01 is the library's, and weak)."""

    factors: int = 64
    regularisation: float = 20.0
    alpha: float = 2.0
    iterations: int = 15


def train_factors(
    matrix: Any,
    options: AlsOptions = AlsOptions(),  # noqa: B008  a tuple cannot change
    seed: int = 0,
    threads: int = 0,
) -> ItemFactors:
    """Trains item factors; the same to the bit for the same input with one thread.

    Args:
        matrix: (users, items) float32 CSR of confidences.
        threads: 0: one for each core.
    """
    # Threads of the linear algebra under threads of `implicit` are slower, as it says itself.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=options.factors,
            regularization=options.regularisation,
            alpha=options.alpha,
            iterations=options.iterations,
            num_threads=threads,
            random_state=seed,
        )
        model.fit(matrix, show_progress=False)
    vectors = np.ascontiguousarray(model.item_factors, np.float32)
    wide = vectors.astype(np.float64)
    return ItemFactors(vectors, wide.T @ wide, options.regularisation, options.alpha)
