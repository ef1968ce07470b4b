"""The best rows of a matrix product, held against brute force."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from retrieval.index.gpu.matrix import DeviceMatrix


@pytest.fixture
def matrix() -> ModuleType:
    """Imports torch, which takes seconds that a collection of tests is not to wait."""
    from retrieval.index.gpu import matrix

    return matrix


def filled(matrix: ModuleType, vectors: NDArray[np.float16]) -> DeviceMatrix:
    made: DeviceMatrix = matrix.DeviceMatrix(len(vectors), vectors.shape[1], "cpu")
    for first in range(0, len(vectors), 100):
        made.fill(first, vectors[first : first + 100])
    return made


def best(
    vectors: NDArray[np.float16], queries: NDArray[np.float16], k: int, rows: NDArray[np.int64]
) -> list[list[float]]:
    scores = queries.astype(np.float32) @ vectors[rows].astype(np.float32).T
    return [sorted(row, reverse=True)[:k] for row in scores.tolist()]


@pytest.fixture
def vectors(rng: np.random.Generator) -> NDArray[np.float16]:
    made = rng.normal(size=(1_003, 24))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float16)


@pytest.mark.parametrize("tile_bytes", [1 << 30, 4_096])
@pytest.mark.parametrize("k", [1, 7, 64, 2_000])
@pytest.mark.parametrize("share", [None, 1.0, 0.3, 0.01, 0.0])
def test_the_best_rows_are_those_of_brute_force(
    matrix: ModuleType,
    vectors: NDArray[np.float16],
    rng: np.random.Generator,
    tile_bytes: int,
    k: int,
    share: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matrix, "_TILE_BYTES", tile_bytes)
    monkeypatch.setattr(matrix, "_TILE_ROWS", 128)
    queries = vectors[rng.integers(0, len(vectors), 5)]
    rows, allow = np.arange(len(vectors)), None
    if share is not None:
        allowed = rng.random(len(vectors)) < share
        rows, allow = np.flatnonzero(allowed), np.packbits(allowed, bitorder="little")
    found, scores = filled(matrix, vectors).search(queries, k, allow)
    expected = best(vectors, queries, k, rows)
    assert found.shape == scores.shape == (5, min(k, len(rows)))
    assert set(found.ravel().tolist()) <= set(rows.tolist())
    np.testing.assert_allclose(scores, np.array(expected).reshape(scores.shape), atol=2e-3)
    of_found = np.einsum(
        "nd,nkd->nk", queries.astype(np.float32), vectors[found].astype(np.float32)
    )
    np.testing.assert_allclose(scores, of_found, atol=2e-3)


def test_scores_that_do_not_fit_are_computed_in_smaller_parts(
    matrix: ModuleType, vectors: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = filled(matrix, vectors)
    expected = made.search(vectors[:1], 5)[0].tolist()
    widths: list[int] = []
    best_of = matrix._best

    def limited(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        widths.append(scores.shape[1])
        if scores.shape[1] > 300:
            raise matrix.torch.OutOfMemoryError
        best: tuple[torch.Tensor, torch.Tensor] = best_of(scores, k)
        return best

    monkeypatch.setattr(matrix, "_best", limited)
    monkeypatch.setattr(matrix, "_LEAST_TILE_BYTES", 256)
    monkeypatch.setattr(made, "_tile_bytes", 2 * len(vectors))
    assert made.search(vectors[:1], 5)[0].tolist() == expected
    assert widths[:3] == [1_003, 501, 250]
    widths.clear()
    made.search(vectors[:1], 5)
    assert max(widths) <= 300


def test_not_even_a_small_part_that_fits_is_an_error(
    matrix: ModuleType, vectors: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        raise matrix.torch.OutOfMemoryError("CUDA out of memory")

    made = filled(matrix, vectors)
    monkeypatch.setattr(matrix, "_best", refuse)
    with pytest.raises(matrix.torch.OutOfMemoryError):
        made.search(vectors[:1], 5)


@pytest.mark.gpu
def test_a_gpu_finds_the_same_rows_as_the_cpu(
    matrix: ModuleType, vectors: NDArray[np.float16]
) -> None:
    on_gpu = matrix.DeviceMatrix(len(vectors), vectors.shape[1], "cuda:0")
    on_gpu.fill(0, vectors)
    found, scores = on_gpu.search(vectors[:50], 10)
    assert found[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(
        scores, filled(matrix, vectors).search(vectors[:50], 10)[1], atol=2e-3
    )
