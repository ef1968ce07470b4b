"""Fits the weight of the dense leg of hybrid searches to clicks.

A clicked hit is compared with an unclicked one directly above or below it: people look at both
almost equally often. The bias that is left favours the upper one, and so the weight that served: a
gain is underestimated. (All hits skipped above a click would find any other weight better.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.evaluation.bootstrap import Interval, interval

# Share of the searches, the oldest, that the weight is chosen on; it is measured on the others.
_FIT_SHARE = 0.7


class ClickedSearch(NamedTuple):
    """The n hits that a search showed, in order.

    dense, lexical: (n,) scores with the whole weight on one leg. clicked: (n,) bool.
    """

    dense: NDArray[np.float64]
    lexical: NDArray[np.float64]
    clicked: NDArray[np.bool_]


class WeightProposal(NamedTuple):
    """A weight, and the gain in rightly ordered pairs, -1..1, on `searches` newest searches."""

    dense_weight: float
    gain: Interval
    searches: int


def propose_weight(searches: Sequence[ClickedSearch], served: float) -> WeightProposal | None:
    """Returns the best of the weights 0, 0.05 … 1; None if too few searches have a pair.

    Args:
        searches: Oldest first.
        served: The weight that ordered them, 0..1; of equally good ones, the nearest to it is best.
    """
    weights = np.append(np.linspace(0, 1, 21), served)
    rows = []
    for dense, lexical, clicked in searches:
        upper = np.flatnonzero(clicked[:-1] != clicked[1:])
        if len(upper):
            scores = np.outer(weights, dense) + np.outer(1 - weights, lexical)
            lead = np.round(scores[:, upper] - scores[:, upper + 1], 6)
            agrees = np.sign(lead) * np.where(clicked[upper], 1, -1)
            rows.append((agrees.mean(axis=1) + 1) / 2)
    older, newest = rows[: int(_FIT_SHARE * len(rows))], rows[int(_FIT_SHARE * len(rows)) :]
    if not older:
        return None
    best = np.lexsort((np.abs(weights - served), -np.mean(older, axis=0).round(9)))[0]
    gain = interval(np.array([row[best] - row[-1] for row in newest]))
    return WeightProposal(float(weights[best]), gain, len(newest))
