"""Which device holds which vectors, and which devices a setting names."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import faiss
import numpy as np
import pytest

from embedding import devices
from nearline.errors import SettingsError
from nearline.retry import Backoff
from retrieval.index.gpu.gpu_index import GpuIndex
from retrieval.index.gpu.gpu_pool import GpuPool, open_pool
from retrieval.index.vectors.faiss_index import FaissIndex
from tests.retrieval.index.gpu.devices import (
    breakable_device,
    cpu_device,
    wait_for_recovery,
    watch_places,
)

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
        # Only whole bytes of a bitmap can be divided, and that loses a few rows.
        ([505, 498], []),
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
        placed = GpuPool(devices).attach(index, Path(), "shard 0")
        assert placed is not None
        if not shares:
            assert placed.searcher is None
            return
        gpu = placed.searcher
        assert isinstance(gpu, GpuIndex)
        parts = [(devices.index(part.device), part.vectors.rows) for part in gpu._parts]
        assert parts == shares
        assert [part.vectors.first for part in gpu._parts] == [
            sum(rows for _, rows in shares[:number]) for number in range(len(shares))
        ]
        queries = index.storage().read(990, 13)
        found = gpu.search(queries, 3, exact=True).found
        assert found.ids[:, 0].tolist() == list(range(990, 1_003))
        placed.close()
        assert [device.free_bytes() for device in devices] == [room * _ROW_BYTES for room in rooms]


def test_the_next_snapshot_gets_its_place_once_the_last_one_is_released(
    rng: np.random.Generator,
) -> None:
    with ExitStack() as stack:
        room = 760 * _ROW_BYTES
        devices = [stack.enter_context(closing(cpu_device(memory_bytes=room))) for _ in range(2)]
        index = index_of(rng)
        pool = GpuPool(devices)
        old, new = (pool.attach(index, Path(), name) for name in ("old", "new"))
        assert old is not None and new is not None
        assert isinstance(old.searcher, GpuIndex)
        # Nothing has failed: it waits.
        assert new.searcher is None and not new.fault
        places = watch_places(pool)
        old.close()
        assert places.wait(60)
        assert isinstance(new.searcher, GpuIndex)
        assert len(new.searcher._parts) == 2


def test_an_index_is_placed_once_a_device_answers(tmp_path: Path, rng: np.random.Generator) -> None:
    with closing(breakable_device(tmp_path, pauses=Backoff(0.5))) as device:
        pool = GpuPool([device])
        pid = device.pid
        device.fail("it was tested")
        placed = pool.attach(index_of(rng), Path(), "shard 0")
        assert placed is not None and placed.searcher is None
        assert placed.fault == "GPU cpu: it was tested"
        places = watch_places(pool)
        wait_for_recovery(device, pid)
        assert places.wait(60)
        assert isinstance(placed.searcher, GpuIndex) and not placed.fault


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
        placed = pool.attach(index_of(rng), Path(), "shard 0")
        assert placed is not None and placed.searcher is None
        assert placed.fault == (
            "GPU cuda:99: RuntimeError: torch finds no GPU; run nearline doctor"
        )
        placed.close()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "auto,cuda:0", "cuda:0,", ""])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(SettingsError, match="use auto, cpu, cuda"):
        open_pool(device)
