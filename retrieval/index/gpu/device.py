"""One GPU: the process that uses it, the data it holds, and a thread that batches searches.

    device = GpuDevice("cuda:0")
    vectors = DeviceVectors("products, shard 0", storage, 0, storage.rows)
    device.load(vectors)
    candidates = device.submit(vectors, queries, 32).result()

`GpuIndex` makes results of such candidates.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.retry import Backoff
from nearline.workers.process import WorkerCommand, WorkerError, WorkerProcess, WorkerUnavailable
from nearline.workers.supervisor import PAUSES, SupervisedWorker
from retrieval.index.gpu.channels import LOADS, SEARCHES, Refused
from retrieval.index.gpu.device_data import DeviceData, DeviceWorker
from retrieval.index.gpu.search_queue import Candidates, DeviceSearch, SearchQueue
from retrieval.protocols import metrics

# Kept free for scores and gathered vectors, see `retrieval.index.gpu.matrix`.
_SCRATCH_BYTES = 3 << 30
# A device that does not answer in this time has failed; requests wait longer than that.
_SEARCH_S = 1.0
_MEMORY_S = 10.0
# Names of exceptions after which the process goes on: any other is probably of CUDA, and a process
# that saw one sees it again at each call.
_HARMLESS = ("OutOfMemoryError", "MemoryError", Refused.__name__)
_log = logging.getLogger(__name__)


class NotOnDevice(Exception):
    """The device cannot answer a search; the message says why.

    fault: Whether the device failed, as opposed to data that it does not hold.
    """

    def __init__(self, reason: str, *, fault: bool) -> None:
        super().__init__(reason)
        self.fault = fault


class GpuDevice:
    """One GPU. While it is away, searches fail at once; it is started again in the background.

    Args:
        device: A torch device, for example "cuda:0".
        memory_bytes: Most memory for data; 0: what is free, less what searches need.
        pauses: Pauses before the device is started again.
        command: How to start the worker; None runs `retrieval.index.gpu.worker`.
        memory: The device of another process on the same GPU, which knows the free memory. Both
            share the limit. Optional.

    name: The device. answers_again: Called when it answers, first and after each failure; must not
    block.
    """

    def __init__(
        self,
        device: str,
        *,
        memory_bytes: int = 0,
        pauses: Backoff = PAUSES,
        command: WorkerCommand | None = None,
        memory: GpuDevice | None = None,
    ) -> None:
        self.name = device
        self.answers_again: Callable[[], None] = lambda: None
        self._memory_bytes = memory_bytes
        self._memory = memory
        # Devices of other processes on the same GPU.
        self._sharing: list[GpuDevice] = []
        if memory is not None:
            memory._sharing.append(self)
        # Held while data is loaded or dropped.
        self._loading = threading.RLock()
        self._registered: list[DeviceData] = []
        self._queue = SearchQueue()
        command = command or WorkerCommand("retrieval.index.gpu.worker", [device], channels=2)
        self._worker = SupervisedWorker(
            command,
            f"GPU {device}",
            self._prepare,
            ready=self._complete,
            check=self._check_data,
            pauses=pauses,
        )
        self._thread = threading.Thread(target=self._serve, name=f"gpu-{device}", daemon=True)
        self._thread.start()
        if memory is None:
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

    def held_bytes(self) -> int:
        """Returns the memory that the data of this device takes."""
        return sum(one.bytes for one in self._registered if one.held)

    def free_bytes(self) -> int | None:
        """Returns the memory that is left for data; None while the device is away."""
        with self._loading, self._caught():
            return self._free(self._worker)
        return None

    def load(self, data: DeviceData) -> None:
        """Loads data; blocks. If that is not possible, `data.reason` says why.

        A device that is away, or fails while it loads, does so once it is back.
        """
        with self._loading:
            self._registered.append(data)
            with self._caught():
                self._load(self._worker, data)

    def drop(self, data: DeviceData) -> None:
        """Frees the memory of data."""
        with self._loading:
            self._registered.remove(data)
            with self._caught():
                data.drop(self._worker)

    def submit(
        self,
        data: DeviceData,
        queries: NDArray[np.floating],
        k: int,
        allow: NDArray[np.uint8] | None = None,
        among: object = None,
    ) -> Future[Candidates]:
        """Submits a search; it may share a call of the device with others.

        The future fails with NotOnDevice if the device cannot answer.

        Args:
            data: What to search.
            queries: (n, dim), as the worker expects them.
            k: Rows per query, >= 1.
            allow: Optional; bitmap of the rows to search.
            among: What the bitmap was made of: searches of equal data share a call if this is the
                same object.
        """
        answer: Future[Candidates] = Future()
        reason = self.reason or ("" if data.held else data.reason)
        if reason:
            answer.set_exception(NotOnDevice(reason, fault=bool(self.reason)))
        elif not self._queue.put(DeviceSearch(data, queries, k, allow, among, answer)):
            answer.set_exception(NotOnDevice("it was closed", fault=True))
        return answer

    def fail(self, reason: str) -> None:
        """Takes the device out of service until a fresh process has loaded everything again."""
        self._worker.fail(reason)

    def close(self) -> None:
        """Ends the worker and the thread; searches that wait fail."""
        for one in self._queue.close():
            one.answer.set_exception(NotOnDevice("it was closed", fault=True))
        self._worker.close()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._queue.take():
            start = time.perf_counter()
            try:
                found = self._call(batch)
                parts = found.split(batch)
            except NotOnDevice as error:
                refusal = error
            except Exception as error:
                # The thread must go on, and its callers get an answer.
                _log.exception("search on a GPU failed")
                refusal = NotOnDevice(str(error) or type(error).__name__, fault=True)
                self.fail(str(refusal))
            else:
                for one, part in zip(batch, parts, strict=True):
                    one.answer.set_result(part)
                count = len(found.rows)
                metrics.gpu_batch_queries.labels(self.name).observe(count)
                self._queue.note(count, time.perf_counter() - start)
                continue
            for one in batch:
                one.answer.set_exception(refusal)

    def _call(self, batch: list[DeviceSearch]) -> Candidates:
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
            self._note(error)
            refused = isinstance(error, WorkerError) and error.kind == Refused.__name__
            raise NotOnDevice(str(error), fault=not refused) from error
        return Candidates(*reply.arrays)

    def _note(self, error: WorkerError | WorkerUnavailable) -> None:
        """Takes the device out of service after an error that shows that its process is sick."""
        if isinstance(error, WorkerError) and error.kind not in _HARMLESS:
            self.fail(str(error))

    @contextlib.contextmanager
    def _caught(self) -> Iterator[None]:
        """Goes on after an error of the worker, which may take the device out of service."""
        try:
            yield
        except (WorkerError, WorkerUnavailable) as error:
            self._note(error)

    def _prepare(self, process: WorkerProcess) -> None:
        with self._loading:
            for data in self._registered:
                data.held = False
            self._load_all(process)

    def _complete(self, process: WorkerProcess) -> None:
        """Loads and drops what others asked for while the process was not in service yet."""
        with self._loading:
            keys = [data.key for data in self._registered]
            process.call("keep", {"keys": keys}, timeout_s=_MEMORY_S, channel=LOADS)
            self._load_all(process)
        self.answers_again()

    def _check_data(self, process: WorkerProcess) -> None:
        with self._loading:
            for data in self._registered:
                if data.held:
                    data.check(process)

    def _load_all(self, process: WorkerProcess) -> None:
        for data in self._registered:
            if not data.held:
                try:
                    self._load(process, data)
                except WorkerError as error:
                    if error.kind not in _HARMLESS:
                        raise

    def _load(self, worker: DeviceWorker, data: DeviceData) -> None:
        start = time.perf_counter()
        data.load(worker, self._free(worker))
        about = {"device": self.name, "data": data.name, "bytes": data.bytes}
        if data.held:
            seconds = round(time.perf_counter() - start, 3)
            _log.info("loaded to the GPU", extra={**about, "seconds": seconds})
        else:
            _log.warning("not on the GPU", extra={**about, "reason": data.reason})

    def _free(self, worker: DeviceWorker) -> int:
        if self._memory is not None:
            return self._memory.free_bytes() or 0
        reply = worker.call("memory", {}, timeout_s=_MEMORY_S, channel=LOADS)
        free: int = reply.values["free"] - _SCRATCH_BYTES
        if self._memory_bytes:
            held = sum(device.held_bytes() for device in (self, *self._sharing))
            limit = self._memory_bytes - held
            # A device without a memory of its own has only that limit.
            free = min(free, limit) if reply.values["total"] else limit
        return max(0, free)
