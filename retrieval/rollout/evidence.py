"""Evidence against a canary: e-processes that bet against its mean, its share and its ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Literal

# Half of the capital is bet from the start, the other half later in ever smaller parts. A canary
# that turns bad after a good day is therefore detected within minutes instead of a day later.
_BET_AT_ONCE = 0.5
_ROUNDS_BETWEEN = 500
_MOST_LOG = 700.0
# Bets of `MeanTest`; the fraction of the largest that cannot lose everything, and a floor of
# 1 - least for it.
_BETS = 6
_GREATEST = 0.9
_LEAST_ROOM = 0.02
# Alternative log odds ratios of `ShareTest`, from a tenth more to hundreds of times as many events.
# Ratios between two of them get nine tenths of the evidence that a test made for them would have.
_STRENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
# Weight of the prior share in the two-sided `ShareTest`, in events.
_PRIOR_EVENTS = 100.0
# Bins of `RankTest` end at these quantiles of the recent latencies of the current snapshot.
BIN_ENDS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
# Alternative shifts of the canary's ranks in `RankTest`, in standard deviations of normal scores.
_SHIFTS = (0.15, 0.3, 0.6, 1.2, 2.4)
Side = Literal["greater", "less", "either"]


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


class ShareTest:
    """Tests whether events come from the canary with the probability of the traffic split.

    Requests are assigned at random. So if the canary is as good as the current snapshot, an event
    (a failed request, a clicked list) belongs to it with probability `share`, however load, bursts
    and users change the number of events. That makes the evidence exact: the probability that it
    ever reaches 1/a is at most a. For "greater" this also holds if the probability is smaller, for
    "less" if it is greater. It does not hold if one draw decides several events: count one event
    per draw.

    Source: "either": the beta-binomial mixture of Lindon and Malek, "Anytime-Valid Inference for
    Multinomial Count Data", NeurIPS 2022; else a likelihood ratio mixed over a few alternatives,
    Robbins, "Statistical methods related to the law of the iterated logarithm", 1970.

    Args:
        share: Probability that a request is assigned to the canary, more than 0 and less than 1.
        side: Which deviation counts against the canary: a greater or smaller share, or either.
    """

    def __init__(self, share: float, side: Side) -> None:
        self.canary = 0
        self.current = 0
        self._share = share
        sign = -1.0 if side == "less" else 1.0
        odds = share / (1 - share)
        chances = [
            odds * math.exp(sign * one) / (1 + odds * math.exp(sign * one)) for one in _STRENGTHS
        ]
        self._canary_gains = [math.log(one / share) for one in chances]
        self._current_gains = [math.log((1 - one) / (1 - share)) for one in chances]
        self._capital = None if side == "either" else EProcess(len(chances))

    def event(self, canary: bool) -> None:
        """Counts an event of the canary or of the current snapshot."""
        if canary:
            self.canary += 1
        else:
            self.current += 1
        if self._capital is not None:
            self._capital.bet(self._canary_gains if canary else self._current_gains)

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence."""
        if self._capital is not None:
            return self._capital.log
        prior_canary = _PRIOR_EVENTS * self._share
        prior_current = _PRIOR_EVENTS - prior_canary
        return (
            _log_beta(prior_canary + self.canary, prior_current + self.current)
            - _log_beta(prior_canary, prior_current)
            - self.canary * math.log(self._share)
            - self.current * math.log1p(-self._share)
        )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


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
    # Computed from the nearer tail; far from the centre, the difference of two numbers near 1 would
    # be 0.
    if low > 0:
        low, high = -high, -low
    return (math.erfc(-high / math.sqrt(2)) - math.erfc(-low / math.sqrt(2))) / 2
