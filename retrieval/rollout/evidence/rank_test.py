"""Tests whether latencies of the canary rank higher than those of the current snapshot."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist

from retrieval.rollout.evidence.e_process import EProcess

# Bins end at these quantiles of the current snapshot's recent latencies.
BIN_ENDS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
# Alternative shifts of the canary's ranks, in standard deviations of normal scores.
_SHIFTS = (0.15, 0.3, 0.6, 1.2, 2.4)


class RankTest:
    """Tests whether values of the canary are as small as those of the current snapshot.

    A value is represented by its bin; the bins may depend on anything in the past. For each shift
    d, let q(b) be the probability that a value in bin b comes from the canary, assuming that the
    canary's normal scores are higher by d; q grows with b. The bet on d uses q. Given the past, the
    mean of the factor by which a bet multiplies its capital is 1 + E[q | canary] - E[q | current].
    That is at most 1 if the canary's values are stochastically no greater, whatever their
    distribution. So the test is exact like `ShareTest`, and it also uses the information in the
    bins below the top one.

    Source: a sequential rank test by likelihood ratio with normal scores, after Savage and
    Sethuraman, "Stopping time of a rank-order sequential probability ratio test", 1966.

    Args:
        share: Probability that a request is assigned to the canary, more than 0 and less than 1.
    """

    def __init__(self, share: float) -> None:
        normal = NormalDist()
        edges = [-math.inf, *(normal.inv_cdf(one) for one in BIN_ENDS), math.inf]
        self._gains: tuple[list[list[float]], list[list[float]]] = ([], [])
        for low, high in pairwise(edges):
            chances = []
            for shift in _SHIFTS:
                ratio = _mass(low - shift, high - shift) / _mass(low, high)
                chances.append(share * ratio / (share * ratio + 1 - share))
            self._gains[0].append([math.log((1 - one) / (1 - share)) for one in chances])
            self._gains[1].append([math.log(one / share) for one in chances])
        self._capital = EProcess(len(_SHIFTS))

    def event(self, canary: bool, bin_number: int) -> None:
        """Adds a value.

        Args:
            canary: Whether the value belongs to the canary.
            bin_number: Number of the value's bin: how many of the quantiles at `BIN_ENDS` are less
                than the value.
        """
        self._capital.bet(self._gains[canary][bin_number])

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence."""
        return self._capital.log


def _mass(low: float, high: float) -> float:
    """Returns the probability that a standard normal variable lies between two values."""
    # Computed from the nearer tail: far out, the difference of two numbers near 1 would be 0.
    if low > 0:
        low, high = -high, -low
    return (math.erfc(-high / math.sqrt(2)) - math.erfc(-low / math.sqrt(2))) / 2
