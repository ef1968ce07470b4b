"""Which device holds which vectors, and which devices a setting names."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import faiss
import numpy as np
import pytest

from embedding import devices
from nearline.errors import SettingsError
from retrieval.index.gpu.gpu_index import GpuIndex
from retrieval.index.gpu.gpu_pool import GpuPool, open_pool
from retrieval.index.vectors.faiss_index import FaissIndex
from tests.retrieval.index.gpu.devices import cpu_device

_ROWS, _DIM = 1_003, 16
_ROW_BYTES = 2 * _DIM


def index_of(rng: np.random.Generator, metric: int = faiss.METRIC_INNER_PRODUCT) -> FaissIndex:
    vectors = rng.normal(size=(_ROWS, _DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexFlat(_DIM, metric)
    index.add(vectors)
    return FaissIndex(index)


@pytest.mark.parametrize(
    ("rooms", "shares"),
    [
        ([500, 1_003], [(1, 1_003)]),
        ([504, 600], [(1, 600), (0, 403)]),
        ([10, 500, 520], [(2, 520), (1, 483)]),
        # Not all of them together: one refuses.
        ([500, 502], [(0, 1_003)]),
    ],
)
def test_an_index_goes_where_it_fits_and_else_to_several_devices(
    rng: np.random.Generator, rooms: list[int], shares: list[tuple[int, int]]
) -> None:
    with ExitStack() as stack:
        devices = [
            stack.enter_context(closing(cpu_device(memory_bytes=room * _ROW_BYTES)))
            for room in rooms
        ]
        index = index_of(rng)
        gpu = GpuPool(devices).attach(index, Path(), "shard 0")
        assert isinstance(gpu, GpuIndex)
        placed = [(devices.index(part.device), part.vectors.rows) for part in gpu._parts]
        assert placed == shares
        assert [part.vectors.first for part in gpu._parts] == [
            sum(rows for _, rows in shares[:number]) for number in range(len(shares))
        ]
        refused = sum(rooms) < _ROWS
        assert all(bool(part.vectors.refusal) == refused for part in gpu._parts)
        if not refused:
            queries = index.storage().read(990, 13)
            assert gpu.search(queries, 3, exact=True).ids[:, 0].tolist() == list(range(990, 1_003))
        gpu.close()
        assert [device.free_bytes() for device in devices] == [room * _ROW_BYTES for room in rooms]


def test_distances_and_empty_indexes_stay_on_the_cpu(rng: np.random.Generator) -> None:
    with closing(cpu_device()) as device:
        pool = GpuPool([device])
        assert pool.attach(index_of(rng, faiss.METRIC_L2), Path(), "shard 0") is None
        empty = FaissIndex(faiss.IndexFlatIP(_DIM))
        assert pool.attach(empty, Path(), "shard 0") is None


def test_without_a_gpu_there_is_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "torch_cuda", lambda: 0)
    assert open_pool("cpu") is None
    assert open_pool("auto") is None
    with pytest.raises(SettingsError, match="torch finds no GPU"):
        open_pool("cuda:all")


def test_a_named_gpu_that_is_missing_is_a_reason_not_an_error(rng: np.random.Generator) -> None:
    pool = open_pool("cuda:99")
    assert pool is not None
    with closing(pool):
        gpu = pool.attach(index_of(rng), Path(), "shard 0")
        assert gpu is not None
        assert pool._devices[0].reason
        gpu.close()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "auto,cuda:0", "cuda:0,", ""])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(SettingsError, match="use auto, cpu, cuda"):
        open_pool(device)
