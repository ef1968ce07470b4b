"""Measures Nearline alongside other vector stores, on the same vectors at equal recall.

    python -m benchmarks.peers
    python -m benchmarks.peers --vectors vectors.npy --systems redis,pgvector --filtered

Eight threads call each system in turn, with the blocking client that a user would pick. Stores that
are not installed are left out, with a note that names what they need.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers.comparison import OURS, Standing, compare
from benchmarks.peers.dataset import ATTRIBUTES, NO_FILTER, make_dataset
from benchmarks.peers.system import System
from benchmarks.peers.systems import SYSTEMS
from benchmarks.workloads.retrieval_dataset import read_matrix
from benchmarks.workloads.vector_clusters import TEXT_SHAPE, VectorClusters
from nearline.errors import InvalidRequest, NearlineError
from nearline_cli.terminal.output import print_error, print_note, print_table

_ROWS, _DIM = 50_000, 384
_COLUMNS = ("system", "filter", "recall >=", "width", "recall", "qps", "p50 ms", "p99 ms", "ratio")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status: 1 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--systems", metavar="NAME,NAME", default="", help="peers to measure [default: all]")
    add("--vectors", type=Path, metavar="FILE.npy", help="matrix of floats, one vector per row")
    add("--filtered", action="store_true", help="filters that keep 50, 5 and 1 percent")
    add("--seconds", type=float, default=2.0, help="seconds per round (%(default)g)")
    options = parser.parse_args(argv)
    try:
        systems = choose(options.systems, filtered=options.filtered)
        with tempfile.TemporaryDirectory(prefix="nearline-peers-") as folder:
            standings = asyncio.run(_run(options, systems, Path(folder)))
    except NearlineError as error:
        print_error(error)
        return 1
    print_table(
        _COLUMNS,
        map(_row, standings),
        title="ratio: Nearline's searches per second to the system's",
    )
    return 0 if standings else 1


async def _run(
    options: argparse.Namespace, systems: Sequence[System], folder: Path
) -> list[Standing]:
    # A kill ends the servers, too.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if options.vectors:
        vectors = np.array(read_matrix(options.vectors), np.float32)
    else:
        rng = np.random.default_rng(0)
        vectors = VectorClusters(rng, _DIM, TEXT_SHAPE).draw(rng, _ROWS)
    attributes = list(ATTRIBUTES) if options.filtered else [NO_FILTER]
    return await compare(systems, make_dataset(vectors), folder, attributes, options.seconds)


def choose(names: str, *, filtered: bool) -> list[System]:
    """Returns the systems to measure, Nearline first; notes those that are left out."""
    chosen = names.split(",") if names else list(SYSTEMS)
    if unknown := sorted(set(chosen) - set(SYSTEMS)):
        raise InvalidRequest(
            f"--systems names {', '.join(unknown)}; the systems are {', '.join(SYSTEMS)}",
            field="systems",
        )
    systems = [SYSTEMS[OURS]]
    for name in dict.fromkeys(chosen):
        system = SYSTEMS[name]
        if not system.available():
            print_note(f"{name} is left out: it needs {system.requirements}")
        elif filtered and not system.filters:
            print_note(f"{name} is left out: it has no filters")
        elif name != OURS:
            systems.append(system)
    return systems


def _row(one: Standing) -> list[object]:
    row: list[object] = [one.system, one.attribute or "none", one.target]
    if one.width is None or one.figures is None:
        return [*row, "not reached", "", "", "", "", ""]
    found = one.figures
    row += [one.width, f"{found.recall:.3f}", f"{found.qps:,.0f}", f"{found.p50_ms:.2f}"]
    return [*row, f"{found.p99_ms:.2f}", "" if one.ratio is None else f"{one.ratio:.2f}"]


if __name__ == "__main__":
    sys.exit(main())
