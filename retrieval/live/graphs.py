"""Builds graphs over live vectors: in the calling thread, or in a process of their own."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.index.vectors.faiss_graph import HnswGraph

# Between two of them a build can end early.
SLICE_ROWS = 512
VECTORS, GRAPH = "vectors", "graph"
_LOOK_S = 0.1
_log = logging.getLogger(__name__)

# Builds one graph over (n, d) float32 arrays, one after another; blocks. The second argument is
# called now and then: False gives up. None: it was given up.
BuildGraph: TypeAlias = Callable[
    [Sequence[NDArray[np.float32]], Callable[[], bool]], HnswGraph | None
]


def build_in_thread(
    parts: Sequence[NDArray[np.float32]], goes_on: Callable[[], bool]
) -> HnswGraph | None:
    """Builds a graph in the calling thread; see `BuildGraph`."""
    graph = HnswGraph(parts[0].shape[1])
    for part in parts:
        for at in range(0, len(part), SLICE_ROWS):
            if not goes_on():
                return None
            graph.add(part[at : at + SLICE_ROWS])
    return graph


def build_in_process(
    parts: Sequence[NDArray[np.float32]], goes_on: Callable[[], bool]
) -> HnswGraph | None:
    """Builds a graph in a process of its own, or here where that fails; see `BuildGraph`.

    A build takes seconds, and should run where nothing else wants the core. A thread of a service
    cannot be that modest: while it waits for its turn with the interpreter in its hands, so does
    every search. That cost searches up to 0.2 s each on two busy cores.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-graph-") as name:
        folder = Path(name)
        with (folder / VECTORS).open("wb") as file:
            for part in parts:
                part.tofile(file)
        dim = str(parts[0].shape[1])
        words = (sys.executable, "-m", "retrieval.live.graph_process", name, dim)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        try:
            while True:
                try:
                    status = process.wait(_LOOK_S)
                    break
                except subprocess.TimeoutExpired:
                    if not goes_on():
                        return None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if status == 0:
            return HnswGraph.read(folder / GRAPH)
    _log.warning(
        "a process that builds a graph over live vectors ended with status %d; it is built by a "
        "thread of this service, and searches may take longer meanwhile",
        status,
    )
    return build_in_thread(parts, goes_on)
