"""Indexes that FAISS copies to a device, held against those on the CPU."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.index.filtering.planner import Matches
from retrieval.index.gpu.device import GpuDevice, NotOnDevice
from retrieval.index.gpu.gpu_index import GpuIndex
from retrieval.index.gpu.gpu_pool import GpuClone, GpuPool, start_copier
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import Neighbours, SearchParams
from tests.retrieval.index.gpu.devices import cpu_device, faiss_device, watch_places

_ROWS, _DIM = 3_000, 32
_LISTS = 8


def written(path: Path, factory: str, vectors: NDArray[np.float32]) -> FaissIndex:
    index = faiss.index_factory(_DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(path))
    return FaissIndex.load(path, factory, dim=_DIM, rows=len(vectors), nprobe=_LISTS)


@pytest.fixture
def vectors(rng: np.random.Generator) -> NDArray[np.float32]:
    drawn = rng.normal(size=(_ROWS, _DIM)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def shared(one: Neighbours, other: Neighbours) -> float:
    """Returns the mean share of common rows."""
    pairs = zip(one.ids.tolist(), other.ids.tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


@pytest.mark.parametrize(
    "factory",
    ["IVF8,Flat", "IVF8,SQ8", "IVF8,PQ8x4", "RR32,IVF8,SQ8", "IVF8,PQ8x4,Refine(SQfp16)"],
)
def test_an_index_too_large_for_float16_is_copied_by_faiss(
    tmp_path: Path, vectors: NDArray[np.float32], factory: str
) -> None:
    path = tmp_path / "dense.faiss"
    index = written(path, factory, vectors)
    # No room for a vector: an index of product quantizers is much smaller.
    with closing(cpu_device(memory_bytes=1)) as device:
        with closing(GpuPool([device], faiss_device)) as pool:
            placed = pool.attach(index, path, "shard 0")
            assert placed is not None
            clone = placed.searcher
            assert isinstance(clone, GpuClone)
            near = clone.search(vectors[:50], 10, exact=False).found
            same = index.search(vectors[:50], 10)
            exact = index.search(vectors[:50], 10, SearchParams(exact=True))
            # Of compressed vectors, more candidates are scored again.
            assert shared(near, exact) >= shared(same, exact)
            if "Refine" not in factory:
                assert shared(near, same) > 0.99
            assert (np.diff(near.scores, axis=1) <= 0).all()
            kept = np.ones(_ROWS, np.bool_)
            kept[near.ids[:, 0]] = False
            alive = Matches(kept, kept, np.packbits(kept, bitorder="little"), int(kept.sum()))
            hidden = clone.search(vectors[:50], 9, alive, exact=False).found
            assert kept[hidden.ids].all()
            few = alive.among(_only(100))
            for k, among in ((1_025, None), (5, few)):
                with pytest.raises(NotOnDevice) as caught:
                    clone.search(vectors[:2], k, among, exact=False)
                assert not caught.value.fault
            placed.close()


def test_a_copy_that_dies_is_a_fault(tmp_path: Path, vectors: NDArray[np.float32]) -> None:
    path = tmp_path / "dense.faiss"
    index = written(path, "IVF8,Flat", vectors)
    with closing(cpu_device(memory_bytes=1)) as device:
        with closing(GpuPool([device], faiss_device)) as pool:
            placed = pool.attach(index, path, "shard 0")
            assert placed is not None
            clone = placed.searcher
            assert isinstance(clone, GpuClone)
            pid = clone._device.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(NotOnDevice, match="SIGKILL") as caught:
                clone.search(vectors[:2], 5, exact=False)
            assert caught.value.fault


def test_a_copy_that_does_not_fit_leaves_the_device_in_service(
    tmp_path: Path, vectors: NDArray[np.float32]
) -> None:
    path = tmp_path / "dense.faiss"
    index = written(path, "IVF8,Flat", vectors)
    with closing(cpu_device(memory_bytes=1)) as device:
        with closing(GpuPool([device], partial(faiss_device, number=1))) as pool:
            placed = pool.attach(index, path, "shard 0")
            assert placed is not None and placed.searcher is None and not placed.fault
            (copier,) = pool._copiers.values()
            assert not copier.reason


def test_a_graph_of_the_cpu_cannot_be_copied(tmp_path: Path, vectors: NDArray[np.float32]) -> None:
    path = tmp_path / "dense.faiss"
    index = written(path, "HNSW8,Flat", vectors)
    with closing(cpu_device(memory_bytes=1)) as device:
        pool = GpuPool([device], faiss_device)
        placed = pool.attach(index, path, "shard 0")
        assert placed is not None and placed.searcher is None and not pool._copiers


def test_a_copy_gives_way_to_all_vectors_once_they_fit(
    tmp_path: Path, vectors: NDArray[np.float32]
) -> None:
    path = tmp_path / "dense.faiss"
    index = written(path, "IVF8,Flat", vectors)
    size = 2 * _ROWS * _DIM
    with closing(cpu_device(memory_bytes=size + 1)) as device:
        with closing(GpuPool([device], faiss_device)) as pool:
            old = pool.attach(index, path, "old")
            new = pool.attach(index, path, "new")
            assert old is not None and new is not None
            assert isinstance(old.searcher, GpuIndex) and isinstance(new.searcher, GpuClone)
            copier = new.searcher._device
            places = watch_places(pool)
            old.close()
            assert places.wait(60)
            assert isinstance(new.searcher, GpuIndex)
            assert not copier.held_bytes() and device.held_bytes() == size


@pytest.mark.gpu
@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF8,PQ8"])
def test_a_gpu_finds_what_the_cpu_finds(
    tmp_path: Path, vectors: NDArray[np.float32], factory: str
) -> None:
    path = tmp_path / "dense.faiss"
    index = written(path, factory, vectors)
    with closing(GpuPool([cpu_device(memory_bytes=1)], start_on_gpu)) as pool:
        placed = pool.attach(index, path, "shard 0")
        assert placed is not None
        clone = placed.searcher
        assert isinstance(clone, GpuClone)
        near, same = (
            clone.search(vectors[:50], 10, exact=False).found,
            index.search(vectors[:50], 10),
        )
        assert (near.ids == same.ids).mean() > 0.9


def start_on_gpu(device: GpuDevice) -> GpuDevice:
    return start_copier(GpuDevice("cuda:0"))


def _only(rows: int) -> Matches:
    kept = np.arange(_ROWS) < rows
    return Matches(kept, kept, np.packbits(kept, bitorder="little"), rows)
