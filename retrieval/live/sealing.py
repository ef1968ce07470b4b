"""Builds graphs over live vectors, in a thread that is there while there is something to build."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from retrieval.backends.faiss_graph import Graph
from retrieval.backends.faiss_index import use_one_thread
from retrieval.live.vectors import LiveVectors, Stretch

# Between two of them a build can end early.
_SLICE_ROWS = 512


class Sealer:
    """Seals the vectors of one delta.

    Args:
        name: Of the thread.
        lock: Held by whoever changes the vectors.
        current: Gives the vectors in use; called with the lock held.
        sealed: Told that they were sealed further; called with the lock held.
    """

    def __init__(
        self,
        name: str,
        lock: threading.Lock,
        current: Callable[[], LiveVectors],
        sealed: Callable[[], None],
    ) -> None:
        self._name = name
        self._lock = lock
        self._current = current
        self._sealed = sealed
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def wake(self) -> None:
        """Starts where there is something to seal; the lock is held."""
        if self._thread is None and not self._closing.is_set() and self._current().to_seal():
            self._thread = threading.Thread(target=self._run, name=self._name)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread, within a fraction of a second; the lock is not held."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        use_one_thread()
        try:
            while task := self._next():
                vectors, stretches = task
                graph = self._built(stretches)
                with self._lock:
                    if graph is not None:
                        vectors.seal(stretches, graph)
                        self._sealed()
        except BaseException:
            with self._lock:
                self._thread = None
            raise

    def _next(self) -> tuple[LiveVectors, Sequence[Stretch]] | None:
        with self._lock:
            vectors = self._current()
            stretches = () if self._closing.is_set() else vectors.to_seal()
            if not stretches:
                self._thread = None
                return None
            return vectors, stretches

    def _built(self, stretches: Sequence[Stretch]) -> Graph | None:
        graph = Graph(stretches[0].vectors.shape[1])
        for stretch in stretches:
            for at in range(0, len(stretch.vectors), _SLICE_ROWS):
                if self._closing.is_set():
                    return None
                with _behind_all_others():
                    graph.add(stretch.vectors[at : at + _SLICE_ROWS])
        return graph


@contextlib.contextmanager
def _behind_all_others() -> Iterator[None]:
    """Has this thread run where no other wants the core, for the length of the block.

    What builds for seconds would hold up every search that wakes on its core by a few
    milliseconds, however nice it is: threads that serve are batch work (`serving.let_run_on`), and
    that does not interrupt anything but this. Only while it computes: a thread that holds a lock
    must be able to go on.
    """
    if sys.platform != "linux":
        yield
        return
    thread = threading.get_native_id()
    before = os.sched_getscheduler(thread)
    with contextlib.suppress(OSError):  # A sandbox may forbid it.
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, before, os.sched_param(0))
