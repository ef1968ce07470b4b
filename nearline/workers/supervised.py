"""A worker process that is started again after a failure.

worker = SupervisedWorker(WorkerCommand("package.worker", ["cuda:0"]), "cuda:0", prepare=load)
worker.wait_ready(60)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from nearline.retry import Backoff
from nearline.workers.process import (
    Message,
    WorkerCommand,
    WorkerError,
    WorkerProcess,
    WorkerUnavailable,
)

_log = logging.getLogger(__name__)
_PAUSES = Backoff(1.0, 300.0)
# A worker that ran for so long was healthy: the next pause is short again.
_HEALTHY_S = 600.0


class SupervisedWorker:
    """A worker process that is started again after a failure, with growing pauses.

    Calls fail at once while it is away; a thread starts it again.

    Args:
        command: How to start it.
        name: Name in log lines, for example "GPU cuda:0".
        prepare: Prepares a fresh process and checks that it works; raises what shows that it does
            not, such as WorkerError and WorkerUnavailable. Runs in the thread.
        pauses: Pauses before new starts.
    """

    def __init__(
        self,
        command: WorkerCommand,
        name: str,
        prepare: Callable[[WorkerProcess], None] = lambda process: None,
        *,
        pauses: Backoff = _PAUSES,
    ) -> None:
        self._command = command
        self._name = name
        self._prepare = prepare
        self._pauses = pauses
        self._changed = threading.Condition()
        # Guarded by the condition.
        self._process: WorkerProcess | None = None
        self._reason = "it is starting"
        self._closed = False
        self._thread = threading.Thread(target=self._supervise, name=f"{name} supervisor")
        self._thread.daemon = True
        self._thread.start()

    @property
    def reason(self) -> str:
        """Why the worker is away; empty while it answers."""
        return self._reason

    @property
    def pid(self) -> int | None:
        """The process id of the child; None while it is away."""
        process = self._process
        return None if process is None else process.pid

    def wait_ready(self, timeout_s: float) -> bool:
        """Waits until the first start has succeeded or failed; returns whether it answers."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._process is not None or self._reason != "it is starting", timeout_s
            )
            return self._process is not None

    def call(
        self,
        method: str,
        values: Mapping[str, Any] | None = None,
        arrays: Sequence[NDArray[Any]] = (),
        *,
        timeout_s: float,
        channel: int = 0,
    ) -> Message:
        """Calls the worker; see `WorkerProcess.call`."""
        process = self._process
        if process is None:
            raise WorkerUnavailable(self._reason)
        try:
            return process.call(method, values, arrays, timeout_s=timeout_s, channel=channel)
        except WorkerUnavailable as error:
            self.fail(str(error), process)
            raise

    def fail(self, reason: str, process: WorkerProcess | None = None) -> None:
        """Takes the worker out of service, for example because its results are wrong.

        Args:
            reason: Why.
            process: The process that failed; one that was started since stays. None: any.
        """
        with self._changed:
            if self._process is None or (process is not None and process is not self._process):
                return
            failed, self._process, self._reason = self._process, None, reason
            self._changed.notify_all()
        _log.error("worker failed", extra={"worker": self._name, "reason": reason})
        failed.close()

    def close(self) -> None:
        """Ends the process and the thread."""
        with self._changed:
            self._closed = True
            process, self._process, self._reason = self._process, None, "it was closed"
            self._changed.notify_all()
        if process is not None:
            process.close()
        self._thread.join()

    def _supervise(self) -> None:
        failures = 0
        while not self._closed:
            process, reason = self._start()
            with self._changed:
                if self._closed:
                    break
                self._process, self._reason = process, reason
                self._changed.notify_all()
                process = None
                start = time.monotonic()
                self._changed.wait_for(lambda: self._process is None or self._closed)
                if time.monotonic() - start > _HEALTHY_S:
                    failures = 0
                self._changed.wait_for(lambda: self._closed, self._pauses.delay_s(failures))
            failures += 1
        if process is not None:
            process.close()

    def _start(self) -> tuple[WorkerProcess | None, str]:
        process: WorkerProcess | None = None
        try:
            process = WorkerProcess(self._command)
            self._prepare(process)
        except Exception as error:
            # Whatever it is, the thread must go on: it starts the worker again.
            known = isinstance(error, WorkerError | WorkerUnavailable)
            if process is not None:
                process.close()
            about = {"worker": self._name, "reason": str(error)}
            _log.error("worker not started", extra=about, exc_info=not known)
            return None, str(error)
        _log.info("worker started", extra={"worker": self._name, "pid": process.pid})
        return process, ""
