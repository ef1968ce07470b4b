"""Devices for tests, which need no GPU."""

from __future__ import annotations

import threading
from pathlib import Path

from nearline.retry import Backoff
from nearline.workers.process import WorkerCommand
from retrieval.index.gpu.device import GpuDevice
from retrieval.index.gpu.gpu_pool import GpuPool

_ROOT = Path(__file__).parents[4]
# Without a memory of its own, the CPU has this limit.
MEMORY_BYTES = 1 << 26
SOON = Backoff(0.001)
NEVER = Backoff(3_600)


def torch_device() -> GpuDevice:
    """Returns a device whose worker is the real one, on the CPU; it takes seconds to start."""
    return _started(GpuDevice("cpu", memory_bytes=MEMORY_BYTES))


def cpu_device(
    memory_bytes: int = MEMORY_BYTES, pauses: Backoff = SOON, folder: Path = Path("/nonexistent")
) -> GpuDevice:
    """Returns a device that computes with numpy, and breaks as a folder says; see `worker`."""
    command = WorkerCommand(
        "tests.retrieval.index.gpu.worker",
        [str(folder)],
        channels=2,
        environment={"PYTHONPATH": str(_ROOT)},
    )
    return _started(GpuDevice("cpu", memory_bytes=memory_bytes, pauses=pauses, command=command))


def breakable_device(folder: Path, pauses: Backoff = NEVER) -> GpuDevice:
    """Returns a device that breaks as the files of a folder say."""
    return cpu_device(pauses=pauses, folder=folder)


def _started(device: GpuDevice) -> GpuDevice:
    assert device.wait_ready(60), device.reason
    return device


def faiss_device(device: GpuDevice, number: int = 0) -> GpuDevice:
    """Returns a device whose worker copies FAISS indexes, to the CPU; number 1 has no memory."""
    command = WorkerCommand(
        "tests.retrieval.index.gpu.faiss_worker",
        [str(number)],
        channels=2,
        environment={"PYTHONPATH": str(_ROOT)},
    )
    return GpuDevice(device.name, memory_bytes=1 << 31, pauses=NEVER, command=command)


def wait_for_recovery(device: GpuDevice, pid: int | None) -> None:
    """Waits until another process than `pid` answers."""
    worker = device._worker
    with worker._changed:
        assert worker._changed.wait_for(lambda: worker.pid not in (None, pid), 60)


def watch_places(pool: GpuPool) -> threading.Event:
    """Returns what is set whenever the pool has placed what it could, from now on."""
    placed, place = threading.Event(), pool._place_waiting

    def observed() -> None:
        place()
        placed.set()

    pool._place_waiting = observed  # type: ignore[method-assign]
    return placed
