"""Simulates rollouts: splits recorded latencies over two arms, and analyses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from retrieval.rollout.analysis import CanaryLimits

# Bursts are shorter than a second, which is the length of a block at the usual 200 requests/s.
BLOCK = 200
_PLACES = 10
# Queries differ: their recall is beta-distributed around the mean with this many trials.
_TRIALS = 5.0
_LOOKS_EVERY = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryScenario:
    """True behaviour of a canary.

    slower: Its latency, relative to the recorded one. recall: Its mean recall@10, 0..1.
    """

    slower: float = 1.0
    recall: float = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """Results of simulated rollouts.

    backed_out: Number of requests of each aborted run until the abort. tests: Number of runs that
        each test aborted.
    """

    runs: int
    backed_out: Sequence[int]
    tests: Counter[str]

    @property
    def rate(self) -> float:
        """Share of the runs that were aborted, 0..1."""
        return len(self.backed_out) / self.runs

    @property
    def median_requests(self) -> float | None:
        """Median number of requests until an abort, or None if no run was aborted."""
        return float(np.median(self.backed_out)) if self.backed_out else None


def simulate(
    trace_s: NDArray[np.float64],
    setting: CanaryScenario,
    limits: CanaryLimits,
    *,
    runs: int,
    requests: int,
    share: float,
    recall_sample: float,
    users: int,
    seed: int,
) -> SimulationResult:
    """Analyses rollouts with the same code as a router.

    Latencies are drawn from the trace in circular blocks, so that bursts are preserved: Politis and
    Romano, "A circular block-resampling procedure for stationary data", 1992.

    Args:
        trace_s: Latencies in seconds, in order, shape (n,), n >= 1.
        setting: True behaviour of the canary.
        limits: Limits of the analysis.
        runs: Number of rollouts.
        requests: Requests per rollout.
        share: Share of the canary, 0..1.
        recall_sample: Share of the canary's requests whose recall is measured, 0..1.
        users: Number of equally active users, each assigned to one arm; 0 splits by request.
        seed: Every run has its own generator, derived from this seed and the number of the run.
    """
    from retrieval.rollout.analysis import CanaryAnalysis

    backed_out = []
    tests: Counter[str] = Counter()
    for run in range(runs):
        rng = np.random.default_rng((seed, run))
        analysis = CanaryAnalysis(share, limits, dealt_by_unit=users > 0)
        asking = rng.integers(users, size=requests) if users else np.arange(requests)
        canary = (rng.random(users or requests) < share)[asking]
        units = rng.integers(2**63, size=users or requests)[asking]
        seconds = resample_latencies(trace_s, requests, rng) * np.where(canary, setting.slower, 1.0)
        recalls = sample_recalls(setting.recall, requests, rng)
        recalls[~(canary & (rng.random(requests) < recall_sample))] = np.nan
        for number in range(0, requests, _LOOKS_EVERY):
            part = slice(number, number + _LOOKS_EVERY)
            columns = (canary, units, seconds, recalls)
            for of_canary, unit, spent, recall in zip(
                *(column[part].tolist() for column in columns), strict=True
            ):
                analysis.record_assignment(of_canary, unit)
                analysis.record_outcome(of_canary, unit, spent, failed=False)
                if recall == recall:
                    analysis.record_recall(True, recall)
            if analysis.breach:
                backed_out.append(min(number + _LOOKS_EVERY, requests))
                tests[analysis.breached_test] += 1
                break
    return SimulationResult(runs=runs, backed_out=backed_out, tests=tests)


def resample_latencies(
    trace_s: NDArray[np.float64], requests: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draws latencies in blocks of `BLOCK`, shape (requests,)."""
    starts = rng.integers(len(trace_s), size=-(-requests // BLOCK))
    rows = (starts[:, None] + np.arange(BLOCK)).ravel()[:requests]
    drawn: NDArray[np.float64] = trace_s[rows % len(trace_s)]
    return drawn


def sample_recalls(mean: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws the recall@10 of queries: 0, 0.1, .. 1, beta-binomial, shape (count,).

    Args:
        mean: Greater than 0 and less than 1.
        count: Number of queries.
        rng: Generator.
    """
    chances = rng.beta(_TRIALS * mean, _TRIALS * (1 - mean), size=count)
    recalls: NDArray[np.float64] = rng.binomial(_PLACES, chances) / _PLACES
    return recalls
