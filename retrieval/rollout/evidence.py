"""Evidence against a canary: one test of shares and means, valid however often it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

# Half of the capital is bet from the start, the other half later in ever smaller parts. A canary
# that turns bad after a good day is therefore detected within minutes instead of a day later.
_BET_AT_ONCE = 0.5
_ROUNDS_BETWEEN = 500
_MOST_LOG = 700.0
# Alternative log odds ratios, from a tenth more to hundreds of times as many events. Ratios between
# two of them get nine tenths of the evidence that a test made for them would have.
_STRENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
# A mean of 1 is tested as this, since its odds must be finite.
_MOST_SHARE = 0.999
Side = Literal["greater", "less", "either"]


class ShareTest:
    """Tests a probability: whether events come from the canary as often as requests do.

    Requests are assigned at random. So if the canary is as good as the current snapshot, an event
    (a failed request, a clicked list) belongs to it with probability `share`, however load, bursts
    and users change the number of events. The evidence is a likelihood ratio, mixed over
    alternatives and over times at which the share may have changed. If the probability is `share`,
    the evidence ever reaches 1/a with a probability of at most a (Ville's inequality). For
    "greater" this also holds if the probability is smaller, for "less" if it is greater. It does
    not hold if one draw decides several events: count one event per draw.

    Values between 0 and 1 are tested by their mean in the same way: by convexity, a value's factor
    is at most the mean of the factors of 0 and 1.

    Source: Robbins, "Statistical methods related to the law of the iterated logarithm", 1970; for
    values: Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform Chernoff bounds via nonnegative
    supermartingales", 2020; for changes: Shin, Ramdas, Rinaldo, "E-detectors", 2022. The n-th
    start has weight 1/(n(n+1)); the weights sum to 1.

    Args:
        share: Probability that a request is assigned to the canary, or the promised mean; more than
            0. Above 0.999 it counts as 0.999.
        side: Which deviation counts against the canary: a greater or smaller share, or either.
    """

    def __init__(self, share: float, side: Side) -> None:
        share = min(share, _MOST_SHARE)
        signs = {"greater": (1,), "less": (-1,), "either": (1, -1)}[side]
        odds = [share / (1 - share) * math.exp(sign * one) for sign in signs for one in _STRENGTHS]
        # Of the factors of a value of 0 and of 1.
        self._gains = [
            (-math.log((1 + one) * (1 - share)), math.log(one / (1 + one) / share)) for one in odds
        ]
        self._logs = [math.log(_BET_AT_ONCE / len(odds))] * len(odds)
        self._kept = 1 - _BET_AT_ONCE
        self._count = 0

    def add(self, value: float) -> None:
        """Adds an event: 1 if it is the canary's, else 0; or a value, 0..1."""
        self._logs = [
            log + (1 - value) * gains[0] + value * gains[1]
            for log, gains in zip(self._logs, self._gains, strict=True)
        ]
        self._count += 1
        if self._count % _ROUNDS_BETWEEN == 0:
            self._start_again(self._count // _ROUNDS_BETWEEN)

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence."""
        return _log_of_sum([math.log(self._kept), *self._logs])

    def _start_again(self, time: int) -> None:
        keep = (1 - _BET_AT_ONCE) / (time + 1)
        part = math.log((self._kept - keep) / len(self._logs))
        self._kept = keep
        self._logs = [_log_of_sum([log, part]) for log in self._logs]


def evidence_factor(log: float) -> float:
    """Returns evidence as a factor; values beyond the range of a float are capped."""
    return math.exp(min(log, _MOST_LOG))


def _log_of_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum([math.exp(log - top) for log in logs]))
