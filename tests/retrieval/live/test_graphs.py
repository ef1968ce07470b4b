"""Graphs over live vectors are the same from a thread and from a process."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import faiss
import numpy as np
import pytest

from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.live import graphs
from retrieval.live.graphs import SLICE_ROWS, BuildGraph, build_in_process, build_in_thread
from tests.retrieval.small_snapshots import Document, index_of

PARTS = [
    np.random.default_rng(seed).standard_normal((rows, 6)).astype(np.float32)
    for seed, rows in enumerate((SLICE_ROWS + 88, 70))
]


@pytest.mark.parametrize("build", [build_in_thread, build_in_process])
def test_a_graph_stores_and_finds_all_rows_in_order(build: BuildGraph) -> None:
    graph = build(PARTS, lambda: True)
    assert graph is not None
    everything = np.concatenate(PARTS)
    assert np.array_equal(graph.vectors(), everything)
    query = everything[7]
    best = int(np.argmax(everything @ query))
    assert graph.search(query, 64)[0] == best


def test_a_graph_is_readable_after_a_smaller_index(tmp_path: Path) -> None:
    # The limits of faiss are those of the process, and were those of the file read last.
    path = tmp_path / "dense.faiss"
    document = Document(id="a", vectors=np.ones((1, 2), np.float32), text="", bounds=[(0, 0)])
    faiss.write_index(index_of("Flat", 2, [document]), str(path))
    FaissIndex.load(path, "Flat", dim=2, rows=1).close()
    graph = build_in_process(PARTS, lambda: True)
    assert graph is not None
    assert np.array_equal(graph.vectors(), np.concatenate(PARTS))


@pytest.mark.parametrize("build", [build_in_thread, build_in_process])
def test_a_cancelled_build_ends_immediately(build: BuildGraph) -> None:
    start = time.monotonic()
    assert build([np.zeros((200_000, 64), np.float32)], lambda: False) is None
    assert time.monotonic() - start < 5.0


def test_a_graph_is_built_in_a_thread_if_the_process_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # It finds no such file, and ends.
    monkeypatch.setattr(graphs, "VECTORS", "elsewhere")
    with caplog.at_level(logging.WARNING):
        graph = build_in_process(PARTS, lambda: True)
    assert graph is not None
    assert np.array_equal(graph.vectors(), np.concatenate(PARTS))
    assert "status 1" in caplog.text
