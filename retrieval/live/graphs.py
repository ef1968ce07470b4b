"""Construction of graphs over live vectors, in the calling thread or in a separate process."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.index.vectors.faiss_graph import HnswGraph

# A build can be cancelled after each slice.
SLICE_ROWS = 512
# Files of a build: the graph that grows, the vectors to add, and the result.
GROWN, VECTORS, GRAPH = "grown", "vectors", "graph"
# Whether a process runs on idle cores only.
IDLE, NORMAL = "idle", "normal"
_POLL_S = 0.1
_log = logging.getLogger(__name__)

# Builds a graph: a copy of the first argument, if there is one, with (n, d) float32 vectors added.
# The third argument is called periodically and cancels the build by returning False; the result is
# then None. The fourth returns whether the build may take a core from searches.
BuildGraph: TypeAlias = Callable[
    [HnswGraph | None, NDArray[np.float32], Callable[[], bool], Callable[[], bool]],
    HnswGraph | None,
]


def build_in_thread(
    grown: HnswGraph | None,
    vectors: NDArray[np.float32],
    should_continue: Callable[[], bool],
    urgent: Callable[[], bool] = lambda: False,
) -> HnswGraph | None:
    """Builds a graph in the calling thread; see `BuildGraph`."""
    graph = HnswGraph(vectors.shape[1]) if grown is None else grown.copy()
    return graph if add_in_slices(graph, vectors, should_continue) else None


def add_in_slices(
    graph: HnswGraph, vectors: NDArray[np.float32], should_continue: Callable[[], bool]
) -> bool:
    """Adds vectors to a graph; returns whether all were added, or False if it was cancelled."""
    for at in range(0, len(vectors), SLICE_ROWS):
        if not should_continue():
            return False
        graph.add(vectors[at : at + SLICE_ROWS])
    return True


def build_in_process(
    grown: HnswGraph | None,
    vectors: NDArray[np.float32],
    should_continue: Callable[[], bool],
    urgent: Callable[[], bool] = lambda: False,
) -> HnswGraph | None:
    """Builds a graph in a separate process, or in this thread if that fails; see `BuildGraph`.

    A build takes seconds and uses idle cores only, until it is urgent: then it starts again like
    any process, since it might never end. A thread with low priority would keep the interpreter
    lock while it waits for a core, and so delay every search: by up to 0.2 s each on two busy
    cores.
    """
    try:
        return _build_over_files(grown, vectors, should_continue, urgent)
    # faiss raises RuntimeError if it cannot write a file.
    except (OSError, RuntimeError) as error:
        _log.warning(
            "no process could build a graph over live vectors (%s); a thread of this service "
            "builds it instead, and searches may take longer meanwhile; make sure that the folder "
            "of temporary files is writable and has some hundred MB of space, or set TMPDIR to "
            "another one",
            error,
        )
    return build_in_thread(grown, vectors, should_continue)


def _build_over_files(
    grown: HnswGraph | None,
    vectors: NDArray[np.float32],
    should_continue: Callable[[], bool],
    urgent: Callable[[], bool],
) -> HnswGraph | None:
    """Builds a graph in a process that reads and writes files of a temporary folder.

    Raises: OSError, RuntimeError: the files cannot be written, or the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-graph-") as name:
        folder = Path(name)
        vectors.tofile(folder / VECTORS)
        if grown is not None:
            grown.write(folder / GROWN)
        status = None
        for policy in (IDLE, NORMAL):
            status = _run(folder, vectors.shape[1], policy, should_continue, urgent)
            if status is not None or not should_continue():
                break
        if status:
            raise ChildProcessError(f"it ended with status {status}")
        return None if status is None else HnswGraph.read(folder / GRAPH)


def _run(
    folder: Path,
    dim: int,
    policy: str,
    should_continue: Callable[[], bool],
    urgent: Callable[[], bool],
) -> int | None:
    """Runs the process of a build; returns its status, or None if it was ended.

    It is ended if the build is cancelled, and on idle cores also as soon as it is urgent.
    """
    if policy == IDLE and urgent():
        return None
    module = "retrieval.live.graph_process"
    # -P: no module in the current folder may shadow ours.
    words = (sys.executable, "-P", "-m", module, str(folder), str(dim), policy)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        while True:
            try:
                return process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                if not should_continue() or (policy == IDLE and urgent()):
                    return None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
