"""One GPU: the process that uses it, what it holds, and a thread that batches searches.

device = GpuDevice("cuda:0")
vectors = DeviceVectors("products, shard 0", storage, 0, storage.rows)
device.load(vectors)
candidates = device.submit(vectors, queries, 32).result()
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.retry import Backoff
from nearline.workers.process import WorkerCommand, WorkerError, WorkerProcess, WorkerUnavailable
from nearline.workers.supervised import SupervisedWorker
from retrieval.index.gpu.channels import LOADS, SEARCHES
from retrieval.index.gpu.device_data import DeviceData, DeviceWorker
from retrieval.protocols import metrics

# Kept free for scores and gathered vectors, see `retrieval.index.gpu.matrix`.
_SCRATCH_BYTES = 3 << 30
# Queries of one call of the device: as many as it answers in the target time, within these limits.
_LEAST_BATCH, _LARGEST_BATCH = 16, 1_024
_TARGET_S = 0.01
# A device that does not answer in this time has failed; requests wait longer than that.
_SEARCH_S = 1.0
_MEMORY_S = 10.0
# Names of exceptions of torch and Python.
_OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError")
_PAUSES = Backoff(1.0, 300.0)
_log = logging.getLogger(__name__)


class NotOnDevice(Exception):
    """The device cannot answer a search; the message says why.

    fault: Whether the device failed, as opposed to data that it does not hold.
    """

    def __init__(self, reason: str, *, fault: bool) -> None:
        super().__init__(reason)
        self.fault = fault


class Candidates(NamedTuple):
    """The nearest rows per query as a device scores them, best first.

    rows: (n, m) int64. scores: (n, m) float32. m is the requested number, or less if the device
    compared no more rows.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class _Search(NamedTuple):
    data: DeviceData
    queries: NDArray[np.floating]
    k: int
    allow: NDArray[np.uint8] | None
    answer: Future[Candidates]


class GpuDevice:
    """One GPU. While it is away, searches fail at once; it is started again in the background.

    Args:
        device: A torch device, for example "cuda:0".
        memory_bytes: Most memory to use; 0: what is free, less what searches need.
        free: Returns the free memory, if another process knows it; None while that is away.
        pauses: Pauses before the device is started again.
        command: How to start the worker; None runs `retrieval.index.gpu.worker`.

    name: The device.
    """

    def __init__(
        self,
        device: str,
        *,
        memory_bytes: int = 0,
        free: Callable[[], int | None] | None = None,
        pauses: Backoff = _PAUSES,
        command: WorkerCommand | None = None,
    ) -> None:
        self.name = device
        self._memory_bytes = memory_bytes
        self._free_elsewhere = free
        # Held while data is loaded or dropped.
        self._loading = threading.RLock()
        self._registered: list[DeviceData] = []
        self._work = threading.Condition()
        self._waiting: deque[_Search] = deque()
        self._closed = False
        self._seconds_per_query = 0.0
        command = command or WorkerCommand("retrieval.index.gpu.worker", [device], channels=2)
        self._worker = SupervisedWorker(command, f"GPU {device}", self._prepare, pauses=pauses)
        self._thread = threading.Thread(target=self._serve, name=f"gpu-{device}", daemon=True)
        self._thread.start()
        metrics.gpu_up.labels(device).set_function(lambda: float(not self.reason))

    @property
    def reason(self) -> str:
        """Why the device is away; empty while it answers."""
        return self._worker.reason

    @property
    def pid(self) -> int | None:
        """The process id of the worker; None while it is away."""
        return self._worker.pid

    def wait_ready(self, timeout_s: float) -> bool:
        """Waits until the first start has succeeded or failed; returns whether it answers."""
        return self._worker.wait_ready(timeout_s)

    def free_bytes(self) -> int | None:
        """Returns the memory that is left; None while the device is away."""
        with self._loading:
            try:
                return self._free(self._worker)
            except (WorkerError, WorkerUnavailable) as error:
                self._check(error)
                return None

    def load(self, data: DeviceData) -> None:
        """Loads data; blocks. If that is not possible, `data.refusal` says why.

        A device that is away loads it once it is back; one without enough memory, once other data
        is dropped.
        """
        with self._loading:
            self._registered.append(data)
            self._load_all([data])

    def drop(self, data: DeviceData) -> None:
        """Frees the memory of data. What did not fit before is then loaded in a thread."""
        data.closed = True
        with self._loading:
            self._registered.remove(data)
            try:
                data.drop(self._worker)
            except (WorkerError, WorkerUnavailable) as error:
                self._check(error)
            refused = [one for one in self._registered if one.refusal]
        if refused and not self.reason:
            threading.Thread(target=self._load_refused, name="gpu-load", daemon=True).start()

    def submit(
        self,
        data: DeviceData,
        queries: NDArray[np.floating],
        k: int,
        allow: NDArray[np.uint8] | None = None,
    ) -> Future[Candidates]:
        """Submits a search; it may share a call of the device with others.

        The future fails with NotOnDevice if the device cannot answer.

        Args:
            data: What to search.
            queries: (n, dim), as the worker expects them.
            k: Rows per query, >= 1.
            allow: Optional; bitmap of the rows to search. Searches with the same array may share
                a call.
        """
        answer: Future[Candidates] = Future()
        reason = self.reason
        if reason or data.refusal:
            answer.set_exception(NotOnDevice(reason or data.refusal, fault=bool(reason)))
            return answer
        with self._work:
            if not self._closed:
                self._waiting.append(_Search(data, queries, k, allow, answer))
                self._work.notify()
                return answer
        answer.set_exception(NotOnDevice("it was closed", fault=True))
        return answer

    def fail(self, reason: str) -> None:
        """Takes the device out of service until a fresh process has loaded everything again."""
        self._worker.fail(reason)

    def close(self) -> None:
        """Ends the worker and the thread; searches that wait fail."""
        with self._work:
            self._closed = True
            self._work.notify()
        self._worker.close()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._take():
            start = time.perf_counter()
            try:
                found = self._call(batch)
            except NotOnDevice as error:
                for one in batch:
                    one.answer.set_exception(error)
                continue
            at = 0
            for one in batch:
                end = at + len(one.queries)
                rows, scores = found.rows[at:end, : one.k], found.scores[at:end, : one.k]
                one.answer.set_result(Candidates(rows, scores))
                at = end
            metrics.gpu_batch_queries.labels(self.name).observe(at)
            spent_s = (time.perf_counter() - start) / at
            # Recent calls count more: what is searched may change.
            self._seconds_per_query += (spent_s - self._seconds_per_query) / 8

    def _take(self) -> list[_Search]:
        """Waits for searches; returns those that one call can answer, none once closed."""
        with self._work:
            self._work.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                for one in self._waiting:
                    one.answer.set_exception(NotOnDevice("it was closed", fault=True))
                return []
            first = self._waiting.popleft()
            batch, others = [first], deque[_Search]()
            room = self._batch_limit() - len(first.queries)
            for one in self._waiting:
                same = one.data is first.data and one.allow is first.allow
                if same and len(one.queries) <= room:
                    batch.append(one)
                    room -= len(one.queries)
                else:
                    others.append(one)
            self._waiting = others
            return batch

    def _batch_limit(self) -> int:
        fitting = int(_TARGET_S / max(self._seconds_per_query, 1e-9))
        return min(max(fitting, _LEAST_BATCH), _LARGEST_BATCH)

    def _call(self, batch: list[_Search]) -> Candidates:
        first = batch[0]
        queries = [one.queries for one in batch]
        together = queries[0] if len(queries) == 1 else np.concatenate(queries)
        arrays: list[NDArray[Any]] = [together] if first.allow is None else [together, first.allow]
        values = {"key": first.data.key, "k": max(one.k for one in batch)}
        try:
            reply = self._worker.call(
                "search", values, arrays, timeout_s=_SEARCH_S, channel=SEARCHES
            )
        except (WorkerError, WorkerUnavailable) as error:
            self._check(error)
            raise NotOnDevice(str(error), fault=True) from error
        return Candidates(*reply.arrays)

    def _check(self, error: WorkerError | WorkerUnavailable) -> None:
        """Takes the device out of service after any error but a lack of memory.

        A process that saw an error of CUDA sees it again at each call.
        """
        if isinstance(error, WorkerError) and error.kind not in _OUT_OF_MEMORY:
            self.fail(str(error))

    def _prepare(self, process: WorkerProcess) -> None:
        with self._loading:
            for data in self._registered:
                data.forget()
            for data in self._registered:
                self._load(process, data)

    def _load_refused(self) -> None:
        with self._loading:
            self._load_all([one for one in self._registered if one.refusal])

    def _load_all(self, some: list[DeviceData]) -> None:
        for data in some:
            try:
                self._load(self._worker, data)
            except (WorkerError, WorkerUnavailable) as error:
                data.refusal = str(error)
                self._check(error)

    def _load(self, worker: DeviceWorker, data: DeviceData) -> None:
        start = time.perf_counter()
        data.load(worker, self._free(worker))
        about = {"device": self.name, "data": data.name, "bytes": data.bytes}
        if data.refusal:
            _log.warning("not on the GPU", extra={**about, "reason": data.refusal})
        else:
            seconds = round(time.perf_counter() - start, 3)
            _log.info("loaded to the GPU", extra={**about, "seconds": seconds})

    def _free(self, worker: DeviceWorker) -> int:
        if self._free_elsewhere is not None:
            return self._free_elsewhere() or 0
        reply = worker.call("memory", {}, timeout_s=_MEMORY_S, channel=LOADS)
        free: int = reply.values["free"] - _SCRATCH_BYTES
        if self._memory_bytes:
            held = sum(one.bytes for one in self._registered if not one.refusal)
            limit = self._memory_bytes - held
            # A device without a memory of its own has only that limit.
            free = min(free, limit) if reply.values["total"] else limit
        return max(0, free)
