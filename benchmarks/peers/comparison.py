"""Measures systems in turns at equal recall."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.peers.dataset import CALLERS, Judge, PeerDataset, condition_of
from benchmarks.peers.system import System
from nearline_cli.terminal.output import print_note
from retrieval.protocols.quantiles import quantiles

ROUNDS = 3
RECALLS = (0.95, 0.99)
# Widths of the graph search that are tried.
WIDTHS = (10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512)
# The system that others are compared with.
OURS = "nearline"


class PeerRound(NamedTuple):
    """Figures of one round."""

    qps: float
    p50_ms: float
    p99_ms: float
    recall: float


class Standing(NamedTuple):
    """A system at a recall target.

    width: The smallest that reaches the target; None if none does. figures: Medians over rounds.
    ratio: Nearline's searches per second divided by the system's, the median over rounds.
    """

    system: str
    attribute: str
    target: float
    width: int | None
    figures: PeerRound | None = None
    ratio: float | None = None


async def compare(
    systems: Sequence[System],
    dataset: PeerDataset,
    folder: Path,
    attributes: Sequence[str],
    seconds: float,
) -> list[Standing]:
    """Measures each filter and recall target; a system that fails is left out, with a note.

    Args:
        systems: Nearline and its peers.
        dataset: What is searched.
        folder: An empty folder for their data.
        attributes: Attributes of filters; "" is none.
        seconds: Duration of a round.
    """
    standings: list[Standing] = []
    running: list[System] = []
    async with contextlib.AsyncExitStack() as stack:
        callers = stack.enter_context(ThreadPoolExecutor(CALLERS))
        for system in systems:
            running.append(system)
            with _left_out(system, running):
                place = folder / system.name
                place.mkdir()
                start = time.perf_counter()
                await stack.enter_async_context(system.serve(dataset, place))
                await asyncio.to_thread(system.build, dataset)
                print_note(f"{system.name} is loaded after {time.perf_counter() - start:.1f} s")
        for attribute in attributes:
            judge = Judge(dataset, attribute)
            for target in RECALLS:
                print_note(f"recall {target}, filter: {attribute or 'none'} ...")
                standings += await _take_turns(running, judge, callers, target, seconds)
    return standings


async def _take_turns(
    running: list[System], judge: Judge, callers: Executor, target: float, seconds: float
) -> list[Standing]:
    widths: dict[str, int | None] = {}
    for system in list(running):
        with _left_out(system, running):
            widths[system.name] = await least_width(system, judge, callers, target)
    rounds: dict[str, list[PeerRound]] = {system.name: [] for system in running}
    for _ in range(ROUNDS):
        for system in list(running):
            if widths[system.name]:
                with _left_out(system, running):
                    found = await asyncio.to_thread(run_round, system, judge, callers, seconds)
                    rounds[system.name].append(found)
    ours = rounds.get(OURS, [])
    return [
        Standing(name, judge.attribute, target, widths[name], *summary(rounds[name], ours))
        for name in [system.name for system in running]
    ]


@contextlib.contextmanager
def _left_out(system: System, running: list[System]) -> Iterator[None]:
    """Removes a system that fails, in whatever way: the others are still measured."""
    try:
        yield
    except Exception as error:
        running.remove(system)
        print_note(f"{system.name} failed and is left out: {type(error).__name__}: {error}")


async def least_width(system: System, judge: Judge, callers: Executor, target: float) -> int | None:
    """Sets the smallest width whose recall over all queries reaches a target; returns it, or None
    if none does.
    """
    queries = range(len(judge.dataset.queries))
    low, high = 0, len(WIDTHS)
    while low < high:
        middle = (low + high) // 2
        await system.use_width(WIDTHS[middle])
        replies = callers.map(partial(_search, system, judge), queries)
        if await asyncio.to_thread(judge.recall, enumerate(replies)) >= target:
            high = middle
        else:
            low = middle + 1
    if low == len(WIDTHS):
        return None
    await system.use_width(WIDTHS[low])
    return WIDTHS[low]


def _search(system: System, judge: Judge, number: int) -> Sequence[int]:
    query = judge.dataset.queries[number]
    return system.search(query, condition_of(judge.attribute, number))


def run_round(system: System, judge: Judge, callers: Executor, seconds: float) -> PeerRound:
    """Searches in a closed loop: each caller sends its next query when the last is answered."""
    queries, clock = len(judge.dataset.queries), time.perf_counter
    # The others had their turns meanwhile.
    list(callers.map(partial(_search, system, judge), range(min(queries, 8 * CALLERS))))
    start = clock()

    def call(caller: int) -> list[tuple[int, float, Sequence[int]]]:
        number = caller * queries // CALLERS
        calls = []
        while True:
            begun = clock()
            rows = _search(system, judge, number)
            calls.append((number, clock() - begun, rows))
            if clock() - start >= seconds:
                return calls
            number = (number + 1) % queries

    calls = [call for made in callers.map(call, range(CALLERS)) for call in made]
    spent_s = clock() - start
    p50, p99 = quantiles((latency for _, latency, _ in calls), (0.5, 0.99))
    recall = judge.recall((number, rows) for number, _, rows in calls)
    return PeerRound(len(calls) / spent_s, p50 * 1e3, p99 * 1e3, recall)


def summary(
    rounds: Sequence[PeerRound], ours: Sequence[PeerRound]
) -> tuple[PeerRound | None, float | None]:
    """Returns the medians of a system's rounds, and of the ratios of our rates to theirs."""
    figures = PeerRound(*map(median, zip(*rounds, strict=True))) if rounds else None
    ratios = [mine.qps / one.qps for mine, one in zip(ours, rounds, strict=False)]
    return figures, median(ratios) if ratios else None
