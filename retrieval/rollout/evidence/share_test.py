"""Tests whether the canary has its share of the events."""

from __future__ import annotations

import math
from typing import Literal

from retrieval.rollout.evidence.e_process import EProcess

Side = Literal["greater", "less", "either"]

# Alternative log odds ratios, from a tenth more to hundreds of times as many events. Ratios between
# two of them get nine tenths of the evidence that a test made for them would have.
_STRENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
# Weight of the prior share in the two-sided test, in events.
_PRIOR_EVENTS = 100.0


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
