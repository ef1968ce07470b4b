"""The worker processes of a model on GPUs: one for each GPU, checked, and replaced when it is sick.

The process that serves does not use CUDA: an error of CUDA stays with the process that saw it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.retry import Backoff
from nearline.workers.process import (
    WorkerCommand,
    WorkerError,
    WorkerProcess,
    WorkerUnavailable,
)
from nearline.workers.supervisor import PAUSES, SupervisedWorker

# Batches that a GPU has at once: while one runs, the next is sent, padded and copied.
BATCHES_PER_GPU = 2
_LOAD_S = 300.0
_CHECK_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """A model for the workers of a pool.

    command: Starts a worker; it answers `load` and `run`, as `embedding.gpu.worker` does.
    values: Values of `load`; the pool adds `device`.
    sample: Arrays of a batch whose rows are known.
    problem: Returns what is wrong with the rows of the sample; empty if nothing is.
    """

    command: WorkerCommand
    values: Mapping[str, Any]
    sample: Sequence[NDArray[Any]]
    problem: Callable[[NDArray[np.float32]], str]


def worker_command() -> WorkerCommand:
    """Returns how a worker is started."""
    return WorkerCommand("embedding.gpu.worker", channels=BATCHES_PER_GPU + 1)


class GpuPool:
    """Runs batches of one model on GPUs; `slots` threads may call it at once.

    A GPU is taken out if its process ends, does not answer in time, or gives wrong rows. Its
    process is started again in the background, with growing pauses, and checked before it is used.

    slots: Two for each GPU.

    Args:
        model: The model.
        devices: Torch devices of the GPUs, such as ("cuda:0", "cuda:1").
        timeout_s: Seconds within which a GPU must answer a batch.
        check_every_s: Seconds between two checks of a GPU in use.
        pauses: Pauses before a process is started again.
    """

    def __init__(
        self,
        model: GpuModel,
        devices: Sequence[str],
        *,
        timeout_s: float,
        check_every_s: float = _CHECK_EVERY_S,
        pauses: Backoff = PAUSES,
    ) -> None:
        self.slots = BATCHES_PER_GPU * len(devices)
        self._model = model
        self._timeout_s = timeout_s
        self._reasons = [""] * self.slots
        self._workers = {
            device: SupervisedWorker(
                model.command,
                f"GPU {device}",
                partial(self._prepare, device),
                # A channel of its own, so that it does not wait for batches that hang.
                check=partial(self._check, channel=BATCHES_PER_GPU, timeout_s=timeout_s),
                check_every_s=check_every_s,
                pauses=pauses,
            )
            for device in devices
        }

    @property
    def configured_gpus(self) -> int:
        """The number of GPUs that should answer."""
        return len(self._workers)

    def count_gpus(self) -> int:
        """Returns the number of GPUs that answer."""
        return sum(not worker.reason for worker in self._workers.values())

    @property
    def away(self) -> str:
        """Why no GPU answers; empty if one does."""
        reasons = {device: worker.reason for device, worker in self._workers.items()}
        if not all(reasons.values()):
            return ""
        return "; ".join(f"{device}: {reason}" for device, reason in reasons.items())

    def wait_ready(self) -> str:
        """Waits until each GPU has started or failed; returns `away`."""
        end = time.monotonic() + self._model.command.start_s + 2 * _LOAD_S
        for worker in self._workers.values():
            worker.wait_ready(max(0.0, end - time.monotonic()))
        return self.away

    def reason(self, slot: int) -> str:
        """Returns why the last batch of a slot did not run on a GPU; empty if it did."""
        return self._reasons[slot]

    def run(self, arrays: Sequence[NDArray[Any]], slot: int) -> NDArray[np.float32] | None:
        """Runs a batch on the slot's GPU, or on another one while that is out.

        Args:
            arrays: See `embedding.gpu.worker`.
            slot: 0 <= slot < slots; never used by two threads at once.
        Returns: The rows, all of them finite; None if no GPU answered, see `reason`.
        """
        # One GPU only: a batch that ends the process of one would end the others' in turn.
        device = self._choose(slot)
        if device is None:
            self._reasons[slot] = self.away
            return None
        worker, channel = self._workers[device], slot % BATCHES_PER_GPU
        try:
            rows = _run(worker, arrays, channel, self._timeout_s)
        except WorkerUnavailable as error:
            reason = str(error)
        except WorkerError as error:
            reason = str(error)
            # If the worker is away by now, it is out already.
            with contextlib.suppress(WorkerUnavailable):
                if problem := self._problem(worker, channel, self._timeout_s):
                    worker.fail(problem)
        else:
            if np.isfinite(rows).all():
                self._reasons[slot] = ""
                return rows
            reason = "it returned a number that is not finite"
            worker.fail(reason)
        self._reasons[slot] = f"{device}: {reason}"
        return None

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers.values():
            worker.close()

    def _choose(self, slot: int) -> str | None:
        devices = list(self._workers)
        home = slot // BATCHES_PER_GPU
        for device in (*devices[home:], *devices[:home]):
            if not self._workers[device].reason:
                return device
        return None

    def _prepare(self, device: str, process: WorkerProcess) -> None:
        process.call("load", {**self._model.values, "device": device}, timeout_s=_LOAD_S)
        # The first batch takes longer: kernels are loaded.
        self._check(process, channel=0, timeout_s=_LOAD_S)

    def _check(self, process: WorkerProcess, *, channel: int, timeout_s: float) -> None:
        """Raises WorkerUnavailable if the rows of the sample are wrong, or there are none."""
        problem = self._problem(process, channel, timeout_s)
        if problem:
            raise WorkerUnavailable(problem)

    def _problem(
        self, worker: WorkerProcess | SupervisedWorker, channel: int, timeout_s: float
    ) -> str:
        """Returns what is wrong with the rows of the sample; empty if nothing is."""
        try:
            rows = _run(worker, self._model.sample, channel, timeout_s)
        except WorkerError as error:
            return str(error)
        return self._model.problem(rows)


def _run(
    worker: WorkerProcess | SupervisedWorker,
    arrays: Sequence[NDArray[Any]],
    channel: int,
    timeout_s: float,
) -> NDArray[np.float32]:
    reply = worker.call("run", arrays=arrays, timeout_s=timeout_s, channel=channel)
    return np.asarray(reply.arrays[0], np.float32)
