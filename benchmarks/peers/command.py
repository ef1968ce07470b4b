"""Measures Nearline alongside other vector stores, on the same vectors at equal recall.

    python -m benchmarks.peers
    python -m benchmarks.peers --vectors vectors.npy --systems nearline,redis --filtered

Eight threads of one Python process call each system in turn, with the blocking client that a user
would pick. Stores that are not installed are left out; --list names what they need.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.baselines.processes import single_process_pool
from benchmarks.peers import plot
from benchmarks.peers.dataset import NO_FILTER, PeerDataset, make_dataset
from benchmarks.peers.measurement import Plan, Point, measure, run_in
from benchmarks.peers.questions import ask_questions, print_answers
from benchmarks.peers.report import print_records, print_report
from benchmarks.peers.snapshot import build_store
from benchmarks.peers.system import System
from benchmarks.peers.systems.registry import SYSTEMS
from benchmarks.peers.texts import short_texts
from benchmarks.peers.vectors import sentence_vectors
from benchmarks.workloads.retrieval_dataset import read_matrix
from nearline.errors import InvalidRequest, NearlineError
from nearline_cli.terminal.output import print_error, print_json, print_note, print_table

_FAILED = 1
_FILTERS = ("half", "twentieth", "hundredth")
_RECALLS = (0.95, 0.99)
# Of the vectors that are made without --vectors.
_TEXTS = 50_000
_DIM = 384
_Number = TypeVar("_Number", int, float)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status: 1 if nothing could be measured."""
    options = _read_options(argv)
    if options.list:
        rows = [[one.name, one.label, one.missing() or "-"] for one in SYSTEMS.values()]
        print_table(["system", "what it is", "needs"], rows)
        return 0
    try:
        if options.plot and (wanted := plot.missing()):
            raise InvalidRequest(f"--plot needs {wanted}", field="plot")
        systems = _choose(options)
        with tempfile.TemporaryDirectory(prefix="nearline-peers-", dir=options.folder) as folder:
            return asyncio.run(_run(options, systems, Path(folder)))
    except NearlineError as error:
        print_error(error)
        return _FAILED


async def _run(options: argparse.Namespace, systems: Sequence[System], folder: Path) -> int:
    # A kill ends the servers, too.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with single_process_pool() as one:
        dataset = await run_in(one, partial(_prepare, options, folder, systems))
    setup = _setup(options, dataset)
    if options.questions:
        answers = await ask_questions(systems, dataset, folder, options.callers, options.seconds)
        if options.json:
            print_json({"kind": "setup"} | setup)
        print_answers(answers, as_json=options.json)
        return 0 if answers else _FAILED
    plan = Plan(
        callers=options.callers,
        seconds=options.seconds,
        rounds=options.rounds,
        widths=options.width or (),
        attributes=_FILTERS if options.filtered else (NO_FILTER,),
        insert_rate=options.insert_rate if options.during_writes else 0.0,
    )
    points, load_s = await measure(systems, dataset, folder, plan)
    if options.json:
        print_records(setup | {"plan": plan._asdict(), "load_s": load_s}, points, options.recall)
    else:
        print_report(points, options.recall)
    if options.plot and points:
        _draw(options.plot, points, dataset, plan)
    return 0 if points else _FAILED


def _prepare(options: argparse.Namespace, folder: Path, systems: Sequence[System]) -> PeerDataset:
    """Makes the data set in a process of its own, whose memory goes with it."""
    if options.vectors:
        vectors = np.array(read_matrix(options.vectors), np.float32)
    else:
        print_note(f"making {_TEXTS:,} vectors ...")
        vectors = sentence_vectors(short_texts(_TEXTS, seed=options.seed), _DIM, options.seed)
    dataset = make_dataset(vectors, folder, options.queries, options.k, options.seed)
    if any(system.shared_snapshot for system in systems):
        print_note(f"building Nearline's snapshot of {len(dataset.base):,} vectors ...")
        build_store(dataset)
    return dataset


def _choose(options: argparse.Namespace) -> list[System]:
    """Returns the systems to measure; notes the others.

    Raises InvalidRequest: A name is unknown, or nothing is left.
    """
    names = options.systems.split(",") if options.systems else list(SYSTEMS)
    if unknown := sorted(set(names) - set(SYSTEMS)):
        raise InvalidRequest(
            f"--systems names {', '.join(unknown)}; the systems are {', '.join(SYSTEMS)}",
            field="systems",
        )
    chosen = []
    for name in names:
        system = SYSTEMS[name]
        if wanted := system.missing():
            print_note(f"{name} is left out: it needs {wanted}")
        elif (options.during_writes or options.questions) and not system.writes:
            print_note(f"{name} is left out: it has no writes")
        elif options.filtered and not system.filters:
            print_note(f"{name} is left out: it has no filters")
        else:
            chosen.append(system)
    if not chosen:
        raise InvalidRequest("nothing is left to measure; --list names what the systems need")
    return chosen


def _draw(folder: Path, points: Sequence[Point], dataset: PeerDataset, plan: Plan) -> None:
    rows, dim = dataset.base.shape
    title = f"{rows:,} x {dim}, k {dataset.k}, {plan.callers} threads of one Python process"
    if plan.insert_rate:
        title += f", {plan.insert_rate:g} inserts/s meanwhile"
    plot.plot(points, {name: system.label for name, system in SYSTEMS.items()}, folder, title)


def _setup(options: argparse.Namespace, dataset: PeerDataset) -> dict[str, object]:
    rows, dim = dataset.base.shape
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "n": rows,
        "dim": dim,
        "k": dataset.k,
        "queries": len(dataset.queries),
        "seed": options.seed,
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[1], 2),
        "python": platform.python_version(),
    }


def _read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the systems, and what they need")
    add("--systems", metavar="NAME,NAME", default="", help="systems to measure [default: all]")
    add("--vectors", type=Path, metavar="FILE.npy", help="matrix of floats, one vector per row")
    add("--filtered", action="store_true", help="filters that keep 50, 5 and 1 percent")
    add("--during-writes", action="store_true", help="insert rows while searching")
    add("--insert-rate", type=_positive(float), default=100.0, help="rows per second (%(default)g)")
    add("--questions", action="store_true", help="freshness, restart, tenants, payload instead")
    add("--recall", type=_share, action="append", help="target, repeatable [default: 0.95, 0.99]")
    add("--width", type=_positive(int), action="append", help="a width to measure, repeatable")
    add("--queries", type=_positive(int), default=1_000, help="held-out rows (%(default)s)")
    add("--k", type=_positive(int), default=10, help="hits per search (%(default)s)")
    add("--callers", type=_positive(int), default=8, help="threads that search (%(default)s)")
    add("--seconds", type=_positive(float), default=2.0, help="seconds per round (%(default)g)")
    add("--rounds", type=_positive(int), default=3, help="rounds at each width (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the data (%(default)s)")
    add("--folder", type=Path, help="folder for 2 GB of temporary files")
    add("--json", action="store_true", help="print JSON, one object per line")
    add("--plot", type=Path, metavar="FOLDER", help="plot speed and latency over recall")
    options = parser.parse_args(argv)
    options.recall = options.recall or _RECALLS
    return options


def _positive(kind: Callable[[str], _Number]) -> Callable[[str], _Number]:
    def number(text: str) -> _Number:
        value = kind(text)
        if not value > 0:
            raise ValueError(text)
        return value

    number.__name__ = "positive number"
    return number


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError(text)
    return value
