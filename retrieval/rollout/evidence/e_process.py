"""E-process: capital that bets against a hypothesis and stays small if the hypothesis holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Half of the capital is bet from the start, the other half later in ever smaller parts. So a canary
# that turns bad after a good day is detected within minutes, not after another day.
_BET_AT_ONCE = 0.5
_ROUNDS_BETWEEN = 500
_MOST_LOG = 700.0


class EProcess:
    """An e-process: a capital, initially 1, spread over several bets.

    Each bet multiplies its part of the capital by a factor whose mean, given the past, is at most 1
    under the hypothesis. Then the same holds for the whole capital, and the probability that it
    ever reaches 1/a is at most a, however often it is checked (Ville's inequality).

    Source: Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid
    inference", Statistical Science 2023. For bets that start later: Shin, Ramdas, Rinaldo,
    "E-detectors", 2022. Here the n-th start has weight 1/(n(n+1)); the weights sum to 1.

    Args:
        bets: Number of bets, >= 1.
    """

    def __init__(self, bets: int) -> None:
        self._logs = [math.log(_BET_AT_ONCE / bets)] * bets
        self._kept = 1 - _BET_AT_ONCE
        self._rounds = 0

    def bet(self, gains: Sequence[float]) -> None:
        """Plays one round.

        Args:
            gains: Natural logarithm of the factor of each bet.
        """
        self._logs = [log + gain for log, gain in zip(self._logs, gains, strict=True)]
        self._rounds += 1
        if self._rounds % _ROUNDS_BETWEEN == 0:
            self._lay_on(self._rounds // _ROUNDS_BETWEEN)

    @property
    def log(self) -> float:
        """Natural logarithm of the capital."""
        top = max(0.0, *self._logs)
        whole = self._kept * math.exp(-top)
        return top + math.log(whole + sum([math.exp(log - top) for log in self._logs]))

    def _lay_on(self, time: int) -> None:
        keep = (1 - _BET_AT_ONCE) / (time + 1)
        part = (self._kept - keep) / len(self._logs)
        self._kept = keep
        self._logs = [_log_of_sum(log, math.log(part)) for log in self._logs]


def evidence_factor(log: float) -> float:
    """Returns evidence as a factor; values beyond the range of a float are capped."""
    return math.exp(min(log, _MOST_LOG))


def _log_of_sum(one: float, other: float) -> float:
    top = max(one, other)
    return top + math.log1p(math.exp(min(one, other) - top))
