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

ROWS = np.random.default_rng(0).standard_normal((SLICE_ROWS + 158, 6)).astype(np.float32)


@pytest.mark.parametrize("build", [build_in_thread, build_in_process])
def test_a_graph_stores_and_finds_all_rows_in_order(build: BuildGraph) -> None:
    graph = build(None, ROWS, lambda: True)
    assert graph is not None
    assert np.array_equal(graph.vectors(), ROWS)
    query = ROWS[7]
    best = int(np.argmax(ROWS @ query))
    assert graph.search(query, 64)[0] == best


@pytest.mark.parametrize("build", [build_in_thread, build_in_process])
def test_a_graph_that_grows_finds_old_and_new_rows_and_the_first_stays(build: BuildGraph) -> None:
    first = build(None, ROWS[:SLICE_ROWS], lambda: True)
    assert first is not None
    both = build(first, ROWS[SLICE_ROWS:], lambda: True)
    assert both is not None
    assert np.array_equal(first.vectors(), ROWS[:SLICE_ROWS])
    assert np.array_equal(both.vectors(), ROWS)
    for query in ROWS[::31]:
        best = np.argsort(-(ROWS @ query))[:10]
        assert set(best.tolist()) <= set(both.search(query, 64).tolist())
        assert both.search(query, 64).max() >= SLICE_ROWS
        assert first.search(query, 64).max() < SLICE_ROWS


def test_a_graph_is_readable_after_a_smaller_index(tmp_path: Path) -> None:
    # The limits of faiss are those of the process, and were those of the file read last.
    path = tmp_path / "dense.faiss"
    document = Document(id="a", vectors=np.ones((1, 2), np.float32), text="", bounds=[(0, 0)])
    faiss.write_index(index_of("Flat", 2, [document]), str(path))
    FaissIndex.load(path, "Flat", dim=2, rows=1).close()
    graph = build_in_process(None, ROWS, lambda: True)
    assert graph is not None
    assert np.array_equal(graph.vectors(), ROWS)


@pytest.mark.parametrize("build", [build_in_thread, build_in_process])
def test_a_cancelled_build_ends_immediately(build: BuildGraph) -> None:
    start = time.monotonic()
    assert build(None, np.zeros((200_000, 64), np.float32), lambda: False) is None
    assert time.monotonic() - start < 5.0


def test_a_graph_is_built_in_a_thread_if_the_process_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # It finds no such file, and ends.
    monkeypatch.setattr(graphs, "VECTORS", "elsewhere")
    with caplog.at_level(logging.WARNING):
        graph = build_in_process(None, ROWS, lambda: True)
    assert graph is not None
    assert np.array_equal(graph.vectors(), ROWS)
    assert "status 1" in caplog.text
