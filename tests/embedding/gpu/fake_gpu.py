"""A worker process with the vectors of `FakeBackend` that tests can break: a GPU without one.

`python -m tests.embedding.gpu.fake_gpu FOLDER`. It writes its process id to FOLDER/DEVICE.pid, and
does what FOLDER/DEVICE.fault says.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np

from embedding.backend import TokenBatch, unpad
from embedding.gpu.pool import BATCHES_PER_GPU, GpuModel, GpuPool
from nearline.retry import Backoff
from nearline.workers.process import Message, WorkerCommand, serve_calls
from tests.embedding.fakes import DIM, expected

_ROOT = Path(__file__).parents[3]
SAMPLE = TokenBatch(np.array([[2, 9, 3]]), np.ones((1, 3), np.int64))
FAULTS = ("nan", "wrong", "memory", "error", "hang", "kill")


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class FakeGpus:
    """Devices in a folder.

    Args:
        folder: Of the faults.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pool(self, *devices: str, timeout_s: float = 20.0, check_every_s: float = 60.0) -> GpuPool:
        """Starts a pool, and waits until every device answers or failed."""
        model = GpuModel(
            command=WorkerCommand(
                "tests.embedding.gpu.fake_gpu",
                [str(self.folder)],
                channels=BATCHES_PER_GPU + 1,
                environment={"PYTHONPATH": str(_ROOT)},
            ),
            values={},
            sample=(SAMPLE.ids, SAMPLE.mask),
            problem=_problem,
        )
        pool = GpuPool(
            model,
            devices,
            timeout_s=timeout_s,
            check_every_s=check_every_s,
            pauses=Backoff(0.05, 0.2),
        )
        pool.wait_ready()
        return pool

    def pid(self, device: str) -> int:
        """Returns the process id of a worker."""
        return int((self.folder / f"{device}.pid").read_text())

    def inject(self, device: str, fault: str) -> None:
        """Breaks a device: at once, and whenever it is started again."""
        new = self.folder / "new"
        new.write_text(fault)
        new.replace(self.folder / f"{device}.fault")
        if fault == "kill":
            os.kill(self.pid(device), signal.SIGKILL)

    def repair(self, device: str) -> None:
        """Makes the next start succeed."""
        (self.folder / f"{device}.fault").unlink()


def _problem(rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> str:
    return "" if np.allclose(rows, [expected(SAMPLE.ids[0])]) else "its vectors are wrong"


class _Worker:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._device = ""

    def load(self, call: Message) -> Message:
        self._device = call.values["device"]
        (self._folder / f"{self._device}.pid").write_text(str(os.getpid()))
        return Message({})

    def run(self, call: Message) -> Message:
        rows = np.stack([expected(ids) for ids in unpad(TokenBatch(*call.arrays))])
        try:
            fault = (self._folder / f"{self._device}.fault").read_text()
        except FileNotFoundError:
            fault = ""
        if fault == "memory":
            raise OutOfMemoryError("CUDA out of memory")
        if fault == "error":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if fault == "hang":
            threading.Event().wait()
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "nan":
            rows[:] = np.nan
        if fault == "wrong":
            rows = rows[:, ::-1]
        assert rows.shape[1] == DIM
        return Message({}, [rows])


if __name__ == "__main__":
    worker = _Worker(Path(sys.argv[1]))
    serve_calls({"load": worker.load, "run": worker.run})
