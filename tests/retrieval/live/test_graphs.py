"""Graphs over live vectors are the same wherever they are built."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest

from retrieval.live import graphs
from retrieval.live.graphs import SLICE_ROWS, Build, build_apart, build_here

PARTS = [
    np.random.default_rng(seed).standard_normal((rows, 6)).astype(np.float32)
    for seed, rows in enumerate((SLICE_ROWS + 88, 70))
]


@pytest.mark.parametrize("build", [build_here, build_apart])
def test_a_graph_holds_and_finds_all_rows_in_order(build: Build) -> None:
    graph = build(PARTS, lambda: True)
    assert graph is not None
    everything = np.concatenate(PARTS)
    assert np.array_equal(graph.vectors(), everything)
    query = everything[7]
    best = int(np.argmax(everything @ query))
    assert graph.search(query, 64)[0] == best


@pytest.mark.parametrize("build", [build_here, build_apart])
def test_a_build_that_is_given_up_ends_at_once(build: Build) -> None:
    start = time.monotonic()
    assert build([np.zeros((200_000, 64), np.float32)], lambda: False) is None
    assert time.monotonic() - start < 5.0


def test_a_graph_is_built_here_where_a_process_cannot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # It finds no such file, and ends.
    monkeypatch.setattr(graphs, "VECTORS", "elsewhere")
    with caplog.at_level(logging.WARNING):
        graph = build_apart(PARTS, lambda: True)
    assert graph is not None
    assert np.array_equal(graph.vectors(), np.concatenate(PARTS))
    assert "status 1" in caplog.text
