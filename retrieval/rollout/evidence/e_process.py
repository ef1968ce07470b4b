"""Capital bet against a hypothesis: where it holds, no way of betting makes much of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Half is bet from the start. The other half is laid on later, in ever smaller parts: a canary that
# turns bad after a good day has its evidence within minutes, not after another day.
_BET_AT_ONCE = 0.5
_ROUNDS_BETWEEN = 500
_MOST_LOG = 700.0


class EProcess:
    """An e-process: capital, 1 at first, spread over several bets.

    If each bet multiplies what lies on it by a factor whose mean is at most 1 under the hypothesis,
    given all that went before, so does the whole, and it ever reaches 1/a with a chance of a at
    most, however often one looks (Ville's inequality).

    Source: Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid
    inference", Statistical Science 2023; bets that start later: Shin, Ramdas, Rinaldo,
    "E-detectors", 2022, here with the weights 1/(n(n+1)) of the starts, which sum to 1.

    Args:
        bets: How many, >= 1.
    """

    def __init__(self, bets: int) -> None:
        self._logs = [math.log(_BET_AT_ONCE / bets)] * bets
        self._kept = 1 - _BET_AT_ONCE
        self._rounds = 0

    def bet(self, gains: Sequence[float]) -> None:
        """Plays a round.

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
    """Returns evidence as a factor; what no number can hold is cut."""
    return math.exp(min(log, _MOST_LOG))


def _log_of_sum(one: float, other: float) -> float:
    top = max(one, other)
    return top + math.log1p(math.exp(min(one, other) - top))
