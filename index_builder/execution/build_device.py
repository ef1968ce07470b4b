"""The device of a build: the CPU, or a GPU whose work is done by processes of its own.

The libraries for GPUs end their process when a device fails. So no process of a build touches a
GPU: it starts a worker for each piece of work, which writes its result to a file. When a worker
fails, the build does that piece on the CPU and notes the reason.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_log = logging.getLogger("index_builder")
_TICK_S = 0.5
_TAIL_BYTES = 8192
_REASON_CHARACTERS = 300


class GpuFailed(Exception):
    """A GPU did not do its work; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildDevice:
    """The device of a build.

    number: Of the GPU, as CUDA counts those that this process may use; None stands for the CPU.
    folder: For the files of workers. None: the system's folder for temporary files.
    check_cancelled: Called while a worker runs; raises an error to end it.
    notes: Work that was done on the CPU instead of the GPU, with the reasons.
    """

    number: int | None = None
    folder: Path | None = None
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

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """Creates a folder for the block."""
        with tempfile.TemporaryDirectory(prefix="gpu-", dir=self.folder) as name:
            yield Path(name)

    def run(self, module: str, request: Mapping[str, object], limit_s: float) -> None:
        """Runs a worker: `python -m MODULE REQUEST PARENT`.

        It sees only the GPU of this device, as number 0; for the CPU, all GPUs.

        Args:
            module: Name of its module.
            request: What it does, as JSON.
            limit_s: Seconds after which it is ended.
        Raises: GpuFailed: it exits with another code than 0, is killed, or reaches the limit.
        """
        # -P: no module in the current folder may shadow ours.
        command = [sys.executable, "-P", "-m", module, json.dumps(request), str(os.getpid())]
        with tempfile.TemporaryFile() as printed:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    # Standard output is reserved for the result of a build; the libraries print.
                    stdout=printed,
                    stderr=printed,
                    env=self._environment(),
                )
            except OSError as error:
                raise GpuFailed(f"its process cannot start: {error}") from error
            with process:
                try:
                    self._wait(process, limit_s)
                finally:
                    process.kill()
            if process.returncode:
                raise GpuFailed(_reason(process.returncode, printed))

    def _environment(self) -> Mapping[str, str]:
        if self.number is None:
            return os.environ
        # The list that this process has, if any, may hold names in place of numbers.
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name.strip() for name in listed.split(",")] if listed else []
        chosen = names[self.number] if self.number < len(names) else str(self.number)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": chosen}

    def _wait(self, process: subprocess.Popen[bytes], limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TICK_S)
                return
            self.check_cancelled()
            if time.monotonic() > end:
                raise GpuFailed(f"it took longer than {limit_s:,.0f} s")


CPU_DEVICE = BuildDevice()


def _reason(code: int, printed: BinaryIO) -> str:
    """Returns why a worker failed: its last line, and the signal that ended it."""
    printed.seek(max(0, printed.seek(0, os.SEEK_END) - _TAIL_BYTES))
    lines = printed.read().decode("utf-8", "replace").strip().splitlines()
    line = lines[-1].strip()[:_REASON_CHARACTERS] if lines else ""
    if code > 0:
        return line or f"its process ended with code {code}"
    name = signal.Signals(-code).name
    memory = ", as when the machine runs out of memory" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{memory}" + (f" ({line})" if line else "")
