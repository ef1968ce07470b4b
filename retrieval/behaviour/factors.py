"""Item factors, and the user vectors that are computed from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History, Recency


class ItemFactors(NamedTuple):
    """Item factors of an implicit ALS model.

    vectors: (items, f) float32. gram: (f, f) float64, vectors.T @ vectors. regularisation, alpha:
    The parameters of the training.
    """

    vectors: NDArray[np.float32]
    gram: NDArray[np.float64]
    regularisation: float
    alpha: float

    def fold_in(
        self, items: NDArray[np.int32], confidence: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Returns the vector of a user: (f,) float32.

            (Y'Y + sum (c - 1) y y' + reg I)^-1 sum c y,   c = alpha x confidence
        This is the row that ALS itself would compute (Hu, Koren and Volinsky, 2008, equation 4).

        Args:
            items: (n,) items that the user had, each once. confidence: (n,) > 0; 1 if the user had
                the item once.
        """
        rows = self.vectors[items].astype(np.float64)
        weights = self.alpha * confidence.astype(np.float64)
        left = self.gram + (rows * (weights - 1)[:, None]).T @ rows
        left[np.diag_indices_from(left)] += self.regularisation
        return np.linalg.solve(left, rows.T @ weights).astype(np.float32)


class FactorGenerator(NamedTuple):
    """Scores items by the inner product of their factors with the user vector.

    recency: Decay of older interactions. newest: Number of interactions that the user vector is
    computed from; a low number follows the current intent.
    """

    factors: ItemFactors
    recency: Recency = Recency()
    newest: int = 128

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32; 0 everywhere for an empty history."""
        newest = history.items[: self.newest]
        if not len(newest):
            return np.zeros(len(self.factors.vectors), np.float32)
        factors = self.recency.factors(history.time_us[: self.newest])
        items, index = np.unique(newest, return_inverse=True)
        confidence = np.bincount(index, factors * history.weight[: self.newest])
        user = self.factors.fold_in(items, confidence.astype(np.float32))
        scores: NDArray[np.float32] = self.factors.vectors @ user
        return scores
