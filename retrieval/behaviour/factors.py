"""Item factors, and the user vectors that are computed from them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import neg
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History, Recency
from retrieval.protocols.scored_rows import NO_ROWS, ScoredRows

# Longest factors that every search compares, and how many are compared at once afterwards.
_FIRST, _BLOCK = 2_048, 4_096
# Products of float32 numbers are rounded; no item may be left out because of that.
_ROUNDING = 1 + 1e-4


class OrderedFactors(NamedTuple):
    """Factors of the items that may be candidates, longest first.

    An inner product is at most the product of the lengths, so a search ends where no remaining item
    can be among the best (Teflioudi et al., 2015, "LEMP"). With 250,000 items it compared 2 to
    3 % of them; graphs and lists of FAISS took longer to find 96 % of the best 300.

    rows: (n,) int64. columns: (f, n) float32, the vectors in the same order, a column each: a
    product with it takes half as long. lengths: (n,) float32, descending.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.float32]
    lengths: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> OrderedFactors:
        """Returns the factors of items in order of row, sorted."""
        lengths = np.linalg.norm(vectors, axis=1)
        rows = np.argsort(-lengths, kind="stable")
        return cls(rows, np.ascontiguousarray(vectors.T).take(rows, axis=1), lengths[rows])

    def nearest_to_each(
        self, users: Sequence[NDArray[np.float32]], allowed: NDArray[np.bool_], most: int
    ) -> list[ScoredRows]:
        """Returns, for each user, the allowed items with the largest inner products.

        Reads the vectors once for all users.

        Args:
            users: (f,) each. allowed: (n,) bool, by row. most: Number of items.
        """
        if np.count_nonzero(allowed) <= most:
            # None can be left out, so only these are compared.
            at = np.flatnonzero(allowed.take(self.rows))
            columns, rows = self.columns.take(at, axis=1), self.rows[at]
            return [ScoredRows.best_of(rows, user @ columns, most) for user in users]
        searches = [_Search(user, most, len(self.rows)) for user in users]
        start, stop = 0, max(_FIRST, 4 * most)
        while start < (needed := max((one.needed for one in searches), default=0)):
            stop = min(stop, needed)
            columns, rows = self.columns[:, start:stop], self.rows[start:stop]
            for one in searches:
                if start < one.needed:
                    one.compare(columns, rows, allowed, self.lengths)
            start, stop = stop, stop + _BLOCK
        return [ScoredRows.best_of(one.rows, one.scores, most) for one in searches]


class _Search:
    """A search of `OrderedFactors`: the best items so far, and how many must be compared."""

    def __init__(self, user: NDArray[np.float32], most: int, count: int) -> None:
        self._user = user
        self._length = float(np.linalg.norm(user)) * _ROUNDING or 1.0
        self._most = most
        self._least = -np.inf
        self.rows, self.scores = NO_ROWS
        self.needed = count

    def compare(
        self,
        columns: NDArray[np.float32],
        rows: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        lengths: NDArray[np.float32],
    ) -> None:
        """Compares the next items with the user. lengths: Of all items, see `OrderedFactors`."""
        scores = self._user @ columns
        at = np.flatnonzero(scores >= self._least)
        if not len(at):
            return
        rows = rows.take(at)
        shown = allowed.take(rows)
        self.rows = np.concatenate((self.rows, rows[shown]))
        self.scores = np.concatenate((self.scores, scores.take(at)[shown]))
        extra = len(self.rows) - self._most
        if extra < 0 or not self._most:
            return
        self._least = float(np.partition(self.scores, extra)[extra])
        kept = self.scores >= self._least
        self.rows, self.scores = self.rows[kept], self.scores[kept]
        # No shorter item scores as much as the lowest of the best.
        self.needed = bisect_right(lengths, -self._least / self._length, key=neg)


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
        left.flat[:: len(left) + 1] += self.regularisation
        return np.linalg.solve(left, rows.T @ weights).astype(np.float32)

    def ordered(self) -> OrderedFactors:
        """Returns the factors of the items that may be candidates."""
        return self.own or OrderedFactors.of(self.vectors)


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
        return best_of_each([self], history, allowed, most)[0]

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


def best_of_each(
    generators: Sequence[FactorGenerator],
    history: History,
    allowed: NDArray[np.bool_],
    most: int,
) -> list[ScoredRows]:
    """Returns the best items of several generators of the same factors; see `Generator`."""
    users = [one.user_vector(history) for one in generators]
    known = [one for one in users if one is not None]
    if not known:
        return [NO_ROWS] * len(users)
    found = iter(generators[0].factors.ordered().nearest_to_each(known, allowed, most))
    return [NO_ROWS if one is None else next(found) for one in users]
