"""A device that is sick, dead or full, and searches that share a call."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from nearline.workers.process import WorkerUnavailable
from retrieval.index.gpu import device as device_module
from retrieval.index.gpu.device import GpuDevice, NotOnDevice
from retrieval.index.gpu.device_data import DeviceVectors
from retrieval.index.gpu.gpu_index import GpuIndex, GpuPart
from retrieval.index.gpu.search_queue import Candidates, DeviceSearch
from retrieval.index.vectors.faiss_index import FaissIndex
from tests.retrieval.index.gpu.devices import (
    MEMORY_BYTES,
    NEVER,
    SOON,
    breakable_device,
    cpu_device,
    wait_for_recovery,
)

_ROWS, _DIM = 512, 16
_BYTES = _ROWS * _DIM * 2


def index_of(rng: np.random.Generator) -> FaissIndex:
    vectors = rng.normal(size=(_ROWS, _DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(_DIM)
    index.add(vectors)
    return FaissIndex(index)


def vectors_of(index: FaissIndex, name: str = "shard 0") -> DeviceVectors:
    return DeviceVectors(name, index.storage(), 0, _ROWS)


def halves(index: FaissIndex, first: int, count: int) -> NDArray[np.float16]:
    return index.storage().read(first, count).astype(np.float16)


def wait_until_held(device: GpuDevice, only: DeviceVectors) -> None:
    """Waits until the process holds these vectors alone.

    It answers first, and then takes and drops what came too late for its preparation.
    """
    for _ in range(1_000):
        reply = device._worker.call("memory", timeout_s=10, channel=1)
        if reply.values["keys"] == [only.key]:
            return
        threading.Event().wait(0.02)
    raise AssertionError(reply.values["keys"])


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("wrong", "its scores are wrong"),
        ("nan", "its scores are wrong"),
        ("error", "RuntimeError: CUDA error: an illegal memory access"),
        ("hang", "did not answer within"),
    ],
)
def test_a_sick_device_is_taken_out_of_service(
    tmp_path: Path, rng: np.random.Generator, way: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_SEARCH_S", 0.5)
    index = index_of(rng)
    with closing(breakable_device(tmp_path)) as device:
        vectors = vectors_of(index)
        device.load(vectors)
        gpu = GpuIndex(index, [GpuPart(device, vectors)])
        query = index.storage().read(3, 1)
        assert gpu.search(query, 5, exact=True).found.ids[0, 0] == 3
        (tmp_path / way).touch()
        for _ in range(2):
            with pytest.raises(NotOnDevice, match=f"GPU cpu: .*{reason}") as caught:
                gpu.search(query, 5, exact=True)
            assert caught.value.fault
        assert reason in device.reason


def test_a_device_without_memory_for_a_search_stays_in_service(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    index = index_of(rng)
    with closing(breakable_device(tmp_path)) as device:
        vectors = vectors_of(index)
        device.load(vectors)
        (tmp_path / "memory").touch()
        with pytest.raises(NotOnDevice, match="OutOfMemoryError: CUDA out of memory"):
            device.submit(vectors, halves(index, 0, 1), 5).result()
        (tmp_path / "memory").unlink()
        assert device.submit(vectors, halves(index, 0, 1), 5).result().rows[0, 0] == 0


def test_a_device_that_died_loads_its_vectors_again(rng: np.random.Generator) -> None:
    index = index_of(rng)
    with closing(cpu_device()) as device:
        vectors, dropped = vectors_of(index), vectors_of(index)
        device.load(vectors)
        device.load(dropped)
        device.drop(dropped)
        pid = device.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while True:
            try:
                device.submit(vectors, halves(index, 0, 1), 5).result()
            except NotOnDevice as error:
                assert error.fault
                assert "SIGKILL" in str(error)
                break
        wait_for_recovery(device, pid)
        found = device.submit(vectors, halves(index, 9, 1), 5).result()
        assert found.rows[0, 0] == 9
        free = device.free_bytes()
        assert free == device._memory_bytes - _BYTES


def test_vectors_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    index = index_of(rng)
    with closing(cpu_device(memory_bytes=_BYTES + 100)) as device:
        first, second = vectors_of(index, "old"), vectors_of(index, "new")
        device.load(first)
        device.load(second)
        assert second.reason == "new takes 16,384 bytes of the GPU, and 100 are free"
        with pytest.raises(NotOnDevice, match="new takes") as caught:
            device.submit(second, halves(index, 0, 1), 5).result()
        assert not caught.value.fault


def test_loads_and_drops_while_a_device_restarts_are_not_lost(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    index = index_of(rng)
    with closing(breakable_device(tmp_path, pauses=SOON)) as device:
        old = vectors_of(index, "old")
        device.load(old)
        for _ in range(5):
            new, pid = vectors_of(index, "new"), device.pid
            device.fail("it was tested")
            device.load(new)
            device.drop(old)
            wait_for_recovery(device, pid)
            wait_until_held(device, new)
            assert device.submit(new, halves(index, 9, 1), 5).result(30).rows[0, 0] == 9
            assert device.free_bytes() == MEMORY_BYTES - _BYTES
            old = new


@pytest.mark.parametrize("way", ["fill", "create"])
def test_data_for_which_there_is_no_memory_leaves_the_device_in_service(
    tmp_path: Path, rng: np.random.Generator, way: str
) -> None:
    index = index_of(rng)
    with closing(breakable_device(tmp_path, pauses=SOON)) as device:
        first, second = vectors_of(index, "old"), vectors_of(index, "new")
        device.load(first)
        (tmp_path / f"no memory to {way} {second.key}").touch()
        device.load(second)
        assert not second.held and "OutOfMemoryError" in second.reason
        pid = device.pid
        device.fail("it was tested")
        wait_for_recovery(device, pid)
        assert device.submit(first, halves(index, 9, 1), 5).result(30).rows[0, 0] == 9
        wait_until_held(device, first)


def test_memory_that_changes_is_found(tmp_path: Path, rng: np.random.Generator) -> None:
    index = index_of(rng)
    with closing(breakable_device(tmp_path)) as device:
        vectors = vectors_of(index)
        device.load(vectors)
        process = device._worker._process
        assert process is not None
        device._check_data(process)
        block = np.zeros((1, _DIM), np.float16)
        place = {"key": vectors.key, "first": 77}
        process.call("fill", place, [block], timeout_s=10, channel=1)
        with pytest.raises(WorkerUnavailable, match="does not hold shard 0 as it was copied"):
            device._check_data(process)


def test_an_unexpected_reply_fails_the_search_not_the_thread(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    index = index_of(rng)
    with closing(breakable_device(tmp_path)) as device:
        vectors = vectors_of(index)
        device.load(vectors)
        (tmp_path / "empty").touch()
        for _ in range(2):
            with pytest.raises(NotOnDevice) as caught:
                device.submit(vectors, halves(index, 0, 1), 5).result(30)
            assert caught.value.fault
        assert device.reason


def test_a_device_that_is_away_loads_vectors_once_it_is_back(rng: np.random.Generator) -> None:
    index = index_of(rng)
    with closing(cpu_device()) as device:
        pid = device.pid
        device.fail("it was tested")
        vectors = vectors_of(index)
        device.load(vectors)
        wait_for_recovery(device, pid)
        assert device.submit(vectors, halves(index, 4, 1), 5).result().rows[0, 0] == 4


def test_searches_that_wait_share_a_call(rng: np.random.Generator) -> None:
    index = index_of(rng)
    with closing(cpu_device()) as device:
        vectors = vectors_of(index)
        device.load(vectors)
        calls: list[int] = []
        begun, go_on = threading.Event(), threading.Event()
        call = device._call

        def observed(batch: list[DeviceSearch]) -> Candidates:
            calls.append(sum(len(one.queries) for one in batch))
            begun.set()
            assert go_on.wait(30)
            return call(batch)

        device._call = observed  # type: ignore[method-assign]
        bitmap = np.full(_ROWS // 8, 255, np.uint8)
        answers = [device.submit(vectors, halves(index, 0, 1), 3)]
        assert begun.wait(30)
        answers += [device.submit(vectors, halves(index, at, 2), 2 + at % 3) for at in range(1, 9)]
        filtered = [
            device.submit(vectors, halves(index, at, 1), 4, bitmap[:], bitmap) for at in range(2)
        ]
        go_on.set()
        for at, answer in enumerate(answers):
            rows = answer.result(30).rows
            assert rows[:, 0].tolist() == ([0] if at == 0 else [at, at + 1])
            assert rows.shape[1] == (3 if at == 0 else 2 + at % 3)
        for at, answer in enumerate(filtered):
            assert answer.result(30).rows[0, 0] == at
        assert calls == [1, 16, 2]


def test_no_search_fails_otherwise_while_devices_die(rng: np.random.Generator) -> None:
    index = index_of(rng)
    with closing(cpu_device()) as device, ThreadPoolExecutor(2) as threads:
        vectors = vectors_of(index)
        device.load(vectors)
        gpu = GpuIndex(index, [GpuPart(device, vectors)])
        stop, answers = threading.Event(), threading.Event()

        def search(thread: int) -> tuple[int, int]:
            answered = refused = 0
            while not stop.is_set():
                at = (answered + refused + thread) % _ROWS
                try:
                    found = gpu.search(index.storage().read(at, 1), 3, exact=True).found
                except NotOnDevice as error:
                    assert error.fault
                    refused += 1
                    stop.wait(0.001)
                else:
                    assert found.ids[0, 0] == at
                    answered += 1
                    answers.set()
            return answered, refused

        running = [threads.submit(search, thread) for thread in range(2)]
        for _ in range(2):
            pid = device.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            wait_for_recovery(device, pid)
            answers.clear()
            assert answers.wait(60)
        stop.set()
        answered, refused = np.sum([one.result(60) for one in running], axis=0)
        assert answered >= 2 and refused > 0


def test_a_closed_device_refuses_searches(rng: np.random.Generator) -> None:
    index = index_of(rng)
    device = cpu_device(pauses=NEVER)
    vectors = vectors_of(index)
    device.load(vectors)
    device.close()
    with pytest.raises(NotOnDevice, match="it was closed"):
        device.submit(vectors, halves(index, 0, 1), 5).result()
