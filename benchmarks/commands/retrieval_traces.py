"""`nearline bench retrieval --trace-sample`: what traces cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple, TypeAlias
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
# Two processes of the same program may differ for as long as they live, by where their memory lies.
# So routers are started again after this many rounds, and the ratios of starts are independent.
_ROUNDS_OF_START = 5
# Interval of a mean ratio, by resampling the starts.
_RESAMPLES = 2_000
_PERCENTILES = (2.5, 97.5)


# Routers that are compared.
_PLAIN, _SAME, _TRACED = range(3)


class _Turn(NamedTuple):
    """A round, and the CPU of the services for each of its requests, in seconds."""

    round: SearchRound
    cpu_s: float


# Rounds of one router, by start.
_Starts: TypeAlias = Sequence[Sequence[_Turn]]


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
        rounds: Rounds of each router, rounded up to a multiple of 5.
    """
    task = prepared.sides[0].task
    starts: list[list[list[_Turn]]] = []
    with single_process_pool() as caller, trace_sink() as sink:
        traced = {"NEARLINE_TRACE_ENDPOINT": sink.address, "NEARLINE_TRACE_SAMPLE": str(sample)}
        # Orders are drawn: neither a drift of the machine nor a neighbour favours one of them.
        rng = np.random.default_rng(0)
        for _ in range(-(-rounds // _ROUNDS_OF_START)):
            async with contextlib.AsyncExitStack() as stack:
                routers: dict[int, RunningRouter] = {}
                for side in rng.permutation(3).tolist():
                    with mock.patch.dict(os.environ, traced if side == _TRACED else {}):
                        routers[side] = await stack.enter_async_context(
                            router_process(("--store", str(task.store)), int(separate))
                        )
                starts.append(await _measure_start(caller, task, routers, seconds, rng))
    plain, same, recorded = ([one[side] for one in starts] for side in (_PLAIN, _SAME, _TRACED))
    return {
        **round_figures([one.round for turns in plain for one in turns], task.k),
        **round_figures([one.round for turns in recorded for one in turns], task.k, "traced_"),
        "trace_sample": sample,
        "spans": sink.spans,
        "starts": len(starts),
        "traced": _ratios(recorded, plain, same),
        "untraced": _ratios(same, plain),
    }


async def _measure_start(
    caller: Executor,
    task: SearchTask,
    routers: Mapping[int, RunningRouter],
    seconds: float,
    rng: np.random.Generator,
) -> list[list[_Turn]]:
    """Returns the rounds of each router, after one that does not count."""
    found: list[list[_Turn]] = [[], [], []]
    for number in range(_ROUNDS_OF_START + 1):
        for side in rng.permutation(3).tolist():
            turn = await _turn(caller, task, routers[side], seconds if number else _WARM_UP_S)
            if number:
                found[side].append(turn)
    return found


async def _turn(caller: Executor, task: SearchTask, router: RunningRouter, seconds: float) -> _Turn:
    before_s = cpu_seconds(router.pids)
    loop = asyncio.get_running_loop()
    one = await loop.run_in_executor(caller, run_round, task, router.address, seconds)
    return _Turn(one, (cpu_seconds(router.pids) - before_s) / one.replies)


def _ratios(starts: _Starts, *others: _Starts) -> dict[str, object]:
    """Returns ratios to the mean of others of the same starts, each with its interval of 95 %."""

    def values(of: _Starts) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Returns the medians of each start."""
        figures = [
            [(one.round.qps, np.median(one.round.latencies_s), one.cpu_s) for one in turns]
            for turns in of
        ]
        return np.median(figures, axis=1)

    ratios = values(starts) / np.mean([values(one) for one in others], axis=0)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(starts), (_RESAMPLES, len(starts)))
    found: dict[str, object] = {}
    for column, name in enumerate(("qps", "p50", "cpu")):
        means = ratios[drawn, column].mean(axis=1)
        low, high = np.percentile(means, _PERCENTILES)
        found[f"{name}_ratio"] = round(float(ratios[:, column].mean()), 4)
        found[f"{name}_interval"] = [round(float(low), 4), round(float(high), 4)]
    return found
