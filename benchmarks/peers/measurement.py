"""Starts the systems, loads them, and measures them in turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

from benchmarks.baselines.processes import single_process_pool
from benchmarks.peers.callers import (
    CallerLoad,
    PeerRound,
    Target,
    load_rows,
    run_inserts,
    run_round,
    set_width,
)
from benchmarks.peers.dataset import PeerDataset
from benchmarks.peers.system import Place, System
from nearline_cli.terminal.output import print_note

_T = TypeVar("_T")


class Plan(NamedTuple):
    """Points to measure.

    widths: Widths in place of each system's own; empty keeps these. attributes: Attributes of
    filters; "" is none. insert_rate: Rows per second that are inserted meanwhile; 0 inserts none.
    """

    callers: int
    seconds: float
    rounds: int
    widths: Sequence[int]
    attributes: Sequence[str]
    insert_rate: float


class Point(NamedTuple):
    """Medians over the rounds of a system at a width.

    inserted: Rows inserted per second meanwhile.
    """

    system: str
    attribute: str
    width: int
    qps: float
    p50_ms: float
    p99_ms: float
    recall: float
    inserted: float


@dataclass
class RunningSystem:
    """A system that is started and loaded, the processes that call it, and its rounds.

    server: Ends the server. rounds: By attribute and width; with each, the rows inserted per
    second.
    """

    system: System
    place: Place
    server: contextlib.AsyncExitStack
    target: Target
    callers: Executor
    writer: Executor
    load_s: float
    rounds: dict[tuple[str, int], list[tuple[PeerRound, float]]] = field(default_factory=dict)
    failed: bool = False

    async def run(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Runs a function of `callers` in the process of the callers."""
        return await run_in(self.callers, partial(work, self.target, *arguments))

    async def use_width(self, width: int) -> None:
        """Starts the server again at this width, if it reads the width when it starts."""
        if self.system.width_at_start:
            await self.run(set_width, width)
            await self.server.aclose()
            address = await self.server.enter_async_context(self.system.serve(self.place))
            self.target = self.target._replace(address=address)


async def measure(
    systems: Sequence[System], dataset: PeerDataset, folder: Path, plan: Plan
) -> tuple[list[Point], dict[str, float]]:
    """Measures systems in turns; one that fails is left out, with a note.

    Args:
        systems: Systems whose packages are installed.
        dataset: The data set, with Nearline's snapshot.
        folder: Contains a folder for each system.
        plan: What is measured.
    Returns: The points, and the seconds that each system took to load.
    """
    async with contextlib.AsyncExitStack() as stack:
        running: list[RunningSystem] = []
        for system in systems:
            place = Place(dataset.folder, folder / system.name, live=plan.insert_rate > 0)
            place.folder.mkdir()
            with noted(system.name):
                one = await stack.enter_async_context(started(system, place, dataset))
                running.append(one)
                print_note(f"{system.name}: loaded in {one.load_s:.1f} s")
        for number in range(plan.rounds):
            print_note(f"round {number + 1} of {plan.rounds} ...")
            await _take_turns(running, plan)
        points = [
            _point(one.system.name, attribute, width, rounds)
            for one in running
            for (attribute, width), rounds in one.rounds.items()
        ]
        return points, {one.system.name: one.load_s for one in running}


@contextlib.asynccontextmanager
async def started(system: System, place: Place, dataset: PeerDataset) -> Any:
    """Starts and loads a system for the duration of the block; yields it."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(contextlib.AsyncExitStack())
        address = await server.enter_async_context(system.serve(place))
        target = Target(system.client, address, dataset)
        # They close their clients before the server ends.
        callers = stack.enter_context(single_process_pool())
        writer = stack.enter_context(single_process_pool())
        load_s = await run_in(callers, partial(load_rows, target))
        yield RunningSystem(system, place, server, target, callers, writer, load_s)


async def _take_turns(running: Sequence[RunningSystem], plan: Plan) -> None:
    for attribute in plan.attributes:
        for place in range(max((len(_widths(one.system, plan)) for one in running), default=0)):
            for one in running:
                widths = _widths(one.system, plan)
                if place >= len(widths) or one.failed or (attribute and not one.system.filters):
                    continue
                one.failed = True
                with noted(one.system.name):
                    load = CallerLoad(widths[place], attribute, plan.callers, plan.seconds)
                    found = await _one_round(one, load, plan.insert_rate)
                    one.rounds.setdefault((attribute, widths[place]), []).append(found)
                    one.failed = False


async def _one_round(
    one: RunningSystem, load: CallerLoad, insert_rate: float
) -> tuple[PeerRound, float]:
    await one.use_width(load.width)
    if not insert_rate:
        return await one.run(run_round, load), 0.0
    inserts = partial(run_inserts, one.target, insert_rate, load.seconds)
    return await asyncio.gather(one.run(run_round, load), run_in(one.writer, inserts))


async def run_in(executor: Executor, work: Callable[[], _T]) -> _T:
    """Runs a function in a process."""
    return await asyncio.get_running_loop().run_in_executor(executor, work)


def _widths(system: System, plan: Plan) -> Sequence[int]:
    return plan.widths or system.widths


def _point(
    system: str, attribute: str, width: int, rounds: Sequence[tuple[PeerRound, float]]
) -> Point:
    def middle(name: str, digits: int) -> float:
        return round(float(median(getattr(turn, name) for turn, _ in rounds)), digits)

    return Point(
        system=system,
        attribute=attribute,
        width=width,
        qps=middle("qps", 1),
        p50_ms=middle("p50_ms", 3),
        p99_ms=middle("p99_ms", 3),
        recall=middle("recall", 4),
        inserted=round(median(inserted for _, inserted in rounds), 1),
    )


@contextlib.contextmanager
def noted(name: str) -> Any:
    """Notes an error: one system that fails, in whatever way, must not lose the others."""
    try:
        yield
    except Exception as error:
        print_note(f"{name} failed and is left out: {type(error).__name__}: {error}")
