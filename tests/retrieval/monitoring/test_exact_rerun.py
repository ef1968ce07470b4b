"""Exact reruns of searches during live changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c
from retrieval.monitoring.exact_rerun import RerunRequest, rerun_exactly
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.search.collection import ServedCollection
from retrieval.search.executor import BatchResult, search
from retrieval.search.queries import QueryBatch
from retrieval.search.request_context import RequestContext
from tests.retrieval.monitoring.monitored_collection import served_collections
from tests.retrieval.small_snapshots import documents_of, write_snapshot

DIM = 16


@pytest.mark.parametrize(("changes", "compared"), [(0, 6), (2, 6), (3, 4)])
async def test_few_live_changes_are_tolerated(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    changes: int,
    compared: int,
) -> None:
    vectors = rng.normal(size=(1000, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="moved", factory="HNSW8")
    calls = 0

    async def at_a_time(
        served: ServedCollection,
        asked: QueryBatch,
        options: c.SearchOptions,
        inquiry: RequestContext,
    ) -> BatchResult:
        nonlocal calls
        calls += 1
        # Exactly, four of the index, and two of the index, before which others wrote.
        written = (7 + changes if calls == 3 else 7, *[0] * 63)
        inquiry.record_applied(0, [AppliedState(Watermark("log", written))])
        return await search(served, asked, options, inquiry)

    monkeypatch.setattr("retrieval.search.executor.search", at_a_time)
    async with served_collections(tmp_path) as collections:
        (served,) = collections.in_force
        sampled = [RerunRequest(vectors[n : n + 1], frozenset()) for n in range(6)]
        again = await rerun_exactly(served, sampled, c.SearchOptions(k=10, explain=True))
    assert len(again.pairs) == compared
    assert again.left_out.get("changed", 0) == 6 - compared


@pytest.mark.parametrize(("changes", "calls"), [(0, 1), (2, 1), (3, 2)])
async def test_the_index_is_searched_again_only_after_live_changes(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    changes: int,
    calls: int,
) -> None:
    vectors = rng.normal(size=(1000, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="since", factory="HNSW8")
    exactly: list[bool] = []

    async def spy(
        served: ServedCollection,
        asked: QueryBatch,
        options: c.SearchOptions,
        inquiry: RequestContext,
    ) -> BatchResult:
        exactly.append(options.exact)
        inquiry.record_applied(0, [AppliedState(Watermark("log", (7 + changes, *[0] * 63)))])
        return await search(served, asked, options, inquiry)

    monkeypatch.setattr("retrieval.search.executor.search", spy)
    answered = [c.Hit(id=f"d{n:05d}", score=-1.0) for n in range(10)]
    mark = Watermark("log", (7, *[0] * 63)).encode()
    async with served_collections(tmp_path) as collections:
        (served,) = collections.in_force
        sampled = [RerunRequest(vectors[:1], frozenset(), answered, mark)]
        again = await rerun_exactly(served, sampled, c.SearchOptions(k=10, explain=True))
    ((_, found),) = again.pairs
    assert (list(found) == answered) == (calls == 1)
    assert exactly == [True, False][:calls]
    assert not again.left_out
