"""The device of a build: the CPU, or a GPU whose work is done by processes of its own.

FAISS ends its process when a GPU fails. So no process of a build touches a GPU: it starts a worker
for each piece of work, see `nearline.workers.process`. When a worker fails, the build does that
piece on the CPU and notes the reason.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from nearline.workers.process import (
    Message,
    WorkerCommand,
    WorkerError,
    WorkerProcess,
    WorkerUnavailable,
)

_log = logging.getLogger("index_builder")
_TICK_S = 0.5


class GpuFailed(Exception):
    """A GPU did not do its work; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildDevice:
    """The device of a build.

    number: Of the GPU, as CUDA counts those that this process may use; None stands for the CPU.
    check_cancelled: Called while a worker runs; raises an error to end it.
    notes: Work that was done on the CPU instead of the GPU, with the reasons.
    """

    number: int | None = None
    check_cancelled: Callable[[], None] = lambda: None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The device as users write it: cpu or cuda:N."""
        return "cpu" if self.number is None else f"cuda:{self.number}"

    def note(self, text: str) -> None:
        """Records and logs why work is done on the CPU; a text is recorded once."""
        if text not in self.notes:
            self.notes.append(text)
            _log.warning("GPU not used", extra={"reason": text})

    def call(
        self,
        module: str,
        method: str,
        values: Mapping[str, Any],
        arrays: Sequence[NDArray[Any]],
        limit_s: float,
    ) -> Message:
        """Starts a worker for one call.

        It sees only the GPU of this device, as number 0; for the CPU, all GPUs.

        Args:
            module: Module of the worker.
            method, values, arrays: See `WorkerProcess.call`.
            limit_s: Seconds after which the worker is ended.
        Raises: GpuFailed: the worker refuses the call, fails, is killed, or reaches the limit.
        """
        try:
            worker = WorkerProcess.start(WorkerCommand(module, environment=self._environment()))
            with contextlib.ExitStack() as stack:
                thread = stack.enter_context(ThreadPoolExecutor(1))
                # First of all, so that the thread gets its reply, or an error.
                stack.callback(worker.close)
                reply = thread.submit(worker.call, method, values, arrays, timeout_s=limit_s)
                while True:
                    with contextlib.suppress(TimeoutError):
                        return reply.result(_TICK_S)
                    self.check_cancelled()
        except (WorkerError, WorkerUnavailable) as error:
            raise GpuFailed(str(error).removeprefix(f"{GpuFailed.__name__}: ")) from error

    def _environment(self) -> Mapping[str, str]:
        if self.number is None:
            return {}
        # The list that this process has, if any, may hold names in place of numbers.
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name.strip() for name in listed.split(",")] if listed else []
        chosen = names[self.number] if self.number < len(names) else str(self.number)
        return {"CUDA_VISIBLE_DEVICES": chosen}


CPU_DEVICE = BuildDevice()
