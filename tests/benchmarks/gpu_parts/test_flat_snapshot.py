"""Tests of the snapshots and data that `python -m benchmarks.gpu` makes up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_parts import flat_snapshot, random_data
from benchmarks.gpu_parts.flat_snapshot import COLLECTION, exact_results, write_flat_snapshot
from nearline.errors import NotReady
from nearline.store.snapshot import Store
from retrieval.index.vectors.faiss_index import FaissIndex

_ROWS, _DIM = 500, 16


def test_a_snapshot_holds_the_vectors_and_passes_its_own_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_data, "BLOCK_ROWS", 128)
    snapshot = write_flat_snapshot(tmp_path, _ROWS, _DIM, seed=7)
    store = Store(tmp_path)
    assert store.verify(COLLECTION, store.alias_in_force(COLLECTION).current) > 4 * _ROWS * _DIM
    made = [random_data.unit_vectors(min(128, _ROWS - 128 * n), _DIM, 7, n) for n in range(4)]
    expected = np.concatenate(made)
    np.testing.assert_array_equal(snapshot.vectors(), expected)
    index = FaissIndex.load(snapshot.index_file, "Flat", dim=_DIM, rows=_ROWS)
    np.testing.assert_array_equal(index.reconstruct(np.arange(_ROWS)), expected)
    index.close()


def test_exact_results_are_those_of_brute_force_also_under_the_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several parts, scanned apart.
    monkeypatch.setattr(flat_snapshot, "BLOCK_ROWS", 16)
    snapshot = write_flat_snapshot(tmp_path, _ROWS, _DIM, seed=7)
    queries = random_data.unit_vectors(9, _DIM, 7)
    scores = queries @ snapshot.vectors().T
    best = np.argsort(-scores, axis=1)[:, :5]
    np.testing.assert_array_equal(exact_results(snapshot, queries, 5).rows, best)
    within = np.where(snapshot.values() == 3, scores, -np.inf)
    best = np.argsort(-within, axis=1)[:, :5]
    np.testing.assert_array_equal(exact_results(snapshot, queries, 5, 3).rows, best)
    assert 0 < (snapshot.values() == 3).mean() < 0.1


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="--folder"):
        write_flat_snapshot(tmp_path / "store", 1 << 40, 384, seed=0)
    assert list((tmp_path / "store").iterdir()) == []


def test_blocks_are_drawn_in_order_and_the_same_each_time() -> None:
    rows = random_data.BLOCK_ROWS + 3
    first, last = random_data.blocks(random_data.clustered_vectors, rows, 4, seed=1)
    assert (len(first), len(last)) == (random_data.BLOCK_ROWS, 3)
    np.testing.assert_allclose(np.linalg.norm(last, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(last, random_data.clustered_vectors(3, 4, 1, block=1))


def test_texts_have_as_many_tokens_as_asked() -> None:
    texts = random_data.random_texts(5, 20, seed=3)
    # A model adds two.
    assert [len(text.split()) for text in texts] == [18] * 5
    assert texts == random_data.random_texts(5, 20, seed=3) != random_data.random_texts(5, 20, 4)
