"""Graphs over live vectors are the same from a thread and from a process."""

from __future__ import annotations

import itertools
import logging
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest

from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.live import graphs
from retrieval.live.graphs import (
    IDLE,
    NORMAL,
    SLICE_ROWS,
    BuildGraph,
    build_in_process,
    build_in_thread,
)
from tests.retrieval.small_snapshots import Document, index_of

ROWS = np.random.default_rng(0).standard_normal((SLICE_ROWS + 158, 6)).astype(np.float32)


def always() -> bool:
    return True


def never() -> bool:
    return False


@pytest.mark.parametrize("build", [build_in_thread, build_in_process])
def test_a_graph_stores_and_finds_all_rows_in_order(build: BuildGraph) -> None:
    graph = build(None, ROWS, always, never)
    assert graph is not None
    assert np.array_equal(graph.vectors(), ROWS)
    query = ROWS[7]
    best = int(np.argmax(ROWS @ query))
    assert graph.search(query, 64)[0] == best


@pytest.mark.parametrize("build", [build_in_thread, build_in_process])
def test_a_graph_that_grows_finds_old_and_new_rows_and_the_first_stays(build: BuildGraph) -> None:
    first = build(None, ROWS[:SLICE_ROWS], always, never)
    assert first is not None
    both = build(first, ROWS[SLICE_ROWS:], always, never)
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
    assert build(None, np.zeros((200_000, 64), np.float32), never, never) is None
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


@pytest.mark.parametrize("grown", [False, True])
def test_a_graph_is_built_in_a_thread_if_no_file_can_be_written(
    grown: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    first = build_in_thread(None, ROWS, always) if grown else None
    with caplog.at_level(logging.WARNING):
        graph = build_in_process(first, ROWS, always)
    assert graph is not None
    assert len(graph.vectors()) == len(ROWS) * (1 + grown)
    assert str(tmp_path / "gone") in caplog.text and "set TMPDIR" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has this device")
@pytest.mark.parametrize("name", ["VECTORS", "GROWN"])
def test_a_graph_is_built_in_a_thread_if_the_disk_is_full(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(graphs, name, "/dev/full")
    first = build_in_thread(None, ROWS, always)
    with caplog.at_level(logging.WARNING):
        graph = build_in_process(first, ROWS, always)
    assert graph is not None
    assert np.array_equal(graph.vectors(), np.concatenate([ROWS, ROWS]))
    assert "set TMPDIR" in caplog.text


def test_modules_of_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert build_in_process(None, ROWS, always) is not None
    assert not caplog.records


def test_a_build_that_becomes_urgent_starts_again_like_any_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    run = subprocess.Popen

    def watched(words: Sequence[str], stdin: int) -> subprocess.Popen[bytes]:
        started.append(words[-1])
        return run(words, stdin=stdin)

    monkeypatch.setattr(subprocess, "Popen", watched)
    polls = itertools.count()
    # Not at first, but at the first poll: no build takes so little time.
    many = np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32)
    graph = build_in_process(None, many, lambda: True, lambda: next(polls) > 0)
    assert started == [IDLE, NORMAL]
    assert graph is not None and np.array_equal(graph.vectors(), many)
    started.clear()
    assert build_in_process(None, ROWS, lambda: True, lambda: True) is not None
    assert started == [NORMAL]
