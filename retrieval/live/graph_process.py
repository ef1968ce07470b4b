"""Builds one graph: python -m retrieval.live.graph_process FOLDER DIM POLICY; see `graphs`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path


def _main(folder: Path, dim: int, policy: str) -> int:
    parent = os.getppid()
    if policy == "idle" and sys.platform == "linux":
        with contextlib.suppress(OSError):  # Sandboxes may forbid this call.
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # Imported after lowering the priority, since imports take time, too.
    import numpy as np

    from retrieval.index.vectors.faiss_graph import HnswGraph
    from retrieval.index.vectors.faiss_index import use_one_thread
    from retrieval.live.graphs import GRAPH, GROWN, VECTORS, add_in_slices

    use_one_thread()
    vectors = np.fromfile(folder / VECTORS, np.float32).reshape(-1, dim)
    grown = folder / GROWN
    graph = HnswGraph.read(grown) if grown.exists() else HnswGraph(dim)
    if not add_in_slices(graph, vectors, lambda: os.getppid() == parent):
        # A parent that was killed leaves its folder behind.
        shutil.rmtree(folder, ignore_errors=True)
        return 1
    graph.write(folder / GRAPH)
    return 0


if __name__ == "__main__":
    # Ctrl-C reaches all processes of a terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(_main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
