"""Tests whether the mean of measured values is at least a promised value."""

from __future__ import annotations

import math

from retrieval.rollout.evidence.e_process import EProcess

_BETS = 6
# Fraction of the largest bet that cannot lose everything, and a floor of 1 - least for that bet.
_GREATEST = 0.9
_LEAST_ROOM = 0.02


class MeanTest:
    """Tests whether values in 0..1 have a mean of at least `least`, given the values before them.

    The test bets that they fall short: it multiplies the capital by 1 + b (least - value) for some
    b in (0, 1 / (1 - least)). Under the hypothesis the mean of this factor is at most 1, whatever
    the distribution of the values. The bets b are spread over powers of two.

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
    JRSS B 2023.

    Args:
        least: Promised mean, more than 0 and at most 1.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        greatest = _GREATEST / max(1 - least, _LEAST_ROOM)
        self._bets = [greatest / 2**power for power in range(_BETS)]
        self._capital = EProcess(_BETS)

    def add(self, value: float) -> None:
        """Adds a value, 0..1."""
        short = self._least - value
        self._capital.bet([math.log1p(bet * short) for bet in self._bets])

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence."""
        return self._capital.log
