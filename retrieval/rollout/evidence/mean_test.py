"""Is the mean of what is measured at least what was promised?"""

from __future__ import annotations

import math

from retrieval.rollout.evidence.e_process import EProcess

_BETS = 6
# Of the greatest bet that cannot lose everything; and that bet, where nearly 1 is promised.
_GREATEST = 0.9
_LEAST_ROOM = 0.02


class MeanTest:
    """Tests whether values in 0..1 have a mean of at least `least`, given those before them.

    It bets that they fall short: the capital is multiplied by 1 + b (least - value) for some b in
    (0, 1 / (1 - least)), whose mean is at most 1 under the hypothesis, whatever the values are
    distributed like. Bets b are spread over powers of two.

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
    JRSS B 2023.

    Args:
        least: Mean that there should be, more than 0 and at most 1.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        greatest = _GREATEST / max(1 - least, _LEAST_ROOM)
        self._bets = [greatest / 2**power for power in range(_BETS)]
        self._capital = EProcess(_BETS)

    def add(self, value: float) -> None:
        """Takes in a value, 0..1."""
        short = self._least - value
        self._capital.bet([math.log1p(bet * short) for bet in self._bets])

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence."""
        return self._capital.log
