"""Item factors, and the user vectors that are computed from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History, Recency
from retrieval.protocols.scored_rows import NO_ROWS, ScoredRows

# Longest factors that every search compares.
_FIRST = 2_048
# Products of float32 numbers are rounded; no item may be left out because of that.
_ROUNDING = 1 + 1e-4


class OrderedFactors(NamedTuple):
    """Factors of the items that may be candidates, longest first.

    An inner product is at most the product of the lengths, so a search ends where no remaining item
    can be among the best (Teflioudi et al., 2015, "LEMP"). With 250,000 items it compared 2 to
    3 % of them; graphs and lists of FAISS took longer to find 96 % of the best 300.

    rows: (n,) int64. vectors: (n, f) float32, in the same order. lengths: (n,) float32, descending.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    lengths: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> OrderedFactors:
        """Returns the factors of items in order of row, sorted."""
        lengths = np.linalg.norm(vectors, axis=1)
        rows = np.argsort(-lengths, kind="stable")
        return cls(rows, vectors[rows], lengths[rows])

    def nearest(
        self, user: NDArray[np.float32], allowed: NDArray[np.bool_], most: int
    ) -> ScoredRows:
        """Returns the allowed items with the largest inner products.

        Args:
            user: (f,). allowed: (n,) bool, by row. most: Number of items.
        """
        count, length = len(self.rows), float(np.linalg.norm(user))
        rows, scores = NO_ROWS
        least, start, stop = -np.inf, 0, min(max(_FIRST, 4 * most), count)
        while start < stop:
            block = self.vectors[start:stop] @ user
            kept = allowed[self.rows[start:stop]] & (block >= least)
            rows = np.concatenate((rows, self.rows[start:stop][kept]))
            scores = np.concatenate((scores, block[kept]))
            needed = count
            if len(rows) >= most > 0:
                extra = len(rows) - most
                least = float(np.partition(scores, extra)[extra])
                rows, scores = rows[scores >= least], scores[scores >= least]
                # No shorter item scores as much as the lowest of the best.
                shortest = least / (length * _ROUNDING or 1.0)
                needed = int(np.searchsorted(-self.lengths, -shortest, side="right"))
            start, stop = stop, min(needed, 4 * stop)
        order = np.argsort(rows)
        return ScoredRows(rows[order], scores[order]).best(most)


class ItemFactors(NamedTuple):
    """Item factors of an implicit ALS model.

    vectors: (items, f) float32. gram: (f, f) float64, vectors.T @ vectors. regularisation, alpha:
    The parameters of the training. own: The items that may be candidates; None: all of `vectors`.
    """

    vectors: NDArray[np.float32]
    gram: NDArray[np.float64]
    regularisation: float
    alpha: float
    own: OrderedFactors | None = None

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

    def nearest(
        self, user: NDArray[np.float32], allowed: NDArray[np.bool_], most: int
    ) -> ScoredRows:
        """Returns the allowed items with the largest inner products; see `OrderedFactors`."""
        return (self.own or OrderedFactors.of(self.vectors)).nearest(user, allowed, most)


class FactorGenerator(NamedTuple):
    """Scores items by the inner product of their factors with the user vector.

    recency: Decay of older interactions. newest: Number of interactions that the user vector is
    computed from; a low number follows the current intent.
    """

    factors: ItemFactors
    recency: Recency = Recency()
    newest: int = 128

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items, with scores of any sign; none for an empty history."""
        user = self.user_vector(history)
        return NO_ROWS if user is None else self.factors.nearest(user, allowed, most)

    def user_vector(self, history: History) -> NDArray[np.float32] | None:
        """Returns the vector of a user: (f,) float32; None for an empty history."""
        newest, key = history.items[: self.newest], (self.recency, self.newest)
        if not len(newest):
            return None
        if history.memo is not None and (known := history.memo.get(key)) is not None:
            return known
        factors = self.recency.factors(history.time_us[: self.newest])
        items, index = np.unique(newest, return_inverse=True)
        confidence = np.bincount(index, factors * history.weight[: self.newest])
        user = self.factors.fold_in(items, confidence.astype(np.float32))
        if history.memo is not None:
            history.memo[key] = user
        return user
