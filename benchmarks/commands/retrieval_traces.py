"""`nearline bench retrieval --trace-sample`: what traces cost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple
from unittest import mock

import numpy as np

from benchmarks.baselines.processes import (
    RunningRouter,
    cpu_seconds,
    router_process,
    single_process_pool,
)
from benchmarks.baselines.trace_sink import trace_sink
from benchmarks.workloads.closed_loop import SearchRound, SearchTask, round_figures, run_round
from benchmarks.workloads.retrieval_dataset import RetrievalDataset

_WARM_UP_S = 1.0
# Interval of a median ratio, by resampling the pairs.
_RESAMPLES = 2_000
_PERCENTILES = (2.5, 97.5)


class _Turn(NamedTuple):
    """A round, and the CPU of the services for each of its requests, in seconds."""

    round: SearchRound
    cpu_s: float


async def measure_traced(
    prepared: RetrievalDataset, sample: float, *, separate: bool, seconds: float, rounds: int
) -> dict[str, object]:
    """Measures three routers in turn: two that trace nothing, and one that traces a sample.

    The two that are alike show how much ratios vary on this machine.

    Args:
        prepared: The collection.
        sample: Share of the requests that are traced, 0..1.
        separate: Whether the shard has a process of its own.
        seconds: Seconds of a round.
        rounds: Rounds of each router.
    """
    task = prepared.sides[0].task
    loop = asyncio.get_running_loop()
    found: list[list[_Turn]] = [[], [], []]
    store = ("--store", str(task.store))
    with single_process_pool() as caller, trace_sink() as sink:
        traced = {"NEARLINE_TRACE_ENDPOINT": sink.address, "NEARLINE_TRACE_SAMPLE": str(sample)}
        async with (
            router_process(store, int(separate)) as plain,
            router_process(store, int(separate)) as same,
        ):
            with mock.patch.dict(os.environ, traced):
                starting = router_process(store, int(separate))
                router = await starting.__aenter__()
            try:
                sides = (plain, same, router)
                for number in range(rounds + 1):
                    length = seconds if number else _WARM_UP_S
                    # The order turns, so that a drift of the machine affects all alike.
                    for place in range(3):
                        side = (number + place) % 3 if number % 2 else (number - place) % 3
                        turn = await _turn(loop, caller, task, sides[side], length)
                        if number:
                            found[side].append(turn)
            finally:
                await starting.__aexit__(None, None, None)
    plain_turns, same_turns, traced_turns = found
    return {
        **round_figures([one.round for one in plain_turns], task.k),
        **round_figures([one.round for one in traced_turns], task.k, "traced_"),
        "trace_sample": sample,
        "spans": sink.spans,
        "traced": _ratios(traced_turns, plain_turns, same_turns),
        "untraced": _ratios(same_turns, plain_turns),
    }


async def _turn(
    loop: asyncio.AbstractEventLoop,
    caller: object,
    task: SearchTask,
    router: RunningRouter,
    seconds: float,
) -> _Turn:
    before_s = cpu_seconds(router.pids)
    one = await loop.run_in_executor(caller, run_round, task, router.address, seconds)  # type: ignore[arg-type]
    return _Turn(one, (cpu_seconds(router.pids) - before_s) / one.replies)


def _ratios(turns: Sequence[_Turn], *others: Sequence[_Turn]) -> dict[str, object]:
    """Returns ratios to the mean of others in the same rounds, each with its interval of 95 %."""

    def values(of: Sequence[_Turn]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return np.array(
            [(one.round.qps, np.median(one.round.latencies_s), one.cpu_s) for one in of]
        )

    base = np.mean([values(one) for one in others], axis=0)
    ratios = values(turns) / base
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(turns), (_RESAMPLES, len(turns)))
    found: dict[str, object] = {}
    for column, name in enumerate(("qps", "p50", "cpu")):
        medians = np.median(ratios[drawn, column], axis=1)
        low, high = np.percentile(medians, _PERCENTILES)
        found[f"{name}_ratio"] = round(median(ratios[:, column].tolist()), 4)
        found[f"{name}_interval"] = [round(float(low), 4), round(float(high), 4)]
    return found
