"""Searches by float16 candidates, held against exact searches on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.index.filtering.planner import Matches
from retrieval.index.gpu.device import GpuDevice, NotOnDevice
from retrieval.index.gpu.device_data import DeviceVectors
from retrieval.index.gpu.gpu_index import GpuIndex, GpuPart
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import Neighbours, SearchParams
from tests.retrieval.index.gpu.devices import torch_device

_DIM = 32
_EXACT = SearchParams(exact=True)


@pytest.fixture(scope="module")
def device() -> Iterator[GpuDevice]:
    with closing(torch_device()) as started:
        yield started


def made(factory: str, vectors: NDArray[np.float32]) -> FaissIndex:
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return FaissIndex(index)


def on(device: GpuDevice, index: FaissIndex, *firsts: int) -> GpuIndex:
    """Returns the vectors of an index on a device, cut at some rows."""
    storage = index.storage()
    bounds = [0, *firsts, storage.rows]
    parts = []
    for first, last in itertools.pairwise(bounds):
        vectors = DeviceVectors("vectors", storage, first, last - first)
        device.load(vectors)
        assert vectors.held
        parts.append(GpuPart(device, vectors))
    return GpuIndex(index, parts)


def answered(
    gpu: GpuIndex,
    index: FaissIndex,
    queries: NDArray[np.float32],
    k: int,
    among: Matches | None = None,
) -> Neighbours:
    """Returns the answer of an exact search; the CPU gives what the device cannot prove."""
    allow = None if among is None else among.bitmap
    try:
        found, left = gpu.search(queries, k, among, exact=True)
    except NotOnDevice as error:
        assert not error.fault
        return index.search(queries, k, _EXACT, allow)
    if len(left):
        rest = index.search(np.ascontiguousarray(queries[left]), k, _EXACT, allow)
        found.ids[left], found.scores[left] = rest.ids, rest.scores
    return found


def matches(allowed: NDArray[np.bool_]) -> Matches:
    bitmap = np.packbits(allowed, bitorder="little")
    return Matches(allowed, allowed, bitmap, int(allowed.sum()))


def unit(rng: np.random.Generator, rows: int) -> NDArray[np.float32]:
    drawn = rng.normal(size=(rows, _DIM)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,Flat", "IVF8,Flat", "RR32,HNSW8,Flat"])
@pytest.mark.parametrize("cuts", [(), (8, 1_600)])
def test_results_are_those_of_an_exact_search_to_the_last_bit(
    device: GpuDevice, rng: np.random.Generator, factory: str, cuts: tuple[int, ...]
) -> None:
    vectors = unit(rng, 2_003)
    # Equal scores, more than there are candidates at first, and nearly equal ones.
    vectors[100:180] = vectors[7]
    vectors[200:280] = vectors[9] + rng.normal(size=(80, _DIM)).astype(np.float32) * 1e-5
    queries = np.concatenate([vectors[[7, 9]], unit(rng, 12) * 3, np.zeros((1, _DIM), np.float32)])
    index = made(factory, vectors)
    with closing(on(device, index, *cuts)) as gpu:
        for share in (None, 1.0, 0.9, 0.5, 0.2, 0.03, 0.002, 0.0):
            among, allow = None, None
            if share is not None:
                among = matches(rng.random(len(vectors)) < share)
                allow = among.bitmap
            for k in (1, 10, 130, 3_000):
                found = answered(gpu, index, queries, k, among)
                expected = index.search(queries, k, _EXACT, allow)
                np.testing.assert_array_equal(found.ids, expected.ids)
                np.testing.assert_array_equal(found.scores, expected.scores)
                assert found.full == expected.full or not found.full


@pytest.mark.parametrize("factory", ["HNSW8,SQ8", "HNSW8,SQfp16", "HNSW8,SQ8,Refine(SQfp16)"])
def test_compressed_vectors_differ_in_the_last_digits_only(
    device: GpuDevice, rng: np.random.Generator, factory: str
) -> None:
    index, queries = made(factory, unit(rng, 2_000)), unit(rng, 20)
    with closing(on(device, index)) as gpu:
        found = answered(gpu, index, queries, 10)
    expected = index.search(queries, 10, _EXACT)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert (found.ids == expected.ids).mean() > 0.95


def test_a_filter_that_excludes_the_nearest_rows_loses_none(
    device: GpuDevice, rng: np.random.Generator
) -> None:
    vectors = unit(rng, 4_000)
    queries = unit(rng, 6)
    index = made("Flat", vectors)
    scores = queries @ vectors.T
    with closing(on(device, index)) as gpu:
        for query, row in zip(queries, scores, strict=True):
            # Most rows are allowed, but none of the 1,000 nearest.
            among = matches(row < np.partition(row, -1_000)[-1_000])
            for exact in (True, False):
                found, left = gpu.search(query[None], 10, among, exact=exact)
                assert not len(left)
                expected = index.search(query[None], 10, _EXACT, among.bitmap)
                np.testing.assert_array_equal(found.ids, expected.ids)


def test_a_search_that_need_not_be_exact_leaves_large_k_to_the_cpu(
    device: GpuDevice, rng: np.random.Generator
) -> None:
    index, queries = made("Flat", unit(rng, 3_000)), unit(rng, 2)
    with closing(on(device, index)) as gpu:
        assert gpu.search(queries, 1_024, exact=False).found.full
        with pytest.raises(NotOnDevice, match="1,024 rows") as caught:
            gpu.search(queries, 1_025, exact=False)
        assert not caught.value.fault


def test_a_result_that_cannot_be_proven_is_left_to_the_cpu(
    device: GpuDevice, rng: np.random.Generator
) -> None:
    vectors = unit(rng, 6_000)
    # More equal scores than a device can find.
    vectors[:5_900] = vectors[0]
    index = made("Flat", vectors)
    queries = np.stack([vectors[0], vectors[5_950]])
    with closing(on(device, index)) as gpu:
        found, left = gpu.search(queries, 5, exact=True)
        assert left.tolist() == [0]
        assert found.ids[0].tolist() == [-1] * 5 and found.ids[1, 0] == 5_950
        assert not len(gpu.search(queries, 5, exact=False).left)


@pytest.mark.parametrize("length", [1e-30, 1e-16, 1e16, 1e30])
def test_a_query_far_from_unit_length_is_for_the_cpu(
    device: GpuDevice, rng: np.random.Generator, length: float
) -> None:
    index = made("Flat", unit(rng, 100))
    with closing(on(device, index)) as gpu:
        with pytest.raises(NotOnDevice, match="too long or too short") as caught:
            gpu.search((unit(rng, 2) * np.float32(length)), 5, exact=True)
        assert not caught.value.fault and not device.reason


def test_the_bound_of_the_error_holds_for_vectors_of_any_length(
    device: GpuDevice, rng: np.random.Generator
) -> None:
    vectors = unit(rng, 1_000) * rng.choice([1e-6, 1e-3, 1, 10], (1_000, 1)).astype(np.float32)
    queries = unit(rng, 30) * rng.choice([0, 1e-14, 1, 1e14], (30, 1)).astype(np.float32)
    index = made("Flat", vectors)
    with closing(on(device, index)) as gpu:
        found = answered(gpu, index, queries, 10)
        assert not device.reason
    expected = index.search(queries, 10, _EXACT)
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_vectors_too_large_for_float16_stay_on_the_cpu(
    device: GpuDevice, rng: np.random.Generator
) -> None:
    index = made("Flat", unit(rng, 100) * 100)
    vectors = DeviceVectors("shard 0", index.storage(), 0, 100)
    device.load(vectors)
    assert not vectors.held and "scale the vectors" in vectors.reason
    with closing(GpuIndex(index, [GpuPart(device, vectors)])) as gpu:
        with pytest.raises(NotOnDevice, match="GPU cpu: shard 0 has components") as caught:
            gpu.search(unit(rng, 1), 10, exact=True)
        assert not caught.value.fault
