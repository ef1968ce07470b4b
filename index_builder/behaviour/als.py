"""User and item factors by alternating least squares, computed by `implicit`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from retrieval.behaviour.factors import ItemFactors


class AlsOptions(NamedTuple):
    """Options of ALS. Strong regularisation pays off: the library's default of 0.01 is weak."""

    factors: int = 64
    regularisation: float = 20.0
    alpha: float = 2.0
    iterations: int = 15


def train_factors(
    matrix: Any,
    options: AlsOptions = AlsOptions(),  # noqa: B008  tuples are immutable
    seed: int = 0,
    threads: int = 0,
) -> ItemFactors:
    """Trains item factors. With one thread, equal inputs give bit-identical outputs.

    Args:
        matrix: (users, items) float32 CSR of confidences.
        threads: Number of threads; 0 means one per core.
    """
    # `implicit` warns that threads of the linear algebra library inside its own threads slow it
    # down.
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
