"""Do the canary's latencies lie higher among those of the current snapshot than its own do?"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist

from retrieval.rollout.evidence.e_process import EProcess

# Bins end at these quantiles of the current snapshot's recent latencies.
BIN_ENDS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
# How far the canary's ranks may have moved, in standard deviations of normal scores.
_SHIFTS = (0.15, 0.3, 0.6, 1.2, 2.4)


class RankTest:
    """Tests whether values of the canary are as small as those of the current snapshot.

    A value is told by the bin it falls into; bins may be set by anything that went before. Against
    shift d it bets with the chance q(b) that a value in bin b is the canary's if normal scores of
    its values are higher by d: q grows with b. Given the past, the mean of the factor is
    1 + E[q | canary] - E[q | current], so at most 1 where the canary's values are stochastically no
    greater, whatever they are distributed like: exact, as `ShareTest` is, of which this is the form
    that hears what bins below the top say as well.

    Source: a sequential rank test by likelihood ratio with normal scores, after Savage and
    Sethuraman, "Stopping time of a rank-order sequential probability ratio test", 1966.

    Args:
        share: Chance of the canary, more than 0 and less than 1.
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

    def event(self, canary: bool, fell_into: int) -> None:
        """Takes in a value.

        Args:
            fell_into: Number of its bin: how many of the quantiles at `BIN_ENDS` are less.
        """
        self._capital.bet(self._gains[canary][fell_into])

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence."""
        return self._capital.log


def _mass(low: float, high: float) -> float:
    """Returns the chance that a normal variable lies between two values."""
    # From the nearer tail: far out the difference of two numbers near 1 would be 0.
    if low > 0:
        low, high = -high, -low
    return (math.erfc(-high / math.sqrt(2)) - math.erfc(-low / math.sqrt(2))) / 2
