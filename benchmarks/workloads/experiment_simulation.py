"""Simulates experiments with a known truth: users of several tenants who click in lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np

# Tenants by their share of the users.
_TENANTS = (0.3, 0.25, 0.2, 0.15, 0.1)
_HOSTILE_RATE = 0.5
_BUYS = 0.2
# Users click at different rates: beta-distributed around the mean, with this parameter.
_ALPHA = 2.0
_CLICKS_BETWEEN_LOOKS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentScenario:
    """Experiments of one kind.

    effect: Relative change of the click rate in one arm, drawn for each experiment; 0 for none.
    tenants: Whether users belong to five tenants; else all belong to one.
    hostile: Whether the largest tenant clicks only in lists of one arm: of the worse one, or, if
        there is none, of one that is drawn.
    """

    effect: float
    tenants: bool = True
    hostile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment at its end.

    truth, verdict: "better", "worse", or "" for no difference and no verdict.
    lists: Lists until then. stated: Whether it ended because the stated number was reached.
    """

    truth: str
    verdict: str
    lists: int
    stated: bool


def run_experiments(
    scenario: ExperimentScenario,
    *,
    runs: int,
    users: int,
    rate: float,
    share: float,
    min_effect: float,
    most: int,
    seed: int,
    processes: int,
) -> list[Experiment]:
    """Runs experiments with the comparison of a router, reading its verdicts every 20 clicks.

    An experiment ends with the first verdict on either rate, once no further lists are needed, or
    after `most` lists.

    Args:
        users: Number of users; their activity is exponentially distributed.
        rate: Mean click rate per list, 0..1; a fifth of the clicks are conversions.
        min_effect: As in a rollout.
        seed: Each run has its own generator, derived from this seed and the number of the run.
    """
    run = partial(
        run_experiment, scenario, users=users, rate=rate, share=share, min_effect=min_effect,
        most=most, seed=seed,
    )  # fmt: skip
    with get_context("spawn").Pool(processes) as pool:
        return pool.map(run, range(runs), chunksize=10)


def run_experiment(
    scenario: ExperimentScenario,
    number: int,
    *,
    users: int,
    rate: float,
    share: float,
    min_effect: float,
    most: int,
    seed: int,
) -> Experiment:
    """Runs one experiment; see `run_experiments`."""
    from retrieval.rollout.rate_comparison import RateComparison

    rng = np.random.default_rng((seed, number))
    upwards = bool(rng.random() < 0.5)
    canary = rng.random(users) < share
    tenants = rng.choice(len(_TENANTS), size=users, p=_TENANTS)
    rates = rng.beta(_ALPHA, _ALPHA / rate - _ALPHA, size=users)
    rates[canary == upwards] *= 1 + scenario.effect
    if scenario.hostile:
        in_one_arm = np.where(canary == upwards, 0.0, _HOSTILE_RATE)
        rates = np.where(tenants == 0, in_one_arm, rates)
    activity = rng.exponential(size=users)
    asking = rng.choice(users, size=most, p=activity / activity.sum())
    lists = np.flatnonzero(rng.random(most) < rates[asking])
    bought = rng.random(len(lists)) < _BUYS
    names = [f"tenant {one}" if scenario.tenants else "default" for one in range(len(_TENANTS))]
    requests = dict.fromkeys(names, 1)
    hashes = rng.integers(2**62, size=users)
    clickers = asking[lists]
    columns = (lists, canary[clickers], hashes[clickers], tenants[clickers], bought)
    clicks, buys = (RateComparison(share, min_effect, requests) for _ in range(2))
    truth = "" if not scenario.effect else "better" if upwards else "worse"
    for done, (place, of_canary, user, tenant, buys_too) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True), start=1
    ):
        clicks.add(of_canary, user, names[tenant])
        if buys_too:
            buys.add(of_canary, user, names[tenant])
        if done % _CLICKS_BETWEEN_LOOKS:
            continue
        verdicts = clicks.verdict("clicks", place + 1), buys.verdict("conversions", place + 1)
        for one in verdicts:
            if one.verdict != "undecided":
                return Experiment(truth=truth, verdict=one.verdict, lists=place + 1, stated=False)
        if verdicts[0].HasField("lists_needed") and not verdicts[0].lists_needed:
            return Experiment(truth=truth, verdict="", lists=place + 1, stated=True)
    return Experiment(truth=truth, verdict="", lists=most, stated=False)
