"""A worker process that is started again after a failure.

    worker = SupervisedWorker(WorkerCommand("package.worker", ["cuda:0"]), "cuda:0", prepare=load)
    worker.wait_ready(60)

It is called as a `WorkerProcess` is.
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
PAUSES = Backoff(1.0, 300.0)
# A worker that ran for so long was healthy: the next pause is short again.
_HEALTHY_S = 600.0
# How often an idle worker is looked at.
_WATCH_S = 1.0
# Checks take at most this share of a worker's time.
_CHECK_SHARE = 0.01
_STARTING = "it is starting"


def _do_nothing(process: WorkerProcess) -> None:
    """Takes the place of a function that is not needed."""


class SupervisedWorker:
    """A worker process that is started again after a failure, with growing pauses.

    Calls fail at once while it is away; a thread starts it again. The functions below run in that
    thread. What they raise shows that the process does not work: it is ended.

    Args:
        command: How to start it.
        name: Name in log lines, for example "GPU cuda:0".
        prepare: Prepares a fresh process, and checks that it works.
        ready: Called once a process answers calls of others.
        check: Checks a process in service.
        check_every_s: Seconds between two checks; more if they would take over 1 % of the time.
        pauses: Pauses before new starts.
    """

    def __init__(
        self,
        command: WorkerCommand,
        name: str,
        prepare: Callable[[WorkerProcess], None] = _do_nothing,
        *,
        ready: Callable[[WorkerProcess], None] = _do_nothing,
        check: Callable[[WorkerProcess], None] = _do_nothing,
        check_every_s: float = 60.0,
        pauses: Backoff = PAUSES,
    ) -> None:
        self._command = command
        self._name = name
        self._prepare = prepare
        self._ready = ready
        self._check = check
        self._check_every_s = check_every_s
        self._pauses = pauses
        self._changed = threading.Condition()
        # Guarded by the condition.
        self._process: WorkerProcess | None = None
        self._starting: WorkerProcess | None = None
        self._reason = _STARTING
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
                lambda: self._process is not None or self._reason != _STARTING, timeout_s
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
            # The process may have been ended for another reason.
            raise WorkerUnavailable(self._reason or str(error)) from error

    def fail(self, reason: str, process: WorkerProcess | None = None) -> None:
        """Takes the worker out of service, for example because its results are wrong.

        Args:
            reason: Why.
            process: The process that failed; one that was started since stays. None: any.
        """
        with self._changed:
            if self._process is None or (process is not None and process is not self._process):
                return
            failed, self._process, self._reason = self._process, None, reason or "it failed"
            self._changed.notify_all()
        _log.error("worker failed", extra={"worker": self._name, "reason": reason})
        failed.close()

    def close(self) -> None:
        """Ends the process, also one that is starting, and the thread."""
        with self._changed:
            self._closed = True
            processes = [self._process, self._starting]
            self._process, self._reason = None, "it was closed"
            self._changed.notify_all()
        for process in processes:
            if process is not None:
                process.close()
        self._thread.join()

    def _supervise(self) -> None:
        failures = 0
        while not self._closed:
            process, reason = self._start()
            start = time.monotonic()
            with self._changed:
                if self._closed:
                    break
                self._process, self._reason = process, reason
                self._changed.notify_all()
            if process is not None:
                self._watch(process)
                process = None
            if time.monotonic() - start > _HEALTHY_S:
                failures = 0
            with self._changed:
                self._changed.wait_for(lambda: self._closed, self._pauses.delay_s(failures))
            failures += 1
        if process is not None:
            process.close()

    def _start(self) -> tuple[WorkerProcess | None, str]:
        process: WorkerProcess | None = None
        try:
            process = WorkerProcess(self._command)
            with self._changed:
                self._starting = process
                if self._closed:
                    raise WorkerUnavailable("it was closed")
            process.wait_ready()
            self._prepare(process)
        except Exception as error:
            # Whatever it is, the thread must go on: it starts the worker again.
            if process is not None:
                process.close()
            known = isinstance(error, WorkerError | WorkerUnavailable)
            about = {"worker": self._name, "reason": _text(error)}
            _log.error("worker not started", extra=about, exc_info=not known)
            return None, _text(error)
        finally:
            with self._changed:
                self._starting = None
        _log.info("worker started", extra={"worker": self._name, "pid": process.pid})
        return process, ""

    def _watch(self, process: WorkerProcess) -> None:
        """Waits until a process is out of service; finds out if it ends or fails a check."""
        next_check = time.monotonic() + self._check_every_s
        try:
            self._ready(process)
            while not self._wait_gone(process):
                if reason := process.end_reason():
                    raise WorkerUnavailable(reason)
                if (start := time.monotonic()) >= next_check:
                    self._check(process)
                    now = time.monotonic()
                    next_check = now + max(self._check_every_s, (now - start) / _CHECK_SHARE)
        except Exception as error:
            self.fail(_text(error), process)

    def _wait_gone(self, process: WorkerProcess) -> bool:
        with self._changed:
            pause_s = min(_WATCH_S, self._check_every_s)
            return self._changed.wait_for(lambda: self._process is not process, pause_s)


def _text(error: Exception) -> str:
    """Returns the message of an error; some have none."""
    return str(error) or type(error).__name__
