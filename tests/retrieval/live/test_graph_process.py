"""The process that builds a graph leaves the cores to searches, and ends with its parent."""

from __future__ import annotations

import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retrieval.index.vectors.faiss_graph import HnswGraph
from retrieval.live.graph_process import _main
from retrieval.live.graphs import GRAPH, IDLE, NORMAL, SLICE_ROWS, VECTORS

ROWS = np.random.default_rng(0).standard_normal((SLICE_ROWS + 10, 3)).astype(np.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this policy")
def test_a_graph_is_built_on_idle_cores_only(tmp_path: Path) -> None:
    ROWS.tofile(tmp_path / VECTORS)
    # The policy is of a thread, so that of the tests stays as it is.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(_main, tmp_path, 3, IDLE).result() == 0
        assert thread.submit(os.sched_getscheduler, 0).result() == os.SCHED_IDLE
    assert np.array_equal(HnswGraph.read(tmp_path / GRAPH).vectors(), ROWS)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this policy")
def test_an_urgent_graph_is_built_like_by_any_process(tmp_path: Path) -> None:
    ROWS.tofile(tmp_path / VECTORS)
    with ThreadPoolExecutor(1) as thread:
        before = thread.submit(os.sched_getscheduler, 0).result()
        assert thread.submit(_main, tmp_path, 3, NORMAL).result() == 0
        assert thread.submit(os.sched_getscheduler, 0).result() == before
    assert np.array_equal(HnswGraph.read(tmp_path / GRAPH).vectors(), ROWS)


def test_a_build_whose_parent_is_gone_ends_and_removes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ROWS.tofile(tmp_path / VECTORS)
    # It dies after the first slice.
    parents = itertools.chain((7, 7), itertools.repeat(1))
    monkeypatch.setattr(os, "getppid", parents.__next__)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(_main, tmp_path, 3, IDLE).result() == 1
    assert not tmp_path.exists()
