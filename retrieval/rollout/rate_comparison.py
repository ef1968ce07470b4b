"""Compares the rates of clicks or conversions of two arms: better, worse, or not decided yet."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nearline.v1 import admin_pb2
from retrieval.rollout.distinct_sampler import DistinctSampler
from retrieval.rollout.evidence import ShareTest, evidence_factor

# Evidence for a verdict: without a difference, the probability that any of two rates with two sides
# ever reaches it is at most 0.05.
LIMIT = 4 / 0.05
_SIDES = ("better", "worse")
# A user counts with these clicked lists; the later ones tell frequent visitors apart.
_LEVELS = (1, 4, 16)
_LEVEL_LOGS = np.log([0.5, 0.25, 0.25])[:, None, None]
# Alternatives: the least effect, twice that, and so on, with ever smaller weights.
_MULTIPLES = 2.0 ** np.arange(6)
_LOGS = np.log(0.5 ** np.array([1, 2, 3, 4, 5, 5]))
# The stated size finds the least effect with a probability of 0.9. These are more than its normal
# quantile, 1.28, since the size is an estimate, and the least evidence of several tenants counts.
_Z, _Z_OF_TENANTS = 1.4, 2.0
_LEAST_USERS = 50
_MAX_TENANTS = 256
# A tenant with this share of the requests is alone: others are an operator's tests.
_ALONE = 0.999


def known_tenant(tenant: str, known: Mapping[str, object]) -> str:
    """Returns the name under which a tenant counts; all beyond the first 256 share one."""
    return tenant if tenant in known or len(known) < _MAX_TENANTS else "(others)"


class RateComparison:
    """Compares how often lists of two arms are clicked or bought from.

    If the arms are equal, the first click of a user belongs to the canary with the probability of
    the split, and so does the fourth, see `ShareTest`. The evidence for a side is the mean
    likelihood ratio over several true differences. It depends on counts alone, so each tenant can
    be left out: a verdict holds whichever is, so none can bring it about or turn it round.

    Args:
        share: Probability that a request is assigned to the canary, more than 0 and less than 1.
        min_effect: Least relative change of the rate to find, > 0.
        requests: Number of requests by tenant.
    """

    def __init__(self, share: float, min_effect: float, requests: Mapping[str, int]) -> None:
        self._variance = share * (1 - share)
        self._effect = math.log1p(min_effect)
        self._requests = requests
        self._users = DistinctSampler()
        self._harm = ShareTest(share, "less")
        # How many users had a first clicked list, a second, and so on.
        self._reached = [0] * (_LEVELS[-1] + 2)
        # By tenant: events of the current arm and of the canary, by level.
        self._counts: dict[str, NDArray[np.int64]] = {}
        odds = math.log(share / (1 - share)) + self._effect * np.outer((1, -1), _MULTIPLES)
        chances = 1 / (1 + np.exp(-odds))
        self._gains = np.log((1 - chances) / (1 - share)), np.log(chances / share)

    def add(self, canary: bool, user: int, tenant: str) -> None:
        """Counts a clicked list of an arm. user: As in `CanaryAnalysis.record_click`."""
        clicked = range(1, len(self._reached))
        number = next((one for one in clicked if self._users.first(user, 1 << one)), 0)
        self._reached[number] += 1
        if number == 1:
            self._harm.add(canary)
        if number in _LEVELS:
            tenant = known_tenant(tenant, self._counts)
            counts = self._counts.setdefault(tenant, np.zeros((len(_LEVELS), 2), np.int64))
            counts[_LEVELS.index(number), int(canary)] += 1

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence that the canary is worse, for backing it out."""
        without_one: list[float] = self._logs()[1:, 1].tolist()
        return min(self._harm.log_evidence, *without_one, math.inf)

    def verdict(self, rate: str, lists: int) -> admin_pb2.RateVerdict:
        """Returns the verdict, given the name of the rate and the number of lists of both arms."""
        logs = self._logs()
        least, enough = logs.min(axis=0), math.log(LIMIT)
        side = int(np.argmax(least))
        verdict = admin_pb2.RateVerdict(
            rate=rate, verdict="undecided", evidence=evidence_factor(least[side]), limit=LIMIT
        )
        if least[side] >= enough:
            verdict.verdict, verdict.lists_needed = _SIDES[side], 0
            return verdict
        if (needed := self._lists_needed(lists)) is not None:
            verdict.lists_needed = needed
        if len(logs) > 1 and logs.max() >= enough:
            row = 1 + int(np.argmax(np.abs(logs[1:] - logs[0]).max(axis=1)))
            verdict.tenant = list(self._counts)[row - 1]
            part = self._counts[verdict.tenant].sum() / sum(map(np.sum, self._counts.values()))
            without = (*_SIDES, "undecided")[int(np.argmax([*logs[row], enough]))]
            verdict.held_back = f"a tenant with {part:.0%} of the clicks; without it: {without}"
        return verdict

    @property
    def _several(self) -> bool:
        counts = self._requests.values()
        return max(counts, default=0) < _ALONE * sum(counts)

    def _logs(self) -> NDArray[np.float64]:
        """Returns log evidence of all lists, and without each tenant in turn, by side."""
        counts = np.array([*self._counts.values()]).reshape(-1, len(_LEVELS), 2)
        kept = counts.sum(axis=0, keepdims=True)
        if self._several:
            kept = np.concatenate([kept, kept - counts])
        current, canary = kept[..., None, None, 0], kept[..., None, None, 1]
        # Shape (1 + tenants, levels, sides, alternatives).
        logs = current * self._gains[0] + canary * self._gains[1] + _LOGS + _LEVEL_LOGS
        return np.asarray(np.logaddexp.reduce(np.logaddexp.reduce(logs, axis=3), axis=1))

    def _lists_needed(self, lists: int) -> int | None:
        """Returns about how many further lists are needed; None if too little is known."""
        if self._reached[1] < _LEAST_USERS:
            return None
        by_tenant = [counts.sum(axis=1) for counts in self._counts.values()]
        counted, z = np.sum(by_tenant, axis=0), _Z
        if self._several:
            counted, z = counted - np.max(by_tenant, axis=0), _Z_OF_TENANTS
        # If clicks of each user are Poisson-distributed, a factor on all rates multiplies the
        # number of users with at least k clicks by its power of this exponent.
        users, levels = np.array(self._reached), np.array(_LEVELS)
        exponents = levels * (1 - users[levels + 1] / np.maximum(1, users[levels]))
        drift = counted * (exponents * self._effect) ** 2 * self._variance / 2
        # Evidence has the variance 2 * drift, and starts at the weights of level and effect.
        goal = math.log(LIMIT) - _LOGS[0] - _LEVEL_LOGS[:, 0, 0]
        ready = float(np.max(drift / (z + np.sqrt(z**2 + 2 * goal)) ** 2 * 2))
        return math.ceil(min(max(0.0, lists / ready - lists), 2**32 - 1)) if ready > 0 else None
